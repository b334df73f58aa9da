"""Turns the bytes of an image file into upright RGB pixels and what its header says, or into a reason why not."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a header may promise more memory than the machine has."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
"""What OpenCV reads too. Without this list Pillow would try all it knows, and hand an EPS to Ghostscript to be run."""

_BROKEN = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, IndexError, struct.error)
"""What Pillow's plugins raise on broken files."""

_END_OF_FILE = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}

# ITU-T T.81, table K.1, in natural order: what every quality setting of libjpeg scales.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
_QUALITIES = np.arange(1, 101)
_SCALES = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_TABLES = np.clip((_LUMINANCE * _SCALES[:, None] + 50) // 100, 1, 255)


class SkippedInput(Exception):
    """An input that cannot become a face: ``reason`` is one word for the ledger, ``detail`` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """pixels [H, W, 3] uint8 RGB, upright; format as the file's header says; jpeg_quality 1..100 or None."""

    pixels: NDArray[np.uint8]
    format: str
    jpeg_quality: int | None


def decode(data: bytes) -> DecodedImage:
    """Decode an image file of any format OpenCV reads; alpha is dropped, EXIF orientation applied, 16 bits become 8.

    Raises SkippedInput with reason ``empty_file``, ``not_an_image``, ``too_large``, ``truncated`` or ``undecodable``.
    """
    if not data:
        raise SkippedInput("empty_file", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of odd tags, which do not concern the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            header = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise SkippedInput("not_an_image", "its first bytes are of no image format we read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SkippedInput("too_large", str(error)) from None
    except _BROKEN as error:
        raise SkippedInput("undecodable", f"its header is broken: {error}") from None
    with header:
        width, height = header.size
        if width * height > MAX_PIXELS:
            raise SkippedInput("too_large", f"{width}x{height} px is more than {MAX_PIXELS} pixels")
        image_format = "JPEG" if header.format == "MPO" else str(header.format)
        if not data.rstrip(b"\0").endswith(_END_OF_FILE.get(image_format, b"")) or image_format not in _END_OF_FILE:
            _refuse_truncated(header)
            if image_format == "JPEG" and not _jpeg_ends(data):
                raise SkippedInput("truncated", "no end-of-image marker follows its first scan")
        quality = jpeg_quality(header) if image_format == "JPEG" else None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise SkippedInput("undecodable", f"OpenCV: {error}") from None
    if pixels is None:
        raise SkippedInput("undecodable", f"OpenCV cannot decode this {image_format} file")
    return DecodedImage(pixels.astype(np.uint8, copy=False), image_format, quality)


def _refuse_truncated(image: Image.Image) -> None:
    """Decode strictly where the file does not end as its format demands: OpenCV fills what is missing with grey."""
    try:
        image.load()
    except _BROKEN as error:
        raise SkippedInput("truncated", str(error)) from None


def _jpeg_ends(data: bytes) -> bool:
    """Return whether an end-of-image marker follows the first scan; zeros put in its place decode without complaint."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] not in (b"\xda", b""):
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(_END_OF_FILE["JPEG"], position) >= 0


def jpeg_quality(image: Image.Image) -> int | None:
    """Return the libjpeg quality (1..100) whose luminance table is nearest to the file's, or None without tables."""
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    if not tables:
        return None
    luminance = np.asarray(tables[min(tables)])
    return int(_QUALITIES[np.abs(_TABLES - luminance).sum(axis=1).argmin()])
