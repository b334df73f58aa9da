"""The variance of an AUC, and of the difference of two, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata

from dfad_bench.scoring.views import Undefined

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairedDeLong:
    """Two models' AUCs on the same faces, and a test of their difference ``auc_a - auc_b``, in -1..1.

    variance: of the difference. z: the difference over its standard error. p: two-sided, of the hypothesis that the
    AUCs are equal. low, high: the difference's confidence interval.
    """

    auc_a: float
    auc_b: float
    difference: float
    variance: float
    z: float
    p: float
    low: float
    high: float


def structural(positive: Bools, score: Floats) -> tuple[float, Floats, Floats]:
    """Return the AUC and its structural components by midranks, in O(N log N) (Sun & Xu 2014).

    positive [N] bool; score [N] float64, higher = more positive, never NaN. The components are, of each positive, the
    share of negatives that it outscores, v10 [P], and of each negative the share of positives that outscore it,
    v01 [Q], ties half. Raises Undefined without a positive or without a negative.
    """
    positives, negatives = score[positive], score[~positive]
    if not len(positives):
        raise Undefined("no positive")
    if not len(negatives):
        raise Undefined("no negative")
    rank = rankdata(score)
    v10 = (rank[positive] - rankdata(positives)) / len(negatives)
    v01 = 1 - (rank[~positive] - rankdata(negatives)) / len(positives)
    return float(v10.mean()), v10, v01


def delong_variance(positive: Bools, score: Floats, cluster: Ints | None = None) -> tuple[float, float]:
    """Return an AUC and its variance: DeLong's (1988), or with clusters Obuchowski's (1997, Biometrics 53:567).

    positive and score as in ``structural``; cluster [N] ints: faces of one cluster are dependent, and a cluster may
    hold positives and negatives. Each of the three sums over n clusters is scaled by n / (n - 1), so that clusters of
    one face each give DeLong's variance. Raises Undefined where positives or negatives come from fewer than two
    clusters (faces, without clusters).
    """
    auc, v10, v01 = structural(positive, score)
    return auc, _variance(v10, v01, positive, cluster)


def delong_interval(auc: float, variance: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return an AUC's confidence interval, normal on the logit scale and so within 0..1.

    Raises Undefined where the AUC is 0 or 1 or the variance is 0: the logit, or an honest width, does not exist.
    """
    if not 0 < auc < 1:
        raise Undefined(f"an AUC of {auc:g} has no standard error")
    if not variance > 0:
        raise Undefined("the AUC has no variance")
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(variance) / (auc * (1 - auc))
    middle = float(logit(auc))
    return float(expit(middle - half)), float(expit(middle + half))


def paired_delong(
    positive: Bools, score_a: Floats, score_b: Floats, cluster: Ints | None = None, confidence: float = 0.95
) -> PairedDeLong:
    """Test whether two models have the same AUC on the same faces.

    Arguments as in ``delong_variance``; the difference is taken to be normal. Raises Undefined as that does, and where
    the difference has no variance.
    """
    auc_a, v10_a, v01_a = structural(positive, score_a)
    auc_b, v10_b, v01_b = structural(positive, score_b)
    variance = _variance(v10_a - v10_b, v01_a - v01_b, positive, cluster)
    # Components that differ by one constant leave a variance made of rounding.
    if variance <= np.finfo(np.float64).eps ** 2:
        raise Undefined("the difference has no variance")
    difference, error = auc_a - auc_b, math.sqrt(variance)
    half = float(ndtri((1 + confidence) / 2)) * error
    z = difference / error
    return PairedDeLong(
        auc_a=auc_a,
        auc_b=auc_b,
        difference=difference,
        variance=variance,
        z=z,
        p=float(2 * ndtr(-abs(z))),
        low=max(-1.0, difference - half),
        high=min(1.0, difference + half),
    )


def _variance(v10: Floats, v01: Floats, positive: Bools, cluster: Ints | None) -> float:
    """Return the variance of the mean of structural components, or of a difference of such."""
    v10, v01 = v10 - v10.mean(), v01 - v01.mean()
    if cluster is None:
        _check(len(v10), len(v01), "")
        return float(v10 @ v10 / (len(v10) * (len(v10) - 1)) + v01 @ v01 / (len(v01) * (len(v01) - 1)))
    names, owner = np.unique(cluster, return_inverse=True)
    of_positives, of_negatives = owner[positive], owner[~positive]
    held10 = int(np.count_nonzero(np.bincount(of_positives)))
    held01 = int(np.count_nonzero(np.bincount(of_negatives)))
    _check(held10, held01, "cluster with a ")
    sum10 = np.bincount(of_positives, weights=v10, minlength=len(names)) / len(v10)
    sum01 = np.bincount(of_negatives, weights=v01, minlength=len(names)) / len(v01)
    return float(
        held10 / (held10 - 1) * (sum10 @ sum10)
        + held01 / (held01 - 1) * (sum01 @ sum01)
        + 2 * len(names) / (len(names) - 1) * (sum10 @ sum01)
    )


def _check(positives: int, negatives: int, unit: str) -> None:
    """Raise Undefined where a class has a single unit, whose spread nothing shows."""
    for name, units in (("positive", positives), ("negative", negatives)):
        if units < 2:
            raise Undefined(f"one {unit}{name} only")
