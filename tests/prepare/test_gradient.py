"""The gradient estimator finds drawn irises, and flags what it cannot see instead of guessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfad_bench.prepare.gaze_estimators.gradient import Gradient
from tests.prepare.gaze_faces import Faces, close_eyes, degrees_off, drawn, estimate, estimate_mirrored

FACES = 60


@pytest.fixture(scope="module")
def faces() -> Faces:
    return drawn(FACES)


def test_the_gaze_of_drawn_near_frontal_faces_is_found(faces: Faces) -> None:
    off = degrees_off(estimate(Gradient(), faces), faces)[faces.near_frontal]
    assert len(off) > FACES / 2
    assert np.median(off) < 5
    assert np.percentile(off, 90) < 10


def test_landmarks_as_noisy_as_a_detectors_are_put_right(faces: Faces) -> None:
    noise = np.random.default_rng(0).normal(0, 2.3, faces.landmarks.shape).astype(np.float32)  # 2 mm
    noisy = Faces(faces.faces, faces.landmarks + noise, faces.gaze, faces.head)
    assert np.median(degrees_off(estimate(Gradient(), noisy), noisy)[faces.near_frontal]) < 8


def test_both_angles_follow_the_gaze_and_not_only_the_head(faces: Faces) -> None:
    gaze = estimate(Gradient(), faces)
    for column, (angle, least) in enumerate(((gaze.pitch, 0.5), (gaze.yaw, 0.75))):
        slope = np.polyfit(faces.gaze[:, column], angle, 1)[0]
        assert least < slope < 1.25
        own = faces.gaze[:, column] - np.polyval(
            np.polyfit(faces.head[:, column], faces.gaze[:, column], 1), faces.head[:, column]
        )
        assert np.corrcoef(own, angle)[0, 1] > 0.5


def test_seen_from_the_head_the_heads_own_turn_is_gone(faces: Faces) -> None:
    gaze = estimate(Gradient(), faces)
    assert gaze.head_yaw is not None
    turned, own = faces.head[:, 1], faces.gaze[:, 1] - faces.head[:, 1]
    assert np.median(np.degrees(np.abs(gaze.head_yaw - own))) < 4
    assert np.corrcoef(own, gaze.head_yaw)[0, 1] > 0.85
    assert np.corrcoef(turned, gaze.head_yaw)[0, 1] < 0 < np.corrcoef(turned, gaze.yaw)[0, 1]


def test_a_mirror_image_looks_the_other_way(faces: Faces) -> None:
    straight, mirrored = estimate(Gradient(), faces), estimate_mirrored(Gradient(), faces)
    np.testing.assert_allclose(straight.yaw, -mirrored.yaw, atol=np.radians(1))
    np.testing.assert_allclose(straight.pitch, mirrored.pitch, atol=np.radians(1))


def test_a_face_gets_the_same_answer_alone_and_in_company(faces: Faces) -> None:
    together = estimate(Gradient(), faces)
    for row in (0, 7, FACES - 1):
        one = slice(row, row + 1)
        alone = Gradient().estimate(faces.faces[one], faces.landmarks[one], [None])
        np.testing.assert_allclose((alone.pitch[0], alone.yaw[0]), (together.pitch[row], together.yaw[row]), atol=1e-4)


@pytest.mark.parametrize("size", [128, 512])
def test_the_size_of_the_crop_hardly_matters(faces: Faces, size: int) -> None:
    import cv2

    some = faces.faces[:20]
    resized = np.stack([cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA) for face in some])
    scale = size / some.shape[1]
    landmarks = (faces.landmarks[:20] + 0.5) * scale - 0.5
    other = Gradient().estimate(np.asarray(resized, np.uint8), landmarks, [None] * 20)
    gaze = Gradient().estimate(some, faces.landmarks[:20], [None] * 20)
    assert np.median(np.degrees(np.abs(other.yaw - gaze.yaw))) < 2
    assert np.median(np.degrees(np.abs(other.pitch - gaze.pitch))) < 2


def test_unknown_or_impossible_landmarks_are_flagged(faces: Faces) -> None:
    landmarks = faces.landmarks[:4].copy()
    landmarks[0, 2] = np.nan  # the nose alone: what is known in part is not made up
    landmarks[1] = landmarks[1, [1, 0, 2, 4, 3]]  # the eyes change sides
    landmarks[2] = landmarks[2] * 0.01 + 100  # a face of a pixel
    gaze = Gradient().estimate(faces.faces[:4], landmarks, [None] * 4)
    assert gaze.flags == ("no_landmarks", "no_landmarks", "no_landmarks", None)
    assert np.isnan(gaze.pitch[:3]).all() and np.isnan(gaze.yaw[:3]).all() and np.isfinite(gaze.pitch[3])
    assert gaze.confidence is not None and (gaze.confidence[:3] == 0).all()


def test_without_landmarks_the_eyes_are_found_and_the_head_is_taken_to_face_the_camera(faces: Faces) -> None:
    unknown = Faces(faces.faces, np.full_like(faces.landmarks, np.nan), faces.gaze, faces.head)
    gaze = estimate(Gradient(), unknown)
    seen = np.isfinite(gaze.yaw)
    assert seen.mean() > 0.8
    assert np.median(degrees_off(gaze, unknown)[seen & faces.near_frontal]) < 9
    assert gaze.head_yaw is not None
    np.testing.assert_allclose(gaze.head_yaw[seen], gaze.yaw[seen], atol=np.radians(3))
    assert {flag for flag, known in zip(gaze.flags, seen, strict=True) if not known} <= {"no_landmarks", "closed_eyes"}


def test_a_picture_without_eyes_is_flagged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    noise[1], noise[2] = 0, 200
    gaze = Gradient().estimate(noise, np.full((3, 5, 2), np.nan, np.float32), [None] * 3)
    assert gaze.flags == ("no_landmarks",) * 3


def test_where_opencv_ships_no_cascade_faces_without_landmarks_are_flagged(
    faces: Faces, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import cv2

    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    estimator = Gradient()
    assert estimator.weights_sha256 is None
    gaze = estimator.estimate(faces.faces[:2], np.full((2, 5, 2), np.nan, np.float32), [None] * 2)
    assert gaze.flags == ("no_landmarks",) * 2


def test_closed_eyes_are_flagged_and_open_ones_are_not(faces: Faces) -> None:
    gaze = Gradient().estimate(close_eyes(faces), faces.landmarks, [None] * FACES)
    assert np.mean([flag == "closed_eyes" for flag in gaze.flags]) > 0.75
    assert set(estimate(Gradient(), faces).flags) == {None}


def test_a_head_turned_aside_is_flagged(faces: Faces) -> None:
    landmarks = faces.landmarks[:1].copy()
    landmarks[0, 2, 0] = landmarks[0, 1, 0]  # the nose below the eye at image right
    assert Gradient().estimate(faces.faces[:1], landmarks, [None]).flags == ("profile",)


def test_no_faces_give_no_gaze() -> None:
    gaze = Gradient().estimate(np.empty((0, 64, 64, 3), np.uint8), np.empty((0, 5, 2), np.float32), [])
    assert gaze.pitch.shape == (0,) and gaze.features is not None and gaze.features.shape == (0, Gradient.feature_dim)
