"""Turns the bytes of an image file into upright RGB pixels and what its header says, or into a reason why not."""

from __future__ import annotations

import hashlib
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
# Table K.2, likewise.
_CHROMINANCE = np.full(64, 99)
_CHROMINANCE[[0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 24, 25]] = [17, 18, 24, 47, 18, 21, 26, 66, 24, 26, 56, 47, 66]
_QUALITIES = np.arange(1, 101)
_SCALES = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_LUMINANCE_TABLES, _CHROMINANCE_TABLES = (
    np.clip((table * _SCALES[:, None] + 50) // 100, 1, 255) for table in (_LUMINANCE, _CHROMINANCE)
)


class SkippedInput(Exception):
    """An input that cannot become a face: ``reason`` is one word for the ledger, ``detail`` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class JpegCoding:
    """How a JPEG was coded: quality and chroma_quality 1..100 (chroma None for grey), subsampling as ``4:2:0`` or None
    for grey, tables: 16 hexadecimal digits that are equal where the quantisation tables are."""

    quality: int
    chroma_quality: int | None
    subsampling: str | None
    tables: str


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """pixels [H, W, 3] uint8 RGB, upright, ``reduction`` (1, 2, 4 or 8) times smaller than the original.

    width, height: of the upright original; format as the file's header says, or the codec of a video; frame: its number
    within its video, where only the decoder knows it.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    reduction: int = 1
    jpeg: JpegCoding | None = None
    frame: int | None = None


_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file whose header has been read and found sound, and whose pixels have not been decoded.

    width, height: of a JPEG as it stands upright, of other formats as the header says.
    """

    data: bytes
    format: str
    width: int
    height: int
    jpeg: JpegCoding | None

    def decode(self, reduction: int = 1) -> DecodedImage:
        """Decode to upright 8-bit RGB; alpha is dropped. A JPEG is decoded at 1/reduction of its size, other formats whole.

        Raises SkippedInput with reason ``undecodable``.
        """
        reduction = reduction if self.jpeg is not None else 1
        try:
            pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), _REDUCED[reduction])
        except cv2.error as error:
            raise SkippedInput("undecodable", f"OpenCV: {error}") from None
        if pixels is None:
            raise SkippedInput("undecodable", f"OpenCV cannot decode this {self.format} file")
        if reduction > 1:  # OpenCV's flags for reduced scale have no RGB variant
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        if reduction == 1:  # in other formats than JPEG too, OpenCV may have turned the picture by its EXIF
            height, width = pixels.shape[:2]
        else:
            height, width = self.height, self.width
        return DecodedImage(pixels.astype(np.uint8, copy=False), self.format, width, height, reduction, self.jpeg)


def read_header(data: bytes) -> EncodedImage:
    """Check an image file of any format OpenCV reads, without decoding it unless its end looks cut off.

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
        jpeg = jpeg_coding(header) if image_format == "JPEG" else None
        if jpeg is not None and _is_turned(header):
            width, height = height, width
    return EncodedImage(data, image_format, width, height, jpeg)


_ORIENTATION = 0x0112


def _is_turned(image: Image.Image) -> bool:
    """Return whether the EXIF orientation swaps width and height; broken EXIF turns nothing, as in OpenCV."""
    try:
        return image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except _BROKEN:
        return False


def decode(data: bytes, reduction: int = 1) -> DecodedImage:
    """Decode an image file: ``read_header`` and ``EncodedImage.decode`` in one, raising what they raise."""
    return read_header(data).decode(reduction)


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


def jpeg_coding(image: Image.Image) -> JpegCoding | None:
    """Return how a JPEG was coded, from its header: libjpeg's qualities with the nearest tables; None without tables."""
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    if not tables:
        return None
    ordered = [np.asarray(tables[key]) for key in sorted(tables)]
    digest = hashlib.sha256(b"".join(table.astype(np.uint16).tobytes() for table in ordered)).hexdigest()[:16]
    chroma = ordered[1] if len(ordered) > 1 else None
    return JpegCoding(
        quality=_nearest_quality(ordered[0], _LUMINANCE_TABLES),
        chroma_quality=None if chroma is None else _nearest_quality(chroma, _CHROMINANCE_TABLES),
        subsampling=_subsampling(image),
        tables=digest,
    )


def _nearest_quality(table: NDArray[np.int64], of_quality: NDArray[np.int64]) -> int:
    return int(_QUALITIES[np.abs(of_quality - table).sum(axis=1).argmin()])


def _subsampling(image: Image.Image) -> str | None:
    """Return J:a:b from the sampling factors in the frame header (ITU-T T.81, B.2.2), None for one component."""
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    if len(layers) < 3:
        return None
    (_, h, v, _), (_, h_chroma, v_chroma, _) = layers[:2]
    across, down = h // max(h_chroma, 1), v // max(v_chroma, 1)
    names = {(1, 1): "4:4:4", (1, 2): "4:4:0", (2, 1): "4:2:2", (2, 2): "4:2:0", (4, 1): "4:1:1", (4, 2): "4:1:0"}
    return names.get((across, down), f"{across}x{down}")
