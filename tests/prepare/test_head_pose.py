"""Directions, the head's own frame, a pose by five landmarks, and eyes turned upright."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench.prepare.eye_patches import mirror, upright_patch, usable
from dfad_bench.prepare.head_pose import (
    EYE_DISTANCE,
    angles,
    head_angles,
    pixels_per_mm,
    seen_from_head,
    turn,
    vectors,
)
from tests.prepare.gaze_faces import drawn

PITCH, YAW, ROLL = (
    np.array(degrees) * np.pi / 180 for degrees in ([0.0, 12, -9, 20], [0.0, -15, 30, 5], [0, 8, -20, 3])
)
GENERIC = np.array([[-31.5, 0, 0], [31.5, 0, 0], [0, 42, 30], [-26, 68, -2], [26, 68, -2]])


def seen(pitch: float, yaw: float, roll: float, scale: float = 1.2) -> NDArray[np.float32]:
    """The generic face's landmarks [1, 5, 2] under a nod, then a turn, then a tilt, without perspective."""
    c, s = np.cos(pitch), np.sin(pitch)
    points = GENERIC @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    c, s = np.cos(yaw), np.sin(yaw)
    points = points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = np.cos(roll), np.sin(roll)
    return (scale * points[:, :2] @ np.array([[c, s], [-s, c]]) + 128).astype(np.float32)[None]


def test_angles_are_those_of_the_vectors() -> None:
    np.testing.assert_allclose(angles(3 * vectors(PITCH, YAW)), (PITCH, YAW), atol=1e-12)


def test_up_is_positive_pitch_and_image_right_is_positive_yaw() -> None:
    np.testing.assert_allclose(
        angles(np.array([[0.0, 1, 1], [1.0, 0, 1]])), ([np.pi / 4, 0], [0, np.pi / 4]), atol=1e-12
    )


def test_a_clockwise_quarter_turn_takes_up_to_image_right() -> None:
    np.testing.assert_allclose(turn(np.array([[0.0, 1, 0]]), np.array([np.pi / 2])), [[1, 0, 0]], atol=1e-12)


def test_from_a_head_that_faces_the_camera_a_gaze_looks_the_same() -> None:
    still = np.zeros(4)
    np.testing.assert_allclose(
        angles(seen_from_head(vectors(PITCH, YAW), still, still, still)), (PITCH, YAW), atol=1e-12
    )


def test_a_gaze_straight_out_of_the_face_has_no_angles() -> None:
    outwards = turn(vectors(PITCH, YAW), ROLL)
    np.testing.assert_allclose(seen_from_head(outwards, PITCH, YAW, ROLL), [[0, 0, 1]] * 4, atol=1e-12)


@pytest.mark.parametrize(("pitch", "yaw", "roll"), [(0, 0, 0), (0.1, -0.3, 0.1), (-0.2, 0.25, -0.15), (0.15, 0.4, 0)])
def test_the_pose_of_a_face_of_generic_proportions_is_found(pitch: float, yaw: float, roll: float) -> None:
    found = np.concatenate(head_angles(seen(pitch, yaw, roll)))
    np.testing.assert_allclose(found, (pitch, yaw), atol=np.radians(3.5))


def test_the_scale_is_that_of_the_eyes_however_the_head_is_turned() -> None:
    for yaw in (0.0, 0.4):
        landmarks = seen(0, yaw, 0, scale=1.5)
        np.testing.assert_allclose(pixels_per_mm(landmarks, np.array([yaw])), 1.5, rtol=0.01)
    assert pytest.approx(63.0) == EYE_DISTANCE


def test_the_pose_of_drawn_heads_is_found() -> None:
    faces = drawn(40)
    pitch, yaw = head_angles(faces.landmarks)
    assert np.median(np.degrees(np.abs(yaw - faces.head[:, 1]))) < 1.5
    assert np.median(np.degrees(np.abs(pitch - faces.head[:, 0]))) < 6


def test_mirroring_twice_changes_nothing() -> None:
    faces = drawn(40)
    again = mirror(*mirror(faces.faces[:3], faces.landmarks[:3]))
    np.testing.assert_array_equal(again[0], faces.faces[:3])
    np.testing.assert_allclose(again[1], faces.landmarks[:3], atol=1e-4)


def test_usable_landmarks_are_those_of_an_upright_face_inside_the_crop() -> None:
    good = seen(0, 0, 0.2)
    outside, upside_down, lying = good + 200, 256 - good, seen(0, 0, 1.3)
    tiny, unknown = (good - 128) * 0.1 + 128, np.full_like(good, np.nan)
    every = np.concatenate([good, outside, upside_down, lying, tiny, unknown])
    assert usable(every, 256).tolist() == [True, False, False, False, False, False]


def test_a_patch_of_a_tilted_face_is_upright() -> None:
    face = np.zeros((200, 200, 3), np.uint8)
    roll = np.radians(20)
    for step in range(-60, 61):  # a bright line through the middle, tilted clockwise
        face[round(100 + step * np.sin(roll)), round(100 + step * np.cos(roll))] = 255
    patch = upright_patch(face, (100, 100), 60, (61, 31), roll)[..., 0].astype(float)
    rows = np.average(np.arange(31), weights=patch.sum(axis=1))
    assert rows == pytest.approx(15, abs=0.5)
    assert patch[13:18].sum() > 0.97 * patch.sum()


@pytest.mark.parametrize("width", [30, 60, 150])
def test_the_point_asked_for_is_the_patchs_middle(width: int) -> None:
    face = np.zeros((200, 200, 3), np.uint8)
    face[118:123, 78:83] = 255
    patch = upright_patch(face, (80, 120), width, (61, 61))[..., 0].astype(float)
    y, x = np.mgrid[:61, :61]
    assert (x * patch).sum() / patch.sum() == pytest.approx(30, abs=0.6)
    assert (y * patch).sum() / patch.sum() == pytest.approx(30, abs=0.6)
