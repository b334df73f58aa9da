"""The pairs won between clusters are those that counting finds, and give the AUC of the resampled faces themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from dfad_bench.scoring.statistics.wins import Wins, win_matrix

INFINITY = float("inf")
SCORES = st.sampled_from([-INFINITY, -1.0, -0.0, 0.0, 0.25, 0.5, 1.0, INFINITY])


def counted(positive: Any, score: Any, cluster: Any, clusters: int) -> Any:
    """The full matrix [C, C] by comparing every pair."""
    matrix = np.zeros((clusters, clusters))
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            matrix[cluster[i], cluster[j]] += (score[i] > score[j]) + 0.5 * (score[i] == score[j])
    return matrix


def check(wins: Wins, positive: Any, score: Any, cluster: Any, clusters: int) -> None:
    assert wins.positive_clusters.tolist() == np.unique(cluster[positive]).tolist()
    assert wins.negative_clusters.tolist() == np.unique(cluster[~positive]).tolist()
    assert wins.positives.tolist() == [float((cluster[positive] == c).sum()) for c in wins.positive_clusters]
    assert wins.negatives.tolist() == [float((cluster[~positive] == c).sum()) for c in wins.negative_clusters]
    expected = counted(positive, score, cluster, clusters)[np.ix_(wins.positive_clusters, wins.negative_clusters)]
    assert np.array_equal(wins.matrix, expected)


@given(st.data(), st.integers(1, 6))
def test_every_pair_is_counted_once_whatever_ties(data: st.DataObject, clusters: int) -> None:
    rows = st.tuples(st.booleans(), SCORES, st.integers(0, clusters - 1))
    faces = data.draw(st.lists(rows, max_size=60))
    positive = np.asarray([face[0] for face in faces], dtype=bool)
    score = np.asarray([face[1] for face in faces], dtype=np.float64)
    cluster = np.asarray([face[2] for face in faces], dtype=np.intp)
    check(win_matrix(positive, score, cluster, clusters), positive, score, cluster, clusters)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([1, 3, 40, 10_000]))
def test_every_pair_is_counted_once_over_many_blocks(seed: int, clusters: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(400) < 0.5
    # A skewed choice of levels puts long runs of one score between scores that occur once.
    score = np.floor(levels * rng.random(400) ** 3) / 7
    cluster = rng.integers(0, clusters, 400)
    check(win_matrix(positive, score, cluster, clusters), positive, score, cluster, clusters)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_resamples_auc_is_that_of_its_faces_written_out(seed: int, one_class_each: bool) -> None:
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 7, 80)
    positive = cluster < 3 if one_class_each else rng.random(80) < 0.5
    score = rng.integers(0, 9, 80) / 8 + positive / 4
    multiplicity = rng.multinomial(7, np.full(7, 1 / 7), 20)
    found = win_matrix(positive, score, cluster, 7).auc(multiplicity)
    for auc, times in zip(found, multiplicity, strict=True):
        rows = np.repeat(np.arange(80), times[cluster])
        if len(set(positive[rows].tolist())) < 2:
            assert np.isnan(auc)
        else:
            assert auc == pytest.approx(roc_auc_score(positive[rows], score[rows]), abs=1e-12)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_only_has_an_empty_matrix_and_no_auc(label: bool) -> None:
    wins = win_matrix(np.full(4, label), np.arange(4.0), np.asarray([0, 0, 2, 2]), 3)
    assert wins.matrix.shape == ((2, 0) if label else (0, 2))
    assert np.isnan(wins.auc(np.ones((2, 3), dtype=np.int32))).all()


def test_faces_in_another_order_win_the_same_pairs() -> None:
    rng = np.random.default_rng(3)
    positive, score, cluster = rng.random(5000) < 0.3, rng.normal(size=5000).round(2), rng.integers(0, 50, 5000)
    shuffled = rng.permutation(5000)
    one = win_matrix(positive, score, cluster, 50)
    other = win_matrix(positive[shuffled], score[shuffled], cluster[shuffled], 50)
    assert np.array_equal(one.matrix, other.matrix)
    assert one.matrix.sum() / (one.positives.sum() * one.negatives.sum()) == pytest.approx(
        roc_auc_score(positive, score), abs=1e-12
    )
