"""Each metric agrees with scikit-learn, with closed forms and with counting by hand, and refuses what has no value."""

from __future__ import annotations

import warnings
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as reference

from dfad_bench.scoring import views as views_module
from dfad_bench.scoring.calibration import binned
from dfad_bench.scoring.metrics.accuracy import accuracy
from dfad_bench.scoring.metrics.auc import auc
from dfad_bench.scoring.metrics.average_precision import average_precision
from dfad_bench.scoring.metrics.balanced_accuracy import balanced_accuracy
from dfad_bench.scoring.metrics.brier import brier
from dfad_bench.scoring.metrics.ece import ece
from dfad_bench.scoring.metrics.eer import eer
from dfad_bench.scoring.metrics.macro_f1 import macro_f1
from dfad_bench.scoring.metrics.ovr_auc import ovr_auc
from dfad_bench.scoring.metrics.partial_auc import partial_auc
from dfad_bench.scoring.metrics.top_3_accuracy import top_3_accuracy
from dfad_bench.scoring.metrics.tpr_at_fpr_01pct import tpr_at_fpr_01pct
from dfad_bench.scoring.metrics.tpr_at_fpr_1pct import tpr_at_fpr_1pct
from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Undefined
from tests.scoring.views import (
    ANY_SCORE,
    OPEN_SET,
    a_view,
    an_attribution,
    an_open_set,
    attribution_views,
    built_in,
    dense,
    detection_views,
    in_resamples,
    open_set_views,
    recorded,
    resamples,
    value_or_nan,
    written_out,
)

RANKING = {"auc": auc, "average_precision": average_precision, "eer": eer, "partial_auc": partial_auc}
CLASSIFYING = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
TPR_AT = [(tpr_at_fpr_1pct, 0.01), (tpr_at_fpr_01pct, 0.001)]


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


def thresholds(view: DetectionView) -> list[float]:
    """Every threshold that tells some faces from others: one above all scores, and each score."""
    return [np.inf, *sorted(set(view.fake_score.tolist()))]


def at(view: DetectionView, threshold: float) -> Any:
    """Which faces are called fake; at infinity none, even if a score is infinite."""
    return np.zeros(len(view), bool) if threshold == np.inf else view.fake_score >= threshold


def naive_ece(confidence: Any, so: Any) -> float:
    """Guo et al.'s sum over bins ((b / 15, (b + 1) / 15]), in exact arithmetic; a confidence of 0 is in the first."""
    total = Fraction(0)
    for b in range(15):
        inside = [
            (Fraction(float(c)), int(s))
            for c, s in zip(confidence, so, strict=True)
            if Fraction(b, 15) < Fraction(float(c)) <= Fraction(b + 1, 15) or (b == 0 and c == 0)
        ]
        if inside:
            total += abs(sum(c for c, _ in inside) - sum(s for _, s in inside))
    return float(total / len(so))


def test_every_built_in_metric_is_registered_with_its_tasks() -> None:
    found = built_in()
    assert list(found) == [
        "accuracy",
        "auc",
        "average_precision",
        "balanced_accuracy",
        "brier",
        "ece",
        "eer",
        "macro_f1",
        "ovr_auc",
        "partial_auc",
        "top_3_accuracy",
        "tpr_at_fpr_01pct",
        "tpr_at_fpr_1pct",
    ]
    assert all(isinstance(metric, Metric) and metric.tasks and metric.resamples for metric in found.values())
    assert [name for name, metric in found.items() if not metric.higher_is_better] == ["brier", "ece", "eer"]
    attributing = ["accuracy", "balanced_accuracy", "ece", "macro_f1", "ovr_auc", "top_3_accuracy"]
    assert [name for name, metric in found.items() if "attribution" in metric.tasks] == attributing


# --- detection -----------------------------------------------------------------------------------------------------


@given(detection_views(ANY_SCORE))
def test_ranking_metrics_agree_with_scikit_learn_on_ties_constants_and_infinities(view: DetectionView) -> None:
    score = dense(view.fake_score)
    assert auc(view) == pytest.approx(reference.roc_auc_score(view.true, score), abs=1e-12)
    assert average_precision(view) == pytest.approx(reference.average_precision_score(view.true, score), abs=1e-12)
    assert partial_auc(view) == pytest.approx(reference.roc_auc_score(view.true, score, max_fpr=0.1), abs=1e-12)
    assert eer(view) == pytest.approx(brute_force_eer(view), abs=1e-12)


