"""A crop is the square around a box, of the same pixels where no resizing is needed, and knows where points went."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.prepare.crop import crop_face, perceptual_hash
from dfad_bench.prepare.decode import decode
from tests.prepare.builders import encoded, pixels

NOISE = np.random.default_rng(5).integers(0, 256, (200, 240, 3), dtype=np.uint8)


def bits_between(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_a_cut_of_exactly_the_size_copies_pixels() -> None:
    crop = crop_face(NOISE, (60, 50, 160, 150), 1.3, 130)
    np.testing.assert_array_equal(crop.face, NOISE[35:165, 45:175])
    assert (crop.scale, crop.roll) == (1.0, 0.0)
    np.testing.assert_array_equal(crop.matrix, [[1, 0, -45], [0, 1, -35]])


def test_the_longer_side_of_the_box_decides() -> None:
    crop = crop_face(NOISE, (90, 50, 110, 150), 1.0, 100)
    np.testing.assert_array_equal(crop.face, NOISE[50:150, 50:150])


def test_what_lies_outside_the_image_is_mirrored() -> None:
    crop = crop_face(NOISE, (-10, 0, 40, 50), 1.0, 50)
    np.testing.assert_array_equal(crop.face[:, 10:], NOISE[:50, :40])
    np.testing.assert_array_equal(crop.face[:, :10], NOISE[:50, 10:0:-1])


def test_each_border_is_mirrored_on_its_own_side() -> None:
    crop = crop_face(NOISE, (200, 160, 250, 210), 1.0, 50)
    np.testing.assert_array_equal(crop.face[:40, :40], NOISE[160:, 200:])
    np.testing.assert_array_equal(crop.face[40:, :40], NOISE[198:188:-1, 200:])
    np.testing.assert_array_equal(crop.face[:40, 40:], NOISE[160:, 238:228:-1])


@pytest.mark.parametrize("side", [128, 120, 100, 72])
def test_a_fine_pattern_shrinks_to_its_average(side: int) -> None:
    board = np.where(np.indices((128, 128)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    face = crop_face(np.dstack([board] * 3), (0, 0, 128, 128), 1.0, 128 * 32 // side).face
    assert np.abs(face[2:-2, 2:-2].astype(int) - 127).max() <= 40
    assert abs(float(face.mean()) - 127.5) < 1


def test_a_checkerboard_halved_is_mid_grey() -> None:
    board = np.where(np.indices((128, 128)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    face = crop_face(np.dstack([board] * 3), (0, 0, 128, 128), 1.0, 64).face
    assert set(np.unique(face)) <= {127, 128}


@pytest.mark.parametrize(("side", "scale"), [(32, 2.0), (64, 1.0), (128, 0.5)])
def test_the_scale_tells_enlarged_faces(side: int, scale: float) -> None:
    assert crop_face(NOISE, (20, 20, 20 + side, 20 + side), 1.0, 64).scale == scale


@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 0, 10, 10),
        (0, 0, np.inf, 10),
        (10, 10, 10, 20),
        (10, 20, 20, 10),
        (-20, 0, -1, 10),
        (240, 0, 260, 10),
        (0, 200, 10, 220),
        (0, -30, 10, 0),
    ],
)
def test_an_impossible_box_is_a_value_error(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="box"):
        crop_face(NOISE, box, 1.3, 64)


@pytest.mark.parametrize(
    ("box", "margin"),
    [
        ((-200.0, 0.0, 0.3, 200.0), 1.0),
        ((239.8, 0.0, 439.8, 200.0), 1.0),
        ((-1e6, -1e6, 1e6, 1e6), 1.3),
        ((-1.7e308, -1.7e308, 1.7e308, 1.7e308), 1.3),
        ((-100.0, -100.0, 5.0, 5.0), 0.5),
    ],
)
def test_a_box_that_would_hang_opencv_is_a_value_error(box: tuple[float, float, float, float], margin: float) -> None:
    with pytest.raises(ValueError, match=r"leaves nothing|far larger"):
        crop_face(NOISE, box, margin, 64)


coordinate = st.floats(-2e3, 2e3) | st.floats(-10, 300)


@settings(max_examples=300, deadline=1000)
@given(box=st.tuples(coordinate, coordinate, coordinate, coordinate), margin=st.floats(0.5, 4.0))
def test_every_box_gives_a_crop_of_the_size_or_a_value_error(
    box: tuple[float, float, float, float], margin: float
) -> None:
    try:
        crop = crop_face(NOISE, box, margin, 24)
    except ValueError:
        return
    assert crop.face.shape == (24, 24, 3)
    assert crop.face.flags.c_contiguous


@settings(max_examples=100)
@given(
    left=st.floats(0, 150),
    top=st.floats(0, 120),
    side=st.floats(20, 80),
    margin=st.floats(0.8, 2.0),
    size=st.integers(16, 128),
)
def test_the_centre_of_the_box_becomes_the_centre_of_the_crop(
    left: float, top: float, side: float, margin: float, size: int
) -> None:
    crop = crop_face(NOISE, (left, top, left + side, top + side), margin, size)
    centre = np.array([left + side / 2 - 0.5, top + side / 2 - 0.5], np.float32)
    distance = np.abs(crop.to_crop(centre) - (size - 1) / 2).max()
    assert distance <= 0.51 * crop.scale + 1e-3, "the cut starts at a whole pixel"


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_a_landmark_goes_where_its_pixel_goes(size: int) -> None:
    for x, y in [(70, 60), (101, 93), (145, 120)]:
        canvas = np.zeros((200, 240, 3), np.uint8)
        canvas[y - 2 : y + 3, x - 2 : x + 3] = 255
        crop = crop_face(canvas, (50, 40, 160, 150), 1.2, size)
        weight = crop.face[..., 0].astype(float)
        rows, columns = np.indices(weight.shape)
        seen = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(crop.to_crop(np.array([x, y], np.float32)), seen, atol=0.1 * max(1.0, crop.scale))


def test_landmarks_are_mapped_many_at_a_time() -> None:
    crop = crop_face(NOISE, (60, 50, 160, 150), 1.3, 65)
    mapped = crop.to_crop(np.array([[45, 35], [174, 164]], np.float32))
    np.testing.assert_allclose(mapped, [[-0.25, -0.25], [64.25, 64.25]], atol=1e-5)
    assert mapped.dtype == np.float32


def test_the_perceptual_hash_is_sixteen_hexadecimal_digits() -> None:
    assert len(perceptual_hash(pixels(0))) == 16
    int(perceptual_hash(pixels(0)), 16)


@pytest.mark.parametrize("seed", range(8))
def test_the_perceptual_hash_survives_jpeg_and_resizing(seed: int) -> None:
    original = pixels(seed, 256, 256)
    compressed = decode(encoded(original, "JPEG", quality=50)).pixels
    smaller = crop_face(original, (0, 0, 256, 256), 1.0, 128).face
    assert bits_between(perceptual_hash(original), perceptual_hash(compressed)) <= 6
    assert bits_between(perceptual_hash(original), perceptual_hash(smaller)) <= 6


def test_the_perceptual_hash_tells_pictures_apart() -> None:
    hashes = [perceptual_hash(pixels(seed, 128, 128)) for seed in range(20)]
    distances = [bits_between(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 12
