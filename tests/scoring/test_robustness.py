from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.records.results import Score
from dfad_bench.scoring.robustness import area, curves, mean_curves

fraction = st.floats(0, 1)


def score(value: float | None, metric: str = "auc", group: str = "mean", **more: object) -> Score:
    given: dict[str, object] = {"task": "detection", "level": "authenticity", "subset": "seen", "n": 10} | more
    reason = None if value is not None else "no fake face"
    return Score.model_validate({**given, "metric": metric, "group": group, "value": value, "reason": reason})


def five(name: str, values: Sequence[float | None]) -> dict[tuple[str, int], list[Score]]:
    return {(name, severity): [score(value)] for severity, value in enumerate(values, start=1)}


# --- area ----------------------------------------------------------------------------------------------------------


def test_the_area_is_the_trapezoid_rule_divided_by_the_width() -> None:
    # (1 + 0.9)/2 + (0.9 + 0.8)/2 + (0.8 + 0.6)/2 + (0.6 + 0.6)/2 + (0.6 + 0.5)/2 = 3.65, over 5
    assert area([1.0, 0.9, 0.8, 0.6, 0.6, 0.5]) == pytest.approx(0.73, abs=1e-15)


def test_the_ends_weigh_half_of_what_lies_between_them() -> None:
    assert area([1, 0, 0, 0, 0, 0]) == area([0, 0, 0, 0, 0, 1]) == pytest.approx(0.1)
    assert area([0, 0, 1, 0, 0, 0]) == pytest.approx(0.2)


@given(st.lists(fraction, min_size=6, max_size=6))
def test_an_area_lies_between_the_least_and_the_greatest_height(values: list[float]) -> None:
    found = area(values)
    assert found is not None and min(values) <= found <= max(values)


@given(fraction)
def test_a_constant_curve_has_its_own_height(value: float) -> None:
    assert area([value] * 6) == value


@given(st.lists(fraction, min_size=6, max_size=6), st.integers(0, 5))
def test_what_is_undefined_anywhere_has_no_area(values: list[float], severity: int) -> None:
    assert area([None if at == severity else value for at, value in enumerate(values)]) is None


# --- curves --------------------------------------------------------------------------------------------------------


def test_a_curve_goes_from_the_clean_score_through_the_five_severities_with_their_intervals() -> None:
    levels = five("jpeg", [0.9, 0.8, 0.6, 0.6, 0.5])
    levels["jpeg", 2] = [score(0.8, low=0.7, high=0.85)]
    (curve,) = curves([score(1.0, low=0.95, high=1.0)], levels)
    assert curve.perturbation == "jpeg"
    assert curve.value == [1.0, 0.9, 0.8, 0.6, 0.6, 0.5]
    assert curve.low == [0.95, None, 0.7, None, None, None]
    assert curve.high == [1.0, None, 0.85, None, None, None]
    assert curve.area == pytest.approx(0.73)
    assert curve.reason is None and curve.undefined == {}


def test_a_severity_that_was_not_run_leaves_no_area_and_is_named() -> None:
    (curve,) = curves([score(1.0)], {("jpeg", 2): [score(0.8)], ("jpeg", 4): [score(0.5)]})
    assert curve.value == [1.0, None, 0.8, None, 0.5, None]
    assert curve.undefined == dict.fromkeys((1, 3, 5), "not run")
    assert curve.area is None and curve.reason == "not run at severity 1, 3, 5"


def test_an_undefined_value_leaves_no_area_and_hands_its_reason_on() -> None:
    (curve,) = curves([score(1.0)], five("jpeg", [0.9, 0.8, None, 0.6, 0.5]))
    assert curve.undefined == {3: "no fake face"}
    assert curve.area is None and curve.reason == "severity 3: no fake face"


def test_a_number_that_a_level_lacks_is_said_to_be_not_scored() -> None:
    levels = five("jpeg", [0.9, 0.8, 0.7, 0.6, 0.5])
    levels["jpeg", 5] = [score(0.5, metric="eer")]
    (curve,) = curves([score(1.0)], levels)
    assert curve.undefined == {5: "not scored"} and curve.reason == "severity 5: not scored"


def test_only_headline_numbers_get_a_curve_each_from_its_own_place() -> None:
    places = {
        "auc": score(0.9),
        "pooled": score(0.8, group="pooled"),
        "video": score(0.7, unit="video"),
        "unseen": score(0.6, subset="unseen"),
        "family": score(0.5, metric="accuracy", task="attribution", level="family"),
    }
    others = [
        score(0.1, metric="brier"),
        score(0.2, group="sd15"),
        score(0.3, metric="auc", task="open_set", level="family"),
    ]
    clean = [*places.values(), *others]
    found = curves(clean, {("blur", severity): list(reversed(clean)) for severity in range(1, 6)})
    assert [curve.area for curve in found] == [each.value for each in places.values()]


def test_perturbations_are_sorted_whatever_the_order_of_the_levels() -> None:
    levels = {**five("webp", [0.5] * 5), **five("jpeg", [0.6] * 5)}
    backwards = dict(reversed(levels.items()))
    assert curves([score(1.0)], levels) == curves([score(1.0)], backwards)
    assert [curve.perturbation for curve in curves([score(1.0)], levels)] == ["jpeg", "webp"]


# --- means ---------------------------------------------------------------------------------------------------------


def test_the_mean_curve_is_over_complete_curves_only_and_names_them() -> None:
    levels = {
        **five("jpeg", [0.8] * 5),
        **five("webp", [0.4] * 5),
        **five("blur", [0.0, 0.0, None, 0.0, 0.0]),
        ("resize", 3): [score(0.0)],
    }
    (mean,) = mean_curves(curves([score(1.0)], levels))
    assert mean.over == ["jpeg", "webp"]
    assert mean.value == pytest.approx([1.0, 0.6, 0.6, 0.6, 0.6, 0.6])
    assert mean.area == pytest.approx((0.5 + 4 * 0.6 + 0.3) / 5)
    assert mean.reason is None


def test_where_no_curve_is_complete_there_is_no_mean_and_a_reason() -> None:
    (mean,) = mean_curves(curves([score(1.0)], {("jpeg", 3): [score(0.8)]}))
    assert mean.area is None and mean.over == [] and mean.value == [None] * 6
    assert mean.reason == "no perturbation has all severities; jpeg: not run at severity 1, 2, 4, 5"


@given(st.lists(st.lists(fraction, min_size=5, max_size=5), min_size=1, max_size=4), fraction)
def test_the_area_under_the_mean_is_the_mean_of_the_areas(heights: list[list[float]], clean: float) -> None:
    levels = {key: value for name, each in enumerate(heights) for key, value in five(f"p{name}", each).items()}
    found = curves([score(clean)], levels)
    (mean,) = mean_curves(found)
    areas = [curve.area for curve in found if curve.area is not None]
    assert len(areas) == len(heights)
    assert mean.area == pytest.approx(sum(areas) / len(areas), abs=1e-12)


def test_each_number_has_a_mean_of_its_own() -> None:
    clean = [score(0.9), score(0.2, metric="eer")]
    means = mean_curves(curves(clean, {(name, at): clean for name in ("a", "b") for at in range(1, 6)}))
    assert {mean.metric: mean.area for mean in means} == {"auc": 0.9, "eer": 0.2}
