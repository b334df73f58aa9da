"""Finds what stands on both sides of a split: a person, a video, or the same pixels."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from dfad_bench.records.distinct import DistinctHashes, Hashes, among, hashes, once

KINDS = {"identities": "identity", "video": "video", "sha256": "pixel hash"}
"""The manifest columns that must not be shared between splits, with the word for a message."""

ReadSplits = Callable[[Sequence[str]], Iterable[tuple[str, pa.RecordBatch]]]
"""Given columns, yields the name of a split and some of its rows until all splits are told; it can be called again."""

_EXAMPLES = 3
_MOST_RESOLVED = 1_000_000
"""Values whose text is compared at a time; more of them are resolved in several readings, so that memory stays bounded."""


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

    def read(columns: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for name, table in splits.items():
            for batch in table.select(list(columns)).to_batches():
                yield name, batch

    return overlaps_between(list(splits), read)


def overlaps_between(names: Sequence[str], read: ReadSplits, columns: Sequence[str] = tuple(KINDS)) -> list[Overlap]:
    """Return every overlap between two of the named splits in these columns of KINDS; nulls never match.

    The rows are read once, and eight bytes are kept of each distinct value; only columns in which two values have one
    hash are read again, to compare their texts.
    """
    seen = {column: {name: DistinctHashes() for name in names} for column in columns}
    for name, batch in read(columns) if columns else ():
        for column in columns:
            seen[column][name].add(hashes(_values(batch[column])))
    found = []
    for column in columns:
        pairs = combinations([each.sorted() for each in seen[column].values()], 2)
        shared = [np.intersect1d(first, second, assume_unique=True) for first, second in pairs]
        suspects = once(np.concatenate([np.empty(0, np.int64), *shared]))
        if len(suspects):
            found += _resolved(column, names, read, suspects)
    return found


def _resolved(column: str, names: Sequence[str], read: ReadSplits, suspects: Hashes) -> list[Overlap]:
    """Return the overlaps of one column among the values that have one of these hashes, by comparing the values."""
    pairs = list(combinations(names, 2))
    count, examples = dict.fromkeys(pairs, 0), {pair: list[str]() for pair in pairs}
    for part in np.array_split(suspects, -(-len(suspects) // _MOST_RESOLVED)):
        values: dict[str, set[str]] = {name: set() for name in names}
        for name, batch in read([column]):
            cells = _values(batch[column])
            values[name].update(cells.filter(pa.array(among(hashes(cells), part))).to_pylist())
        for pair in pairs:
            shared = values[pair[0]] & values[pair[1]]
            count[pair] += len(shared)
            examples[pair] = heapq.nsmallest(_EXAMPLES, [*examples[pair], *shared])
    return [Overlap(column, *pair, count[pair], tuple(examples[pair])) for pair in pairs if count[pair]]


def _values(cells: pa.Array) -> pa.Array:
    return (cells.flatten() if pa.types.is_list(cells.type) else cells).drop_null()
