"""Turns a prepared face into what a network reads: its size, its window, its scale."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize, cut, normalise; a ``types.Transform`` that can be sent to a worker process.

    size: the shorter side after resizing in pixels (area averages down, bicubic up), None to leave every pixel as it
    is; crop: the side of a square window cut afterwards, at random in training and from the centre in evaluation;
    mean and std of the three channels are in units of 0..1.
    """

    size: int | None
    crop: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, face: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.float32]:
        """Map a face [H, W, 3] uint8 RGB to [3, h, w] float32; ``rng`` is None in evaluation."""
        pixels = face if self.size is None else _resize(face, self.size)
        if self.crop is not None:
            pixels = _window(pixels, self.crop, rng)
        image = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel, plane, mean, std in zip(range(3), image, self.mean, self.std, strict=True):
            np.multiply(pixels[..., channel], np.float32(1 / (255 * std)), out=plane)
            plane -= np.float32(mean / std)
        return image


def _resize(face: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = face.shape[:2]
    shorter = min(height, width)
    if shorter == size:
        return face
    target = (round(width * size / shorter), round(height * size / shorter))
    method = cv2.INTER_AREA if size < shorter else cv2.INTER_CUBIC
    return cv2.resize(face, target, interpolation=method).astype(np.uint8, copy=False)


def _window(pixels: NDArray[np.uint8], side: int, rng: np.random.Generator | None) -> NDArray[np.uint8]:
    room = np.array(pixels.shape[:2]) - side
    if room.min() < 0:
        raise DataError(
            f"The model reads a window of {side} px, which does not fit into faces of {pixels.shape[1]}x{pixels.shape[0]} px. "
            f"Prepare them with --size {side} or more."
        )
    top, left = room // 2 if rng is None else rng.integers(0, room + 1)
    return pixels[top : top + side, left : left + side]
