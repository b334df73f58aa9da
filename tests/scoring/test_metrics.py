"""Each metric agrees with scikit-learn, with closed forms and with counting by hand, and refuses what has no value."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn import metrics as reference

from dfad_bench import registry
from dfad_bench.scoring.metrics.accuracy import accuracy
from dfad_bench.scoring.metrics.auc import auc
from dfad_bench.scoring.metrics.average_precision import average_precision
from dfad_bench.scoring.metrics.balanced_accuracy import balanced_accuracy
from dfad_bench.scoring.metrics.eer import eer
from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Undefined

RANKING = (auc, average_precision, eer)


def a_view(is_fake: Any, fake_score: Any, threshold: float = 0.5) -> DetectionView:
    return DetectionView(np.asarray(is_fake, dtype=bool), np.asarray(fake_score, dtype=np.float64), threshold)


def an_attribution(true: list[str], predicted: list[str]) -> AttributionView:
    values = tuple(sorted({*true, *predicted}))
    return AttributionView(
        np.asarray(true, dtype=object),
        np.asarray(predicted, dtype=object),
        np.full((len(true), len(values)), 1 / max(len(values), 1)),
        values,
    )


@st.composite
def views(draw: st.DrawFn) -> DetectionView:
    """Views of both classes with many ties: scores are multiples of 1/8."""
    labels = [False, True, *draw(st.lists(st.booleans(), max_size=30))]
    scores = draw(st.lists(st.integers(0, 8), min_size=len(labels), max_size=len(labels)))
    return a_view(labels, np.asarray(scores) / 8)


def brute_force_eer(view: DetectionView) -> float:
    """Walk the thresholds from above and cross FPR = FNR on the straight line between neighbours."""
    reals, fakes = view.fake_score[~view.is_fake], view.fake_score[view.is_fake]
    points = [(0.0, 1.0)]
    points += [
        (float((reals >= t).mean()), float((fakes < t).mean())) for t in sorted(set(view.fake_score.tolist()))[::-1]
    ]
    for (fpr0, fnr0), (fpr1, fnr1) in pairwise(points):
        if fnr1 <= fpr1:
            share = (fnr0 - fpr0) / ((fnr0 - fpr0) + (fpr1 - fnr1))
            return fpr0 + share * (fpr1 - fpr0)
    raise AssertionError("the curve ends at FPR 1, FNR 0")


def test_every_built_in_metric_is_registered_with_its_tasks() -> None:
    found = {
        name: registry.get("metrics", name)
        for name, entry in registry.entries("metrics").items()
        if entry.origin == "built-in"
    }
    assert list(found) == ["accuracy", "auc", "average_precision", "balanced_accuracy", "eer"]
    assert all(isinstance(metric, Metric) and metric.tasks for metric in found.values())
    assert [name for name, metric in found.items() if not metric.higher_is_better] == ["eer"]


@given(views())
def test_detection_metrics_agree_with_scikit_learn_on_ties(view: DetectionView) -> None:
    assert auc(view) == pytest.approx(reference.roc_auc_score(view.true, view.fake_score))
    assert average_precision(view) == pytest.approx(reference.average_precision_score(view.true, view.fake_score))
    assert accuracy(view) == pytest.approx(reference.accuracy_score(view.true, view.predicted))
    assert balanced_accuracy(view) == pytest.approx(reference.balanced_accuracy_score(view.true, view.predicted))


@given(views())
def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_counting_half(view: DetectionView) -> None:
    difference = view.fake_score[view.is_fake][:, None] - view.fake_score[~view.is_fake][None, :]
    assert auc(view) == pytest.approx(np.mean((difference > 0) + 0.5 * (difference == 0)))


@given(views())
def test_eer_agrees_with_walking_the_thresholds(view: DetectionView) -> None:
    assert eer(view) == pytest.approx(brute_force_eer(view), abs=1e-12)


@given(views())
def test_ranking_metrics_do_not_change_under_monotone_transforms(view: DetectionView) -> None:
    moved = a_view(view.is_fake, np.exp(3 * view.fake_score) - 7)
    for metric in RANKING:
        assert metric(moved) == pytest.approx(metric(view), abs=1e-12)


@given(views())
def test_swapping_the_labels_turns_auc_around(view: DetectionView) -> None:
    assert auc(a_view(~view.is_fake, view.fake_score)) == pytest.approx(1 - auc(view))


@given(views(), st.randoms(use_true_random=False))
def test_the_order_of_faces_does_not_matter(view: DetectionView, random: Any) -> None:
    order = list(range(len(view.is_fake)))
    random.shuffle(order)
    shuffled = a_view(view.is_fake[order], view.fake_score[order])
    for metric in (*RANKING, accuracy, balanced_accuracy):
        assert metric(shuffled) == metric(view)


@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0])
def test_auc_and_eer_match_the_closed_form_for_gaussians(separation: float) -> None:
    # Quantiles instead of draws: the sample is the distribution, up to 1/n.
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    view = a_view(np.repeat([False, True], 20_000), np.concatenate([quantiles, quantiles + separation]))
    assert auc(view) == pytest.approx(norm.cdf(separation / np.sqrt(2)), abs=2e-4)
    assert eer(view) == pytest.approx(norm.cdf(-separation / 2), abs=2e-4)


def test_constant_scores_know_nothing() -> None:
    view = a_view([True, False, False, False], [0.3] * 4)
    assert auc(view) == 0.5
    assert average_precision(view) == 0.25
    assert eer(view) == 0.5


def test_perfect_and_reversed_scores() -> None:
    perfect = a_view([False, False, True, True], [0.1, 0.2, 0.8, 0.9])
    assert [metric(perfect) for metric in (*RANKING, accuracy, balanced_accuracy)] == [1, 1, 0, 1, 1]
    assert eer(a_view(~perfect.is_fake, perfect.fake_score)) == 1
    assert auc(a_view(~perfect.is_fake, perfect.fake_score)) == 0


def test_eer_between_two_points_lies_on_the_line_that_joins_them() -> None:
    # Points (FPR, FNR): (0, 1), (0, 1/2), (1, 0). FNR = FPR on the last line at 1/3.
    assert eer(a_view([True, True, False], [0.9, 0.1, 0.1])) == pytest.approx(1 / 3)


def test_a_score_at_the_threshold_is_called_fake() -> None:
    assert accuracy(a_view([True, False], [0.5, 0.49999])) == 1
    assert accuracy(a_view([True, False], [0.5, 0.49999], threshold=0.6)) == 0.5


@pytest.mark.parametrize("metric", [*RANKING, balanced_accuracy])
@pytest.mark.parametrize("is_fake", [[], [True, True], [False, False]])
def test_one_class_or_none_has_no_value(metric: Callable[[DetectionView], float], is_fake: list[bool]) -> None:
    with pytest.raises(Undefined, match=r"no face|no real face|no fake face|one class only"):
        metric(a_view(is_fake, [0.5] * len(is_fake)))


def test_accuracy_of_no_face_has_no_value() -> None:
    with pytest.raises(Undefined, match="no face"):
        accuracy(a_view([], []))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_attribution_metrics_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    true, predicted = map(list, zip(*pairs, strict=True))
    view = an_attribution(true, predicted)
    assert accuracy(view) == pytest.approx(reference.accuracy_score(true, predicted))
    if len(set(true)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of classes that are predicted and never true
            expected = reference.balanced_accuracy_score(true, predicted)
        assert balanced_accuracy(view) == pytest.approx(expected)


def test_balanced_accuracy_weighs_rare_classes_alike() -> None:
    view = an_attribution(["a"] * 8 + ["b"] * 2, ["a"] * 8 + ["a", "b"])
    assert accuracy(view) == pytest.approx(0.9)
    assert balanced_accuracy(view) == pytest.approx(0.75)


def test_a_metric_returns_a_plain_float() -> None:
    view: NDArray[Any] = np.asarray([0.1, 0.2, 0.8, 0.15])
    for metric in (*RANKING, accuracy, balanced_accuracy):
        assert type(metric(a_view([False, False, True, True], view))) is float
