"""Two models on the same faces: a difference is found where one was planted, and not where there is none."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.comparison import Comparison, Difference
from dfad_bench.records.predictions import VAL, Context, Predictions
from dfad_bench.records.results import PerturbationRecord, PredictionsRecord
from dfad_bench.scoring.compare import ALIKE, Compared, compare
from dfad_bench.scoring.questions import ONE_CLUSTER
from dfad_bench.scoring.score import Options, score
from dfad_bench.types import REAL
from tests.scoring.builders import Face, pick, predictions

FEW = Options(resamples=100)
NONE = Options(resamples=0)
FILE = PredictionsRecord(sha256="0" * 64, rows=1)
GENERATORS = (REAL, "ddpm", "simswap", "stylegan3")


def answered(seed: int, *, better: float = 0.0, each: int = 12, per_person: int = 3, model: str = "a") -> Predictions:
    """Return a noisy model's answers to faces that are the same for every seed: the higher ``better``, the fewer errors."""
    rng = np.random.default_rng(seed)
    faces = []
    for subset in ("seen", VAL):
        for generator in GENERATORS:
            for number in range(each):
                person = f"{subset}/{generator}/{number // per_person}"
                is_right = rng.random() < 0.5 + better / 2
                faces.append(
                    Face(
                        generator,
                        subset,
                        says=generator if is_right else str(rng.choice(GENERATORS)),
                        fake_score=float(rng.normal() + (generator != REAL) * (0.5 + 2 * better)),
                        id=f"{generator}/{subset}/{number:03d}",
                        video=f"clip {person}/{number % 2}",
                        identity=person,
                    )
                )
    faces.append(Face("sd15", "unseen", id="sd15/0", says="ddpm", fake_score=float(rng.normal())))
    found = predictions(faces)
    return replace(
        found,
        fake_score=1 / (1 + np.exp(-found.fake_score)),
        context=found.context.model_copy(update={"model": model, "seed": seed}),
    )


def picked(compared: Compared, metric: str, group: str, **where: Any) -> Difference:
    """Return the one difference with these coordinates."""
    return pick(compared.differences, metric, group, **where)  # type: ignore[arg-type, return-value]


def with_context(found: Predictions, **changes: Any) -> Predictions:
    return replace(found, context=found.context.model_copy(update=changes))


# --- what must hold of any two models ------------------------------------------------------------------------------


def test_a_model_does_not_differ_from_itself() -> None:
    rows = compare(answered(0), answered(0), FEW).differences
    defined = [row for row in rows if row.difference is not None]
    assert {row.task for row in defined} == {"detection", "attribution", "joint", "open_set"}
    assert {row.difference for row in defined} == {0.0}
    assert all(row.p in (None, 1.0) and row.p_holm in (None, 1.0) for row in rows)
    assert all((row.p is None) == (row.no_p is not None) for row in defined)
    assert all(row.low is None and row.no_interval is not None for row in defined)
    assert pick(rows, "auc", "ddpm").no_p == ALIKE  # type: ignore[arg-type, attr-defined]


def test_swapping_two_models_negates_differences_and_intervals_and_keeps_p() -> None:
    one = compare(answered(0), answered(1), FEW).differences
    other = compare(answered(1), answered(0), FEW).differences
    assert len(one) == len(other) > 300
    assert sum(row.low is not None for row in one) > 150
    for row, swapped in zip(one, other, strict=True):
        assert (row.a, row.b, row.n_a) == (swapped.b, swapped.a, swapped.n_b)
        if row.difference is None:
            assert swapped.difference is None
            continue
        assert swapped.difference == -row.difference
        for p, other_p in ((row.p, swapped.p), (row.p_holm, swapped.p_holm)):
            assert (p is None) == (other_p is None)
            assert p is None or p == pytest.approx(other_p, rel=1e-9)
        if row.low is not None and row.high is not None:
            assert swapped.low == pytest.approx(-row.high, abs=1e-9)
            assert swapped.high == pytest.approx(-row.low, abs=1e-9)
        if row.mcnemar is not None and swapped.mcnemar is not None:
            assert (row.mcnemar.only_a, row.mcnemar.only_b) == (swapped.mcnemar.only_b, swapped.mcnemar.only_a)


