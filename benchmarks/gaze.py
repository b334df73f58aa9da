"""How far each gaze estimator is off on rendered faces of known gaze, how it takes mirror images, and how fast it is.

Once with the landmarks that were drawn, once with those that YuNet finds, and once without any, since an eye model stands
on them.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import cv2
import numpy as np
from measure import record
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import DfadError
from dfad_bench.prepare.crop import crop_face
from dfad_bench.prepare.demo_faces.casting import DemoPayload, cast
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.prepare.eye_patches import mirror
from dfad_bench.prepare.head_pose import vectors
from dfad_bench.types import REAL, Annotation, Gaze

FACES, SIZE, MARGIN = 360, 256, 1.3
NEAR_FRONTAL = 15.0
"""Degrees of head yaw and pitch."""


def drawn() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return rendered pristine faces [N, S, S, 3], landmarks [N, 5, 2], and gaze and head [N, 2] in radians."""
    rows = []
    for index in range(FACES):
        scene = cast(0, REAL, index).scene
        head, data = Head(scene), np.frombuffer(DemoPayload(0, REAL, index).read(), np.uint8)
        crop = crop_face(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8), head.box(), MARGIN, SIZE)
        rows.append((crop.face, crop.to_crop(head.landmarks()), scene.gaze, (scene.photo.pitch, scene.photo.yaw)))
    faces, landmarks, gaze, pose = (
        np.stack([np.asarray(each) for each in column]) for column in zip(*rows, strict=True)
    )
    return faces, landmarks, gaze, pose


def found_by_yunet(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the landmarks [N, 5, 2] that YuNet finds in faces, NaN where it finds none."""
    found = registry.get("face_detectors", "yunet")().detect(list(faces), [None] * len(faces))
    nothing = np.full((5, 2), np.nan, np.float32)
    return np.stack(
        [each[0].landmarks if each and each[0].landmarks is not None else nothing for each in found]
    ).astype(np.float32)


def degrees_off(found: Gaze, gaze: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angle [N] in degrees between estimated and drawn gaze, NaN where there is no estimate."""
    estimated = vectors(found.pitch.astype(float), found.yaw.astype(float))
    along = (estimated * vectors(gaze[:, 0], gaze[:, 1])).sum(axis=1)
    return np.degrees(np.arccos(np.clip(along, -1, 1)))


def measured(name: str, origin: str, faces: Any, landmarks: Any, gaze: Any, pose: Any) -> dict[str, object]:
    """Return one estimator's row."""
    estimator = registry.get("gaze_estimators", name)()
    notes = [Annotation(gaze=(float(pitch), float(yaw))) for pitch, yaw in gaze]
    estimator.estimate(faces[:16], landmarks[:16], notes[:16])
    started = time.process_time()  # of all threads: what a face costs one core
    found = estimator.estimate(faces, landmarks, notes)
    seconds = time.process_time() - started
    flipped = estimator.estimate(*mirror(faces, landmarks), [Annotation(gaze=(n.gaze[0], -n.gaze[1])) for n in notes])
    off, near = degrees_off(found, gaze), (np.abs(np.degrees(pose)) <= NEAR_FRONTAL).all(axis=1)
    flags = Counter(flag for flag in found.flags if flag)
    return {
        "estimator": name,
        "landmarks": origin,
        "faces": len(faces),
        "near_frontal": int(near.sum()),
        "median_near_frontal": float(np.nanmedian(off[near])),
        "p90_near_frontal": float(np.nanpercentile(off[near], 90)),
        "median": float(np.nanmedian(off)),
        "p90": float(np.nanpercentile(off, 90)),
        "mirror_yaw": float(np.nanmedian(np.degrees(np.abs(found.yaw + flipped.yaw)))),
        "mirror_pitch": float(np.nanmedian(np.degrees(np.abs(found.pitch - flipped.pitch)))),
        "flagged": float(np.isnan(off).mean()),
        "flags": dict(flags),
        "faces_per_core_second": len(faces) / max(seconds, 1e-9),
    }


def main() -> None:
    """Measure every estimator that can be built here, and record. Angles are in degrees."""
    cv2.setNumThreads(1)
    faces, drawn_landmarks, gaze, pose = drawn()
    sources = {"drawn": drawn_landmarks, "unknown": np.full_like(drawn_landmarks, np.nan)}
    rows: list[dict[str, object]] = []
    try:
        sources["yunet"] = found_by_yunet(faces)
    except DfadError as error:
        print(f"landmarks by yunet left out: {error}", file=sys.stderr)
    for name in registry.entries("gaze_estimators"):
        try:
            rows += [measured(name, origin, faces, points, gaze, pose) for origin, points in sources.items()]
        except DfadError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    record("gaze", rows)


if __name__ == "__main__":
    main()
