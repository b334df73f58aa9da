"""Confidence intervals from bootstrap replicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from dfad_bench.scoring.views import Undefined

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
MOST_UNDEFINED = 0.05
_ROUNDING = 16 * np.finfo(np.float64).eps
"""How far apart, relatively, values may lie that are the same but for the order in which they were added up."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The values that the data do not rule out, and how they were found.

    low, high: the ends, low < high. replicates: how many defined replicates they are quantiles of, at the levels
    ``levels`` (each in 0..1). fallback: why ``method`` is not ``bca``, None where it is.
    """

    low: float
    high: float
    method: Literal["bca", "percentile"]
    replicates: int
    levels: tuple[float, float]
    fallback: str | None = None


def bca_interval(
    estimate: float,
    replicates: Floats,
    jackknife: Floats | None,
    stratum: Ints | None = None,
    confidence: float = 0.95,
    expand: bool = True,
) -> Interval:
    """Return the bias-corrected and accelerated interval (Efron 1987; DiCiccio & Efron 1996).

    estimate: the number on all data. replicates [R]: the number on each resample, NaN where it has no value; these are
    dropped. jackknife [J]: the number with one cluster, or one group of clusters, left out, the groups being of about
    equal size; stratum [J]: the stratum that each was left out of (one for all where None), within which deviations
    are taken. NaN values of the jackknife are dropped too. confidence in 0..1, ends excluded. expand: widen the
    interval for the number of clusters, see ``expanded``; with many it changes nothing.

    Falls back to the percentile interval, saying why, where the acceleration or the bias correction has no value.
    Raises Undefined without replicates, where more than 5 % of them are NaN, and where all, or all between the two
    levels, are the same: an interval without width claims a certainty that nobody has.
    """
    defined = defined_replicates(replicates)
    if np.ptp(defined) <= _ROUNDING * np.abs(defined).max():
        raise Undefined("every resample gives the same value")
    influence = None if jackknife is None else Influence.of(jackknife, stratum)
    tail = expanded(influence, confidence) if expand and influence else (1 - confidence) / 2
    levels = _bca_levels(estimate, defined, jackknife, influence, tail)
    if not isinstance(levels, str):
        low, high = np.quantile(defined, levels).tolist()
        if low < high:
            return Interval(low, high, "bca", len(defined), levels)
        levels = "the adjusted levels give the same value"
    low, high = np.quantile(defined, (tail, 1 - tail)).tolist()
    if low == high:
        raise Undefined("nearly every resample gives the same value")
    return Interval(low, high, "percentile", len(defined), (tail, 1 - tail), levels)


def defined_replicates(replicates: Floats) -> Floats:
    """Return the replicates [R] that are not NaN; raise Undefined where none is left or more than 5 % are NaN."""
    defined: Floats = replicates[~np.isnan(replicates)]
    if not len(defined):
        raise Undefined("no resample has a value")
    if len(defined) < (1 - MOST_UNDEFINED) * len(replicates):
        raise Undefined(f"{len(replicates) - len(defined)} of {len(replicates)} resamples have no value")
    return defined


@dataclass(frozen=True, slots=True)
class Influence:
    """What each cluster, or group of clusters, contributes to an estimate.

    value [J]: how far the estimate moves for it, 0 on average within a stratum; member [J]: its stratum, 0..S - 1;
    count [S]: how many there are in each stratum.
    """

    value: Floats
    member: NDArray[np.intp]
    count: NDArray[np.intp]

    @classmethod
    def of(cls, jackknife: Floats, stratum: Ints | None = None) -> Influence | None:
        """Return the influences from jackknife values [J] and their strata [J]; NaN are dropped, None without spread.

        n values of a stratum, less their mean, weigh (n - 1) / n: the sum of their squares is then about the variance
        that a bootstrap of n clusters would find.
        """
        defined = ~np.isnan(jackknife)
        values = jackknife[defined]
        if not len(values):
            return None
        names = np.zeros(len(values), dtype=np.intp) if stratum is None else stratum[defined]
        _, member = np.unique(names, return_inverse=True)
        count = np.bincount(member)
        mean = np.bincount(member, weights=values) / count
        influence = (mean[member] - values) * ((count - 1) / count)[member]
        # Values that are all the same may still differ from their mean by rounding.
        influence[np.abs(influence) <= _ROUNDING * np.abs(values).max()] = 0.0
        return cls(influence, member, count) if influence.any() else None

    def acceleration(self) -> float:
        """Return BCa's acceleration, a sixth of the estimate's skewness.

        The stratified form (Davison & Hinkley 1997, ch. 5), which with one stratum is Efron's.
        """
        return float((self.value**3).sum() / (6 * (self.value @ self.value) ** 1.5))


def expanded(influence: Influence, confidence: float) -> float:
    """Return the tail level at which quantiles of replicates reach as far as a t interval (Hesterberg 2015).

    Resampling n clusters finds (n - 1) / n of the variance, and a percentile is normal where Student's t belongs: the
    level is that of a normal at -t sqrt(n / (n - 1)). Strata are joined by their share of the variance, and their
    degrees of freedom by Satterthwaite's rule. In 0..(1 - confidence) / 2; groups of clusters count as one cluster.
    """
    found = np.bincount(influence.member, weights=influence.value**2)
    several = influence.count > 1
    found, count = found[several], influence.count[several]
    unbiased = found * count / (count - 1)
    freedom = float(unbiased.sum() ** 2 / (unbiased**2 / (count - 1)).sum())
    wider = math.sqrt(float(unbiased.sum() / found.sum()))
    return float(ndtr(wider * stdtrit(freedom, (1 - confidence) / 2)))


def _bca_levels(
    estimate: float, replicates: Floats, jackknife: Floats | None, influence: Influence | None, tail: float
) -> tuple[float, float] | str:
    """Return the two levels at which to read the replicates, or why there are none."""
    below = float(((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2)
    if not 0 < below < 1:
        return "the estimate lies outside its replicates"
    if jackknife is None:
        return "no jackknife"
    if influence is None:
        return "the jackknife has no spread"
    shift, curvature, reach = float(ndtri(below)), influence.acceleration(), float(ndtri(tail))
    levels = []
    for moved in (shift + reach, shift - reach):
        stretch = 1 - curvature * moved
        if stretch <= 0:
            return "the acceleration is too large"
        levels.append(float(ndtr(shift + moved / stretch)))
    outermost = 1 / (len(replicates) + 1)
    if levels[0] >= 1 - outermost or levels[1] <= outermost:
        return "the adjusted levels lie beyond the replicates"
    return levels[0], levels[1]