def test_the_order_of_rows_does_not_matter() -> None:
    a, b = answered(0), answered(1)
    rng = np.random.default_rng(0)
    shuffled = [each.take(rng.permutation(len(each))) for each in (a, b)]
    assert compare(shuffled[0], shuffled[1], FEW).differences == compare(a, b, FEW).differences


def test_both_values_are_those_that_scoring_finds() -> None:
    a, b = answered(0), answered(1, better=0.5)
    rows = compare(a, b, NONE).differences
    for side, found in (("a", a), ("b", b)):
        scores = [each for each in score(found, NONE).scores if each.task != "discovery"]
        assert [getattr(row, side) for row in rows] == [each.value for each in scores]
        assert [(row.metric, row.group, row.unit) for row in rows] == [(s.metric, s.group, s.unit) for s in scores]


def test_no_number_is_nan_and_whatever_is_missing_has_a_reason() -> None:
    compared = compare(answered(0), answered(1), FEW)
    stored = compared.record(FILE, FILE).model_dump_json()
    assert "NaN" not in stored
    assert Comparison.model_validate_json(stored) == compared.record(FILE, FILE)
    for row in compared.differences:
        assert (row.difference is None) == (row.reason is not None)
        if row.difference is not None:
            assert (row.p is None) == (row.no_p is not None)
            assert (row.low is None) == (row.no_interval is not None)


# --- a planted difference ------------------------------------------------------------------------------------------


def test_a_better_model_is_found_by_every_test() -> None:
    found = compare(answered(0, better=0.9, each=30), answered(1, each=30), Options(resamples=400))
    expected = {
        ("auc", "pooled", "authenticity"): "delong",
        ("accuracy@val", "pooled", "authenticity"): "mcnemar",
        ("eer", "pooled", "authenticity"): "bootstrap",
        ("auc", "mean", "authenticity"): "bootstrap",
        ("accuracy", "pooled", "family"): "mcnemar",
        ("accuracy", "mean", "family"): "bootstrap",
        ("joint_accuracy@val", "pooled", "family"): "mcnemar",
    }
    for (metric, group, level), test in expected.items():
        row = picked(found, metric, group, level=level)
        assert row.test == test
        assert row.p is not None and row.p < 0.01
        assert row.low is not None and row.high is not None and row.difference is not None
        assert row.low < row.difference < row.high
        assert (row.difference > 0) == row.higher_is_better
        assert (row.low > 0) == row.higher_is_better and (row.high > 0) == row.higher_is_better
        assert row.bootstrap is not None and row.bootstrap.p is not None and row.bootstrap.p < 0.05


def test_accuracy_of_faces_that_stand_alone_is_tested_by_the_exact_binomial() -> None:
    a, b = answered(0, better=0.4), answered(1)
    row = picked(compare(a, b, Options(0, "face")), "accuracy", "pooled", level="generator")
    right = [(each.logits.argmax(axis=1), each) for each in (a, b) if each.logits is not None]
    tested = a.subset.is_("seen")
    truth = np.asarray([GENERATORS.index(name or "") for name in a.generator.tolist() if name != "sd15"])
    names = [leaf.name for leaf in a.classes]
    said = [np.asarray([GENERATORS.index(names[code]) for code in codes])[: len(truth)] for codes, _ in right]
    right_a, right_b = ((each == truth)[tested[: len(truth)]] for each in said)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert only_a + only_b > 5
    assert row.mcnemar is not None
    assert (row.mcnemar.only_a, row.mcnemar.only_b, row.mcnemar.method) == (only_a, only_b, "exact")
    assert row.p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_the_auc_of_faces_that_stand_alone_is_tested_by_delongs_formula() -> None:
    a, b = answered(0, better=0.3), answered(1)
    row = picked(compare(a, b, Options(0, "face")), "auc", "simswap")
    fakes = a.subset.is_("seen") & a.generator.is_("simswap")
    reals = a.subset.is_("seen") & a.generator.is_(REAL)
    wins = [
        (s[fakes][:, None] > s[reals][None, :]) + 0.5 * (s[fakes][:, None] == s[reals][None, :])
        for s in (a.fake_score, b.fake_score)
    ]
    of_fakes, of_reals = (np.stack([won.mean(axis=axis) for won in wins]) for axis in (1, 0))
    covariance = np.cov(of_fakes) / fakes.sum() + np.cov(of_reals) / reals.sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    z = (wins[0].mean() - wins[1].mean()) / math.sqrt(variance)
    assert row.difference == pytest.approx(wins[0].mean() - wins[1].mean())
    assert row.delong is not None
    assert row.delong.z == pytest.approx(z)
    assert row.p == pytest.approx(2 * norm.sf(abs(z)))


