"""Distances between samples that see more than a Gaussian does: KID and energy distance.

Both are E k(x, x') + E k(y, y') − 2 E k(x, y), of a kernel k, x, x' ~ X and y, y' ~ Y independent. The estimates leave out
all pairs of one cluster and so are unbiased with clusters too, where the usual ones leave out only x = x'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from dfad_bench.analysis.blocks import Blocks, Floats
from dfad_bench.analysis.moments import SMALL

BLOCK = 64
LANDMARKS = 128
"""A kernel without short features is approximated, for tests only, by its values at so many rows."""
_RANK = 1e-9


class Kernel(NamedTuple):
    """pairs: values [N, M] for rows [N, D] and [M, D]; itself: the values [N] of rows [N, D] with themselves."""

    pairs: Callable[[Floats, Floats], Floats]
    itself: Callable[[Floats], Floats]


def whiten(values: Floats) -> Floats:
    """Return rows [N, D] scaled so that all together have mean 0 and covariance 1; directions without spread give 0.

    Both samples are whitened as one, so that relabelling rows changes nothing, nor does any unit.
    """
    centred = values - values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    spread = eigenvalues > _RANK**2 * eigenvalues[-1]
    scaled: Floats = centred @ (vectors[:, spread] / np.sqrt(eigenvalues[spread])) @ vectors[:, spread].T
    return scaled


def kid(blocks: Blocks, white: Floats) -> float:
    """Return the Kernel Inception Distance, (x·y / D + 1)³ as kernel (Bińkowski et al. 2018, arXiv:1801.01401, sec. 4).

    white [N + M, D]: rows in the blocks' order, already ``whiten``ed. No unit; about 0, also below, without a difference.
    By features where D <= SMALL, O(N D³), otherwise by blocks of pairs, O(N² D) time.
    """
    if white.shape[1] <= SMALL:
        return _of_features(blocks, blocks.sums(cubic_features(white)))
    return _of_pairs(blocks, white, Kernel(cubic_kernel, lambda x: ((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 3))


def energy(blocks: Blocks, values: Floats) -> float:
    """Return the energy distance 2 E|x − y| − E|x − x'| − E|y − y'| (Székely & Rizzo 2013, J. Stat. Plan. Inf. 143:1249).

    values [N + M, D]: rows in the blocks' order. In their unit; about 0, also below, without a difference. Exact, from
    all pairs in blocks: O(N²) time, O(N) memory.
    """
    return _of_pairs(blocks, values, Kernel(lambda x, y: -cdist(x, y), lambda x: np.zeros(len(x))))


def cubic_kernel(x: Floats, y: Floats) -> Floats:
    """Return (x·y / D + 1)³ [N, M] of rows [N, D] and [M, D]."""
    product: Floats = (x @ y.T / x.shape[1] + 1.0) ** 3
    return product


def cubic_features(values: Floats) -> Floats:
    """Return features [N, (D + 3 over 3)] whose products are ``cubic_kernel``: monomials of (x / √D, 1) of degree 3."""
    extended = np.hstack([values / math.sqrt(values.shape[1]), np.ones((len(values), 1))])
    columns = []
    for chosen in combinations_with_replacement(range(extended.shape[1]), 3):
        ways = 6 / math.prod(math.factorial(chosen.count(each)) for each in set(chosen))
        columns.append(math.sqrt(ways) * extended[:, chosen].prod(axis=1))
    return np.stack(columns, axis=1)


def features_for_tests(values: Floats, white: Floats) -> tuple[Floats, Floats]:
    """Return features [N + M, F] of KID's kernel and of the energy distance's, for permutation tests.

    values, white: as for ``energy`` and ``kid``. A test needs the squared norm of a weighted sum of features only. KID's
    are exact where D <= SMALL; otherwise, and always for the energy distance, they are Nyström's, of LANDMARKS rows
    evenly spaced in the order of their values, so that labels have no part in the choice.
    """
    order = np.lexsort(values.T[::-1])
    landmarks = np.unique(order[np.linspace(0, len(order) - 1, min(LANDMARKS, len(order))).astype(np.intp)])
    centre = values.mean(axis=0)

    def distance_kernel(x: Floats, y: Floats) -> Floats:
        # Positive definite, and for weights that sum to 0 the same as −|x − y|.
        return np.asarray(
            np.linalg.norm(x - centre, axis=1)[:, None] + np.linalg.norm(y - centre, axis=1) - cdist(x, y)
        )

    cubic = cubic_features(white) if values.shape[1] <= SMALL else _nystrom(white, landmarks, cubic_kernel)
    return cubic, _nystrom(values, landmarks, distance_kernel)


def squared_norm(reference: Floats, reference_count: Floats, candidate: Floats, candidate_count: Floats) -> Floats:
    """Return ‖mean feature of one side − that of the other‖² [R] from sums [R, F] and counts [R]."""
    difference = reference / reference_count[:, None] - candidate / candidate_count[:, None]
    norm: Floats = np.einsum("rf,rf->r", difference, difference)
    return norm


def _nystrom(values: Floats, landmarks: NDArray[np.intp], kernel: Callable[[Floats, Floats], Floats]) -> Floats:
    """Return features [N, F] whose products approximate the kernel (Williams & Seeger 2001)."""
    chosen = values[landmarks]
    eigenvalues, vectors = np.linalg.eigh(kernel(chosen, chosen))
    kept = eigenvalues > _RANK * eigenvalues[-1]
    features: Floats = kernel(values, chosen) @ (vectors[:, kept] / np.sqrt(eigenvalues[kept]))
    return features


def _of_features(blocks: Blocks, sums: Floats) -> float:
    """Return the unbiased estimate from the sums of features over blocks [U, F]."""
    sides = []
    for side in (False, True):
        held, count = sums[blocks.is_candidate == side], blocks.count[blocks.is_candidate == side]
        total = held.sum(axis=0)
        sides.append((total @ total - (held * held).sum(), count.sum() ** 2 - count @ count))
    one, two, pairs = _partners(blocks)
    reference, candidate = sums[~blocks.is_candidate].sum(axis=0), sums[blocks.is_candidate].sum(axis=0)
    cross = reference @ candidate - (sums[one] * sums[two]).sum()
    return float(sides[0][0] / sides[0][1] + sides[1][0] / sides[1][1] - 2 * cross / pairs)


def _of_pairs(blocks: Blocks, values: Floats, kernel: Kernel) -> float:
    """Return the unbiased estimate from all pairs of rows [N + M, D], a block of rows at a time."""
    rows = np.split(values, np.cumsum(blocks.count.astype(np.intp))[:-1])
    first = int(blocks.count[~blocks.is_candidate].sum())
    within = np.asarray([_all_pairs(each, each, kernel, same=True) if len(each) > 1 else 0.0 for each in rows])
    alone = blocks.count == 1
    within[alone] = kernel.itself(values[alone[blocks.block]])
    sides = []
    for side, held in ((False, values[:first]), (True, values[first:])):
        here = blocks.is_candidate == side
        count = blocks.count[here]
        total = _all_pairs(held, held, kernel, same=True) - within[here].sum()
        sides.append(total / (count.sum() ** 2 - count @ count))
    one, two, pairs = _partners(blocks)
    cross = _all_pairs(values[:first], values[first:], kernel, same=False)
    cross -= sum(_all_pairs(rows[a], rows[b], kernel, same=False) for a, b in zip(one, two, strict=True))
    return float(sides[0] + sides[1] - 2 * cross / pairs)


def _all_pairs(x: Floats, y: Floats, kernel: Kernel, same: bool) -> float:
    """Return the kernel's sum over all pairs of rows; ``same``: y is x, and half of the pairs are enough."""
    total = 0.0
    for begin in range(0, len(x), BLOCK):
        rows = x[begin : begin + BLOCK]
        total += float(kernel.pairs(rows, y[begin : begin + BLOCK] if same else y).sum())
        if same and begin + BLOCK < len(x):
            total += 2 * float(kernel.pairs(rows, y[begin + BLOCK :]).sum())
    return total


def _partners(blocks: Blocks) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Return the blocks of clusters on both sides, one side's and the other's, and how many pairs lie across clusters."""
    where = np.full((2, len(blocks.kind)), -1, dtype=np.intp)
    where[blocks.is_candidate.astype(np.intp), blocks.cluster] = np.arange(len(blocks.count))
    one, two = where[:, (where >= 0).all(axis=0)]
    total = blocks.count[~blocks.is_candidate].sum() * blocks.count[blocks.is_candidate].sum()
    return one, two, float(total - blocks.count[one] @ blocks.count[two])
