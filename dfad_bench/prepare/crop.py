"""Cuts a square face out of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Crop:
    """face [S, S, 3] uint8 RGB; scale = crop pixels per original pixel; left, top = the cut's corner in the original."""

    face: NDArray[np.uint8]
    scale: float
    left: int
    top: int

    def to_crop(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points [..., 2] from original pixels to crop pixels (pixel centres at integers)."""
        origin = np.array([self.left, self.top], np.float32)
        mapped: NDArray[np.float32] = ((points - origin + 0.5) * self.scale - 0.5).astype(np.float32)
        return mapped


_FARTHEST = 4
"""A cut may be so many times longer than the image; more would be mirrors of mirrors, from a box in the wrong unit."""


def crop_face(pixels: NDArray[np.uint8], box: tuple[float, float, float, float], margin: float, size: int) -> Crop:
    """Cut the square around a box and bring it to ``size`` × ``size``.

    pixels [H, W, 3]; box (x0, y0, x1, y1) in pixels; the square's side is ``margin`` × the longer side of the box. What
    lies outside the image is mirrored. Down-sampling averages areas (antialiased); up-sampling is bicubic, and the
    returned scale is then above 1. Raises ValueError for a box that is empty, not finite, or outside the image.
    """
    x0, y0, x1, y1 = box
    height, width = pixels.shape[:2]
    shown = tuple(round(float(v), 1) for v in box)
    if not np.isfinite(box).all() or x1 <= x0 or y1 <= y0:
        raise ValueError(f"box {shown} is empty or not finite")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(f"box {shown} lies outside the {width}x{height} image")
    wanted = margin * max(x1 - x0, y1 - y0)
    if wanted > _FARTHEST * max(width, height):
        raise ValueError(f"box {shown} is far larger than the {width}x{height} image")
    side = max(round(wanted), 1)
    left, top = round((x0 + x1) / 2 - side / 2), round((y0 + y1) / 2 - side / 2)
    if min(left + side, top + side) <= 0 or left >= width or top >= height:  # OpenCV mirrors an empty cut for ever
        raise ValueError(f"box {shown} leaves nothing of the {width}x{height} image")
    pad = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    cut: NDArray[Any] = pixels[max(top, 0) : top + side, max(left, 0) : left + side]
    if any(pad):
        cut = cv2.copyMakeBorder(cut, *pad, borderType=cv2.BORDER_REFLECT_101)
    if side != size:
        cut = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return Crop(np.ascontiguousarray(cut, np.uint8), size / side, left, top)


_LOW = 8


def perceptual_hash(face: NDArray[np.uint8]) -> str:
    """Return the 64-bit DCT hash of a face [S, S, 3] as 16 hexadecimal digits (Zauner 2010, pHash).

    Near-duplicates differ in few bits. Written here because OpenCV's own sits in its contrib build and ImageHash goes
    through SciPy and PIL at ten times the cost.
    """
    grey = cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