@given(detection_views(ANY_SCORE))
def test_the_curve_is_scikit_learns(view: DetectionView) -> None:
    fpr, tpr, _ = reference.roc_curve(view.true, dense(view.fake_score), drop_intermediate=False)
    assert view.curve.fpr == pytest.approx(fpr)
    assert view.curve.tpr == pytest.approx(tpr)


@given(detection_views(ANY_SCORE), st.sampled_from([0.0, 0.5, 0.875]))
def test_what_depends_on_a_threshold_agrees_with_scikit_learn(view: DetectionView, threshold: float) -> None:
    view = view.at(threshold)
    assert accuracy(view) == pytest.approx(reference.accuracy_score(view.true, view.predicted))
    assert balanced_accuracy(view) == pytest.approx(reference.balanced_accuracy_score(view.true, view.predicted))


@given(detection_views())
def test_the_brier_score_is_scikit_learns(view: DetectionView) -> None:
    assert brier(view) == pytest.approx(reference.brier_score_loss(view.true, view.fake_score), abs=1e-12)


@given(detection_views(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 0.2, 1 / 16]))))
def test_the_calibration_error_is_that_of_bins_filled_one_by_one(view: DetectionView) -> None:
    fifteenths = [Fraction(score) * 15 for score in view.fake_score.tolist()]
    # An edge such as 7/15 has no binary form, and a score beside it is told from it only by rounding.
    near = [0 < abs(each - round(each)) < 1e-9 and each > 1e-9 for each in fifteenths]
    view = a_view(view.is_fake, np.where(near, 0.5, view.fake_score))
    assert ece(view) == pytest.approx(naive_ece(view.fake_score, view.is_fake), abs=1e-12)


def test_a_confidence_on_the_edge_of_a_bin_is_in_the_lower_one() -> None:
    faces, confidence, so = binned(a_view([True, True, False, True], [0.0, 0.2, 0.4, 1.0]))
    assert np.flatnonzero(faces).tolist() == [0, 2, 5, 14]
    assert confidence[[0, 2, 5, 14]].tolist() == [0.0, 0.2, 0.4, 1.0]
    assert so[[0, 2, 5, 14]].tolist() == [1, 1, 0, 1]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(100, 0.01), (250, 0.01), (1000, 0.001), (2300, 0.001)]))
def test_a_true_positive_rate_is_the_best_that_any_threshold_has(seed: int, case: tuple[int, float]) -> None:
    reals, most = case
    rng = np.random.default_rng(seed)
    view = a_view(
        np.arange(reals + 40) >= reals, rng.normal(size=reals + 40).round(1) + 2 * (np.arange(reals + 40) >= reals)
    )
    found = {fpr: metric for metric, fpr in TPR_AT}[most](view)
    allowed = [
        at(view, t)[view.is_fake].mean() for t in thresholds(view) if at(view, t)[~view.is_fake].sum() <= reals * most
    ]
    assert found == pytest.approx(max(allowed), abs=1e-12)


@pytest.mark.parametrize(("metric", "fpr"), TPR_AT)
def test_a_rate_that_no_threshold_can_have_has_no_value(metric: Any, fpr: float) -> None:
    fewest = round(1 / fpr)
    assert float(metric(a_view([False] * fewest + [True], [0.0] * fewest + [1.0]))) == 1
    with pytest.raises(Undefined, match=f"fewer than {fewest:,} real faces"):
        metric(a_view([False] * (fewest - 1) + [True], [0.0] * (fewest - 1) + [1.0]))


@settings(max_examples=40)
@given(detection_views(ANY_SCORE, most=15))
def test_the_oracles_value_is_the_best_over_all_thresholds(view: DetectionView) -> None:
    found, ranked = recorded(), a_view(view.is_fake, dense(view.fake_score))
    for name, scored in (
        ("accuracy", reference.accuracy_score),
        ("balanced_accuracy", reference.balanced_accuracy_score),
    ):
        best = max(scored(view.true, at(ranked, t)) for t in thresholds(ranked))
        assert found[f"{name}@oracle"].compute(view) == pytest.approx(best, abs=1e-12)


