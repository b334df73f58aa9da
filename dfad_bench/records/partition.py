"""A protocol's own split: whole groups of faces that share people or videos fall into one part by hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dfad_bench.records.distinct import once
from dfad_bench.records.face_stream import FaceStream
from dfad_bench.records.protocol import Partition
from dfad_bench.records.sampling import assign

_AT_ONCE = 1 << 20
"""Faces whose members are looked up among those known at a time; each time the known ones are hashed anew."""

_TEXTS_AT_ONCE = 16_384

_GROUPED = -1
"""In the place of a part: the face falls where its members do."""


def partitioned(rule: Partition | None, faces: FaceStream, seed: int) -> FaceStream:
    """Return the faces with the part that each falls into.

    Faces are in one group where they share any member, an identity or a video, over any number of steps; a face without
    members is a group of its own. The hash of the smallest member decides, so that the order of faces does not matter.
    Memory holds each member's text once, and a few numbers per face.
    """
    if rule is None:
        return faces
    members = _Members()
    parts, first = [np.empty(0, np.int8)], [np.empty(0, np.int64)]
    for table in _portions(faces):
        row, text = _members(table, rule.by)
        owners, firsts = members.add(row, text)
        first.append(firsts)
        part = np.full(table.num_rows, _GROUPED, np.int8)
        alone = np.setdiff1d(np.arange(table.num_rows), owners, assume_unique=True)
        part[alone] = assign((f"id {each}" for each in _texts(table["id"], alone)), seed, rule.fractions)
        parts.append(part)
    of_all, of_member = np.concatenate(parts), members.parts(seed, rule.fractions)
    of_all[of_all == _GROUPED] = of_member[np.concatenate(first)]
    return replace(faces, part=of_all, parts=tuple(rule.fractions))


def _portions(faces: FaceStream) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for _, batch in faces.read(["id", "identities", "video"]):
        waiting.append(batch)
        if sum(each.num_rows for each in waiting) >= _AT_ONCE:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _members(table: pa.Table, by: Sequence[str]) -> tuple[NDArray[np.int64], pa.Array]:
    """Return of each member of each face the number of the face, ascending, and its text; kinds are told apart by a word."""
    rows, texts = [np.empty(0, np.int64)], [pa.array([], pa.string())]
    if "identities" in by:
        people = table["identities"].combine_chunks()
        rows.append(pc.list_parent_indices(people).to_numpy())
        texts.append(pc.binary_join_element_wise("identity ", people.flatten(), ""))
    if "video" in by:
        video = table["video"].combine_chunks()
        rows.append(np.flatnonzero(video.is_valid().to_numpy(zero_copy_only=False)))
        texts.append(pc.binary_join_element_wise("video ", video.drop_null(), ""))
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], pa.concat_arrays(texts).take(pa.array(order))


class _Members:
    """All members, each with a number, and which of them one face ties together."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.string())
        self._ties = [np.empty(0, np.int64)]

    def add(self, row: NDArray[np.int64], text: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take in members by the faces [ascending] that they belong to; return these faces and the first member of each."""
        distinct = pc.unique(text)
        self._known = pa.concat_arrays([self._known, distinct.filter(pc.invert(pc.is_in(distinct, self._known)))])
        code = pc.index_in(text, self._known).to_numpy().astype(np.int64)
        owners, begins, counts = np.unique(row, return_index=True, return_counts=True)
        firsts = code[begins]
        tied = np.repeat(firsts, counts)
        different = tied != code
        self._ties.append(once(tied[different] << 32 | code[different]))  # two numbers in one
        return owners, firsts

    def parts(self, seed: int, fractions: Mapping[str, float]) -> NDArray[np.int8]:
        """Return for each member the part into which its group falls."""
        ties, size = once(np.concatenate(self._ties)), len(self._known)
        matrix = coo_array((np.ones(len(ties), dtype=bool), (ties >> 32, ties & 0xFFFFFFFF)), shape=(size, size))
        group = connected_components(matrix, directed=False)[1]
        order = pc.array_sort_indices(self._known).to_numpy()
        _, smallest = np.unique(group[order], return_index=True)
        return assign(_texts(self._known, order[smallest]), seed, fractions)[group]


def _texts(cells: pa.Array | pa.ChunkedArray, rows: NDArray[np.int64]) -> Iterator[str]:
    """Yield the texts of some rows; never are all of them Python's objects at once."""
    for start in range(0, len(rows), _TEXTS_AT_ONCE):
        yield from cells.take(pa.array(rows[start : start + _TEXTS_AT_ONCE])).to_pylist()
