"""Time that each perturbation takes for one face of 256 px, on one core, beside decoding the PNG of the same face."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from measure import record
from numpy.typing import NDArray

from dfad_bench.modelling.perturb import parse_perturbations
from dfad_bench.prepare.crop import crop_face
from dfad_bench.prepare.decode import decode
from dfad_bench.prepare.demo_faces.casting import DemoPayload, cast
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.types import REAL

FACES, REPEATS, SIDE, MARGIN = 16, 15, 256, 1.3

Pixels = NDArray[np.uint8]


def face(index: int) -> Pixels:
    """Return a rendered real face, cut out and brought to size as ``prepare`` does it."""
    portrait = decode(DemoPayload(0, REAL, index).read()).pixels
    return crop_face(portrait, Head(cast(0, REAL, index).scene).box(), MARGIN, SIDE).face


def milliseconds(function: Callable[[int], object]) -> float:
    """Return the median over all faces of each face's fastest repeat."""
    fastest = []
    for index in range(FACES):
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            function(index)
            taken.append(time.perf_counter() - started)
        fastest.append(min(taken))
    return 1000 * statistics.median(fastest)


def main() -> None:
    """Measure and record."""
    cv2.setNumThreads(1)
    faces = [face(index) for index in range(FACES)]
    files = [cv2.imencode(".png", cv2.cvtColor(each, cv2.COLOR_RGB2BGR))[1] for each in faces]
    decoding = milliseconds(lambda index: cv2.imdecode(files[index], cv2.IMREAD_COLOR_RGB))
    rows: list[dict[str, object]] = [{"what": "decoding the PNG", "ms": decoding, "times_decoding": 1.0}]
    for level in parse_perturbations(["all:3"]):
        taken = milliseconds(lambda index, level=level: level.disturb(faces[index], f"demo/real/{index}"))  # type: ignore[misc]
        rows.append({"what": str(level), "ms": taken, "times_decoding": taken / decoding})
    record("perturbations", rows)


if __name__ == "__main__":
    main()
