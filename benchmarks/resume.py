"""How fast `prepare` sees that 100,000 faces are finished."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from measure import record, run, timed

from dfad_bench.prepare.options import build_job
from dfad_bench.prepare.pipeline import prepare
from dfad_bench.prepare.plan import plan

BIN = Path(sys.executable).parent
FACES, PER_FOLDER = 100_000, 1_000


def write_images(root: Path) -> None:
    """Link a small picture under 100,000 names, in folders of a thousand."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    for number in range(FACES):
        folder = root / "real" / f"{number // PER_FOLDER:03d}"
        if number % PER_FOLDER == 0:  # a file system allows so many links to one file
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / f"{number:06d}.png"), pixels)
        else:
            os.link(folder / f"{number - number % PER_FOLDER:06d}.png", folder / f"{number:06d}.png")


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        write_images(root)
        options = ["--source", "folder", "--root", str(root), "--data", f"{temporary}/data", "--size", "16"]
        options += ["--face-detector", "whole_image", "--gaze-estimator", "annotated", "--workers", "2"]
        first, *again = (run([str(BIN / "dfad-bench"), "prepare", *options]) for _ in range(4))
        crops = {"face_detector": "whole_image", "gaze_estimator": "annotated", "size": 16}
        job = build_job("folder", Path(temporary) / "data", root=root, **crops)
        recognised = min(timed(lambda: prepare(job, plan(job)))[0] for _ in range(3))
    rows = [
        {"what": f"{FACES:,} faces of 16 px, 2 workers", "seconds": first.seconds, "peak_mib": first.peak_mib},
        {
            "what": "the same command again, nothing to do",
            "seconds": min(each.seconds for each in again),
            "peak_mib": max(each.peak_mib for each in again),
        },
        {"what": "of which listing them and finding them finished", "seconds": recognised},
    ]
    record("resume", rows)


if __name__ == "__main__":
    main()
