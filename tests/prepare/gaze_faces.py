"""Faces whose gaze is known because it was drawn, and real ones as the pipeline cuts them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.crop import crop_face
from dfad_bench.prepare.demo_faces.casting import DemoPayload, cast
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.prepare.eye_patches import mirror
from dfad_bench.prepare.head_pose import vectors
from dfad_bench.types import REAL, Gaze
from dfad_bench.weights import find
from tests.conftest import SHARED

SIZE, MARGIN = 256, 1.3
NEAR_FRONTAL = np.radians(15)


@dataclass(frozen=True)
class Faces:
    """faces [N, S, S, 3], landmarks [N, 5, 2] in crop pixels; gaze, head [N, 2] (pitch, yaw) radians where drawn."""

    faces: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    gaze: NDArray[np.float64]
    head: NDArray[np.float64]

    @property
    def near_frontal(self) -> NDArray[np.bool_]:
        return np.asarray((np.abs(self.head) <= NEAR_FRONTAL).all(axis=1))


@cache
def drawn(count: int) -> Faces:
    """Rendered pristine faces."""
    faces, landmarks, gaze, head = [], [], [], []
    for index in range(count):
        scene = cast(0, REAL, index).scene
        shown, data = Head(scene), np.frombuffer(DemoPayload(0, REAL, index).read(), np.uint8)
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
        crop = crop_face(image, shown.box(), MARGIN, SIZE)
        faces.append(crop.face)
        landmarks.append(crop.to_crop(shown.landmarks()))
        gaze.append(scene.gaze)
        head.append((scene.photo.pitch, scene.photo.yaw))
    return Faces(np.stack(faces), np.stack(landmarks), np.array(gaze), np.array(head))


def photographed(corpus: Path, detector: Any, count: int, real: bool = False, mirrored: bool = False) -> Faces:
    """That many faces spread evenly over the corpus, or over its reals, found by a detector that gives landmarks.

    mirrored: the pictures are mirrored before a face is looked for in them.
    """
    with (corpus / "corpus.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not real or row["generator"] == REAL]
    faces, landmarks = [], []
    for row in rows[:: max(len(rows) // count, 1)]:
        image = cv2.imread(str(corpus / row["path"]), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        pixels = np.ascontiguousarray(image[:, ::-1] if mirrored else image, np.uint8)
        found = detector.detect([pixels], [None])[0]
        if found and found[0].landmarks is not None:
            crop = crop_face(pixels, found[0].box, MARGIN, SIZE)
            faces.append(crop.face)
            landmarks.append(crop.to_crop(found[0].landmarks))
    unknown = np.full((len(faces), 2), np.nan)
    return Faces(np.stack(faces), np.stack(landmarks), unknown, unknown)


def built(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A detector or an estimator with the test weights; skips with the reason where it cannot run here."""
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(SHARED / "weights"))
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    plugin = registry.get(kind, name)
    try:
        return plugin()
    except UsageError as error:
        pytest.skip(str(error))
    except DataError:
        absent = [each.name for each in plugin.weights if find(each) is None]
        if not absent:
            raise
        pytest.skip(f"weights are absent: {', '.join(absent)}")


def estimate(estimator: Any, faces: Faces) -> Gaze:
    gaze = estimator.estimate(faces.faces, faces.landmarks, [None] * len(faces.faces))
    assert isinstance(gaze, Gaze)
    return gaze


def estimate_mirrored(estimator: Any, faces: Faces) -> Gaze:
    flipped, landmarks = mirror(faces.faces, faces.landmarks)
    gaze = estimator.estimate(flipped, landmarks, [None] * len(flipped))
    assert isinstance(gaze, Gaze)
    return gaze


def degrees_off(gaze: Gaze, faces: Faces) -> NDArray[np.float64]:
    """The angle [N] in degrees between the estimated and the drawn gaze, NaN where none was estimated."""
    estimated = vectors(gaze.pitch.astype(float), gaze.yaw.astype(float))
    along = (estimated * vectors(faces.gaze[:, 0], faces.gaze[:, 1])).sum(axis=1)
    return np.degrees(np.arccos(np.clip(along, -1, 1)))


def close_eyes(faces: Faces) -> NDArray[np.uint8]:
    """The faces with skin painted over both eyes, and a line of lashes."""
    closed = faces.faces.copy()
    for face, points in zip(closed, faces.landmarks, strict=True):
        across = points[1] - points[0]
        distance, tilt = float(np.hypot(*across)), float(np.degrees(np.arctan2(across[1], across[0])))
        for x, y in points[:2]:
            eye = np.zeros(face.shape[:2], np.uint8)
            cv2.ellipse(eye, ((float(x), float(y)), (0.56 * distance, 0.34 * distance), tilt), 255, -1)
            face[:] = cv2.inpaint(face, eye, 3, cv2.INPAINT_TELEA)
            axes = (int(0.23 * distance), int(0.05 * distance))
            cv2.ellipse(face, (int(x), int(y)), axes, tilt, 0, 180, (60, 40, 35), 1, cv2.LINE_AA)
    return closed
