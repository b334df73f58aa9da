"""BCa intervals are SciPy's on the same replicates, and what cannot be computed is said instead of claimed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dfad_bench.scoring.statistics.intervals import Influence, bca_interval, expanded
from dfad_bench.scoring.views import Undefined

SPREAD = np.linspace(0.1, 0.4, 9) ** 2


def influence(jackknife: Any, stratum: Any = None) -> Influence:
    found = Influence.of(np.asarray(jackknife), stratum)
    assert found is not None
    return found


def correlation(x: Any, y: Any, axis: int = -1) -> Any:
    x, y = x - x.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
    return (x * y).sum(axis=axis) / np.sqrt((x**2).sum(axis=axis) * (y**2).sum(axis=axis))


def left_out(statistic: Any, *samples: Any) -> Any:
    return np.asarray([statistic(*(np.delete(s, i) for s in samples)) for i in range(len(samples[0]))])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ends_are_scipys_on_the_same_replicates(seed: int, confidence: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.exponential(size=25)
    cases: list[tuple[Any, tuple[Any, ...]]] = [(np.mean, (x,)), (correlation, (x, x + rng.normal(size=25)))]
    for statistic, samples in cases:
        theirs = stats.bootstrap(
            samples,
            statistic,
            n_resamples=999,
            paired=len(samples) == 2,
            vectorized=True,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(5),
        )
        ours = bca_interval(
            float(statistic(*samples)),
            theirs.bootstrap_distribution,
            left_out(statistic, *samples),
            confidence=confidence,
            expand=False,
        )
        assert ours.method == "bca"
        assert ours.fallback is None
        assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval), rel=1e-9)


def test_the_acceleration_of_a_mean_is_a_sixth_of_its_skewness() -> None:
    x = np.random.default_rng(0).exponential(size=40)
    assert influence(left_out(np.mean, x)).acceleration() == pytest.approx(stats.skew(x) / 6 / np.sqrt(40), rel=1e-9)


def test_a_stratified_acceleration_is_the_skewness_of_the_sum_of_the_strata() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.exponential(size=30), -3 * rng.exponential(size=12)
    values = np.concatenate([left_out(np.mean, one) + two.mean(), one.mean() + left_out(np.mean, two)])
    # The third and second cumulants of a mean of n, added over independent means.
    third = sum(stats.moment(x, order=3) / len(x) ** 2 for x in (one, two))
    second = sum(x.var() / len(x) for x in (one, two))
    found = influence(values, np.repeat([5, 2], [30, 12])).acceleration()
    assert found == pytest.approx(third / second**1.5 / 6, rel=1e-9)
    assert influence(values).acceleration() != pytest.approx(found, rel=0.01)


def test_without_bias_or_skewness_the_interval_is_the_percentile_one() -> None:
    replicates = np.linspace(-1, 1, 1001)
    interval = bca_interval(0.0, replicates, np.asarray([-1.0, 0.0, 1.0]), expand=False)
    assert interval.method == "bca"
    assert (interval.low, interval.high) == pytest.approx((-0.95, 0.95))
    assert interval.levels == pytest.approx((0.025, 0.975))


@given(st.lists(st.integers(0, 6), min_size=20, max_size=60), st.integers(0, 2**32 - 1))
def test_ends_are_ordered_and_inside_the_replicates(values: list[int], seed: int) -> None:
    replicates = np.asarray(values) / 6
    try:
        interval = bca_interval(float(np.median(replicates)), replicates, np.random.default_rng(seed).random(12))
    except Undefined:
        assert np.mean(replicates == np.median(replicates)) > 0.9
    else:
        assert replicates.min() <= interval.low < interval.high <= replicates.max()


@given(st.integers(0, 2**32 - 1))
def test_a_mirrored_number_has_the_mirrored_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    replicates, jackknife = rng.exponential(size=201), rng.normal(size=15)
    ours = bca_interval(0.8, replicates, jackknife)
    mirrored = bca_interval(-0.8, -replicates, -jackknife)
    assert (mirrored.low, mirrored.high) == pytest.approx((-ours.high, -ours.low))


@pytest.mark.parametrize(
    ("estimate", "jackknife", "why"),
    [
        (2.0, SPREAD, "the estimate lies outside its replicates"),
        (-2.0, SPREAD, "the estimate lies outside its replicates"),
        (0.0, None, "no jackknife"),
        (0.0, np.full(7, 0.1), "the jackknife has no spread"),
        (0.0, np.full(7, np.nan), "the jackknife has no spread"),
        (0.9999, np.asarray([-1.0, 0, 0, 0, 0]), "the adjusted levels lie beyond the replicates"),
        (0.99999, np.append(-1.0, np.zeros(199)), "the acceleration is too large"),
    ],
)
def test_the_percentile_interval_stands_in_and_says_why(estimate: float, jackknife: Any, why: str) -> None:
    interval = bca_interval(estimate, np.linspace(-1, 1, 100_001), jackknife, expand=False)
    assert (interval.method, interval.fallback) == ("percentile", why)
    assert (interval.low, interval.high) == pytest.approx((-0.95, 0.95))


def test_an_estimate_that_ties_with_half_the_replicates_shifts_nothing() -> None:
    # Below the estimate lie no replicates, at it all but a few: halves of the ties keep z0 finite.
    replicates = np.concatenate([np.full(60, 0.5), np.full(40, 0.75)])
    interval = bca_interval(0.5, replicates, np.asarray([-1.0, 0.0, 1.0]), expand=False)
    shift = stats.norm.ppf(0.3)
    expected = tuple(stats.norm.cdf(2 * shift + z) for z in (-1.959964, 1.959964))
    assert interval.method == "bca"
    assert interval.levels == pytest.approx(expected, abs=1e-6)


def test_values_missing_from_few_resamples_are_dropped() -> None:
    replicates = np.append(np.linspace(0, 1, 95), np.full(5, np.nan))
    interval = bca_interval(0.4, replicates, SPREAD)
    assert interval.replicates == 95
    assert interval == bca_interval(0.4, replicates[:95], SPREAD)


@pytest.mark.parametrize(
    ("replicates", "why"),
    [
        (np.append(np.linspace(0, 1, 94), np.full(6, np.nan)), "6 of 100 resamples have no value"),
        (np.full(10, np.nan), "no resample has a value"),
        (np.empty(0), "no resample has a value"),
        (np.append(np.full(99, 1.0), np.nan), "^every resample gives the same value"),
        (np.append(np.full(999, 1.0), 0.5), "nearly every resample gives the same value"),
    ],
)
def test_an_interval_that_would_claim_too_much_is_refused(replicates: Any, why: str) -> None:
    with pytest.raises(Undefined, match=why):
        bca_interval(1.0, replicates, SPREAD)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_an_expanded_percentile_interval_of_a_mean_is_the_t_interval(confidence: float) -> None:
    x = np.random.default_rng(3).normal(size=11)
    # The replicates' exact normal limit: the mean, with the variance of the empirical distribution.
    replicates = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000, x.mean(), x.std() / np.sqrt(11))
    tail = expanded(influence(left_out(np.mean, x)), confidence)
    low, high = np.quantile(replicates, (tail, 1 - tail))
    expected = stats.t.interval(confidence, 10, x.mean(), x.std(ddof=1) / np.sqrt(11))
    assert (low, high) == pytest.approx(expected, rel=1e-3)


def test_strata_are_expanded_by_their_share_of_the_variance() -> None:
    rng = np.random.default_rng(4)
    one, two = rng.normal(size=8), 2 * rng.normal(size=15)
    values = np.concatenate([left_out(np.mean, one) - two.mean(), one.mean() - left_out(np.mean, two)])
    tail = expanded(influence(values, np.repeat([0, 1], [8, 15])), 0.95)
    welch = stats.ttest_ind(one, two, equal_var=False)
    interval = welch.confidence_interval(0.95)
    plain = np.sqrt(one.var() / 8 + two.var() / 15)
    assert -stats.norm.ppf(tail) * plain == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def test_many_clusters_need_no_expansion_and_few_reach_the_outermost_replicates() -> None:
    rng = np.random.default_rng(5)
    replicates = rng.normal(size=1000)
    many, few = rng.normal(size=20_000), rng.normal(size=3)
    plain = bca_interval(0.0, replicates, many, expand=False)
    assert bca_interval(0.0, replicates, many).levels == pytest.approx(plain.levels, rel=1e-3)
    wide = bca_interval(0.0, replicates, few)
    assert (wide.low, wide.high) == pytest.approx((replicates.min(), replicates.max()), abs=0.3)
