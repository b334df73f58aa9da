"""The contracts of a face detector and of a gaze estimator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfad_bench.interfaces import FaceDetector, GazeEstimator
from dfad_bench.testing.contract import require
from dfad_bench.types import Annotation, Gaze, WeightsFile


def _annotated_faces(count: int = 3, side: int = 96) -> tuple[list[NDArray[np.uint8]], list[Annotation | None]]:
    """Return random images and what a source might say of them; of the last one it says nothing."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side + index, side, 3), dtype=np.uint8) for index in range(count)]
    landmarks = np.array([[30, 40], [66, 40], [48, 55], [36, 70], [60, 70]], np.float32)
    notes = [Annotation((16, 16, 80, 80), landmarks, (0.1, -0.2 * index)) for index in range(count - 1)]
    return images, [*notes, None]


def check_face_detector(detector: FaceDetector) -> None:
    """Check that every image gets a list of finite boxes, best first, whatever the batch, and that images are not changed."""
    _check_weights(detector.weights, detector.weights_sha256)
    images, notes = _annotated_faces()
    before = [image.copy() for image in images]
    found = detector.detect(images, notes)
    require(len(found) == len(images), "detect() must return one list per image")
    require(all(np.array_equal(*pair) for pair in zip(images, before, strict=True)), "detect() changes its images")
    for detections in found:
        scores = [d.score for d in detections if d.score is not None]
        require(scores == sorted(scores, reverse=True), "detections must come best first")
        for each in detections:
            x0, y0, x1, y1 = each.box
            require(bool(np.isfinite(each.box).all()) and x0 < x1 and y0 < y1, f"box {each.box} is empty or not finite")
            require(each.landmarks is None or each.landmarks.shape == (5, 2), "landmarks must be [5, 2]")
    alone = [detector.detect([image], [note])[0] for image, note in zip(images, notes, strict=True)]
    require(
        [[d.box for d in detections] for detections in alone] == [[d.box for d in detections] for detections in found],
        "an image's faces depend on the batch it is in",
    )
    require(detector.detect([], []) == [], "detect() of nothing must be nothing")


def _check_weights(weights: Sequence[WeightsFile], sha256: str | None) -> None:
    for each in weights:
        require(len(each.sha256) in (0, 64), f"{each.name}: sha256 must have 64 hexadecimal digits, or none if unknown")
        require(bool(each.licence and each.training_data), f"{each.name}: say its licence and what it was trained on")
    require(bool(sha256) or not weights, "weights_sha256 must say which weights are in use")


def check_gaze_estimator(estimator: GazeEstimator, side: int = 96) -> None:
    """Check shapes, radians, independence of the batch, and that a face without landmarks or annotation is no error."""
    _check_weights(estimator.weights, estimator.weights_sha256)
    images, notes = _annotated_faces(side=side)
    faces = np.stack([image[:side] for image in images])
    landmarks = np.full((len(faces), 5, 2), np.nan, np.float32)
    gaze = estimator.estimate(faces, landmarks, notes)
    for angle in (gaze.pitch, gaze.yaw, gaze.head_pitch, gaze.head_yaw):
        if angle is not None:
            require(angle.shape == (len(faces),) and angle.dtype == np.float32, "angles must be [N] float32")
            require(bool((np.abs(angle[np.isfinite(angle)]) <= np.pi / 2).all()), "angles must be radians within ±π/2")
    known = np.isfinite(gaze.pitch)
    require(bool((known == np.isfinite(gaze.yaw)).all()), "pitch and yaw are unknown together")
    _check_gaze_extras(gaze, known, estimator.feature_dim)
    for row in range(len(faces)):
        one = estimator.estimate(faces[row : row + 1], landmarks[row : row + 1], notes[row : row + 1])
        same = np.allclose((one.pitch[0], one.yaw[0]), (gaze.pitch[row], gaze.yaw[row]), atol=1e-4, equal_nan=True)
        require(same, "a face's gaze depends on the batch it is in")


def _check_gaze_extras(gaze: Gaze, known: NDArray[np.bool_], feature_dim: int) -> None:
    require((gaze.features is None) == (feature_dim == 0), "features must be given exactly when feature_dim is not 0")
    if gaze.features is not None:
        shape = (len(known), feature_dim)
        require(gaze.features.shape == shape, f"features must be [N, feature_dim] = {shape}")
        require(gaze.features.dtype == np.float32, f"features must be float32, they are {gaze.features.dtype}")
    if gaze.confidence is not None:
        sure = gaze.confidence[np.isfinite(gaze.confidence)]
        require(gaze.confidence.shape == known.shape and bool(((sure >= 0) & (sure <= 1)).all()), "confidence is 0..1")
    require(len(gaze.flags) in (0, len(known)), "flags must be empty or name one reason, or None, per face")
    flagged = [flag is not None for flag in gaze.flags]
    require(not any(flagged & known) if flagged else True, "a flagged face must have no gaze: flagged, not guessed")
