"""Several seeds: their mean and its interval, and whether they agree on an order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dfad_bench.errors import DataError
from dfad_bench.records.results import Result, Score
from dfad_bench.records.seeds import SeededScore, SeedsRecord
from dfad_bench.scoring.seeds import concordance, over_seeds
from tests.publish.builders import a_protocol, a_result


def a_score(value: float | None, half: float | None = 0.05, *, task: str = "attribution", group: str = "mean") -> Score:
    metric, level = ("accuracy", "family") if task == "attribution" else ("auc", "authenticity")
    told = {} if value is None or half is None else {"low": value - half, "high": value + half, "interval": "bca"}
    reason = "no real face" if value is None else None
    where = {"task": task, "metric": metric, "level": level, "subset": "unseen", "group": group}
    return Score.model_validate(where | told | {"value": value, "reason": reason, "n": 2})


def runs(model: str, values: Sequence[float | None], half: float | None = 0.05) -> list[Result]:
    return [
        a_result(model, scored=[a_score(value, half)]).model_copy(update={"seed": seed})
        for seed, value in enumerate(values)
    ]


def only(record: SeedsRecord) -> SeededScore:
    assert len(record.scores) == 1
    return record.scores[0]


def test_the_interval_adds_that_of_the_faces_and_that_of_the_seeds_in_squares() -> None:
    score = only(over_seeds(runs("a", [0.5, 0.6, 0.7])))
    assert score.values == [0.5, 0.6, 0.7]
    assert score.mean == pytest.approx(0.6)
    assert score.deviation == pytest.approx(0.1)
    of_seeds = 4.302652729911275 * 0.1 / 3**0.5  # Student's t with two degrees of freedom
    half = (0.05**2 + of_seeds**2) ** 0.5
    assert (score.low, score.high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))


def test_seeds_that_agree_leave_the_interval_of_the_faces_as_it_is() -> None:
    score = only(over_seeds(runs("chance", [0.5, 0.5, 0.5])))
    assert score.deviation == 0
    assert (score.low, score.high) == (pytest.approx(0.45), pytest.approx(0.55))


def test_an_interval_stays_within_what_a_share_can_be() -> None:
    score = only(over_seeds(runs("a", [0.1, 1.0])))  # two seeds that differ say very little
    assert (score.low, score.high) == (0, 1)


def test_one_seed_keeps_its_own_interval_and_has_no_deviation() -> None:
    scored = a_score(0.6).model_copy(update={"low": 0.5, "high": 0.62})
    score = only(over_seeds([a_result("a", scored=[scored])]))
    assert (score.mean, score.deviation, score.low, score.high) == (0.6, None, 0.5, 0.62)


def test_a_value_that_one_seed_lacks_has_no_mean_and_says_why() -> None:
    score = only(over_seeds(runs("a", [0.5, None])))
    assert (score.mean, score.low, score.reason) == (None, None, "no real face")


def test_without_the_intervals_of_the_faces_there_is_none() -> None:
    score = only(over_seeds(runs("a", [0.5, 0.6], half=None)))
    assert score.mean == pytest.approx(0.55)
    assert (score.low, score.reason) == (None, "no interval: none was asked for")


def test_only_the_headlines_are_followed_and_every_group_of_them() -> None:
    scores = [a_score(0.5), a_score(0.4, group="sd15"), a_score(0.9, task="detection")]
    extra = a_score(0.3).model_copy(update={"metric": "top3"})
    video = a_score(0.3).model_copy(update={"unit": "video"})
    record = over_seeds([a_result("a", scored=[*scores, extra, video])])
    assert [(s.task, s.metric, s.group) for s in record.scores] == [
        ("attribution", "accuracy", "mean"),
        ("attribution", "accuracy", "sd15"),
        ("detection", "auc", "mean"),
    ]


def test_results_of_other_faces_are_not_averaged() -> None:
    other = a_result("a", protocol=a_protocol(faces="sha256:b"), scored=[a_score(0.5)])
    with pytest.raises(DataError, match="a on demo, seed 0 is not of the same faces as b on demo, seed 0"):
        over_seeds([*runs("b", [0.5]), other])


def test_a_seed_that_is_given_twice_and_seeds_of_other_settings_are_refused() -> None:
    one = runs("a", [0.5])[0]
    with pytest.raises(DataError, match="a on demo, seed 0 is given twice"):
        over_seeds([one, one])
    other = one.model_copy(update={"seed": 1, "config": {"limit": 5}})
    with pytest.raises(DataError, match="a on demo, seed 0 and a on demo, seed 1 differ in limit"):
        over_seeds([one, other])


def test_reasons_against_the_leaderboard_are_kept() -> None:
    results = [
        a_result("a", scored=[a_score(0.5)], ineligible=reasons).model_copy(update={"seed": seed})
        for seed, reasons in enumerate((["limited"], ["limited", "dirty"]))
    ]
    assert over_seeds(results).models[0].ineligible == ["limited", "dirty"]


def test_ranks_are_those_of_the_models_that_have_all_seeds() -> None:
    results = [*runs("a", [0.9, 0.5]), *runs("b", [0.8, 0.8]), *runs("c", [0.8, 0.1]), *runs("once", [1.0])]
    (stability,) = over_seeds(results).stability
    assert stability.ranks == {"a": [1, 2], "b": [2, 1], "c": [2, 3]}
    assert stability.seeds == [0, 1]


def test_one_seed_or_one_model_has_no_order_to_be_stable() -> None:
    assert over_seeds([*runs("a", [0.9]), *runs("b", [0.8])]).stability == []
    assert over_seeds(runs("a", [0.9, 0.8])).stability == []


# --- Kendall's W ---------------------------------------------------------------------------------------------------


def test_judges_who_agree_have_a_concordance_of_one_and_two_who_do_not_of_zero() -> None:
    order = np.array([3.0, 1.0, 2.0])
    assert concordance(np.stack([order, order * 2, order + 5], axis=1)) == pytest.approx(1)
    assert concordance(np.stack([order, -order], axis=1)) == pytest.approx(0)


def test_ties_that_all_judges_share_do_not_lower_it() -> None:
    tied = np.array([1.0, 1.0, 2.0, 3.0])
    assert concordance(np.stack([tied, tied], axis=1)) == pytest.approx(1)


def test_where_every_judge_ties_everything_it_is_undefined() -> None:
    assert concordance(np.ones((3, 2))) is None


@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.integers(2, 6))
def test_it_is_the_mean_of_spearmans_correlations_on_another_scale(seed: int, objects: int, judges: int) -> None:
    """W = (1 + (m − 1) r̄) / m without ties, r̄ being the mean over pairs of judges (Kendall, 1970, section 6.5)."""
    values = np.random.default_rng(seed).normal(size=(objects, judges))
    pairs = itertools.combinations(values.T, 2)
    mean = np.mean([stats.spearmanr(one, other).statistic for one, other in pairs])
    found = concordance(values)
    assert found == pytest.approx((1 + (judges - 1) * mean) / judges, abs=1e-9)
