"""Finds what stands on both sides of a split: a person, a video, or the same pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import pyarrow as pa

KINDS = {"identities": "identity", "video": "video", "sha256": "pixel hash"}
"""The manifest columns that must not be shared between splits, with the word for a message."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Values of one column that occur in two splits: their number, and the first few in order."""

    column: str
    first: str
    second: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        kind = KINDS[self.column]
        return f"{self.count} shared by {self.first} and {self.second} by {kind}, such as {', '.join(self.examples)}"


def find_overlaps(splits: Mapping[str, pa.Table]) -> list[Overlap]:
    """Return every overlap between two of the given tables, which need the columns of KINDS; nulls never match."""
    found = []
    for column in KINDS:
        values = {name: set(_values(table, column)) for name, table in splits.items()}
        for first, second in combinations(values, 2):
            shared = values[first] & values[second]
            if shared:
                found.append(Overlap(column, first, second, len(shared), tuple(sorted(shared)[:3])))
    return found


def _values(table: pa.Table, column: str) -> Iterator[str]:
    cells = table[column]
    if pa.types.is_list(cells.type):
        cells = cells.combine_chunks().flatten() if isinstance(cells, pa.ChunkedArray) else cells.flatten()
    return (value for value in cells.unique().to_pylist() if value is not None)
