"""Every pair of models: the same numbers as a comparison of two, and groups of those that nobody can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.pairs import PairedTest
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import Result
from dfad_bench.scoring.compare import compare
from dfad_bench.scoring.pairs import all_pairs, significance_groups
from dfad_bench.scoring.score import Options
from tests.publish.builders import a_result
from tests.scoring.builders import Face, predictions

OPTIONS = Options(resamples=200)


def answers(skill: float, seed: int, faces: int = 120, **context: object) -> Predictions:
    """Return predictions for the same faces of a model that is right so often."""
    rng = np.random.default_rng(seed)
    shown = []
    for row in range(faces):
        generator = ("real", "ddpm", "stylegan3", "sd15")[row % 4]
        right = rng.random() < skill
        fake = generator != "real"
        says = {"sd15": "ddpm"}.get(generator, generator) if right else "simswap"
        score = rng.normal(1.0 if fake == right else 0.0, 0.3)
        subset = "unseen" if generator == "sd15" else "seen"
        shown.append(Face(generator, subset, says, float(np.clip(score, 0, 1)), identity=f"p{row // 4 % 15}"))
    return predictions(shown, **context)


def runs(**models: Predictions) -> list[tuple[Result, Callable[[], Predictions]]]:
    return [(a_result(name), lambda given=given: given) for name, given in models.items()]


def test_a_pair_is_what_the_comparison_of_the_two_says() -> None:
    one, other, third = answers(0.9, 1), answers(0.6, 2), answers(0.55, 3)
    record = all_pairs(runs(a=one, b=other, c=third), OPTIONS)
    expected = {
        (d.task, d.metric, d.level, d.subset): d
        for d in compare(one, other, OPTIONS).differences
        if d.group == "mean" and d.unit == "frame"
    }
    undefined = [mean for mean in record.means if not mean.groups]
    assert {(mean.metric, mean.level, mean.subset) for mean in undefined} == {
        ("accuracy", "generator", "unseen"),  # of classes that training lacks
        *(("accuracy@val", "authenticity", subset) for subset in ("seen", "unseen")),  # there is no val face
    }
    assert all(mean.tests == [] for mean in undefined)
    defined = [mean for mean in record.means if mean.groups]
    assert len(defined) == 7
    for mean in defined:
        of_both = next(test for test in mean.tests if {test.a, test.b} == {"a", "b"})
        sign = 1 if of_both.a == "a" else -1
        whole = expected[mean.task, mean.metric, mean.level, mean.subset]
        assert whole.difference is not None and of_both.difference is not None
        assert of_both.difference == pytest.approx(sign * whole.difference)
        if whole.bootstrap is not None and whole.bootstrap.p is not None and whole.low is not None:
            assert of_both.p == pytest.approx(whole.bootstrap.p)
            low, high = (of_both.low, of_both.high) if sign > 0 else (-of_both.high, -of_both.low)
            assert (low, high) == (pytest.approx(whole.low), pytest.approx(whole.high))


def test_all_pairs_of_a_mean_are_adjusted_together() -> None:
    few, many = {"a": answers(0.9, 1), "b": answers(0.6, 2)}, {f"m{seed}": answers(0.6, seed) for seed in range(3, 9)}
    alone = all_pairs(runs(**few), OPTIONS).means
    together = all_pairs(runs(**few, **many), OPTIONS).means
    for mean, larger in zip(alone, together, strict=True):
        for test in mean.tests:
            same = next(each for each in larger.tests if {each.a, each.b} == {"a", "b"})
            if test.p_adjusted is not None and same.p_adjusted is not None:
                assert same.p_adjusted >= test.p_adjusted


def test_a_sure_difference_is_found_however_many_pairs_there_are() -> None:
    """With 200 resamples no single p is below 0.0099, which a step-down over 66 pairs could never call significant."""
    models = {f"m{seed}": answers(0.5, seed) for seed in range(2, 13)}
    record = all_pairs(runs(best=answers(0.99, 1), **models), OPTIONS)
    family = next(m for m in record.means if (m.metric, m.level, m.subset) == ("accuracy", "family", "seen"))
    assert family.groups["best"] == 1
    assert {number for name, number in family.groups.items() if name != "best"} == {2}


def test_models_far_apart_lead_groups_of_their_own_and_equal_ones_share_one() -> None:
    best = answers(0.98, 1)
    record = all_pairs(runs(best=best, twin=best, worst=answers(0.1, 2)), OPTIONS)
    family = next(m for m in record.means if (m.metric, m.level, m.subset) == ("accuracy", "family", "seen"))
    assert family.groups == {"best": 1, "twin": 1, "worst": 2}
    twins = next(test for test in family.tests if {test.a, test.b} == {"best", "twin"})
    assert (twins.difference, twins.p) == (0, None)
    assert twins.reason == "the two models are alike in every resample"


def test_a_detector_is_compared_by_what_it_answers() -> None:
    detector = replace(answers(0.5, 3), logits=None)
    record = all_pairs(runs(a=answers(0.9, 1), detector=detector), OPTIONS)
    assert {m.task for m in record.means if "detector" in m.groups} == {"detection"}
    attributed = [m for m in record.means if m.task == "attribution" and m.groups]
    assert len(attributed) == 5
    assert all(m.tests == [] and [*m.groups] == ["a"] for m in attributed)


def test_without_resamples_nobody_is_called_worse() -> None:
    record = all_pairs(runs(a=answers(0.9, 1), b=answers(0.1, 2)), Options(resamples=0))
    assert {number for mean in record.means for number in mean.groups.values()} == {1}
    assert {test.p for mean in record.means for test in mean.tests} == {None}


def test_models_of_other_faces_are_refused() -> None:
    with pytest.raises(DataError, match="a and b were not evaluated on the same faces"):
        all_pairs(runs(a=answers(0.9, 1), b=answers(0.9, 1, faces=100)), OPTIONS)
    with pytest.raises(UsageError, match="selection of faces"):
        other = answers(0.9, 1)
        other = replace(other, context=other.context.model_copy(update={"protocol_fingerprint": "sha256:other"}))
        all_pairs(runs(a=answers(0.9, 1), b=other), OPTIONS)


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_models_or_one_twice_are_no_pairs(names: Sequence[str]) -> None:
    with pytest.raises(DataError, match="Pairs need two models or more, each once"):
        all_pairs([(a_result(name), lambda: answers(0.5, 1)) for name in names], OPTIONS)


# --- groups --------------------------------------------------------------------------------------------------------


def a_test(a: str, b: str, p_adjusted: float | None) -> PairedTest:
    return PairedTest(a=a, b=b, difference=0.1, p=p_adjusted, p_adjusted=p_adjusted)


def test_a_group_holds_who_is_not_shown_to_be_worse_than_its_leader() -> None:
    tests = [a_test("a", "b", 0.2), a_test("a", "c", 0.01), a_test("b", "c", 0.3)]
    assert significance_groups(["a", "b", "c"], tests) == {"a": 1, "b": 1, "c": 2}


def test_the_next_group_is_measured_by_its_own_leader() -> None:
    tests = [a_test("a", "b", 0.01), a_test("a", "c", 0.01), a_test("b", "c", 0.2)]
    assert significance_groups(["a", "b", "c"], tests) == {"a": 1, "b": 2, "c": 2}


def test_an_undefined_or_borderline_p_makes_no_group() -> None:
    tests = [a_test("a", "b", None), a_test("a", "c", 0.05), a_test("b", "c", None)]
    assert significance_groups(["a", "b", "c"], tests) == {"a": 1, "b": 1, "c": 1}