@given(detection_views(ANY_SCORE))
def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_counting_half(view: DetectionView) -> None:
    fakes, reals = view.fake_score[view.is_fake][:, None], view.fake_score[~view.is_fake][None, :]
    pairs = float(np.mean((fakes > reals) + 0.5 * (fakes == reals)))
    assert auc(view) == pytest.approx(pairs, abs=1e-12)
    assert view.curve is not None  # drawn before, it is read instead of sorting again
    assert auc(view) == pytest.approx(pairs, abs=1e-12)


@given(detection_views())
def test_ranking_metrics_do_not_change_under_monotone_maps(view: DetectionView) -> None:
    for stretch in (lambda x: np.exp(3 * x) - 7, lambda x: -np.exp(-x), dense, lambda x: np.where(x > 0, x, -np.inf)):
        moved = a_view(view.is_fake, stretch(view.fake_score))
        for metric in RANKING.values():
            assert metric(moved) == metric(view)


@given(detection_views(ANY_SCORE))
def test_swapping_the_labels_turns_auc_around(view: DetectionView) -> None:
    assert auc(a_view(~view.is_fake, view.fake_score)) == pytest.approx(1 - auc(view))


@settings(max_examples=40)
@given(detection_views(), st.randoms(use_true_random=False))
def test_the_order_of_faces_does_not_matter(view: DetectionView, random: Any) -> None:
    order = list(range(len(view)))
    random.shuffle(order)
    shuffled = a_view(view.is_fake[order], view.fake_score[order])
    for name, metric in recorded().items():
        exact = name not in ("brier", "ece")  # they add fractions, whose sum depends on the order in its last bit
        expected = value_or_nan(metric.compute, view)
        assert value_or_nan(metric.compute, shuffled) == pytest.approx(expected, abs=0 if exact else 1e-12, nan_ok=True)


@given(detection_views(ANY_SCORE), st.integers(2, 4))
def test_faces_that_all_stand_several_times_change_nothing(view: DetectionView, times: int) -> None:
    repeated = view.take(np.tile(np.arange(len(view)), times))
    for metric in (*RANKING.values(), *CLASSIFYING.values()):
        assert metric(repeated) == pytest.approx(metric(view), abs=1e-12)


@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0])
def test_auc_and_eer_match_the_closed_form_for_gaussians(separation: float) -> None:
    # Quantiles instead of draws: the sample is the distribution, up to 1/n.
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    view = a_view(np.repeat([False, True], 20_000), np.concatenate([quantiles, quantiles + separation]))
    assert auc(view) == pytest.approx(norm.cdf(separation / np.sqrt(2)), abs=2e-4)
    assert eer(view) == pytest.approx(norm.cdf(-separation / 2), abs=2e-4)
    assert tpr_at_fpr_1pct(view) == pytest.approx(norm.sf(norm.ppf(0.99) - separation), abs=2e-3)
    assert tpr_at_fpr_01pct(view) == pytest.approx(norm.sf(norm.ppf(0.999) - separation), abs=2e-3)


@pytest.mark.parametrize("fakes", [1, 2, 3])
def test_constant_scores_know_nothing(fakes: int) -> None:
    view = a_view([True] * fakes + [False] * (4 - fakes), [0.3] * 4)
    assert auc(view) == 0.5
    assert average_precision(view) == fakes / 4  # 0.5 at 50 %; a peer says 0.307
    assert eer(view) == 0.5
    assert partial_auc(view) == pytest.approx(0.5)


def test_scores_that_know_nothing_have_half_an_area_up_to_any_rate() -> None:
    even = np.tile(np.arange(200), 2) / 200
    assert partial_auc(a_view(np.arange(400) < 200, even)) == pytest.approx(0.5, abs=2e-3)


def test_perfect_and_reversed_scores() -> None:
    perfect = a_view([False, False, True, True], [0.1, 0.2, 0.8, 0.9])
    assert [metric(perfect) for metric in (*RANKING.values(), *CLASSIFYING.values())] == [1, 1, 0, 1, 1, 1]
    reversed_ = a_view(~perfect.is_fake, perfect.fake_score)
    assert [auc(reversed_), eer(reversed_)] == [0, 1]


def test_eer_between_two_points_lies_on_the_line_that_joins_them() -> None:
    # Points (FPR, FNR): (0, 1), (0, 1/2), (1, 0). FNR = FPR on the last line at 1/3.
    assert eer(a_view([True, True, False], [0.9, 0.1, 0.1])) == pytest.approx(1 / 3)


