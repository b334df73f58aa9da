"""Tells strings apart by 64-bit hashes, so that millions of them need eight bytes each; whoever uses it checks the texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.int64]

_FEW = 1 << 20
"""Hashes that wait to be put among those known, so that these are sorted seldom."""


def hashes(texts: pa.Array) -> Hashes:
    """Return [N] hashes of strings without nulls: equal texts have equal ones, others nearly never.

    They are Python's own, which another process would not give again.
    """
    return np.fromiter(map(hash, texts.to_pylist()), np.int64, len(texts))


def once(numbers: Hashes) -> Hashes:
    """Return numbers in order, each once; ``np.unique``, which tells them by a hash table, takes a hundred times as long."""
    ordered = np.sort(numbers)
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def among(some: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Return [N] whether each of ``some`` is among ``known``, which must be sorted."""
    if not len(known):
        return np.zeros(len(some), dtype=bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, some), len(known) - 1)] == some
    return found


class DistinctHashes:
    """Collects hashes, each once."""

    def __init__(self) -> None:
        self._known: Hashes = np.empty(0, np.int64)
        self._new: list[Hashes] = []
        self._waiting = 0

    def add(self, some: Hashes) -> None:
        """Take in hashes, some of which may be known or occur twice."""
        self._new.append(some)
        self._waiting += len(some)
        if self._waiting > max(_FEW, len(self._known)):
            self.sorted()

    def sorted(self) -> Hashes:
        """Return the distinct hashes so far in order."""
        if self._new:
            self._known = once(np.concatenate([self._known, *self._new]))
            self._new, self._waiting = [], 0
        return self._known


class Repeats:
    """Collects the hashes of texts that should occur once each."""

    def __init__(self) -> None:
        self._all: list[Hashes] = []

    def add(self, texts: pa.Array) -> None:
        """Take in texts without nulls."""
        self._all.append(hashes(texts))

    def suspects(self) -> Hashes:
        """Return the hashes that occur more than once, sorted: of one text twice, or by chance of two."""
        every = np.concatenate([np.empty(0, np.int64), *self._all])
        self._all = [every]
        every.sort()
        return once(every[1:][every[1:] == every[:-1]])
