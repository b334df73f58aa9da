"""What the drawing modules share: soft masks of polygons and lines, and random textures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.prepare.demo_faces.geometry import Points

Raster = NDArray[Any]
"""float32 [H, W] or [H, W, 3]; colours are linear-light RGB."""

_SHIFT = 4


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)


def filled(shape: tuple[int, ...], *polygons: Points) -> Raster:
    """Return the coverage [H, W] in 0..1 of polygons [N, 2] in pixels, antialiased."""
    mask = np.zeros(shape[:2], np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [_fixed(polygon)], 255, cv2.LINE_AA, _SHIFT)
    return mask * np.float32(1 / 255)


def stroked(shape: tuple[int, ...], lines: Sequence[Points] | Points, thickness: int = 1) -> Raster:
    """Return the coverage [H, W] in 0..1 of open lines [N, 2] (or an array [L, N, 2] of them) in pixels, antialiased."""
    mask = np.zeros(shape[:2], np.uint8)
    fixed = list(_fixed(lines)) if isinstance(lines, np.ndarray) else [_fixed(line) for line in lines]
    cv2.polylines(mask, fixed, False, 255, thickness, cv2.LINE_AA, _SHIFT)
    return mask * np.float32(1 / 255)


def thrice(plane: Raster) -> Raster:
    """Return a plane [H, W] as three equal channels [H, W, 3]: far faster to multiply by than a broadcast."""
    return cv2.merge((plane, plane, plane))


def coloured(plane: Raster, colour: Sequence[float]) -> Raster:
    """Return a plane [H, W] times a colour, [H, W, 3]."""
    red, green, blue = (plane * np.float32(part) for part in colour)
    return cv2.merge((red, green, blue))


def _touched(cover: Raster) -> tuple[slice, slice]:
    """Return the rows and columns outside which ``cover`` [H, W] is zero."""
    x, y, width, height = cv2.boundingRect((cover > 0).astype(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def paint(image: Raster, colour: Raster | Sequence[float], cover: Raster) -> None:
    """Lay a colour (three numbers or [H, W, 3]) over an image [H, W, 3], in place, as far as ``cover`` [H, W] says."""
    window = _touched(cover)
    part, cover = image[window], np.ascontiguousarray(cover[window])
    if not cover.size:
        return
    part *= thrice(1 - cover)
    part += colour[window] * thrice(cover) if isinstance(colour, np.ndarray) else coloured(cover, colour)


def tint(image: Raster, factor: Sequence[float], cover: Raster) -> None:
    """Multiply an image [H, W, 3] by a factor per channel, in place, as far as ``cover`` [H, W] says."""
    window = _touched(cover)
    if cover[window].size:
        image[window] *= 1 - coloured(cover[window], [1 - gain for gain in factor])


def soften(image: Raster, sigma: float) -> Raster:
    """Return the image blurred by a Gaussian of standard deviation ``sigma`` pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def smoothstep(low: float, high: float, values: Raster) -> Raster:
    """Return 0 below ``low``, 1 above ``high``, and a smooth way between (either order)."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    result: Raster = t * t * (3 - 2 * t)
    return result


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Raster:
    """Return independent values of zero mean and unit variance [H, W]; evenly spread, which is quick to draw."""
    values: Raster = (rng.random(shape[:2], dtype=np.float32) - np.float32(0.5)) * np.float32(12**0.5)
    return values


def cloudy(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> Raster:
    """Return noise [H, W] of about unit variance whose blobs are ``grain`` pixels wide."""
    rows, columns = int(shape[0] / grain) + 3, int(shape[1] / grain) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    size = (int(columns * grain) + 1, int(rows * grain) + 1)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[: shape[0], : shape[1]] * np.float32(1.4)
