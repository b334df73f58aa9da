"""The OpenVINO chain looks where drawn and real faces look, and flags what it cannot see instead of guessing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dfad_bench.prepare.gaze_estimators.openvino_adas import OpenvinoAdas
from dfad_bench.weights import joint_sha256
from tests.conftest import SHARED
from tests.prepare.gaze_faces import Faces, built, close_eyes, degrees_off, drawn, estimate, estimate_mirrored

FACES = 60


@pytest.fixture(scope="module")
def estimator() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield built("gaze_estimators", "openvino_adas", patch)


@pytest.fixture(scope="module")
def faces() -> Faces:
    return drawn(FACES)


def test_the_published_files_are_those_of_the_test_material() -> None:
    listed = SHARED / "weights" / "SHA256SUMS"
    if not listed.is_file():
        pytest.skip(f"test material is absent: {listed}")
    known = dict(reversed(line.split()) for line in listed.read_text(encoding="utf-8").splitlines())
    for file in OpenvinoAdas.weights:
        assert known[file.name] == file.sha256
        assert (SHARED / "weights" / file.name).stat().st_size == file.bytes


def test_the_hash_is_that_of_all_files_together(estimator: Any) -> None:
    assert estimator.weights_sha256 == joint_sha256(OpenvinoAdas.weights)


def test_drawn_faces_look_where_they_were_drawn_to_look(estimator: Any, faces: Faces) -> None:
    gaze = estimate(estimator, faces)
    off = degrees_off(gaze, faces)[faces.near_frontal]
    assert np.median(off) < 7
    assert np.corrcoef(faces.gaze[:, 1], gaze.yaw)[0, 1] > 0.85
    assert np.corrcoef(faces.gaze[:, 0], gaze.pitch)[0, 1] > 0.4


def test_a_mirror_image_looks_the_other_way(estimator: Any, faces: Faces) -> None:
    straight, mirrored = estimate(estimator, faces), estimate_mirrored(estimator, faces)
    np.testing.assert_allclose(straight.yaw, -mirrored.yaw, atol=np.radians(0.7))
    np.testing.assert_allclose(straight.pitch, mirrored.pitch, atol=np.radians(0.7))


def test_a_face_gets_the_same_answer_alone_and_in_company(estimator: Any, faces: Faces) -> None:
    together = estimate(estimator, faces)
    for row in (0, 33, FACES - 1):
        one = slice(row, row + 1)
        alone = estimator.estimate(faces.faces[one], faces.landmarks[one], [None])
        np.testing.assert_allclose((alone.pitch[0], alone.yaw[0]), (together.pitch[row], together.yaw[row]), atol=1e-4)
        np.testing.assert_allclose(alone.features[0], together.features[row], atol=1e-2)


def test_features_are_as_wide_as_promised_and_differ_between_faces(estimator: Any, faces: Faces) -> None:
    features = estimate(estimator, faces).features
    assert features is not None and features.shape == (FACES, estimator.feature_dim) and features.dtype == np.float32
    assert np.isfinite(features).all() and (features.std(axis=0) > 0).mean() > 0.5


def test_unknown_landmarks_are_found_in_the_face(estimator: Any, faces: Faces) -> None:
    unknown = np.full_like(faces.landmarks, np.nan)
    blind = estimator.estimate(faces.faces, unknown, [None] * FACES)
    given = estimate(estimator, faces)
    assert np.mean([flag is None for flag in blind.flags]) > 0.95
    assert np.nanmedian(np.degrees(np.abs(blind.yaw - given.yaw))) < 4
    assert np.nanmedian(np.degrees(np.abs(blind.pitch - given.pitch))) < 4


def test_where_there_is_no_face_there_are_no_landmarks(estimator: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8)
    gaze = estimator.estimate(noise, np.full((4, 5, 2), np.nan, np.float32), [None] * 4)
    assert gaze.flags == ("no_landmarks",) * 4
    assert np.isnan(gaze.pitch).all() and np.isnan(gaze.yaw).all() and (gaze.confidence == 0).all()


def test_impossible_landmarks_are_flagged_and_not_replaced(estimator: Any, faces: Faces) -> None:
    landmarks = faces.landmarks[:2].copy()
    landmarks[0] = landmarks[0, [1, 0, 2, 4, 3]]
    gaze = estimator.estimate(faces.faces[:2], landmarks, [None] * 2)
    assert gaze.flags == ("no_landmarks", None)
    assert np.isnan(gaze.pitch[0]) and np.isfinite(gaze.pitch[1])


def test_closed_eyes_are_flagged_and_open_ones_are_not(estimator: Any, faces: Faces) -> None:
    gaze = estimator.estimate(close_eyes(faces), faces.landmarks, [None] * FACES)
    assert np.mean([flag == "closed_eyes" for flag in gaze.flags]) > 0.6
    assert set(estimate(estimator, faces).flags) == {None}


def test_a_head_turned_aside_is_flagged(estimator: Any, faces: Faces) -> None:
    landmarks = faces.landmarks[:1].copy()
    landmarks[0, 2, 0] = landmarks[0, 1, 0] + 10
    assert estimator.estimate(faces.faces[:1], landmarks, [None]).flags == ("profile",)


def test_no_faces_give_no_gaze(estimator: Any) -> None:
    gaze = estimator.estimate(np.empty((0, 64, 64, 3), np.uint8), np.empty((0, 5, 2), np.float32), [])
    assert gaze.pitch.shape == (0,) and gaze.features.shape == (0, estimator.feature_dim)