def test_a_score_at_the_threshold_is_called_fake() -> None:
    assert accuracy(a_view([True, False], [0.5, 0.49999])) == 1
    assert accuracy(a_view([True, False], [0.5, 0.49999], threshold=0.6)) == 0.5


@pytest.mark.parametrize(
    ("is_fake", "reason"), [([], "no face"), ([True, True], "no real face"), ([False], "no fake face")]
)
def test_one_class_or_none_has_no_value_and_says_which(is_fake: list[bool], reason: str) -> None:
    view = a_view(is_fake, [0.5] * len(is_fake))
    two_sided = [*RANKING.values(), balanced_accuracy, tpr_at_fpr_1pct, tpr_at_fpr_01pct]
    two_sided += [recorded()[f"{name}@oracle"].compute for name in CLASSIFYING]
    for metric in two_sided:
        with pytest.raises(Undefined, match=f"^{reason}$"):
            metric(view)
    for metric in (accuracy, brier, ece):
        if len(view):
            assert np.isfinite(metric(view))
        else:
            with pytest.raises(Undefined, match=r"^no face$"):
                metric(view)


def test_a_million_faces_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    is_fake = rng.random(1_000_000) < 0.3
    score = (1 / (1 + np.exp(-rng.normal(size=len(is_fake)) - is_fake))).astype(np.float32).round(4)
    view = a_view(is_fake, score)
    assert auc(view) == pytest.approx(reference.roc_auc_score(is_fake, score), abs=1e-12)
    assert average_precision(view) == pytest.approx(reference.average_precision_score(is_fake, score), abs=1e-10)
    assert partial_auc(view) == pytest.approx(reference.roc_auc_score(is_fake, score, max_fpr=0.1), abs=1e-10)
    assert auc(view) == pytest.approx(reference.roc_auc_score(is_fake, score), abs=1e-12)  # now from the curve


# --- attribution ---------------------------------------------------------------------------------------------------


@given(attribution_views())
def test_attribution_metrics_agree_with_scikit_learn(view: AttributionView) -> None:
    true, predicted = view.true, view.predicted
    assert accuracy(view) == pytest.approx(reference.accuracy_score(true, predicted))
    assert view.confusion.tolist() == reference.confusion_matrix(true, predicted, labels=range(4)).tolist()
    if len(set(true.tolist())) < 2:
        for metric in (balanced_accuracy, macro_f1, ovr_auc):
            with pytest.raises(Undefined, match=r"^one class only$"):
                metric(view)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes that are predicted and never true
        expected = reference.balanced_accuracy_score(true, predicted)
    assert balanced_accuracy(view) == pytest.approx(expected)
    f1 = reference.f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    assert macro_f1(view) == pytest.approx(f1)
    each = [reference.roc_auc_score(true == value, view.probabilities[:, value]) for value in np.unique(true)]
    assert ovr_auc(view) == pytest.approx(np.mean(each), abs=1e-12)
    if len(each) == 4:
        theirs = reference.roc_auc_score(true, view.probabilities, multi_class="ovr", average="macro")
        assert ovr_auc(view) == pytest.approx(theirs, abs=1e-12)


@given(attribution_views())
def test_the_calibration_error_of_answers_is_that_of_bins_filled_one_by_one(view: AttributionView) -> None:
    confidence = view.probabilities.max(axis=1)
    if (np.abs(confidence * 15 - (confidence * 15).round()) > 1e-9).all():
        assert ece(view) == pytest.approx(naive_ece(confidence, view.true == view.predicted), abs=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(4, 5))
