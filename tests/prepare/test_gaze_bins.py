from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench.prepare.gaze_bins import BINS, SIDE, gaze_of, network_input

EXACT = 582
"""Side of a crop whose central part is as large as the network's input, so that nothing is resized."""


def peaks(*bins: int) -> NDArray[np.float32]:
    """Logits [N, 90] that leave no doubt about one bin each."""
    return np.float32(100) * np.eye(BINS, dtype=np.float32)[list(bins)]


def test_a_bin_stands_for_its_lower_edge_and_yaw_changes_its_sign() -> None:
    gaze = gaze_of(peaks(45, 50, 30), peaks(45, 47, 40), np.ones((3, 2), np.float32))
    assert np.degrees(gaze.yaw) == pytest.approx([0, -20, 60], abs=1e-4)
    assert np.degrees(gaze.pitch) == pytest.approx([0, 8, -20], abs=1e-4)
    assert gaze.flags == (None, None, None)


def test_an_angle_is_the_expectation_over_the_bins() -> None:
    share = np.zeros((1, BINS))
    share[0, [40, 48]] = 0.25, 0.75
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(share), -1e4).astype(np.float32)
    gaze = gaze_of(logits, peaks(45), np.ones((1, 1), np.float32))
    assert np.degrees(gaze.yaw[0]) == pytest.approx(-(0.25 * -20 + 0.75 * 12), abs=1e-4)


def test_confidence_is_one_for_one_bin_and_zero_for_all_of_them() -> None:
    logits = np.concatenate([peaks(45), np.zeros((1, BINS), np.float32)])
    gaze = gaze_of(logits, logits, np.ones((2, 1), np.float32))
    assert gaze.confidence is not None
    assert gaze.confidence == pytest.approx([1, 0], abs=1e-6)
    half = gaze_of(logits, logits[::-1], np.ones((2, 1), np.float32)).confidence
    assert half == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(("yaw", "pitch"), [(68, 45), (22, 45), (45, 68), (45, 0)])
def test_a_face_turned_away_is_unknown_rather_than_clipped(yaw: int, pitch: int) -> None:
    gaze = gaze_of(peaks(yaw, 67), peaks(pitch, 45), np.ones((2, 3), np.float32))
    assert gaze.flags == ("profile", None)
    assert gaze.features is not None
    for values in (gaze.pitch, gaze.yaw, gaze.features[:, 0]):
        assert np.isnan(values[0]) and np.isfinite(values[1])
    assert np.degrees(gaze.yaw[1]) == pytest.approx(-88, abs=1e-4)


def test_pixels_are_normalised_channel_by_channel_in_the_order_red_green_blue() -> None:
    face = np.full((1, EXACT, EXACT, 3), (255, 0, 51), np.uint8)
    prepared = network_input(face)
    assert prepared.shape == (1, 3, SIDE, SIDE) and prepared.dtype == np.float32
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert prepared[0, :, 7, 9] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", [64, 224, 255, 256, 257, 1024])
def test_only_the_part_within_the_margin_is_seen(side: int) -> None:
    within = round(side / 1.3)
    faces = np.zeros((3, side, side, 3), np.uint8)
    far, near = (side - within) // 2 - 1, (side - within) // 2 + 2
    for edge in (np.s_[:far], np.s_[side - far :]):
        faces[1, edge] = faces[1, :, edge] = 255
    for edge in (np.s_[:near], np.s_[side - near :]):
        faces[2, edge] = faces[2, :, edge] = 255
    unseen, bordered, closer = network_input(faces)
    assert np.array_equal(unseen, bordered) and not np.array_equal(unseen, closer)


@pytest.mark.parametrize("side", [97, 256, 257, 700])
def test_the_mirrored_face_is_prepared_as_the_mirror_image(side: int) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    mirrored = network_input(np.ascontiguousarray(faces[:, :, ::-1]))
    assert np.allclose(mirrored[..., ::-1], network_input(faces), atol=1e-4)


def test_no_face_is_no_gaze() -> None:
    nothing = np.zeros((0, BINS), np.float32)
    gaze = gaze_of(nothing, nothing, np.zeros((0, 4), np.float32))
    assert gaze.pitch.shape == gaze.yaw.shape == (0,) and gaze.flags == ()
    assert network_input(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 3, SIDE, SIDE)
