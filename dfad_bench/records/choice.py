"""Chooses the faces of one split of a protocol while all faces pass by once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dfad_bench.errors import DataError, shorten
from dfad_bench.records.categorical import Categorical
from dfad_bench.records.distinct import once
from dfad_bench.records.face_stream import FaceStream, Rows
from dfad_bench.records.protocol import Split, Where
from dfad_bench.records.row_checks import Labels
from dfad_bench.records.sampling import HashSample, order_keys


class Choice:
    """The faces of a split: those that match, at most so many of each generator by hash order.

    name: the split's, for messages. limit: the most faces of a generator that ``limited`` leaves, None for all.
    """

    def __init__(self, name: str, split: Split, limit: int | None) -> None:
        self._name, self._split, self._limit = name, split, limit
        self._most = split.per_generator or limit
        """So many of each generator have to be known in hash order; None where their order does not matter."""
        self._matching: list[Rows] = []
        self._samples: dict[str, HashSample] = {}
        self._found = _Found(split.where)
        self._alternatives = [_Found(where) for where in split.any_of]
        self.generators: set[str] = set()

    @property
    def columns(self) -> set[str]:
        """The columns that decide which faces match."""
        return {column for where in self._split.conditions for column in where}

    @property
    def is_sampled(self) -> bool:
        """Whether ``add`` needs the keys of the faces that match."""
        return self._most is not None

    def matching(self, labels: Mapping[str, Categorical]) -> NDArray[np.intp]:
        """Return which of some faces, given their labels by column, match; what they have is noted."""
        mask = self._found.among(labels)
        if self._alternatives:
            masks = [mask & each.among(labels) for each in self._alternatives]
            mask = np.logical_or.reduce(masks)
            for each, matched in zip(self._alternatives, masks, strict=True):
                each.note(labels, matched)
        self._found.note(labels, mask)
        return np.flatnonzero(mask)

    def add(
        self, start: int, matched: NDArray[np.intp], generator: Categorical, keys: NDArray[np.uint64] | None
    ) -> None:
        """Take in the faces that matched, among those that follow row ``start``; keys [len(matched), 4]."""
        of = generator.code[matched]
        codes = np.flatnonzero(np.bincount(of))
        self.generators |= {generator.values[code] for code in codes}
        rows = matched + start
        if self._split.per_generator is None:
            self._matching.append(rows)
        if keys is not None and self._most is not None:
            for code in codes:
                here = of == code
                sampled = self._samples.setdefault(generator.values[code], HashSample(self._most))
                sampled.add(keys[here], rows[here])

    def refuse_absent(self) -> None:
        """With all faces seen, raise DataError where none matches, or none has a value that the split names."""
        if not self.generators:
            told = " or ".join(map(_told, self._split.any_of or [self._split.where]))
            raise DataError(f"{self._name}: no face matches {told}.")
        if self._name != "val":  # a small generator may leave val empty, which changes no score
            for each in (self._found, *self._alternatives):
                each.refuse_absent(self._name)

    def chosen(self) -> Rows:
        """Return the rows of the split's faces, ascending."""
        if self._split.per_generator is None:
            return np.concatenate([np.empty(0, np.int64), *self._matching])
        return self._first(self._split.per_generator)

    def limited(self) -> Rows:
        """Return the rows of those faces that the limit leaves, ascending."""
        if self._limit is None:
            return self.chosen()
        return self._first(min(self._limit, self._split.per_generator or self._limit))

    def _first(self, most: int) -> Rows:
        return np.sort(np.concatenate([np.empty(0, np.int64), *(each.first(most) for each in self._samples.values())]))


class _Found:
    """One condition of a split, and which of the values that it names were found on a face."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._seen: dict[str, set[str]] = {column: set() for column in where}

    def among(self, labels: Mapping[str, Categorical]) -> NDArray[np.bool_]:
        """Return [N] whether each face meets the condition; a null never does."""
        mask = np.ones(len(next(iter(labels.values()))), dtype=bool)
        for column, values in self._where.items():
            accepted = np.asarray([each in values for each in labels[column].values] + [False])
            mask &= accepted[labels[column].code]  # a null's code is −1, the last
        return mask

    def note(self, labels: Mapping[str, Categorical], mask: NDArray[np.bool_]) -> None:
        """Remember the values of the faces in the mask."""
        for column, seen in self._seen.items():
            counts = np.bincount(labels[column].code[mask] + 1)  # a null's code is −1
            seen |= {labels[column].values[code] for code in np.flatnonzero(counts[1:])}

    def refuse_absent(self, split: str) -> None:
        """Refuse values that no face found by the condition has: a misspelt one would select less, unnoticed."""
        for column, values in self._where.items():
            absent = sorted(set(values) - self._seen[column])
            if absent:
                raise DataError(
                    f"{split}: no face with {column} {shorten(absent)} matches {_told(self._where)}. "
                    "Check the names with 'dfad-bench audit', or prepare the source that has them."
                )


def _told(where: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{column} in [{shorten(values)}]" for column, values in where.items()) or "any face"


def choose(choices: Sequence[Choice], faces: FaceStream, seed: int) -> Labels:
    """Show all faces to the choices of a protocol once; return the labels that they have."""
    labels = Labels()
    columns = sorted({"id", "generator", "family", "forgery_type"}.union(*(each.columns for each in choices)))
    for start, batch in faces.read(columns):
        labels.add(batch)
        encoded = {name: Categorical.of(batch[name]) for name in columns if name != "id"}
        matched = [each.matching(encoded) for each in choices]
        keys = _keys_of([rows for each, rows in zip(choices, matched, strict=True) if each.is_sampled], batch, seed)
        for each, rows in zip(choices, matched, strict=True):
            if len(rows):
                each.add(start, rows, encoded["generator"], keys[rows] if each.is_sampled else None)
    return labels


def _keys_of(sampled: Sequence[NDArray[np.intp]], batch: pa.RecordBatch, seed: int) -> NDArray[np.uint64]:
    """Return [N, 4] the keys of a batch's rows, computed only for those that are sampled."""
    keys = np.zeros((batch.num_rows, 4), np.uint64)
    rows = once(np.concatenate([np.empty(0, np.intp), *sampled]))
    if len(rows):
        keys[rows] = order_keys(seed, batch["id"].take(pa.array(rows)).to_pylist())
    return keys
