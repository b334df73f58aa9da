"""Who outscores whom, cluster by cluster, so that the AUC of any resample of clusters is one bilinear form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wins:
    """Pairs won between the Cp clusters that hold a positive and the Cn clusters that hold a negative.

    matrix [Cp, Cn] float64: in how many pairs (positive of c, negative of d) the positive scores higher, ties half.
    positive_clusters [Cp] and negative_clusters [Cn]: which clusters these are, ascending.
    positives [Cp] and negatives [Cn] float64: how many positives and negatives each holds, at least 1.
    """

    matrix: Floats
    positive_clusters: Ints
    negative_clusters: Ints
    positives: Floats
    negatives: Floats

    def auc(self, multiplicity: Ints) -> Floats:
        """Return the AUC [R] float64 in 0..1 when resample r holds cluster c multiplicity[r, c] times ([R, C] ints).

        NaN where a resample has no positive or no negative. Every sum is of halves below 2**53 and so exact: the value
        is the one that counting the resampled pairs gives, whatever BLAS computes it.
        """
        of_positives = multiplicity[:, self.positive_clusters].astype(np.float64)
        of_negatives = multiplicity[:, self.negative_clusters].astype(np.float64)
        won = np.einsum("rd,rd->r", of_positives @ self.matrix, of_negatives)
        pairs = (of_positives @ self.positives) * (of_negatives @ self.negatives)
        auc: Floats = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
        return auc


def win_matrix(positive: NDArray[np.bool_], score: Floats, cluster: Ints, clusters: int) -> Wins:
    """Return the pairs won between clusters, from N faces in O(N (log N + C)) time and O(N + C**2) memory.

    positive [N] bool; score [N] float64, higher = more positive, infinite or finite, never NaN; cluster [N] in
    0..clusters - 1. Faces are sorted into blocks of neighbouring scores: pairs of different blocks are counted by one
    dense product, pairs within a block by halving it over and over, as merge sort counts inversions.
    """
    order = np.argsort(score)
    ranked = score[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    np.not_equal(ranked[1:], ranked[:-1], out=fresh[1:])
    is_positive, owner = positive[order], cluster[order]
    positive_clusters, positives, row_owner = _held(owner[is_positive], clusters)
    negative_clusters, negatives, column_owner = _held(owner[~is_positive], clusters)
    shape = len(positive_clusters), len(negative_clusters)
    if not all(shape):
        return Wins(np.zeros(shape), positive_clusters, negative_clusters, positives, negatives)

    # Half the clusters in a block balances the dense product (N/block C**2 steps) against the pairs within (N block).
    block, place, is_tie = _blocks(fresh, max(16, math.isqrt(shape[0] * shape[1]) // 2))
    blocks = len(is_tie)
    higher, lower = block[is_positive], block[~is_positive]
    in_rows = _counts(higher, row_owner, blocks, shape[0])
    in_columns = _counts(lower, column_owner, blocks, shape[1])
    below = in_columns.cumsum(axis=0)
    below -= np.where(is_tie, 0.5, 1.0)[:, None] * in_columns
    matrix = in_rows.T @ below
    del in_rows, in_columns, below

    keep_rows, keep_columns = ~is_tie[higher], ~is_tie[lower]
    row_owner, column_owner = row_owner[keep_rows], column_owner[keep_columns]
    higher, lower = higher[keep_rows], lower[keep_columns]
    row_place, column_place = place[is_positive][keep_rows], place[~is_positive][keep_columns]
    bits = int(place[~is_tie[block]].max(initial=0)).bit_length()

    def pairs(rows: NDArray[np.bool_], columns: NDArray[np.bool_], shift: int) -> Any:
        """Count the pairs that share a block and its part ``place >> shift``."""
        left = ((higher[rows] << (bits - shift)) + (row_place[rows] >> shift), row_owner[rows])
        right = ((lower[columns] << (bits - shift)) + (column_place[columns] >> shift), column_owner[columns])
        parts = blocks << (bits - shift)
        return (
            coo_array((np.ones(len(left[0])), left[::-1]), shape=(shape[0], parts)).tocsr()
            @ coo_array((np.ones(len(right[0])), right), shape=(parts, shape[1])).tocsr()
        ).toarray()

    for bit in range(bits):
        matrix += pairs((row_place >> bit) & 1 == 1, (column_place >> bit) & 1 == 0, bit + 1)
    matrix += 0.5 * pairs(np.ones(len(higher), np.bool_), np.ones(len(lower), np.bool_), 0)
    return Wins(matrix, positive_clusters, negative_clusters, positives, negatives)


def _held(owner: Ints, clusters: int) -> tuple[NDArray[np.intp], Floats, NDArray[np.intp]]:
    """Return which clusters own a face, how many each owns, and each face's owner as an index into the first."""
    counts = np.bincount(owner, minlength=clusters)
    held = np.flatnonzero(counts)
    index = np.zeros(clusters, dtype=np.intp)
    index[held] = np.arange(len(held))
    return held, counts[held].astype(np.float64), index[owner]


def _blocks(fresh: NDArray[np.bool_], size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Cut N sorted faces into blocks of about ``size`` faces, equal scores staying together.

    fresh [N]: where a score differs from the one before. Returns each face's block [N] and the place of its score
    among its block's scores [N], both from 0, and whether a block is one single score [B]. A score of ``size`` faces
    or more is a block of its own, which keeps every other block below twice ``size``.
    """
    starts = np.flatnonzero(fresh)
    faces = np.diff(starts, append=len(fresh))
    large = faces >= size
    cut = large.copy()
    cut[0] = True
    cut[1:] |= large[:-1] | (starts[1:] // size != starts[:-1] // size)
    block_of_level = np.cumsum(cut) - 1
    first_level = np.flatnonzero(cut)
    place_of_level = np.arange(len(starts)) - first_level[block_of_level]
    is_tie = np.diff(first_level, append=len(starts)) == 1
    return np.repeat(block_of_level, faces), np.repeat(place_of_level, faces), is_tie


def _counts(row: Ints, column: Ints, rows: int, columns: int) -> Floats:
    """Count how often each cell of [rows, columns] occurs."""
    return np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns).astype(np.float64)
