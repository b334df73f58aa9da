"""Two samples cut into what stands or falls together, and the ways to draw, leave out and exchange these pieces.

A block is what one cluster (an identity, a video) has on one side. Every statistic here is a function of sums over blocks,
so that a resample is a row of weights and a thousand of them one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfad_bench.scoring.statistics.resampling import CELLS, Resampler

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
Weights = tuple[Floats, Floats]
"""How much each block weighs in the reference, and in the candidate: two arrays [r, U]."""

REFERENCE, CANDIDATE, BOTH = 0, 1, 2
SIMILAR = 1.5
"""Clusters whose typical sizes differ by more than this factor are not exchanged for each other."""
FEW_SHARE = 0.05
"""Faces in clusters of one side only: up to this share of either side they may stay where they are."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The U blocks of two samples, those of the reference first, and the C clusters they come from.

    rows: the order [N + M] in which the stacked rows lie block by block; block [N + M]: the block of each row so ordered.
    count [U] float64: rows in each. cluster [U]: its cluster, 0..C − 1. is_candidate [U]. kind [C]: REFERENCE or CANDIDATE
    where a cluster has rows on that side only, else BOTH.
    """

    rows: NDArray[np.intp]
    block: NDArray[np.intp]
    count: Floats
    cluster: NDArray[np.intp]
    is_candidate: NDArray[np.bool_]
    kind: NDArray[np.intp]

    @classmethod
    def of(cls, reference: Floats, candidate: Floats, reference_cluster: Ints, candidate_cluster: Ints) -> Blocks:
        """Cut rows [N, D] and [M, D] by their clusters [N] and [M]: any integers, the same one on both sides is one cluster.

        Clusters are numbered by their smallest row, so that neither the order of rows nor the labels matter (except
        between clusters whose smallest row is the same). Raises ValueError where lengths differ.
        """
        if len(reference) != len(reference_cluster) or len(candidate) != len(candidate_cluster):
            raise ValueError("each row needs a cluster")
        values = np.concatenate([reference, candidate])
        is_candidate = np.arange(len(values)) >= len(reference)
        order = np.lexsort((*values.T[::-1], is_candidate))
        label = np.concatenate([reference_cluster, candidate_cluster])[order]
        _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
        number = np.empty(len(first), dtype=np.intp)
        number[np.argsort(first)] = np.arange(len(first))
        name = is_candidate[order] * len(first) + number[inverse]
        within = np.argsort(name, kind="stable")
        names, block, count = np.unique(name[within], return_inverse=True, return_counts=True)
        side, cluster = names >= len(first), names % len(first)
        held = np.bincount(cluster, weights=np.where(side, 2, 1), minlength=len(first))
        return cls(order[within], block, count.astype(np.float64), cluster, side, held.astype(np.intp) - 1)

    def ordered(self, reference: Floats, candidate: Floats) -> tuple[Floats, Floats]:
        """Return rows [N, D] and [M, D] in the order of ``rows``."""
        values = np.concatenate([reference, candidate])[self.rows]
        return values[: len(reference)], values[len(reference) :]

    @property
    def clusters(self) -> tuple[int, int, int]:
        """How many clusters the reference has, the candidate, and both."""
        each = np.bincount(self.kind, minlength=3).tolist()
        return each[REFERENCE] + each[BOTH], each[CANDIDATE] + each[BOTH], each[BOTH]

    @property
    def whole(self) -> Weights:
        """The weights [1, U] of the samples as they are."""
        return self._sides(np.ones((1, len(self.kind))))

    def sums(self, columns: Floats) -> Floats:
        """Return the sum over each block [U, F] of columns [N + M, F], given in the order of ``rows``."""
        starts = np.flatnonzero(np.r_[True, np.diff(self.block) > 0])
        sums: Floats = np.add.reduceat(columns, starts, axis=0)
        return sums

    def resampled(self, resamples: int, seed: int) -> Iterator[Weights]:
        """Yield weights of a bootstrap of whole clusters, drawn among their kind, all sides of a cluster together."""
        for chunk in Resampler(self.kind, resamples, seed).draws(CELLS // 2):
            yield self._sides(chunk.astype(np.float64))

    def left_out(self, groups: int) -> tuple[Iterator[Weights], NDArray[np.intp]]:
        """Return weights of a delete-a-group jackknife, and the kind of each group (see ``Resampler.deletions``)."""
        chunks, kind = Resampler(self.kind).deletions(groups, CELLS // 2)
        return (self._sides(chunk.astype(np.float64)) for chunk in chunks), kind

    def exchangeable(self) -> bool:
        """Return whether clusters may be exchanged between the sides as a permutation test does.

        Those on both sides may, within themselves. Those on one side may where the typical sizes Σn²/Σn of the two
        sides' differ by no more than SIMILAR, for a mean over few large clusters varies more than one over many small
        ones; or where next to nothing of either side lies in them.
        """
        alone = self.kind[self.cluster] != BOTH
        size, share = [], []
        for side in (~self.is_candidate, self.is_candidate):
            count = self.count[side & alone]
            share.append(count.sum() / self.count[side].sum())
            size.append(float(count @ count / count.sum()) if len(count) else 0.0)
        return max(share) <= FEW_SHARE or (min(size) > 0 and max(size) <= SIMILAR * min(size))

    def exchanged(self, resamples: int, seed: int) -> Iterator[Weights]:
        """Yield weights of random relabellings under which two samples of one distribution are as likely as before.

        Clusters on one side only are dealt out again, as many to each side as it has. A cluster on both sides swaps
        its blocks or not, by a coin: its faces share a person, a camera or a video, and that sharing must survive. The
        blocks swap content, not weight (n and m): with the weights would move what both blocks have in common, which
        cancels in the difference and may not be let in by the test.
        """
        alone = np.flatnonzero(self.kind != BOTH)
        both = np.flatnonzero(self.kind == BOTH)
        to_reference = int((self.kind == REFERENCE).sum())
        size = np.zeros((2, len(self.kind)))
        for side in (0, 1):
            here = self.is_candidate == bool(side)
            size[side, self.cluster[here]] = self.count[here]
        own = size[self.is_candidate.astype(np.intp), self.cluster]
        other = size[1 - self.is_candidate.astype(np.intp), self.cluster]
        moved_weight = np.where(other > 0, other / own, 1.0)
        rows = max(1, CELLS // (2 * len(self.count)))
        for begin in range(0, resamples, rows):
            moved = np.empty((min(rows, resamples - begin), len(self.kind)), dtype=np.bool_)
            for row in range(len(moved)):
                raw = _raw(seed, begin + row, len(self.kind))
                moved[row, both] = raw[both] >> np.uint32(31) == 1
                moved[row, alone] = _smallest(raw[alone], to_reference) ^ (self.kind[alone] == REFERENCE)
            away = moved[:, self.cluster]
            if not len(both):
                in_reference = (away == self.is_candidate).astype(np.float64)
                yield in_reference, 1.0 - in_reference
                continue
            stays, goes = np.where(away, 0.0, 1.0), np.where(away, moved_weight, 0.0)
            yield np.where(self.is_candidate, goes, stays), np.where(self.is_candidate, stays, goes)

    def split(self, clusters: int, resamples: int, seed: int) -> Iterator[Weights]:
        """Yield weights that deal ``clusters`` random clusters to one half and as many others to the other."""
        rows = max(1, CELLS // (2 * len(self.count)))
        for begin in range(0, resamples, rows):
            halves = np.zeros((2, min(rows, resamples - begin), len(self.kind)))
            for row in range(halves.shape[1]):
                raw = _raw(seed, begin + row, len(self.kind))
                one, two = _smallest(raw, clusters), _smallest(raw, 2 * clusters)
                halves[0, row], halves[1, row] = one, two & ~one
            yield halves[0][:, self.cluster], halves[1][:, self.cluster]

    def _sides(self, multiplicity: Floats) -> Weights:
        weights = multiplicity[:, self.cluster]
        return np.where(self.is_candidate, 0.0, weights), np.where(self.is_candidate, weights, 0.0)


def _raw(seed: int, row: int, count: int) -> NDArray[np.uint32]:
    """Return 32 random bits for each of ``count``; from the raw stream, which NumPy promises to keep."""
    raw = np.random.PCG64(np.random.SeedSequence((seed, row, 1))).random_raw((count + 1) // 2)
    return np.asarray(raw, dtype="<u8").view("<u4")[:count]


def _smallest(raw: NDArray[np.uint32], count: int) -> NDArray[np.bool_]:
    """Return which are the ``count`` smallest, of equal ones the earlier."""
    if not 0 < count < len(raw):
        return np.full(len(raw), count > 0)
    chosen = np.asarray(raw <= np.partition(raw, count - 1)[count - 1])
    if int(chosen.sum()) > count:
        chosen = np.zeros(len(raw), dtype=np.bool_)
        chosen[np.argsort(raw, kind="stable")[:count]] = True
    return chosen
