"""The gaze map is the drawing of Park et al. (ECCV 2018, section 3.1), symmetric and finite for every angle."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH, encode_gaze_map, render_gaze_map

RADIUS = 1.2 * HEIGHT / 2
ANGLES = [(0.0, 0.3), (0.25, 0.0), (0.2, -0.4), (-0.3, 0.5), (-0.1, -0.1)]


def centroid(channel: NDArray[np.uint8]) -> tuple[float, float]:
    weight = channel.astype(float)
    rows, columns = np.indices(weight.shape)
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


def extent(channel: NDArray[np.uint8], axis: int) -> float:
    """The antialiased length of the channel's longest run along an axis."""
    return float((channel / 255).sum(axis=axis).max())


@pytest.mark.parametrize(("pitch", "yaw"), ANGLES)
def test_looking_the_other_way_is_the_mirror_image(pitch: float, yaw: float) -> None:
    np.testing.assert_array_equal(render_gaze_map(pitch, -yaw), render_gaze_map(pitch, yaw)[:, ::-1])


@pytest.mark.parametrize(("pitch", "yaw"), ANGLES)
def test_looking_down_is_looking_up_turned_over(pitch: float, yaw: float) -> None:
    np.testing.assert_array_equal(render_gaze_map(-pitch, yaw), render_gaze_map(pitch, yaw)[::-1])


def test_a_frontal_gaze_is_a_circle_in_the_centre() -> None:
    iris = render_gaze_map(0.0, 0.0)[..., 1]
    assert centroid(iris) == pytest.approx(((WIDTH - 1) / 2, (HEIGHT - 1) / 2), abs=1e-6)
    assert extent(iris, 0) == pytest.approx(RADIUS, abs=0.6)
    assert extent(iris, 1) == pytest.approx(RADIUS, abs=0.6)
    assert (iris / 255).sum() == pytest.approx(math.pi * (RADIUS / 2) ** 2, rel=0.01)


def test_the_eyeball_is_as_wide_as_the_paper_says() -> None:
    eyeball = render_gaze_map(0.1, 0.2)[..., 0]
    assert extent(eyeball, 1) == pytest.approx(1.2 * HEIGHT, abs=0.6)
    assert eyeball[:, WIDTH // 2].min() == 255, "taller than the map, so cut off above and below"


def test_the_eyeball_does_not_move_with_the_gaze() -> None:
    np.testing.assert_array_equal(render_gaze_map(0.1, 0.2)[..., 0], render_gaze_map(-0.4, 0.0)[..., 0])


@pytest.mark.parametrize(("pitch", "yaw"), ANGLES)
def test_the_iris_lies_where_the_gaze_points(pitch: float, yaw: float) -> None:
    distance = RADIUS * math.cos(math.asin(0.5))
    expected = (
        (WIDTH - 1) / 2 + distance * math.sin(yaw) * math.cos(pitch),
        (HEIGHT - 1) / 2 - distance * math.sin(pitch),
    )
    assert centroid(render_gaze_map(pitch, yaw)[..., 1]) == pytest.approx(expected, abs=0.5)


def test_positive_pitch_moves_the_iris_up_and_positive_yaw_to_the_right() -> None:
    x, y = centroid(render_gaze_map(0.3, 0.3)[..., 1])
    assert x > WIDTH / 2 + 5
    assert y < HEIGHT / 2 - 5


def test_the_iris_narrows_along_the_gaze_by_the_cosine() -> None:
    iris = render_gaze_map(0.0, 0.6)[..., 1]
    assert extent(iris, 0) == pytest.approx(RADIUS, abs=0.8)
    assert extent(iris, 1) == pytest.approx(RADIUS * math.cos(0.6), abs=0.8)


def test_the_map_is_eight_bits_in_two_channels_and_uses_them() -> None:
    gaze_map = render_gaze_map(0.1, 0.2)
    assert gaze_map.shape == (HEIGHT, WIDTH, 2)
    assert gaze_map.dtype == np.uint8
    assert (gaze_map.min(), gaze_map.max()) == (0, 255)
    assert ((gaze_map > 0) & (gaze_map < 255)).any(), "edges are antialiased"


@pytest.mark.parametrize("angle", [math.pi / 2, -math.pi / 2, math.pi, 3.0, 1e-8, 5e-324, -1e-300])
@pytest.mark.parametrize("other", [0.0, 1.2, math.pi / 2])
@pytest.mark.filterwarnings("error")
def test_extreme_angles_stay_finite(angle: float, other: float) -> None:
    for gaze_map in (render_gaze_map(angle, other), render_gaze_map(other, angle)):
        assert gaze_map[..., 1].any() or abs(math.sin(angle)) > 0.9 or abs(math.sin(other)) > 0.9
        assert gaze_map[..., 0].any()


def test_encoding_puts_the_eyeball_in_red_and_the_iris_in_green() -> None:
    gaze_map = render_gaze_map(0.2, -0.3)
    read = cv2.imdecode(np.frombuffer(encode_gaze_map(gaze_map), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert read is not None
    np.testing.assert_array_equal(read[..., :2], gaze_map)
    assert not read[..., 2].any()