def test_the_interval_is_of_the_difference_in_the_same_resamples() -> None:
    a = answered(0, each=30)
    noise = np.random.default_rng(5).normal(scale=0.01, size=len(a))
    b = replace(a, fake_score=np.clip(a.fake_score + noise, 0, 1))
    row = picked(compare(a, b, FEW), "auc", "pooled")
    own = pick(score(a, FEW).scores, "auc", "pooled")
    assert row.low is not None and row.high is not None and own.low is not None and own.high is not None
    assert row.high - row.low < (own.high - own.low) / 4


def test_each_model_stands_at_the_threshold_that_val_chooses_for_it() -> None:
    a = answered(0)
    compared = compare(a, replace(a, fake_score=a.fake_score / 2), NONE)
    at_val, at_half = (picked(compared, f"accuracy@{where}", "pooled") for where in ("val", "0.5"))
    assert at_val.difference == 0 and at_val.mcnemar is not None and at_val.mcnemar.only_a == 0
    assert at_half.difference != 0 and at_half.mcnemar is not None and at_half.mcnemar.only_a > 0
    record = compared.record(FILE, FILE)
    assert record.a.thresholds["frame"] == pytest.approx(2 * (record.b.thresholds["frame"] or 0))


def test_videos_are_compared_video_by_video() -> None:
    row = picked(compare(answered(0), answered(1), NONE), "accuracy@val", "ddpm", unit="video")
    assert row.n_a == 2 * 8  # twelve faces of four people in two clips each, with as many of reals
    assert row.mcnemar is not None and row.mcnemar.only_a + row.mcnemar.only_b <= row.n_a


# --- clusters ------------------------------------------------------------------------------------------------------


def correlated(seed: int, *, shift: float = 0.0, people: int = 25, each: int = 4) -> Predictions:
    """Return a detector's scores of people's faces, which share half of what is random about them; 0.5 is the middle."""
    rng = np.random.default_rng(seed)
    faces = []
    for generator in (REAL, "ddpm"):
        for person in range(people):
            common = rng.normal()
            faces += [
                Face(
                    generator,
                    fake_score=float(common + rng.normal() + (shift + 1 if generator != REAL else -1) / 2),
                    id=f"{generator}/{person}/{number}",
                    identity=f"{generator} {person}",
                )
                for number in range(each)
            ]
    found = predictions(faces, detector=True)
    return replace(found, fake_score=1 / (1 + np.exp(-found.fake_score)))


def test_faces_of_one_person_do_not_count_as_several_witnesses() -> None:
    ratios = []
    for seed in range(8):
        a, b = correlated(seed, shift=0.5, each=8), correlated(seed + 100, each=8)
        p = [
            [picked(compare(a, b, Options(0, by)), metric, "ddpm").p or 0.0 for metric in ("auc", "accuracy@0.5")]
            for by in ("auto", "face")
        ]
        ratios += [bound / free for bound, free in zip(*p, strict=True)]
    assert np.median(ratios) > 2
    assert sum(ratio > 1 for ratio in ratios) >= 0.8 * len(ratios)


def test_fewer_than_twenty_clusters_are_flagged() -> None:
    for people, is_few in ((19, True), (20, False)):
        row = picked(compare(correlated(0, people=people), correlated(1, people=people), NONE), "auc", "ddpm")
        assert (row.clusters, row.few_clusters) == (people, is_few)


