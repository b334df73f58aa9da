"""Reads a manifest's images back, and says what is wrong with one that is not as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.prepare.faces import pixel_sha256
from dfad_bench.records.face_files import read_file
from dfad_bench.records.gaze import CROP_FLAGS

MISSING, UNREADABLE, CHANGED = CROP_FLAGS


@dataclass(frozen=True, slots=True)
class Unsound:
    """Why an image cannot be used: one of ``records.gaze.CROP_FLAGS``, and a sentence."""

    flag: str
    detail: str


def read_png(root: Path, file_name: str) -> NDArray[np.uint8] | Unsound:
    """Return the RGB pixels [H, W, 3] of a manifest's file, or what is wrong with it."""
    data = _read(root, file_name)
    return data if isinstance(data, Unsound) else _decoded(data, file_name)


def read_crop(root: Path, file_name: str, sha256: str) -> NDArray[np.uint8] | Unsound:
    """Return the crop [S, S, 3] RGB that a manifest's row names, if its pixels are those that the row was hashed from."""
    pixels = read_png(root, file_name)
    return pixels if isinstance(pixels, Unsound) else _unchanged(pixels, file_name, sha256)


def read_sound(root: Path, file_name: str, sha256: str | None) -> bytes | Unsound:
    """Return the bytes of a crop whose pixels are those that its row was hashed from, or of a gaze map, which has no hash."""
    data = _read(root, file_name)
    if isinstance(data, Unsound):
        return data
    pixels = _decoded(data, file_name)
    if sha256 is not None and not isinstance(pixels, Unsound):
        pixels = _unchanged(pixels, file_name, sha256)
    return pixels if isinstance(pixels, Unsound) else data


def _read(root: Path, file_name: str) -> bytes | Unsound:
    try:
        return read_file(root, file_name)
    except FileNotFoundError:
        return Unsound(MISSING, f"{file_name} is missing")
    except OSError as error:
        return Unsound(UNREADABLE, f"{file_name} cannot be read ({error.strerror})")


def _decoded(data: bytes, file_name: str) -> NDArray[np.uint8] | Unsound:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if pixels is None:
        return Unsound(UNREADABLE, f"{file_name} is no readable image")
    return pixels.astype(np.uint8, copy=False)


def _unchanged(pixels: NDArray[np.uint8], file_name: str, sha256: str) -> NDArray[np.uint8] | Unsound:
    return pixels if pixel_sha256(pixels) == sha256 else Unsound(CHANGED, f"{file_name} holds other pixels")
