"""Choosing by hash: the same faces on every machine, whatever was prepared beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def order_key(seed: int, name: str) -> str:
    """Return the hexadecimal sha256 of ``seed:name``, by which faces are ordered before a subset is taken."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def sample(ids: Sequence[str], seed: int, most: int) -> NDArray[np.int64]:
    """Return the indices (ascending) of the ``most`` ids that come first in hash order; all when there are fewer."""
    if len(ids) <= most:
        return np.arange(len(ids), dtype=np.int64)
    keys = [order_key(seed, each) for each in ids]
    return np.sort(np.asarray(sorted(range(len(ids)), key=keys.__getitem__)[:most], dtype=np.int64))


def unit_interval(seed: int, name: str) -> float:
    """Return a number in [0, 1) that depends on seed and name alone."""
    return int(order_key(seed, name)[:13], 16) / 16**13


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


def assign(groups: Iterable[str], seed: int, fractions: Mapping[str, float]) -> list[str]:
    """Return for each group name the part it falls into, by hash; ``fractions`` must sum to 1."""
    names = list(fractions)
    edges = np.cumsum(list(fractions.values()))
    return [
        names[min(int(np.searchsorted(edges, unit_interval(seed, group), side="right")), len(names) - 1)]
        for group in groups
    ]
