"""Finds all pairs of 64-bit hashes that differ in few bits, without comparing every hash with every other.

Hashes that differ in d bits agree in at least one of d + 1 bands of bits (Norouzi, Punjani & Fleet, "Fast search in Hamming
space with multi-index hashing", CVPR 2012), so only those are compared that agree in a band.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

PAIRS = 1 << 18
"""Pairs are handed on in chunks of about so many, so that memory does not grow with what is found."""
_LARGEST = 1024
"""Hashes that agree in a band: of more than so many, those are compared that agree in a band of the other bits too.

From here on five further sorts cost less than comparing all (measured at d = 4).
"""


def near_pairs(hashes: Hashes, bits: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield every pair of hashes [H] (all different) that differ in 1..bits bits, once, as two arrays of indices.

    Time grows with the number of pairs that agree in a band; bands that many hashes share are split by further bits, and
    each further band by further ones, until few enough are left to be compared.
    """
    if len(hashes) < 2:
        return
    waiting: list[tuple[Ints, Ints]] = []
    for found in _search(hashes, np.arange(len(hashes)), bits, np.uint64(0), []):
        waiting.append(found)
        if sum(len(first) for first, _ in waiting) >= PAIRS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    return np.concatenate([first for first, _ in parts]), np.concatenate([second for _, second in parts])


def _search(
    hashes: Hashes, rows: Ints, bits: int, agreed: np.uint64, differing: list[np.uint64]
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the near pairs among ``rows`` that agree in the bits ``agreed`` and differ within each band of ``differing``.

    A pair may agree in several bands; that it must differ in all the earlier ones lets it be found once.
    """
    bands = _bands(hashes[rows], agreed, bits + 1)
    for number, band in enumerate(bands):
        earlier = [*differing, *bands[:number]]
        key = hashes[rows] & (agreed | band)
        order = np.argsort(key)
        ordered, key = rows[order], key[order]
        sizes = np.diff(np.flatnonzero(np.r_[True, key[1:] != key[:-1], True]))
        size = np.repeat(sizes, sizes)
        # a band without bits is left when no more than ``bits`` bits differ at all: every pair is near
        large = (size > _LARGEST) & (band != 0)
        few = (size > 1) & ~large
        yield from _compare(hashes, ordered[few], np.repeat(np.arange(len(sizes)), sizes)[few], bits, earlier)
        if large.any():
            yield from _search(hashes, ordered[large], bits, agreed | band, earlier)


def _bands(hashes: Hashes, agreed: np.uint64, count: int) -> list[np.uint64]:
    """Return masks that deal out among ``count`` bands the bits in which hashes may still differ, the most even first.

    Bits on which all agree tell nothing apart; neighbouring bits of a pHash tell much the same, so they are parted.
    """
    uneven = {
        place: abs(2 * np.count_nonzero(hashes & np.uint64(1 << place)) - len(hashes))
        for place in range(64)
        if not int(agreed) >> place & 1
    }
    free = sorted((place for place in uneven if uneven[place] < len(hashes)), key=uneven.__getitem__)
    return [np.uint64(sum(1 << place for place in free[start::count])) for start in range(count)]


def _compare(
    hashes: Hashes, rows: Ints, bucket: Ints, bits: int, differing: list[np.uint64]
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the near pairs within buckets; rows [N] of one bucket [N] lie one after another."""
    values = hashes[rows]
    size = np.bincount(bucket)[bucket] if len(bucket) else bucket
    left = np.bincount(size)[::-1].cumsum()[::-1]  # left[s]: rows in buckets of s rows or more
    for shift in range(1, len(left) - 1):
        if left[shift + 1] < len(rows) / 2:  # whole buckets go, so that what is left still lies together
            kept = size > shift
            rows, bucket, values, size = rows[kept], bucket[kept], values[kept], size[kept]
        difference = values[shift:] ^ values[:-shift]
        near = np.flatnonzero(np.bitwise_count(difference) <= bits)
        near = near[bucket[near] == bucket[near + shift]]
        for band in differing:
            near = near[difference[near] & band != 0]
        if len(near):
            yield rows[near], rows[near + shift]