def test_without_ties_the_three_most_probable_are_scikit_learns(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    view = an_attribution(rng.integers(0, values, 50), rng.dirichlet(np.ones(values), 50))
    theirs = reference.top_k_accuracy_score(view.true, view.probabilities, k=3, labels=range(values))
    assert top_3_accuracy(view) == pytest.approx(theirs)


def test_of_values_that_tie_for_the_third_place_those_first_in_order_are_let_in() -> None:
    assert [float(top_3_accuracy(an_attribution([true], [[0.25] * 4]))) for true in range(4)] == [1, 1, 1, 0]
    assert [float(top_3_accuracy(an_attribution([true], [[0.1, 0.1, 0.4, 0.4]]))) for true in range(4)] == [1, 0, 1, 1]


def test_three_of_three_values_are_no_question() -> None:
    with pytest.raises(Undefined, match="training has only 3 classes"):
        top_3_accuracy(an_attribution([0], [[1.0, 0.0, 0.0]]))


def test_balanced_accuracy_weighs_rare_classes_alike() -> None:
    table = np.eye(2)[[0] * 8 + [0, 1]]
    view = an_attribution([0] * 8 + [1] * 2, table)
    assert accuracy(view) == pytest.approx(0.9)
    assert balanced_accuracy(view) == pytest.approx(0.75)


def test_a_class_that_is_predicted_and_never_true_is_a_miss_and_no_class_of_its_own() -> None:
    view = an_attribution([0, 0, 1, 1], np.eye(3)[[0, 2, 1, 1]])
    assert macro_f1(view) == pytest.approx((2 / 3 + 1) / 2)


def test_no_face_has_no_attribution() -> None:
    empty = an_attribution(np.empty(0), np.empty((0, 4)))
    for metric in (accuracy, balanced_accuracy, ece, macro_f1, ovr_auc, top_3_accuracy):
        with pytest.raises(Undefined, match=r"^no face$"):
            metric(empty)


@given(attribution_views(), st.data())
def test_a_view_of_some_rows_of_a_table_is_that_of_a_table_of_these_rows(view: AttributionView, data: Any) -> None:
    rows = np.asarray(data.draw(st.lists(st.integers(0, len(view) - 1), max_size=20)), np.intp)
    part = view.take(rows)
    copied = an_attribution(view.true[rows], view.table[rows].reshape(-1, 4), view.predicted[rows])
    assert part.table is view.table
    for metric in (accuracy, balanced_accuracy, ece, macro_f1, ovr_auc, top_3_accuracy):
        assert value_or_nan(metric, part) == pytest.approx(value_or_nan(metric, copied), nan_ok=True)


# --- resamples -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(detection_views(most=10), st.data())
def test_a_detection_value_in_a_resample_is_that_of_the_faces_written_out(view: DetectionView, data: Any) -> None:
    cluster, multiplicity = data.draw(resamples(len(view)))
    for name, metric in recorded().items():
        expected = [value_or_nan(metric.compute, written_out(view, cluster, drawn)) for drawn in multiplicity]
        found = in_resamples(metric.compute, view, cluster, multiplicity)
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(attribution_views(most=10), st.data())
def test_an_attribution_value_in_a_resample_is_that_of_the_faces_written_out(view: AttributionView, data: Any) -> None:
    cluster, multiplicity = data.draw(resamples(len(view)))
    for name, metric in built_in().items():
        if "attribution" in metric.tasks:
            expected = [value_or_nan(metric.compute, written_out(view, cluster, drawn)) for drawn in multiplicity]
            found = in_resamples(metric.compute, view, cluster, multiplicity)
            assert found == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(open_set_views(most=10), st.data())
def test_an_open_set_value_in_a_resample_is_that_of_the_faces_written_out(view: Any, data: Any) -> None:
    cluster, multiplicity = data.draw(resamples(len(view)))
    for name, compute in OPEN_SET.items():
        expected = [value_or_nan(compute, written_out(view, cluster, drawn)) for drawn in multiplicity]
        assert in_resamples(compute, view, cluster, multiplicity) == pytest.approx(expected, abs=1e-12, nan_ok=True), (
            name
        )


def test_a_rate_in_a_resample_is_that_of_the_faces_written_out_however_few_reals_were_drawn() -> None:
    rng = np.random.default_rng(0)
    is_fake = np.arange(150) < 40
    view = a_view(is_fake, rng.normal(size=150).round(1) + is_fake)
    cluster = rng.integers(0, 12, 150).astype(np.int32)
    cluster[is_fake] //= 6  # clusters 0 and 1 hold all fakes
    multiplicity = rng.integers(0, 3, (60, 12)).astype(np.int32)
    multiplicity[:2] = [[1, 1] + [0] * 10, [0, 0] + [1] * 10]
    found = in_resamples(tpr_at_fpr_1pct, view, cluster, multiplicity)
    assert np.isnan(found[1])
    # That there are a hundred reals is asked of the faces as they are, not of every resample.
    for value, drawn in zip(found, multiplicity, strict=True):
        faces = written_out(view, cluster, drawn)
        assert isinstance(faces, DetectionView)
        two = faces.is_fake.any() and not faces.is_fake.all()
        expected = float(faces.curve.tpr_at(0.01)) if two else np.nan
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_resample_without_reals_has_no_rate() -> None:
    is_fake = np.arange(150) < 40
    cluster = is_fake.astype(np.int32)
    found = in_resamples(tpr_at_fpr_1pct, a_view(is_fake, is_fake), cluster, np.asarray([[0, 1], [1, 0], [1, 1]]))
    assert found == pytest.approx([np.nan, np.nan, 1], nan_ok=True)


def few_clusters(faces: int = 20_000) -> tuple[DetectionView, Any, Any]:
    """Faces of both classes and with ties in 30 clusters, two of them fakes only, and 40 resamples."""
    rng = np.random.default_rng(1)
    cluster = rng.integers(0, 30, faces).astype(np.int32)
    is_fake = (rng.random(faces) < 0.4) | (cluster < 2)
    score = rng.integers(0, 200, faces) / 200 + is_fake / 10
    multiplicity = rng.multinomial(30, np.full(30, 1 / 30), 40).astype(np.int32)
    multiplicity[0] = [3] + [0] * 29  # fakes alone
    return a_view(is_fake, score), cluster, multiplicity


def test_comparing_clusters_once_gives_the_aucs_of_the_curves() -> None:
    view, cluster, multiplicity = few_clusters()
    resampled = view.clustered(cluster).resampled(multiplicity)
    assert resampled.wins is not None
    by_wins = np.asarray(auc(resampled))
    drawn = view.clustered(cluster).resampled(multiplicity)
    assert drawn.curve is not None and drawn.wins is None
    np.testing.assert_allclose(by_wins, auc(drawn), rtol=0, atol=1e-12)
    assert np.isnan(by_wins).tolist() == [True] + [False] * 39
    faces = written_out(view, cluster, multiplicity[3])
    assert isinstance(faces, DetectionView)
    assert by_wins[3] == pytest.approx(reference.roc_auc_score(faces.is_fake, faces.fake_score), abs=1e-12)


def test_comparing_clusters_once_gives_the_aucs_of_the_curves_for_each_value_and_for_unknown_faces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view, cluster, multiplicity = few_clusters()
    rng = np.random.default_rng(2)
    table = rng.dirichlet(np.ones(3), len(view)).round(2)
    attributed = an_attribution(np.where(view.is_fake, 1 + (rng.random(len(view)) < 0.3), 0), table)
    doubted = an_open_set(view.is_fake, view.fake_score, rng.random(len(view)) < 0.5)
    asked: list[tuple[Any, Any]] = [(ovr_auc, attributed), *((compute, doubted) for compute in OPEN_SET.values())]
    assert attributed.clustered(cluster).resampled(multiplicity).asked_for(1).wins is not None
    by_wins = [in_resamples(compute, each, cluster, multiplicity) for compute, each in asked]
    monkeypatch.setattr(views_module, "_WINS_PAY_FROM", len(view) + 1)
    by_curves = [in_resamples(compute, each, cluster, multiplicity) for compute, each in asked]
    np.testing.assert_allclose(by_wins, by_curves, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(detection_views(ANY_SCORE, most=12), st.data())
def test_comparing_clusters_once_is_right_however_few_faces_there_are(view: DetectionView, data: Any) -> None:
    cluster, multiplicity = data.draw(resamples(len(view)))
    expected = [value_or_nan(auc, written_out(view, cluster, drawn)) for drawn in multiplicity]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views_module, "_WINS_PAY_FROM", 0)
        assert in_resamples(auc, view, cluster, multiplicity) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(attribution_views(values=3, most=10), st.data())
def test_a_view_that_is_clustered_anew_forgets_its_clusters(view: AttributionView, data: Any) -> None:
    first, second = (data.draw(resamples(len(view))) for _ in range(2))
    in_resamples(ovr_auc, view, *first)
    fresh = an_attribution(view.true, view.table, view.predicted)
    expected = in_resamples(ovr_auc, fresh, *second)
    assert in_resamples(ovr_auc, view, *second) == pytest.approx(expected, nan_ok=True)


@given(attribution_views(most=10), st.data())
def test_counting_faces_one_by_one_gives_what_a_table_of_clusters_gives(view: AttributionView, data: Any) -> None:
    cluster, multiplicity = data.draw(resamples(len(view)))
    expected = [in_resamples(metric, view, cluster, multiplicity) for metric in (accuracy, ece)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views_module, "_MANY", 0)
        found = [in_resamples(metric, view, cluster, multiplicity) for metric in (accuracy, ece)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
