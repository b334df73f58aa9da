"""Tests of two models against each other reject equal ones as rarely as they say."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from dfad_bench.scoring.statistics.paired_tests import holm, max_t, mcnemar, paired_bootstrap_p
from dfad_bench.scoring.views import Undefined

SEEDS = st.integers(0, 2**32 - 1)
P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def answers(seed: int, faces: int = 30) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.random(faces) < 0.7, rng.random(faces) < 0.6


@given(SEEDS)
def test_independent_faces_are_tested_by_the_binomial(seed: int) -> None:
    a, b = answers(seed)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    found = mcnemar(a, b)
    assert (found.b, found.c, found.method) == (only_a, only_b, "exact")
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.p == pytest.approx(expected)
    assert found == mcnemar(a, b, np.random.default_rng(seed).permutation(30) - 7)


@given(SEEDS)
def test_few_clusters_are_tested_by_every_way_to_swap_the_models_in_them(seed: int) -> None:
    a, b = answers(seed)
    cluster = np.random.default_rng(seed + 1).integers(0, 8, 30)
    found = mcnemar(a, b, cluster)
    d = np.asarray([int(a[cluster == k].sum()) - int(b[cluster == k].sum()) for k in range(8)])
    sums = np.asarray(list(product([-1, 1], repeat=8))) @ d
    assert found.method == "sign flips"
    assert found.p == pytest.approx((np.abs(sums) >= abs(d.sum())).mean())
    assert found.statistic == pytest.approx(d.sum() ** 2 / (d**2).sum() if d.any() else 0.0)


def test_one_larger_cluster_without_discordance_changes_no_p_value() -> None:
    a, b = answers(5, 12)
    extended = [np.append(each, [True, True]) for each in (a, b)]
    clustered = mcnemar(*extended, np.append(np.arange(12), [12, 12]))
    assert clustered.method == "sign flips"
    assert clustered.p == pytest.approx(mcnemar(a, b).p)


def test_many_clusters_are_tested_by_chi_square() -> None:
    a, b = answers(3, 600)
    cluster = np.arange(600) // 5
    found = mcnemar(a, b, cluster)
    d = (a.astype(int) - b).reshape(120, 5).sum(axis=1)
    assert found.method == "chi-square"
    assert found.statistic == pytest.approx(d.sum() ** 2 / (d**2).sum())
    assert found.p == pytest.approx(chi2.sf(found.statistic, 1))


def test_the_exact_and_the_approximate_p_value_meet() -> None:
    rng = np.random.default_rng(0)
    # 25 clusters of nine faces are flipped exactly; four faces more, in clusters of their own, cross to chi-square.
    a, b = rng.random(225) < 0.8, rng.random(225) < 0.7
    exact = mcnemar(a, b, np.arange(225) // 9)
    more = np.asarray([True, False] * 2), np.asarray([False, True] * 2)
    approximate = mcnemar(
        np.append(a, more[0]), np.append(b, more[1]), np.append(np.arange(225) // 9, 30 + np.arange(4))
    )
    assert (exact.method, approximate.method) == ("sign flips", "chi-square")
    assert exact.p == pytest.approx(approximate.p, abs=0.03)


@pytest.mark.parametrize("cluster", [None, [0, 0, 1, 1]])
def test_models_right_on_the_same_faces_do_not_differ(cluster: Any) -> None:
    right = np.asarray([True, False, True, True])
    found = mcnemar(right, right, None if cluster is None else np.asarray(cluster))
    assert (found.b, found.c, found.statistic, found.p) == (0, 0, 0.0, 1.0)


@pytest.mark.parametrize(("clusters", "each"), [(60, 10), (15, 10)])
def test_equal_models_are_rejected_as_rarely_as_stated_only_with_clusters(clusters: int, each: int) -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(clusters), each)
    rejected = np.zeros(2)
    for _ in range(800):
        a, b = (rng.normal(size=clusters)[cluster] + rng.normal(size=len(cluster)) < 1.5 for _ in "ab")
        rejected += [mcnemar(a, b, c).p <= 0.05 for c in (cluster, None)]
    # Three standard errors of 5 % over 800 draws are 2.3 %.
    assert 0.02 <= rejected[0] / 800 <= 0.073
    assert rejected[1] / 800 > 0.12


def test_holm_adjusts_a_hand_example() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(P_VALUES)
def test_holm_keeps_the_order_and_lies_between_the_p_value_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(x <= y <= min(1, len(p) * x) for x, y in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.asarray(adjusted)[order]) >= 0).all()


@given(P_VALUES, st.floats(0.01, 0.2))
def test_holm_rejects_what_stepping_down_rejects(p: list[float], alpha: float) -> None:
    rejected, remaining = set(), sorted(range(len(p)), key=lambda i: p[i])
    while remaining and len(remaining) * p[remaining[0]] <= alpha:
        rejected.add(remaining.pop(0))
    assert {i for i, each in enumerate(holm(p)) if each <= alpha} == rejected


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.1])
def test_holm_refuses_what_is_no_p_value(wrong: float) -> None:
    with pytest.raises(ValueError, match="is no p-value"):
        holm([0.5, wrong])


def test_a_bootstrap_p_value_counts_the_replicates_across_zero() -> None:
    assert paired_bootstrap_p(np.append(np.full(989, 0.2), np.full(10, -0.1))) == pytest.approx(2 * 11 / 1000)
    assert paired_bootstrap_p(np.full(999, 0.2)) == pytest.approx(2 / 1000)
    assert paired_bootstrap_p(np.zeros(99)) == 1.0
    assert paired_bootstrap_p(np.asarray([-1.0, 0.0, 1.0])) == 1.0


def test_missing_replicates_are_dropped_while_few() -> None:
    values = np.append(np.full(96, 0.2), np.full(4, np.nan))
    assert paired_bootstrap_p(values) == pytest.approx(2 / 97)
    values[:2] = np.nan
    with pytest.raises(Undefined, match="6 of 100 resamples have no value"):
        paired_bootstrap_p(values)


# --- all pairs at once ---------------------------------------------------------------------------------------------


def test_all_pairs_are_right_by_chance_alone_in_five_of_a_hundred() -> None:
    """Six numbers that do not differ: how often any of their 15 pairs is called significant."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(6, 6))
    found = 0
    for _ in range(400):
        values = shared @ rng.normal(size=6)
        draws = values[:, None] + shared @ rng.normal(size=(6, 300))
        p = max_t(values - values.mean(), draws - values.mean())
        found += bool((p[np.triu_indices(6, 1)] < 0.05).any())
    assert 8 <= found <= 34  # 20 expected, within three deviations and a little


def test_all_pairs_of_two_numbers_are_the_one_pair() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(2, 999))
    values = np.array([1.5, 0.0])
    p = max_t(values, draws + values[:, None])
    t = np.abs(draws[0] - draws[1])
    expected = (1 + np.count_nonzero(t >= 1.5)) / 1000
    assert p[0, 1] == p[1, 0] == pytest.approx(expected, abs=0.002)


def test_what_never_varies_or_is_undefined_too_often_has_no_p_and_spoils_no_other() -> None:
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(4, 200))
    draws[1] = draws[0]  # alike
    draws[3, :50] = np.nan
    values = np.array([0.0, 0.0, 9.0, 0.0])
    p = max_t(values, draws + values[:, None])
    assert np.isnan(p[0, 1]) and np.isnan(p[3]).all()
    assert p[0, 2] == pytest.approx(1 / 201)


def test_one_number_has_no_pair() -> None:
    assert np.isnan(max_t(np.array([1.0]), np.ones((1, 10)))).all()
