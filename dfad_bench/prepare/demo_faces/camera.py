"""The camera that pristine demo faces pass: optics, Bayer sensor with noise, demosaicing, tone curve, JPEG."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError
from dfad_bench.prepare.demo_faces.canvas import Raster, soften
from dfad_bench.prepare.demo_faces.draws import stream
from dfad_bench.prepare.demo_faces.scene import Photo

Pixels = NDArray[Any]
"""uint8 or float32 [H, W, 3] RGB in 0..255 with the sRGB tone curve."""

QUALITIES = (80, 97)
"""JPEG qualities are drawn evenly between these, whoever made the face."""

_FULL = 4095
_READ_NOISE = 0.0015
_GAINS = (0.55, 1.0, 0.68)
"""How much red, green and blue light a photosite sees; the white balance multiplies it back, and the noise with it."""


def _tone_curve() -> NDArray[np.float32]:
    linear = np.arange(_FULL + 1) / _FULL
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return (255 * curve).astype(np.float32)


_SRGB = _tone_curve()


_LEVELS = np.arange(_FULL + 1)
_BALANCED = [np.round(_SRGB[np.minimum(_LEVELS / gain, _FULL).astype(int)]).astype(np.uint8) for gain in _GAINS]
"""White balance and tone curve of red, green and blue in one: from the sensor's level to the picture's byte."""


def develop(linear: Raster) -> Pixels:
    """Return linear light [H, W, 3] in 0..1 with the sRGB tone curve, float32 in 0..255."""
    return _SRGB[(linear * np.float32(_FULL) + np.float32(0.5)).astype(np.uint16)]


def photograph(linear: Raster, photo: Photo) -> Pixels:
    """Return the uint8 picture [H, W, 3] that a camera takes of linear light [H, W, 3] in 0..1.

    The noise of a photosite has the variance ``photo.noise`` × signal (shot noise) plus a constant (read noise), as in
    Foi et al., IEEE TIP 2008; demosaicing then spreads it over its neighbours.
    """
    blurred = soften(linear, photo.blur)
    mosaic = np.empty(linear.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = blurred[row::2, column::2, channel] * np.float32(_GAINS[channel])
    noise = stream(photo.name, "sensor").standard_normal(mosaic.shape, dtype=np.float32)
    mosaic += noise * np.sqrt(np.float32(photo.noise) * mosaic + np.float32(_READ_NOISE**2))
    levels = np.clip(mosaic * np.float32(_FULL) + np.float32(0.5), 0, _FULL).astype(np.uint16)
    # OpenCV names a Bayer pattern by its second row, so red first is "BG".
    raw = cv2.demosaicing(levels, cv2.COLOR_BayerBG2RGB)
    picture: Pixels = cv2.merge([curve[raw[..., channel]] for channel, curve in enumerate(_BALANCED)])
    return picture


def to_bytes(pixels: Pixels) -> Pixels:
    """Return float32 0..255 as uint8."""
    return np.clip(pixels + np.float32(0.5), 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int) -> bytes:
    """Return uint8 RGB [H, W, 3] as a JPEG file with 4:2:0 colour, whoever made the face."""
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)
    if not ok:
        raise DataError("OpenCV cannot encode a JPEG; its build lacks the codec. Reinstall opencv-python.")
    return bytes(data)
