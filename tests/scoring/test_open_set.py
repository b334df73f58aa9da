"""Open-set numbers are those of counting pairs and of trying every threshold, on the right faces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import roc_auc_score

from dfad_bench.scoring.faces import frames
from dfad_bench.scoring.open_set import NO_KNOWN, NO_UNKNOWN, OpenSetView, fpr95, oscr
from dfad_bench.scoring.score import Options, score
from dfad_bench.scoring.views import Undefined
from dfad_bench.types import REAL
from tests.scoring.builders import Face, pick, predictions, scores_of
from tests.scoring.views import an_open_set, dense, open_set_views

OF_ALL = {"subset": "all", "task": "open_set"}


def accepted_at(view: OpenSetView) -> Any:
    """Yield which faces are accepted at every threshold on doubt, from none to all."""
    for most in [-np.inf, *sorted(set(view.fake_score.tolist()))]:
        yield view.fake_score <= most


@given(open_set_views())
def test_oscr_is_the_share_of_pairs_in_which_the_known_face_is_right_and_less_doubtful(view: OpenSetView) -> None:
    assert view.right is not None
    known, unknown = np.flatnonzero(~view.is_fake), np.flatnonzero(view.is_fake)
    pairs = [
        float(view.right[k])
        * ((view.fake_score[k] < view.fake_score[u]) + (view.fake_score[k] == view.fake_score[u]) / 2)
        for k in known
        for u in unknown
    ]
    assert oscr(view) == pytest.approx(np.mean(pairs), abs=1e-12)


@given(open_set_views())
def test_oscr_is_the_area_under_the_curve_of_its_definition(view: OpenSetView) -> None:
    assert view.right is not None
    rates = [
        ((accepted & view.is_fake).sum() / view.is_fake.sum(), (accepted & view.right).sum() / (~view.is_fake).sum())
        for accepted in accepted_at(view)
    ]
    x, y = np.asarray(rates).T
    assert oscr(view) == pytest.approx(np.trapezoid(y, x), abs=1e-12)


@given(open_set_views())
def test_where_every_known_face_is_right_oscr_is_the_auroc(view: OpenSetView) -> None:
    everyone = replace(view, right=~view.is_fake)
    assert oscr(everyone) == pytest.approx(roc_auc_score(view.is_fake, dense(view.fake_score)), abs=1e-12)
    assert oscr(view) <= oscr(everyone)


@given(open_set_views(most=60))
def test_fpr95_is_that_of_the_strictest_threshold_that_accepts_95_in_100_known_faces(view: OpenSetView) -> None:
    known = ~view.is_fake
    enough = [a for a in accepted_at(view) if 100 * (a & known).sum() >= 95 * known.sum()]
    assert fpr95(view) == pytest.approx(min(float(a[view.is_fake].mean()) for a in enough), abs=1e-12)


@pytest.mark.parametrize("hundreds", [1, 2, 3, 7])
def test_exactly_95_in_100_are_enough(hundreds: int) -> None:
    faces, last = 100 * hundreds, 95 * hundreds - 1
    doubt = [*range(faces), last - 0.5, last + 0.5]  # of two unknown faces one is accepted with the last known one
    view = an_open_set([False] * faces + [True] * 2, doubt, [True] * (faces + 2))
    assert fpr95(view) == 0.5


@pytest.mark.parametrize(("unknown", "reason"), [([True], "no real face"), ([False], "no fake face"), ([], "no face")])
def test_one_side_alone_has_no_value(unknown: list[bool], reason: str) -> None:
    view = an_open_set(unknown, [0.0] * len(unknown), [True] * len(unknown))
    for metric in (oscr, fpr95):
        with pytest.raises(Undefined, match=reason):
            metric(view)


# --- which faces ---------------------------------------------------------------------------------------------------

MIXED = [
    Face(REAL, says=REAL),
    Face("ddpm", says="ddpm"),
    Face("simswap", "unseen", says="ddpm"),
    Face("sd15", "unseen", says="ddpm"),
    Face("flux", "unseen", says=REAL),
]


def doubted(certainty: list[float]) -> Any:
    """Predictions of MIXED whose chosen class has the given logit, the others 0."""
    made = predictions(MIXED)
    assert made.logits is not None
    return replace(
        made, logits=np.where(made.logits > 0, np.asarray(certainty, np.float32)[:, None], 0).astype(np.float32)
    )


def test_every_known_test_face_is_set_against_those_of_each_unknown_value() -> None:
    scores = score(doubted([5, 4, 3, 2, 3.5]), Options(0)).scores
    at_generator = {"level": "generator", **OF_ALL}
    assert pick(scores, "auroc@msp", "sd15", **at_generator).value == 1
    assert pick(scores, "auroc@msp", "flux", **at_generator).value == pytest.approx(2 / 3)
    pooled = pick(scores, "auroc@msp", "pooled", **at_generator)
    assert (pooled.value, pooled.n, pooled.clusters) == (pytest.approx(5 / 6), 5, 2)
    assert pick(scores, "oscr@msp", "sd15", **at_generator).value == pytest.approx(2 / 3)  # simswap is not right
    at_family = {"level": "family", **OF_ALL}
    assert pick(scores, "auroc@msp", "flow", **at_family).value == pytest.approx(2 / 4)  # sd15 is a diffusion: known
    assert pick(scores, "oscr@msp", "flow", **at_family).value == pytest.approx(2 / 4)
    assert pick(scores, "auroc@msp", "pooled", level="forgery_type", **OF_ALL).reason == NO_UNKNOWN


def test_energy_is_minus_the_log_of_summed_exponents_and_tells_what_probabilities_cannot() -> None:
    made = doubted([5, 4, 3, 2, 3.5])
    assert made.logits is not None
    expected = -np.log(np.exp(made.logits.astype(np.float64)).sum(axis=1))
    assert frames(made).energy == pytest.approx(expected, abs=1e-12)
    shifted = replace(made, logits=made.logits + np.asarray([[0], [0], [0], [9], [-9]], np.float32))
    for metric, change in (("auroc@msp", False), ("auroc@energy", True)):
        one, other = (
            pick(score(each, Options(0)).scores, metric, "sd15", level="generator", **OF_ALL)
            for each in (made, shifted)
        )
        assert (one.value != other.value) is change


def test_huge_logits_have_a_finite_energy() -> None:
    made = predictions(MIXED)
    assert made.logits is not None
    energy = frames(replace(made, logits=made.logits * np.float32(5e37))).energy
    assert energy == pytest.approx([-2e38] * 5, rel=1e-6)


def test_without_unknown_faces_or_without_known_ones_the_reason_is_said() -> None:
    known = scores_of([Face(REAL), Face("ddpm")])
    assert {each.reason for each in known if each.task == "open_set"} == {NO_UNKNOWN}
    unknown = scores_of([Face("flux", "unseen")])
    at_generator = [each for each in unknown if each.task == "open_set" and each.level == "generator"]
    assert {each.reason for each in at_generator} == {NO_KNOWN}


def test_what_the_protocol_assumes_a_family_to_be_is_known() -> None:
    scores = scores_of(MIXED, assume={"family": {"flow": "diffusion"}})
    assert pick(scores, "auroc@msp", "pooled", level="family", **OF_ALL).reason == NO_UNKNOWN


def test_a_face_of_several_subsets_counts_once() -> None:
    twice = [Face("flux", subset, id="f") for subset in ("seen", "unseen")]
    assert pick(scores_of([Face(REAL), *twice]), "auroc@msp", "flux", level="generator", **OF_ALL).n == 2
