"""Confusion matrices count every face, diagrams are those of their bins, and thinned curves stay where they were."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records.results import CurveRecord, Details
from dfad_bench.scoring import details
from dfad_bench.scoring.details import _thinned
from dfad_bench.scoring.score import Options, score
from dfad_bench.types import REAL
from tests.scoring.builders import KNOWN, Face, pick, predictions, scores_of
from tests.scoring.views import a_view, detection_views, open_set_views

FACES = [
    Face(REAL, says=REAL, fake_score=0.1, video="r"),
    Face(REAL, says="ddpm", fake_score=0.7, video="r"),
    Face("ddpm", says="ddpm", fake_score=0.9),
    Face("ddpm", says="ddpm", fake_score=0.2),
    Face("sd15", says="ddpm", fake_score=0.95),
    Face("stylegan3", "unseen", says="simswap", fake_score=0.55),
]


def details_of(faces: list[Face], **given: Any) -> Details:
    return score(predictions(faces, **given), Options(0)).details


def test_a_confusion_matrix_has_a_row_for_each_true_value_and_a_column_for_each_of_training() -> None:
    found = {(each.level, each.unit, each.subset): each for each in details_of(FACES).confusion}
    assert len(found) == 3 * 2 * 2
    frames = found["generator", "frame", "seen"]
    assert (frames.rows, frames.columns) == ([REAL, "ddpm", "sd15"], [REAL, "ddpm", "simswap", "stylegan3"])
    assert frames.counts == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0]]
    assert found["family", "frame", "seen"].counts == [[1, 1, 0], [0, 3, 0]]
    assert sum(found["generator", "video", "seen"].counts[0]) == 1  # the two frames of one video are one
    assert found["generator", "frame", "unseen"].counts == [[0, 0, 1, 0]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(Face, generator=st.sampled_from(sorted(KNOWN)), says=st.sampled_from(["ddpm", REAL])), max_size=12
    )
)
def test_the_rows_of_a_confusion_matrix_sum_to_the_faces_of_each_value(faces: list[Face]) -> None:
    for each in details_of(faces).confusion:
        if each.subset == "seen":
            true = Counter(
                getattr(KNOWN[face.generator], "name" if each.level == "generator" else each.level) for face in faces
            )
            assert dict(zip(each.rows, map(sum, each.counts), strict=True)) == true
            assert {len(row) for row in each.counts} <= {len(each.columns)}


def test_a_reliability_diagram_has_the_calibration_error_of_its_faces() -> None:
    scores = scores_of(FACES)
    found = details_of(FACES).reliability
    assert len(found) == 2 * 2 * (1 + 3)
    for each in found:
        gaps = [
            count * abs(confidence - fraction)
            for count, confidence, fraction in zip(each.faces, each.confidence, each.fraction, strict=True)
            if confidence is not None and fraction is not None
        ]
        same = {"subset": each.subset, "level": each.level, "unit": each.unit, "task": each.task}
        expected = pick(scores, "ece", "pooled", **same)
        if expected.value is not None:
            assert sum(gaps) / sum(each.faces) == pytest.approx(expected.value, abs=1e-12)
        assert all((count == 0) == (value is None) for count, value in zip(each.faces, each.confidence, strict=True))


def test_scores_that_are_no_probabilities_have_no_diagram() -> None:
    found = details_of([Face(REAL, fake_score=-1.0), Face("ddpm", fake_score=2.0)]).reliability
    assert {each.task for each in found} == {"attribution"}


def test_each_group_of_fakes_and_all_of_them_have_a_roc() -> None:
    found = [(each.unit, each.subset, each.group) for each in details_of(FACES).curves if each.kind == "roc"]
    groups = [("seen", "ddpm"), ("seen", "sd15"), ("seen", "pooled"), ("unseen", "stylegan3"), ("unseen", "pooled")]
    assert found == [(unit, *group) for unit in ("frame", "video") for group in groups]


# --- curves --------------------------------------------------------------------------------------------------------


def check_curve(x: Any, y: Any, thin_x: Any, thin_y: Any, near: float) -> None:
    """Check that a thinned curve keeps the ends, is monotone, and nowhere far from the full one."""
    assert (thin_x[0], thin_y[0]) == pytest.approx((x[0], y[0]), abs=1e-6)
    assert (thin_x[-1], thin_y[-1]) == pytest.approx((x[-1], y[-1]), abs=1e-6)
    assert (np.diff(thin_x) >= 0).all() and (np.diff(thin_y) >= 0).all()
    assert len(thin_x) <= details._POINTS
    full, thin = (np.asarray(pair).T for pair in ((x, y), (thin_x, thin_y)))
    steps, starts = np.diff(thin, axis=0), thin[:-1]
    for point in full:  # how far it is from the nearest line of the thinned curve
        along = np.clip(((point - starts) * steps).sum(1) / np.maximum((steps**2).sum(1), 1e-30), 0, 1)
        distance = np.hypot(*(starts + along[:, None] * steps - point).T).min() if len(thin) > 1 else 0
        assert distance <= near
    assert np.trapezoid(thin_y, thin_x) == pytest.approx(np.trapezoid(y, x), abs=near)


@given(detection_views(most=60))
def test_a_short_curve_loses_nothing_but_points_on_straight_lines(view: Any) -> None:
    check_curve(view.curve.fpr, view.curve.tpr, *_thinned(view.curve.fpr, view.curve.tpr), near=3e-6)


@given(st.lists(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]), min_size=1, max_size=40))
def test_a_curve_that_rests_on_a_point_keeps_its_corners(steps: list[tuple[int, int]]) -> None:
    points = np.concatenate([[[0, 0]], np.cumsum(steps, axis=0)])
    x, y = (points / np.maximum(points[-1], 1)).T
    check_curve(x, y, *_thinned(x, y), near=3e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(300, 3000), st.floats(0, 3))
def test_a_long_curve_stays_within_a_hundredth_of_itself(seed: int, faces: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    is_fake = np.arange(faces) < faces // 3
    view = a_view(is_fake, rng.normal(size=faces) + shift * is_fake)
    check_curve(view.curve.fpr, view.curve.tpr, *_thinned(view.curve.fpr, view.curve.tpr), near=0.01)


def oscr_curve(found: Details, level: str = "generator") -> CurveRecord:
    return next(each for each in found.curves if (each.kind, each.level, each.unit) == ("oscr", level, "frame"))


@given(open_set_views(most=15))
@settings(max_examples=40, deadline=None)
def test_the_area_under_the_oscr_curve_is_the_oscr(view: Any) -> None:
    # Three logits of a known leaf apart make as many doubts; who is right is who is called what it is.
    faces = [
        Face("flux" if unknown else "ddpm", says="ddpm" if right or unknown else "simswap")
        for unknown, right in zip(view.is_fake.tolist(), view.right.tolist(), strict=True)
    ]
    made = predictions(faces)
    assert made.logits is not None
    made.logits[:] = np.where(made.logits > 0, 4 * (1.25 - view.fake_score[:, None]), 0)
    report = score(made, Options(0))
    curve = oscr_curve(report.details)
    oscr = pick(report.scores, "oscr@msp", "pooled", subset="all", level="generator")
    assert (curve.x[0], curve.y[0], curve.x[-1]) == (0, 0, 1)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(oscr.value, abs=1e-5)
    right = float((view.right & ~view.is_fake).sum() / (~view.is_fake).sum())
    assert curve.y[-1] == pytest.approx(right, abs=1e-6)