def test_one_cluster_of_fakes_proves_nothing() -> None:
    faces = [Face(REAL, fake_score=n / 40, identity=f"r{n}") for n in range(20)]
    faces += [Face("ddpm", fake_score=0.9, identity="x") for _ in range(20)]
    a = predictions(faces, detector=True)
    row = picked(compare(a, replace(a, fake_score=a.fake_score[::-1].copy()), FEW), "auc", "ddpm")
    assert row.difference is not None and row.difference > 0.9
    assert row.no_interval == ONE_CLUSTER
    assert row.bootstrap is not None and (row.bootstrap.p, row.bootstrap.reason) == (None, ONE_CLUSTER)
    assert row.p is None and row.no_p == "one cluster with a positive only"


def test_resamples_that_cannot_differ_give_no_p() -> None:
    faces = [Face(REAL, fake_score=0.1) for _ in range(30)] + [Face("ddpm", fake_score=0.9) for _ in range(30)]
    a = predictions(faces, detector=True)
    row = picked(compare(a, replace(a, fake_score=1 - a.fake_score), FEW), "eer", "ddpm")
    assert row.difference == -1
    assert row.p is None and row.no_p == row.no_interval == "every resample gives the same difference"


def rejected(options: Options, runs: int, metrics: Sequence[tuple[str, str]]) -> list[float]:
    """Return how often two equally good models are told apart at 0.05, by metric and group."""
    count = np.zeros(len(metrics))
    for run in range(runs):
        compared = compare(correlated(2 * run), correlated(2 * run + 1), options, metrics=[name for name, _ in metrics])
        p = [picked(compared, name, group).p for name, group in metrics]
        count += [each is not None and each <= 0.05 for each in p]
    return [float(each) for each in count / runs]


@pytest.fixture
def registry_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for plugins takes a good part of the time of so small a comparison."""
    monkeypatch.setattr(registry, "entries", functools.cache(registry.entries))


@pytest.mark.slow
@pytest.mark.usefixtures("registry_read_once")
def test_equally_good_models_are_told_apart_as_rarely_as_promised() -> None:
    tests = [("auc", "ddpm"), ("accuracy@0.5", "ddpm"), ("auc", "mean")]
    for (metric, group), rate in zip(tests, rejected(Options(200), 300, tests), strict=True):
        assert 0.01 <= rate <= 0.10, f"{metric} of {group}: {rate:.1%}"


@pytest.mark.usefixtures("registry_read_once")
def test_without_clusters_they_would_be_told_apart_too_often() -> None:
    assert min(rejected(Options(0, "face"), 150, [("auc", "ddpm"), ("accuracy@0.5", "ddpm")])) > 0.12


# --- several groups ------------------------------------------------------------------------------------------------


def outdone(faces: dict[str, tuple[int, int]]) -> tuple[Predictions, Predictions]:
    """Return two models: of each generator's faces, so many are told right by both, and so many by the first only."""
    sides: list[list[Face]] = [[], []]
    for generator, (both, first_only) in faces.items():
        wrong = "ddpm" if generator == REAL else REAL
        for number in range(both + first_only):
            told = (generator, generator if number < both else wrong)
            for side, says in zip(sides, told, strict=True):
                side.append(Face(generator, id=f"{generator}/{number}", says=says))
    a, b = (predictions(side) for side in sides)
    return a, b


def test_groups_are_adjusted_by_holm() -> None:
    a, b = outdone({REAL: (9, 0), "ddpm": (2, 8), "simswap": (4, 5), "stylegan3": (2, 6)})
    found = compare(a, b, NONE)
    rows = {name: picked(found, "accuracy", name, level="generator") for name in (*GENERATORS, "mean", "pooled")}
    p = {"ddpm": 2 / 2**8, "stylegan3": 2 / 2**6, "simswap": 2 / 2**5, REAL: 1.0}
    holm = {"ddpm": 4 * p["ddpm"], "stylegan3": 3 * p["stylegan3"], "simswap": 2 * p["simswap"], REAL: 1.0}
    assert {name: rows[name].p for name in p} == pytest.approx(p)
    assert {name: rows[name].p_holm for name in holm} == pytest.approx(holm)
    assert {rows[name].holm_of for name in p} == {4}
    assert rows["pooled"].p == pytest.approx(2 / 2**19)
    assert [(rows[name].p_holm, rows[name].holm_of) for name in ("mean", "pooled")] == [(None, None)] * 2


