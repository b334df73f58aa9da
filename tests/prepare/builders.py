"""Builds small image trees, tables and jobs whose pixels depend on a number alone."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfad_bench.engines.local import LocalEngine
from dfad_bench.interfaces import Engine
from dfad_bench.prepare.faces import CropRecipe
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.pipeline import Report, prepare
from dfad_bench.prepare.plan import Job, plan
from dfad_bench.types import Defect

SIZE = 32
DATASET = {"real": 5, "stylegan3": 4, "simswap": 3}
"""Generators of the small dataset, and how many images each has."""


def pixels(seed: int, width: int = 48, height: int = 48) -> NDArray[np.uint8]:
    """A smooth coloured picture [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(picture: NDArray[np.uint8] | Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose data is empty."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def folder_tree(root: Path, counts: Mapping[str, int] = DATASET, suffix: str = ".jpg") -> Path:
    """A folder per generator with that many images: JPEG, or PNG by suffix."""
    for offset, (generator, count) in enumerate(counts.items()):
        for number in range(count):
            picture = pixels(1000 * offset + number)
            data = encoded(picture, "PNG") if suffix == ".png" else encoded(picture, "JPEG", quality=90)
            write(root / generator / f"{number:04d}{suffix}", data)
    return root


def images(root: Path, count: int, suffix: str = ".png") -> list[str]:
    """Write numbered images below ``root/img`` and return their relative paths."""
    names = [f"img/{number:04d}{suffix}" for number in range(count)]
    for number, name in enumerate(names):
        write(root / name, encoded(pixels(number), "PNG" if suffix == ".png" else "JPEG"))
    return names


def json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def job(
    root: Path,
    data: Path,
    plugin: str = "folder",
    *,
    settings: Sequence[str] = (),
    detector: str = "whole_image",
    margin: float = 1.0,
    size: int = SIZE,
    limit: int | None = None,
    engine: Engine | None = None,
) -> Job:
    recipe = CropRecipe(detector, "annotated", margin, size)
    return Job("faces", plugin, build_source(plugin, settings), root, data, recipe, limit, engine or LocalEngine())


def no_defect(defect: Defect) -> None:
    """What a sound dataset tells its defects to."""
    raise AssertionError(f"{defect.kind}: {defect.detail}")


def run(what: Job, **options: Any) -> Report:
    return prepare(what, plan(what), **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder by relative path, the preparation's own state apart."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        name: path.read_bytes()
        for path in sorted(files)
        if not (name := path.relative_to(folder).as_posix()).startswith(".prepare/")
    }


def times(folder: Path) -> dict[str, int]:
    """The modification time of every file, the lock apart."""
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def rows(folder: Path, file: str = "metadata.parquet") -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(folder / file).to_pylist()


def face(folder: Path, file_name: str) -> NDArray[np.uint8]:
    read = cv2.imread(str(folder / file_name), cv2.IMREAD_COLOR_RGB)
    assert read is not None
    return np.asarray(read, np.uint8)


DETECTOR = '''
"""Finds the centred square, slowly, and no face where the picture is dark."""
import time
from dfad_bench.types import Detection

class Slow:
    default_margin = 1.0
    weights_sha256 = None

    def detect(self, images, annotations):
        time.sleep({seconds} * len(images))
        return [
            [] if image.max() < 10 else [Detection((4, 4, image.shape[1] - 4, image.shape[0] - 4), 0.5)]
            for image in images
        ]

FACE_DETECTOR = Slow
'''


def detector_file(path: Path, seconds: float = 0.0) -> str:
    return str(write(path, DETECTOR.format(seconds=seconds).encode()))
