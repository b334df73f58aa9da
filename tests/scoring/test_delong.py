"""DeLong's variance is that of counting pairs, holds under clusters, and is right about simulated AUCs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from dfad_bench.scoring.statistics.delong import delong_interval, delong_variance, paired_delong, structural
from dfad_bench.scoring.views import Undefined

SEEDS = st.integers(0, 2**32 - 1)


def kernel(positive: Any, score: Any) -> Any:
    """Return [P, Q]: 1 where the positive scores higher, 0.5 where both are the same."""
    above = score[positive][:, None] > score[~positive][None, :]
    return above + 0.5 * (score[positive][:, None] == score[~positive][None, :])


def tied(seed: int, faces: int = 40) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(faces) < faces // 3)
    return positive, rng.integers(0, 8, faces) / 8 + positive / 4, rng.integers(0, 9, faces)


def frames(rng: Any, clusters: int, each: int, mixed: bool) -> tuple[Any, Any, Any]:
    """Gaussian scores with intraclass correlation 0.5; a cluster holds both classes where ``mixed``."""
    cluster = np.repeat(np.arange(clusters), each)
    positive = np.tile(np.arange(each) < each // 2, clusters) if mixed else cluster < clusters // 2
    score = rng.normal(size=clusters)[cluster] + rng.normal(size=len(cluster)) + positive
    return positive, score, cluster


@given(SEEDS)
def test_structural_components_are_the_shares_of_pairs_won(seed: int) -> None:
    positive, score, _ = tied(seed)
    auc, v10, v01 = structural(positive, score)
    pairs = kernel(positive, score)
    assert auc == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert v10 == pytest.approx(pairs.mean(axis=1), abs=1e-12)
    assert v01 == pytest.approx(pairs.mean(axis=0), abs=1e-12)


@given(SEEDS)
def test_the_variance_is_delongs(seed: int) -> None:
    positive, score, _ = tied(seed)
    pairs = kernel(positive, score)
    expected = pairs.mean(axis=1).var(ddof=1) / len(pairs) + pairs.mean(axis=0).var(ddof=1) / pairs.shape[1]
    assert delong_variance(positive, score)[1] == pytest.approx(expected, rel=1e-9)


@given(SEEDS)
def test_clusters_of_one_face_give_delongs_variance(seed: int) -> None:
    positive, score, _ = tied(seed)
    alone = np.random.default_rng(seed).permutation(len(score)) * 3 - 5
    assert delong_variance(positive, score, alone) == pytest.approx(delong_variance(positive, score), rel=1e-12)
    other = score[::-1]
    clustered, classic = (paired_delong(positive, score, other, each) for each in (alone, None))
    assert clustered.variance == pytest.approx(classic.variance, rel=1e-12)


@given(SEEDS)
def test_the_clustered_variance_is_obuchowskis(seed: int) -> None:
    positive, score, cluster = tied(seed)
    pairs = kernel(positive, score)
    auc = pairs.mean()
    sums = []
    for name in np.unique(cluster):
        rows, columns = cluster[positive] == name, cluster[~positive] == name
        sums.append(
            (
                pairs.mean(axis=1)[rows].sum() - rows.sum() * auc,
                pairs.mean(axis=0)[columns].sum() - columns.sum() * auc,
                bool(rows.any()),
                bool(columns.any()),
            )
        )
    m, n = pairs.shape
    i10, i01, i = sum(s[2] for s in sums), sum(s[3] for s in sums), len(sums)
    s10 = i10 / ((i10 - 1) * m) * sum(s[0] ** 2 for s in sums)
    s01 = i01 / ((i01 - 1) * n) * sum(s[1] ** 2 for s in sums)
    s11 = i / (i - 1) * sum(s[0] * s[1] for s in sums)
    assert delong_variance(positive, score, cluster)[1] == pytest.approx(
        s10 / m + s01 / n + 2 * s11 / (m * n), rel=1e-9
    )


def test_copies_of_a_face_in_its_cluster_add_no_certainty() -> None:
    positive, score, cluster = frames(np.random.default_rng(0), 30, 6, mixed=True)
    twice = np.repeat(np.arange(len(score)), 2)
    once = delong_variance(positive, score, cluster)
    assert delong_variance(positive[twice], score[twice], cluster[twice]) == pytest.approx(once, rel=1e-12)
    assert delong_variance(positive[twice], score[twice])[1] < 0.51 * delong_variance(positive, score)[1]


@pytest.mark.parametrize("mixed", [False, True])
def test_the_clustered_variance_is_that_of_simulated_aucs(mixed: bool) -> None:
    rng = np.random.default_rng(0)
    found = [
        (*delong_variance(positive, score, cluster), delong_variance(positive, score)[1])
        for positive, score, cluster in (frames(rng, 60, 10, mixed) for _ in range(1500))
    ]
    aucs, clustered, naive = np.asarray(found).T
    # The variance of 1500 draws is known to 4 % (one standard error).
    assert clustered.mean() == pytest.approx(aucs.var(), rel=0.12)
    # Shared effects widen AUCs of separate clusters, and cancel between the classes of one cluster.
    assert (naive.mean() < 0.5 * aucs.var()) if not mixed else (naive.mean() > 1.15 * aucs.var())


def test_the_difference_has_the_variance_of_its_covariance_matrix() -> None:
    rng = np.random.default_rng(2)
    positive, a, _ = tied(2)
    b = a + rng.normal(size=len(a))
    one, other = kernel(positive, a), kernel(positive, b)
    covariance = sum(np.cov(one.mean(axis=axis), other.mean(axis=axis)) / one.shape[1 - axis] for axis in (0, 1))
    found = paired_delong(positive, a, b)
    assert found.variance == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], rel=1e-9)
    assert (found.auc_a, found.auc_b) == pytest.approx((one.mean(), other.mean()))
    assert found.difference == found.auc_a - found.auc_b
    assert found.z == pytest.approx(found.difference / math.sqrt(found.variance))
    assert found.p == pytest.approx(2 * norm.sf(abs(found.z)))
    half = norm.ppf(0.975) * math.sqrt(found.variance)
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half))


@given(SEEDS)
def test_swapping_the_models_turns_the_difference_around(seed: int) -> None:
    positive, a, cluster = tied(seed)
    b = a[::-1]
    one, other = paired_delong(positive, a, b, cluster), paired_delong(positive, b, a, cluster)
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
    assert one.p == other.p


def test_equal_models_are_rejected_as_often_as_stated_only_with_clusters() -> None:
    rng = np.random.default_rng(4)
    rejected = np.zeros(2)
    for _ in range(600):
        positive, a, cluster = frames(rng, 80, 8, mixed=False)
        b = rng.normal(size=80)[cluster] + rng.normal(size=len(a)) + positive
        rejected += [paired_delong(positive, a, b, c).p <= 0.05 for c in (cluster, None)]
    assert 0.03 <= rejected[0] / 600 <= 0.08
    assert rejected[1] / 600 > 0.2


@given(SEEDS)
def test_only_the_order_of_scores_matters_and_infinity_is_a_score(seed: int) -> None:
    positive, score, cluster = tied(seed)
    stretched = np.where(score == score.max(), np.inf, np.where(score == score.min(), -np.inf, score**3))
    assert delong_variance(positive, stretched, cluster) == delong_variance(positive, score, cluster)


@settings(max_examples=50)
@given(st.floats(0.001, 0.999), st.floats(1e-8, 0.05))
def test_an_interval_holds_its_auc_and_stays_within_0_and_1(auc: float, variance: float) -> None:
    low, high = delong_interval(auc, variance)
    assert 0 <= low < auc < high <= 1
    mirrored = delong_interval(1 - auc, variance)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-9)


def test_a_narrow_interval_is_the_normal_one() -> None:
    low, high = delong_interval(0.8, 1e-8, confidence=0.9)
    assert (low, high) == pytest.approx((0.8 - 1.644854e-4, 0.8 + 1.644854e-4), abs=1e-7)


@pytest.mark.parametrize(
    ("auc", "variance", "why"), [(1.0, 0.0, "an AUC of 1"), (0.0, 0.1, "an AUC of 0"), (0.5, 0.0, "no variance")]
)
def test_certainty_is_refused(auc: float, variance: float, why: str) -> None:
    with pytest.raises(Undefined, match=why):
        delong_interval(auc, variance)


@pytest.mark.parametrize(
    ("positive", "cluster", "why"),
    [
        ([0, 0, 0, 0], None, "no positive"),
        ([1, 1, 1, 1], None, "no negative"),
        ([1, 0, 0, 0], None, "one positive only"),
        ([1, 1, 1, 0], None, "one negative only"),
        ([1, 1, 0, 0], [0, 0, 1, 2], "one cluster with a positive only"),
        ([1, 1, 0, 0], [0, 1, 1, 1], "one cluster with a negative only"),
    ],
)
def test_what_has_no_spread_has_no_variance(positive: list[int], cluster: Any, why: str) -> None:
    groups = None if cluster is None else np.asarray(cluster)
    with pytest.raises(Undefined, match=why):
        delong_variance(np.asarray(positive, dtype=bool), np.arange(4.0), groups)


def test_a_model_does_not_differ_from_itself() -> None:
    positive, score, _ = tied(1)
    with pytest.raises(Undefined, match="the difference has no variance"):
        paired_delong(positive, score, score * 2)
