"""A ranking counts faces as comparing each of them with each threshold does, and sorts only what is not sorted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.scoring.ranking import Curve, Ranking, divided
from tests.scoring.views import ANY_SCORE, detection_views

SCORES = st.lists(ANY_SCORE, max_size=30).map(lambda scores: np.asarray(scores, np.float64))


@given(SCORES, st.booleans())
def test_thresholds_are_infinity_and_the_distinct_scores_from_above(score: Any, is_sorted: bool) -> None:
    score = -np.sort(-score) if is_sorted else score
    ranking = Ranking.of(score)
    assert ranking.threshold.tolist() == [np.inf, *sorted(set(score.tolist()), reverse=True)]
    assert ranking.in_order(score).tolist() == sorted(score.tolist(), reverse=True)
    assert ranking.order is None or not is_sorted
    assert (ranking.end is None) == (len(set(score.tolist())) == len(score))


@given(SCORES, st.data())
def test_faces_are_counted_as_comparing_each_with_each_threshold(score: Any, data: Any) -> None:
    weight = np.asarray(
        data.draw(
            st.lists(st.lists(st.integers(0, 5), min_size=len(score), max_size=len(score)), min_size=2, max_size=2)
        ),
        np.int32,
    ).reshape(2, len(score))
    ranking = Ranking.of(score)
    counts = ranking.counted(np.stack([ranking.in_order(row) for row in weight]))
    expected = [[0, *(row[score >= threshold].sum() for threshold in ranking.threshold[1:])] for row in weight]
    assert counts.tolist() == expected


@given(detection_views(ANY_SCORE))
def test_a_curve_runs_from_nothing_to_everything(view: Any) -> None:
    curve = view.curve
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.fpr) + np.diff(curve.tpr) > 0).all()
    assert (curve.fakes, curve.reals) == (view.is_fake.sum(), (~view.is_fake).sum())


def test_a_resample_without_one_class_has_no_rate_at_all() -> None:
    curve = Curve(np.asarray([np.inf, 1.0]), np.asarray([[0, 2], [0, 0], [0, 1]]), np.asarray([[0, 0], [0, 3], [0, 1]]))
    assert curve.tpr_at(0.01).tolist() == [pytest.approx(np.nan, nan_ok=True)] * 2 + [0]
    assert curve.defined(np.ones(3)).tolist() == [pytest.approx(np.nan, nan_ok=True)] * 2 + [1]


def test_over_no_face_there_is_no_quotient() -> None:
    assert divided(np.asarray([0, 1]), np.asarray([0, 4])).tolist() == [pytest.approx(np.nan, nan_ok=True), 0.25]
