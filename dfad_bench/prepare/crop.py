"""Cuts a square face out of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Crop:
    """face [S, S, 3] uint8 RGB; matrix [2, 3] maps original to crop pixels (pixel centres at integers); scale = crop pixels
    per original pixel; roll = radians by which the original was turned clockwise to make the eyes level."""

    face: NDArray[np.uint8]
    matrix: NDArray[np.float64]
    scale: float
    roll: float = 0.0

    def of_reduced(self, reduction: int) -> Crop:
        """Return the same crop as seen from the original, when it was cut out of an image so many times smaller."""
        return replace(self, matrix=from_original(self.matrix, reduction), scale=self.scale / reduction)

    def to_crop(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map points [..., 2] from original pixels to crop pixels."""
        return map_points(self.matrix, points)


def map_points(matrix: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map points [..., 2] by a matrix [2, 3]."""
    mapped: NDArray[np.float32] = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return mapped


def from_original(matrix: NDArray[np.float64], reduction: int) -> NDArray[np.float64]:
    """Return the matrix [2, 3] for pixels of the original, of one for an image so many times smaller."""
    whole = matrix.copy()
    whole[:, 2] += matrix[:, :2] @ np.full(2, 0.5 / reduction - 0.5)
    whole[:, :2] /= reduction
    return whole


def in_reduced(points: NDArray[np.float32], reduction: int) -> NDArray[np.float32]:
    """Return points [..., 2] of the original in pixels of an image so many times smaller."""
    return ((points + 0.5) / reduction - 0.5).astype(np.float32)


def square_corner(box: tuple[float, float, float, float], side: int) -> tuple[int, int]:
    """Return left and top of the square of that side, in whole pixels, whose middle is nearest to the box's."""
    x0, y0, x1, y1 = box
    return round((x0 + x1) / 2 - side / 2), round((y0 + y1) / 2 - side / 2)


def square_matrix(left: int, top: int, side: int, size: int) -> NDArray[np.float64]:
    """Return the matrix [2, 3] that brings a square of the image to ``size`` × ``size``."""
    scale = size / side
    return np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])


def upright_matrix(landmarks: NDArray[np.float32], margin: float, size: int) -> NDArray[np.float64]:
    """Return the matrix [2, 3] by which ``align_face`` turns five landmarks [5, 2] upright."""
    target = ((_TEMPLATE + 0.5) / _TEMPLATE_SIDE - 0.5) * size / margin + size / 2 - 0.5
    return _similarity(landmarks.astype(np.float64), target)


_FARTHEST = 4
"""A cut may be so many times longer than the image; more would be mirrors of mirrors, from a box in the wrong unit."""


def check_box(box: tuple[float, float, float, float], width: int, height: int) -> None:
    """Raise ValueError for a box that is empty, not finite, or outside an image of that size."""
    x0, y0, x1, y1 = box
    shown = tuple(round(float(v), 1) for v in box)
    if not np.isfinite(box).all() or x1 <= x0 or y1 <= y0:
        raise ValueError(f"box {shown} is empty or not finite")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(f"box {shown} lies outside the {width}x{height} image")


def crop_face(pixels: NDArray[np.uint8], box: tuple[float, float, float, float], margin: float, size: int) -> Crop:
    """Cut the square around a box and bring it to ``size`` × ``size``.

    pixels [H, W, 3]; box (x0, y0, x1, y1) in pixels; the square's side is ``margin`` × the longer side of the box. What
    lies outside the image is mirrored. Down-sampling averages areas (antialiased); up-sampling is bicubic, and the
    returned scale is then above 1. Raises ValueError for a box that is empty, not finite, or outside the image.
    """
    x0, y0, x1, y1 = box
    height, width = pixels.shape[:2]
    check_box(box, width, height)
    shown = tuple(round(float(v), 1) for v in box)
    wanted = margin * max(x1 - x0, y1 - y0)
    if wanted > _FARTHEST * max(width, height):
        raise ValueError(f"box {shown} is far larger than the {width}x{height} image")
    side = max(round(wanted), 1)
    left, top = square_corner(box, side)
    if min(left + side, top + side) <= 0 or left >= width or top >= height:  # OpenCV mirrors an empty cut for ever
        raise ValueError(f"box {shown} leaves nothing of the {width}x{height} image")
    pad = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    cut: NDArray[Any] = pixels[max(top, 0) : top + side, max(left, 0) : left + side]
    if any(pad):
        cut = cv2.copyMakeBorder(cut, *pad, borderType=cv2.BORDER_REFLECT_101)
    if side != size:
        cut = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return Crop(np.ascontiguousarray(cut, np.uint8), square_matrix(left, top, side, size), size / side)


_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_TEMPLATE_SIDE = 112
"""Where the five landmarks of an upright face lie in a square of that side (Deng et al., ArcFace, arXiv:1801.07698)."""


def align_face(pixels: NDArray[np.uint8], landmarks: NDArray[np.float32], margin: float, size: int) -> Crop:
    """Turn, scale and shift an image so that its five landmarks come nearest to those of an upright face.

    pixels [H, W, 3]; landmarks [5, 2] in its pixels; the template's square fills 1/margin of the crop. The transform is
    the least-squares similarity (Umeyama, IEEE TPAMI 13(4), 1991). What lies outside the image is mirrored. Raises
    ValueError for landmarks that are not finite, coincide, or lie so that nothing of the image would be seen.
    """
    height, width = pixels.shape[:2]
    matrix = upright_matrix(landmarks, margin, size)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not np.isfinite(matrix).all() or scale < size / (_FARTHEST * max(width, height)):
        raise ValueError("the landmarks are not finite, coincide, or lie far outside the image")
    corners = (np.array([[0, 0], [size, 0], [0, size], [size, size]]) - 0.5 - matrix[:, 2]) @ matrix[:, :2] / scale**2
    x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 3, (width, height))
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise ValueError("the landmarks leave nothing of the image")
    seen: NDArray[Any] = pixels[y0:y1, x0:x1]
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ (x0, y0)
    if scale < 1:  # shrunk by area first, for warping alone would alias
        small = max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1)
        step = np.array([(x1 - x0) / small[0], (y1 - y0) / small[1]])
        seen = cv2.resize(seen, small, interpolation=cv2.INTER_AREA)
        local[:, 2] += local[:, :2] @ (0.5 * step - 0.5)
        local[:, :2] *= step
    warped = cv2.warpAffine(
        seen,
        local,
        (size, size),
        flags=cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return Crop(np.ascontiguousarray(warped, np.uint8), matrix, scale, float(np.arctan2(matrix[1, 0], matrix[0, 0])))


def _similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the [2, 3] similarity that brings points [N, 2] nearest to others, by complex least squares."""
    a, b = source @ (1, 1j), target @ (1, 1j)
    centred = a - a.mean()
    spread = float((np.abs(centred) ** 2).sum())
    turn = (np.conj(centred) * (b - b.mean())).sum() / spread if spread > 0 else complex(np.nan)
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def sharpness(face: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of a face [S, S, 3] in grey levels (Pech-Pacheco et al., ICPR 2000)."""
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


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
