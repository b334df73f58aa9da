from __future__ import annotations

import pickle

import numpy as np
import pytest

from dfad_bench.errors import DataError
from dfad_bench.modelling.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


def _face(side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_face_becomes_a_normalised_float_image_with_channels_first() -> None:
    face = np.full((10, 10, 3), (255, 0, 127), np.uint8)
    image = Preprocess(size=4)(face, None)
    assert image.shape == (3, 4, 4) and image.dtype == np.float32
    expected = (np.array([1, 0, 127 / 255]) - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(image[:, 0, 0], expected, rtol=1e-5)


def test_without_a_size_every_pixel_stays_as_it_is() -> None:
    face = _face()
    image = Preprocess(size=None, mean=(0, 0, 0), std=(1, 1, 1))(face, None)
    np.testing.assert_allclose(image.transpose(1, 2, 0) * 255, face, atol=1e-4)


def test_downsampling_averages_areas_so_that_a_checkerboard_becomes_grey() -> None:
    board = np.indices((16, 16)).sum(axis=0)[..., None].repeat(3, axis=2) % 2 * 255
    image = Preprocess(size=8, mean=(0, 0, 0), std=(1, 1, 1))(board.astype(np.uint8), None)
    assert np.ptp(image) == 0 and abs(image.mean() - 0.5) < 0.01


def test_upsampling_and_oblong_faces_keep_their_proportions() -> None:
    assert Preprocess(size=64)(_face(32), None).shape == (3, 64, 64)
    assert Preprocess(size=16)(np.zeros((32, 48, 3), np.uint8), None).shape == (3, 16, 24)


def test_the_window_is_central_in_evaluation_and_moves_in_training() -> None:
    face = _face()
    cut = Preprocess(size=None, crop=16, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_allclose(cut(face, None).transpose(1, 2, 0) * 255, face[8:24, 8:24], atol=1e-4)
    windows = {cut(face, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(windows) > 10


def test_a_window_larger_than_the_face_is_refused() -> None:
    with pytest.raises(DataError, match=r"does not fit.*--size"):
        Preprocess(size=None, crop=64)(_face(32), None)


def test_it_can_be_sent_to_a_worker_process() -> None:
    transform = Preprocess(size=8, crop=4)
    assert pickle.loads(pickle.dumps(transform)) == transform