def test_a_group_without_a_p_counts_among_those_adjusted_for() -> None:
    faces = [Face(REAL, fake_score=score, id=f"r{n}") for n, score in enumerate((0.1, 0.2, 0.3, 0.4, 0.55, 0.6) * 3)]
    faces += [Face("ddpm", fake_score=score, id=f"d{n}") for n, score in enumerate((0.5, 0.7, 0.35, 0.8) * 3)]
    a = predictions([*faces, *(Face("simswap", fake_score=0.9, id=f"s{n}") for n in range(9))], detector=True)
    scores = a.fake_score.copy()
    scores[a.generator.is_("ddpm")] -= 0.3
    found = compare(a, replace(a, fake_score=scores), NONE)
    ddpm, simswap = (picked(found, "auc", name) for name in ("ddpm", "simswap"))
    assert simswap.p is None and simswap.p_holm is None
    assert ddpm.p is not None and ddpm.p_holm == pytest.approx(2 * ddpm.p)
    assert (ddpm.holm_of, simswap.holm_of) == (2, 2)


# --- the same faces ------------------------------------------------------------------------------------------------


def other_class(context: Context) -> list[Any]:
    return [context.classes[0].model_copy(update={"family": "other"}), *context.classes[1:]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda c: {"protocol_fingerprint": "sha256:1"}, "selection of faces"),
        (lambda c: {"protocol": "other"}, "protocol"),
        (lambda c: {"protocol_version": 2}, "protocol"),
        (lambda c: {"classes": c.classes[::-1]}, "classes"),
        (lambda c: {"classes": other_class(c)}, "families and forgery types"),
        (lambda c: {"levels": ["family"]}, "levels"),
        (lambda c: {"assume": {"family": {"flow": "diffusion"}}}, "assume"),
        (lambda c: {"reals": "all"}, "choice of reals"),
        (lambda c: {"pooling": "median"}, "pooling"),
        (lambda c: {"subsets": {**c.subsets, "unseen": "family"}}, "test subsets"),
        (
            lambda c: {"perturbation": PerturbationRecord(name="jpeg", severity=3, strength="JPEG quality 30")},
            "perturbation: none and jpeg 3",
        ),
    ],
)
def test_runs_that_were_asked_something_else_are_refused(
    changed: Callable[[Context], dict[str, Any]], message: str
) -> None:
    a = answered(0)
    with pytest.raises(UsageError, match=message) as caught:
        compare(a, with_context(answered(1), **changed(a.context)), NONE)
    assert "\n" not in str(caught.value) and str(caught.value).count(". ") >= 1


@pytest.mark.parametrize("column", ["generator", "family", "forgery_type", "domain", "video", "identity"])
def test_two_files_that_contradict_each_other_about_a_face_are_refused(column: str) -> None:
    a, b = answered(0), answered(1)
    labels = getattr(b, column)
    code = labels.code.copy()
    code[5] = (code[5] + 1) % len(labels.values)
    if column in ("domain", "forgery_type", "family"):  # one value only, or one that would be right
        labels, code[5] = replace(labels, values=(*labels.values, "zzz")), len(labels.values)
    with pytest.raises(DataError, match=f"about {b.id[5].as_py()}: its {column} is"):
        compare(a, replace(b, **{column: replace(labels, code=code)}), NONE)


def test_a_label_that_one_file_lacks_contradicts_one_that_the_other_has() -> None:
    a, b = answered(0), answered(1)
    code = b.identity.code.copy()
    code[0] = -1
    with pytest.raises(DataError, match="its identity is 'seen/real/0' and None"):
        compare(a, replace(b, identity=replace(b.identity, code=code)), NONE)


