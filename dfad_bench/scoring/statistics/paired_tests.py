"""Whether two models differ on the same faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc
from scipy.stats import binomtest

from dfad_bench.scoring.statistics.intervals import defined_replicates

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
FEW = 25
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class McNemar:
    """How often only one of two models is right, and a test of whether both are right equally often.

    b: faces that only model a gets right; c: those that only model b gets right. statistic: (b - c)**2 over its
    variance, 1 on average where the models are equal and 0 where no face is discordant. p: two-sided.
    method: ``exact`` where every face stands by itself, else ``sign flips`` or ``chi-square``.
    """

    b: int
    c: int
    statistic: float
    p: float
    method: Literal["exact", "sign flips", "chi-square"]


def mcnemar(right_a: Bools, right_b: Bools, cluster: NDArray[np.integer[Any]] | None = None) -> McNemar:
    """Test whether two models are right equally often on the same N faces.

    right_a, right_b [N] bool: which faces each gets right; cluster [N] ints: faces of one cluster are dependent. Where
    every face is its own cluster this is the exact binomial test (McNemar 1947). Otherwise, with d the difference
    b - c within a cluster, sum(d)**2 / sum(d**2) is referred to a chi-square of one degree of freedom (Yang, Sun &
    Hardin 2010, Biometrical Journal 52:638; Obuchowski's (1998) without its (K - 1) / K). With at most 25 clusters
    whose d is not 0, where that approximation rejects up to 12 % (four clusters of abs(d) = 1), p is the exact share
    of the ways to swap the two models within whole clusters that give an abs(sum(d)) at least as large; with abs(d) = 1
    throughout that is the binomial test again.
    """
    difference = right_a.astype(np.int64) - right_b
    b, c = int((difference > 0).sum()), int((difference < 0).sum())
    if cluster is None:
        of_cluster, clustered = difference[difference != 0], False
    else:
        _, owner, faces = np.unique(cluster, return_inverse=True, return_counts=True)
        sums = np.zeros(len(faces), dtype=np.int64)
        np.add.at(sums, owner, difference)
        of_cluster, clustered = sums[sums != 0], bool((faces > 1).any())
    statistic = (b - c) ** 2 / int(of_cluster @ of_cluster) if len(of_cluster) else 0.0
    if not clustered:
        p = float(binomtest(b, b + c).pvalue) if b + c else 1.0
        return McNemar(b, c, statistic, p, "exact")
    if len(of_cluster) <= FEW:
        return McNemar(b, c, statistic, _flipped(np.abs(of_cluster).tolist(), abs(b - c)), "sign flips")
    return McNemar(b, c, statistic, float(chdtrc(1, statistic)), "chi-square")


def _flipped(sizes: Sequence[int], observed: int) -> float:
    """Return the share of the 2**K choices of signs for which abs(sum(sign * size)) is at least ``observed``."""
    ways = {0: 1}
    for size in sizes:
        following: dict[int, int] = {}
        for total, count in ways.items():
            for moved in (total - size, total + size):
                following[moved] = following.get(moved, 0) + count
        ways = following
    extreme = sum(count for total, count in ways.items() if abs(total) >= observed)
    return float(extreme / 2 ** len(sizes))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that rejecting those up to alpha errs in any of them with at most alpha (Holm 1979).

    In the order given, never below the p-value itself, at most 1. Raises ValueError where one is not in 0..1.
    """
    for each in p:
        if not 0 <= each <= 1:
            raise ValueError(f"{each} is no p-value")
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def paired_bootstrap_p(differences: Floats) -> float:
    """Return the two-sided p-value of a difference being 0 from its bootstrap replicates [R].

    Twice the smaller of the shares (k + 1) / (R + 1) of replicates up to 0 and from 0 (Davison & Hinkley 1997, ch.
    4), at most 1: the confidence at which the percentile interval reaches 0, never a p of 0. NaN replicates are
    dropped; raises Undefined as ``bca_interval`` does where more than 5 % are NaN or none is left.
    """
    defined = defined_replicates(differences)
    fewest = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (fewest + 1) / (len(defined) + 1))


def max_t(values: Floats, draws: Floats) -> Floats:
    """Return p-values [M, M] for all pairs of M numbers, adjusted for how many pairs there are.

    values [M]: the numbers on all data; draws [M, R]: in R resamples that all share, NaN where one has no value. Single-step
    maxT (Westfall & Young 1993; Romano & Wolf 2005): a difference, in units of its own standard error, is held against the
    largest one among all pairs in each resample about its value on all data. That heeds how pairs depend on each other, and
    unlike a step-down over single p-values it can reach 1 / (R + 1) whatever their number. NaN where a number has fewer than
    95 % of its resamples, and where a difference never varies.
    """
    adjusted = np.full((len(values), len(values)), np.nan)
    sound = np.flatnonzero(np.isfinite(draws).mean(axis=1) >= 0.95)
    deviations = draws[sound][:, np.isfinite(draws[sound]).all(axis=0)] - values[sound, None]
    if len(sound) < 2 or deviations.shape[1] < 2:
        return adjusted
    covariance = np.cov(deviations)
    spread = np.diag(covariance)
    error = np.sqrt(np.maximum(spread[:, None] + spread - 2 * covariance, 0.0))
    error[error <= _ROUNDING] = np.inf
    highest = np.zeros(deviations.shape[1])
    for place in range(len(sound) - 1):
        apart = np.abs(deviations[place] - deviations[place + 1 :]) / error[place, place + 1 :, None]
        np.maximum(highest, apart.max(axis=0), out=highest)
    observed = np.abs(values[sound, None] - values[sound]) / error
    exceeded = len(highest) - np.searchsorted(np.sort(highest), observed, side="left")
    p = (1 + exceeded) / (1 + len(highest))
    adjusted[np.ix_(sound, sound)] = np.where(np.isfinite(error), p, np.nan)
    return adjusted
