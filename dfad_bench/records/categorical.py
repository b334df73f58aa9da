"""A column of strings as integers: what many rows repeat is kept once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Categorical:
    """N strings: ``values[code]``, or None where the code is −1.

    values: distinct and sorted; code [N] int32. Some values may have no row.
    """

    values: tuple[str, ...]
    code: NDArray[np.int32]

    @classmethod
    def of(cls, column: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> Categorical:
        """Return a column of strings, some of which may be null, as a Categorical."""
        array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(list(column), pa.string())
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        values: list[str] = encoded.dictionary.to_pylist()
        code = encoded.indices.fill_null(-1).to_numpy().astype(np.int32)
        rank = np.empty(len(values) + 1, np.int32)
        rank[-1] = -1  # which is where a null's code points
        order = sorted(range(len(values)), key=values.__getitem__)
        rank[order] = np.arange(len(values), dtype=np.int32)
        return cls(tuple(values[index] for index in order), rank[code])

    def __len__(self) -> int:
        """Return N."""
        return len(self.code)

    def take(self, rows: Rows) -> Categorical:
        """Return the given rows; the values, and so the codes, stay the same."""
        return Categorical(self.values, self.code[rows])

    def is_(self, value: str) -> NDArray[np.bool_]:
        """Return [N] whether each row has this value."""
        equal: NDArray[np.bool_] = self.code == (self.values.index(value) if value in self.values else -2)
        return equal

    def groups(self, rows: Rows, first: str) -> dict[str, Rows]:
        """Return the given rows by value, that of ``first`` first, then sorted; values without a row are absent."""
        code = self.code[rows]
        order = np.argsort(code, kind="stable")
        ends = np.cumsum(np.bincount(code, minlength=len(self.values)))
        parts = np.split(rows[order], ends[:-1]) if len(self.values) else []
        found = {value: part for value, part in zip(self.values, parts, strict=True) if len(part)}
        return dict(sorted(found.items(), key=lambda item: (item[0] != first, item[0])))

    def tolist(self) -> list[str | None]:
        """Return the N strings."""
        return [None if code < 0 else self.values[code] for code in self.code.tolist()]


def concatenated(parts: Iterable[NDArray[Any]]) -> Rows:
    """Return row numbers put one after the other, of no part too."""
    return np.concatenate([np.empty(0, np.intp), *parts])
