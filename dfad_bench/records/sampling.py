"""Choosing by hash: the same faces on every machine, whatever was prepared beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray


def order_key(seed: int, name: str) -> str:
    """Return the hexadecimal sha256 of ``seed:name``, by which faces are ordered before a subset is taken."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def order_keys(seed: int, names: Iterable[str]) -> NDArray[np.uint64]:
    """Return [N, 4]: of each name the sha256 of ``order_key`` as four numbers, the most significant first."""
    new, before = hashlib.sha256, f"{seed}:".encode()
    digests = b"".join([new(before + name.encode()).digest() for name in names])
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 4)


def sample(ids: Sequence[str], seed: int, most: int) -> NDArray[np.int64]:
    """Return the indices (ascending) of the ``most`` ids that come first in hash order; all when there are fewer."""
    if len(ids) <= most:
        return np.arange(len(ids), dtype=np.int64)
    chosen = HashSample(most)
    chosen.add(order_keys(seed, ids), np.arange(len(ids), dtype=np.int64))
    return chosen.first(most)


class HashSample:
    """Keeps those rows that come first in hash order, of any number that are told part after part.

    most: how many of them can be asked for; some more are held.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: list[NDArray[np.uint64]] = []
        self._rows: list[NDArray[np.int64]] = []
        self._held = 0
        self._bar: np.uint64 | None = None

    def add(self, keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Tell rows, ascending, and their ``order_keys``."""
        if self._bar is not None:
            near = keys[:, 0] <= self._bar
            keys, rows = keys[near], rows[near]
        self._keys.append(keys)
        self._rows.append(rows)
        self._held += len(rows)
        if self._held > 2 * self._most + _SLACK:
            self._forget_the_rest()

    def first(self, most: int) -> NDArray[np.int64]:
        """Return the rows, ascending, of the ``most`` first of all that were told."""
        keys, rows = self._joined()
        return rows[_first(keys, most)]

    def _forget_the_rest(self) -> None:
        keys, rows = self._joined()
        kept = _first(keys, self._most)
        self._keys, self._rows, self._held = [keys[kept]], [rows[kept]], len(kept)
        self._bar = keys[kept, 0].max(initial=0)

    def _joined(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        return (
            np.concatenate([np.empty((0, 4), np.uint64), *self._keys]),
            np.concatenate([np.empty(0, np.int64), *self._rows]),
        )


_AT_ONCE = 65_536
"""Names whose digests are held at a time."""
_SLACK = 4096
"""Rows beyond twice those asked for that a sample may hold, so that a small one is not cut down at every part."""


def _first(keys: NDArray[np.uint64], most: int) -> NDArray[np.intp]:
    """Return the indices, ascending, of the ``most`` smallest of keys [N, 4]; of equal ones those that stand first."""
    if len(keys) <= most:
        return np.arange(len(keys))
    if most == 0:
        return np.empty(0, np.intp)
    bar = np.partition(keys[:, 0], most - 1)[most - 1]
    below, level = np.flatnonzero(keys[:, 0] < bar), np.flatnonzero(keys[:, 0] == bar)
    order = np.lexsort(keys[level].T[::-1])  # 64 bits nearly always tell, but "nearly" is no rule
    return np.sort(np.concatenate([below, level[order[: most - len(below)]]]))


def unit_intervals(seed: int, names: Iterable[str]) -> NDArray[np.float64]:
    """Return [N] numbers in [0, 1), each of which depends on seed and its name alone."""
    told, numbers = iter(names), [np.empty(0)]
    while some := list(islice(told, _AT_ONCE)):
        numbers.append((order_keys(seed, some)[:, 0] >> np.uint64(12)).astype(np.float64) / 2**52)
    return np.concatenate(numbers)


def connected_groups(memberships: Iterable[Sequence[str]]) -> list[str]:
    """Return for each row the name of its group, rows that share any member being in one group.

    memberships: per row, the identities and the video it belongs to. The group is named after its smallest member, so
    that the name does not depend on the order of rows. A row without members raises ValueError.
    """
    parent: dict[str, str] = {}

    def root(member: str) -> str:
        path = []
        while parent[member] != member:
            path.append(member)
            member = parent[member]
        for passed in path:
            parent[passed] = member
        return member

    first: list[str] = []
    for members in memberships:
        if not members:
            raise ValueError("a row without members belongs to no group")
        for member in members:
            parent.setdefault(member, member)
            low, high = sorted((root(members[0]), root(member)))
            parent[high] = low
        first.append(members[0])
    return [root(member) for member in first]


def assign(groups: Iterable[str], seed: int, fractions: Mapping[str, float]) -> NDArray[np.int8]:
    """Return [N] for each group name which of the parts it falls into, by hash; ``fractions`` must sum to 1."""
    edges = np.cumsum(list(fractions.values()))
    parts = np.searchsorted(edges, unit_intervals(seed, groups), side="right")
    return np.minimum(parts, len(edges) - 1).astype(np.int8)
