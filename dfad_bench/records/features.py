"""Gaze features beside a table: one float32 row per face, in the table's order, as safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dfad_bench.errors import DataError
from dfad_bench.records.manifest import FEATURES

KEY = "gaze_features"


class FeaturesWriter:
    """Writes [rows, width] float32 as it comes, row block by row block; the file takes its name only when complete.

    The header of safetensors holds the shape, so the number of rows must be known; ``safetensors.save_file`` would need
    all of them in memory.
    """

    def __init__(self, root: Path, rows: int, width: int, name: str = FEATURES) -> None:
        self._path, self._rows, self._width = root / name, rows, width
        self._temporary = root / f".{name}.part"
        self._written = 0

    def __enter__(self) -> FeaturesWriter:
        size = 4 * self._rows * self._width
        tensor = {"dtype": "F32", "shape": [self._rows, self._width], "data_offsets": [0, size]}
        header = json.dumps({KEY: tensor}).encode()
        header += b" " * (-len(header) % 8)  # so that the data are aligned
        self._file = self._temporary.open("wb")
        self._file.write(struct.pack("<Q", len(header)) + header)
        return self

    def add(self, rows: NDArray[np.float32]) -> None:
        """Append rows [n, width]."""
        if rows.shape[1:] != (self._width,) or rows.dtype != np.float32:
            raise ValueError(f"expected rows [n, {self._width}] float32, got {rows.shape} {rows.dtype}")
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
        self._written += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._written == self._rows:
            self._temporary.replace(self._path)
            return
        self._temporary.unlink(missing_ok=True)
        if kind is None:
            raise ValueError(f"{self._written} rows were written where {self._rows} were promised")


def read_features(root: Path, name: str = FEATURES) -> NDArray[np.float32]:
    """Return the gaze features [N, D] of the faces of the table they lie beside, in its order; NaN where a face has none.

    Raises DataError where the file is missing or is none of ours.
    """
    with _opened(root / name) as file:
        features: NDArray[np.float32] = file.get_tensor(KEY)
        return features


def features_shape(root: Path, name: str = FEATURES) -> tuple[int, ...]:
    """Return the shape of the gaze features, reading none; raises as ``read_features`` does."""
    with _opened(root / name) as file:
        return tuple(file.get_slice(KEY).get_shape())


_BLOCK = 8192


def keep_features(root: Path, keep: NDArray[np.bool_], name: str = FEATURES) -> None:
    """Rewrite the gaze features beside a table with the rows where ``keep`` [N] is true; raises as ``read_features`` does."""
    rows, width = features_shape(root, name)
    if rows != len(keep):
        raise DataError(f"{root / name} has {rows} rows where the table has {len(keep)}. Prepare the source again.")
    with FeaturesWriter(root, int(keep.sum()), width, name) as kept:
        for start, block in _blocks(root, name, rows):
            kept.add(block[keep[start : start + len(block)]])


def _blocks(root: Path, name: str, rows: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    with _opened(root / name) as file:
        features = file.get_slice(KEY)
        for start in range(0, rows, _BLOCK):
            yield start, features[start : min(start + _BLOCK, rows)]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise DataError(f"{path.parent} has no {path.name}: prepare it with a gaze estimator that gives features.")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as gaze features: {error}. Prepare the source again.") from None
