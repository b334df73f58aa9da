"""Both eyes are found where they were drawn, alike in a face and its mirror image, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from dfad_bench.prepare.eye_cascade import EyeCascade, cascade_path
from dfad_bench.prepare.head_pose import frontal_landmarks, head_angles
from tests.prepare.gaze_faces import drawn

FACES = 40


@pytest.fixture(scope="module")
def cascade() -> EyeCascade:
    path = cascade_path()
    assert path is not None, "OpenCV 4 ships the cascade"
    return EyeCascade(path)


def test_eyes_are_found_where_they_were_drawn(cascade: EyeCascade) -> None:
    faces = drawn(FACES)
    found = [cascade.find(face) for face in faces.faces]
    off = [np.abs(eyes - true[:2]) for eyes, true in zip(found, faces.landmarks, strict=True) if eyes is not None]
    assert len(off) > 0.8 * FACES
    assert np.median(off) < 3, "pixels of a crop of 256"


def test_a_mirror_image_has_the_mirrored_eyes(cascade: EyeCascade) -> None:
    for face in drawn(8).faces:
        eyes, mirrored = cascade.find(face), cascade.find(np.ascontiguousarray(face[:, ::-1]))
        assert (eyes is None) == (mirrored is None)
        if eyes is not None and mirrored is not None:
            np.testing.assert_allclose(mirrored[::-1] * (-1, 1) + (face.shape[1] - 1, 0), eyes, atol=1e-9)


def test_the_upper_half_of_a_face_turned_upside_down_holds_no_eyes(cascade: EyeCascade) -> None:
    found = [cascade.find(np.ascontiguousarray(face[::-1])) for face in drawn(FACES).faces]
    assert sum(eyes is not None for eyes in found) < 0.1 * FACES


@pytest.mark.parametrize("tilt", [-0.3, 0.0, 0.2])
def test_frontal_landmarks_are_those_of_a_head_that_faces_the_camera(tilt: float) -> None:
    eyes = np.array([[90, 110], [90 + 60 * np.cos(tilt), 110 + 60 * np.sin(tilt)]])
    points = frontal_landmarks(eyes)
    np.testing.assert_allclose(points[:2], eyes, atol=1e-4)
    assert points[3:, 1].mean() > points[2, 1] > points[:2, 1].mean(), "mouth below nose below eyes"
    np.testing.assert_allclose(head_angles(points[None]), 0, atol=1e-5)