def test_faces_that_only_one_model_answered_are_left_out_and_counted() -> None:
    a, b = answered(0).in_order(), answered(1).in_order()
    everyone = np.arange(len(a))
    seen, val = np.flatnonzero(a.subset.is_("seen")), np.flatnonzero(a.subset.is_(VAL))
    missing_in_b, missing_in_a = [seen[0], seen[20], val[3]], [seen[7]]
    got = compare(a.take(np.delete(everyone, missing_in_a)), b.take(np.delete(everyone, missing_in_b)), FEW)
    both = np.delete(everyone, [*missing_in_a, *missing_in_b])
    assert got.differences == compare(a.take(both), b.take(both), FEW).differences
    record = got.record(FILE, FILE)
    assert record.a.left_out == {"seen": 2, VAL: 1}
    assert record.b.left_out == {"seen": 1}
    assert record.faces == {"seen": 45, "unseen": 1, VAL: 47}


def test_a_face_that_stands_in_two_subsets_is_found_in_each() -> None:
    faces = [Face(REAL, subset, id="r", fake_score=0.2) for subset in ("seen", "unseen")]
    faces += [Face("ddpm", id="f", fake_score=0.9), Face("ddpm", "unseen", id="g", fake_score=0.8)]
    a = predictions(faces, detector=True)
    record = compare(a, a.take(np.asarray([3, 1, 2])), NONE).record(FILE, FILE)
    assert record.faces == {"seen": 1, "unseen": 2}
    assert record.a.left_out == {"seen": 1}


def test_runs_without_a_common_face_are_refused() -> None:
    a = answered(0)
    with pytest.raises(UsageError, match="no face in common"):
        compare(a.take(np.arange(5)), a.take(np.arange(5, 10)), NONE)


def test_with_a_pure_detector_only_detection_is_compared() -> None:
    a = answered(0)
    compared = compare(a, replace(answered(1), logits=None), NONE)
    assert {row.task for row in compared.differences} == {"detection"}
    assert compared.record(FILE, FILE).detection_only
    assert picked(compared, "auc", "ddpm") == picked(compare(a, answered(1), NONE), "auc", "ddpm")


def test_what_one_model_cannot_have_is_named_with_the_model() -> None:
    a = answered(0)
    row = picked(compare(a, replace(a, fake_score=a.fake_score * 3), NONE), "accuracy@0.5", "ddpm")
    assert (row.a is None, row.b, row.difference) == (False, None, None)
    assert row.reason is not None and row.reason.startswith("B: fake scores leave 0..1")


# --- a choice of numbers -------------------------------------------------------------------------------------------


def test_chosen_numbers_are_those_of_the_whole_comparison() -> None:
    a, b = answered(0), answered(1)
    whole = compare(a, b, FEW).differences
    some = compare(a, b, FEW, metrics=["accuracy", "eer"], subsets=["seen"]).differences
    assert some == [row for row in whole if row.subset == "seen" and row.metric.split("@")[0] in ("accuracy", "eer")]
    assert {row.metric for row in some} == {"eer", "accuracy", "accuracy@0.5", "accuracy@val", "accuracy@oracle"}
    assert {row.metric for row in compare(a, b, NONE, metrics=["accuracy@val"]).differences} == {"accuracy@val"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": ["acc"]}, "no metric 'acc'"),
        ({"subsets": ["test"]}, "no subset 'test' to compare. Choose from seen, unseen, all"),
        ({"metrics": ["auc"], "subsets": ["all"]}, "None of the metrics auc belongs to all"),
    ],
)
def test_a_choice_of_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare(answered(0), answered(1), NONE, **given)


def test_progress_runs_to_its_end_once() -> None:
    told: list[tuple[int, int | None]] = []
    compare(answered(0), answered(1), FEW, metrics=["eer"], on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == told[-1][1]


def test_without_resamples_there_are_still_closed_forms() -> None:
    found = compare(answered(0), answered(1), NONE)
    assert picked(found, "auc", "ddpm").p is not None
    eer = picked(found, "eer", "ddpm")
    assert (eer.p, eer.no_p, eer.no_interval) == (None, "no resamples were asked for", "no resamples were asked for")
    assert json.loads(found.record(FILE, FILE).model_dump_json())["resampling"]["resamples"] == 0
