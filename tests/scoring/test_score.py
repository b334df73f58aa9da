"""Which faces enter each number: checked on a handful of faces that can be counted by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from dfad_bench import registry
from dfad_bench.errors import UsageError
from dfad_bench.records.categorical import Categorical
from dfad_bench.records.predictions import VAL
from dfad_bench.scoring.detection import Detector
from dfad_bench.scoring.faces import frames
from dfad_bench.scoring.score import Options, score
from dfad_bench.scoring.views import Metric
from dfad_bench.types import REAL
from tests.scoring.builders import CLASSES, Face, pick, predictions, scores_of

GENERATORS = (REAL, "ddpm", "simswap", "stylegan3", "sd15", "flux")
FACES = st.builds(
    Face,
    generator=st.sampled_from(GENERATORS),
    subset=st.sampled_from(["seen", "unseen", VAL]),
    says=st.sampled_from(GENERATORS[:4]),
    fake_score=st.integers(0, 4).map(lambda n: n / 4),
    domain=st.sampled_from(["ffhq", "celeba"]),
)
TWO_CLASSES = [
    Face(REAL, fake_score=0.1),
    Face(REAL, fake_score=0.6),
    Face("ddpm", fake_score=0.9, says="ddpm"),
    Face("ddpm", fake_score=0.4, says="stylegan3"),
    Face("stylegan3", fake_score=0.7, says="stylegan3"),
]


# --- detection -----------------------------------------------------------------------------------------------------


def test_each_generator_is_tested_against_the_reals() -> None:
    scores = scores_of(TWO_CLASSES)
    assert pick(scores, "auc", "ddpm").value == pytest.approx(3 / 4)
    assert pick(scores, "auc", "ddpm").n == 4
    assert pick(scores, "auc", "stylegan3").value == 1
    assert pick(scores, "accuracy@0.5", "ddpm").value == pytest.approx(2 / 4)
    assert pick(scores, "balanced_accuracy@0.5", "stylegan3").value == pytest.approx(3 / 4)
    assert pick(scores, "auc", "pooled").value == pytest.approx(5 / 6)
    assert pick(scores, "auc", "pooled").n == 5


def test_the_mean_is_the_mean_of_the_groups_and_counts_them() -> None:
    scores = scores_of(TWO_CLASSES)
    mean = pick(scores, "auc", "mean")
    assert mean.value == pytest.approx((3 / 4 + 1) / 2)
    assert mean.n == 2


def test_reals_of_all_test_subsets_are_used_and_those_of_val_are_not() -> None:
    faces = [Face(REAL, "unseen", fake_score=0.2), Face("ddpm", "seen", fake_score=0.9)]
    faces += [Face(REAL, VAL, fake_score=1.0), Face("ddpm", VAL, fake_score=0.0)]
    scores = scores_of(faces)
    assert pick(scores, "auc", "ddpm").value == 1
    assert pick(scores, "auc", "ddpm").n == 2
    assert {each.subset for each in scores if each.task == "detection"} == {"seen", "unseen"}


def test_a_real_that_stands_in_two_subsets_counts_once() -> None:
    shared = [Face(REAL, subset, fake_score=0.2, id="ffhq/real/1") for subset in ("seen", "unseen")]
    scores = scores_of([*shared, Face("ddpm", fake_score=0.9)])
    assert pick(scores, "auc", "ddpm").n == 2


def test_a_generator_is_tested_against_reals_of_its_own_domain() -> None:
    faces = [
        Face(REAL, fake_score=0.8, domain="celeba"),
        Face(REAL, fake_score=0.1, domain="ffhq"),
        Face("ddpm", fake_score=0.5, domain="ffhq"),
        Face("simswap", fake_score=0.5, domain="celeba"),
        Face("stylegan3", fake_score=0.5, domain="celeba"),
        Face("stylegan3", fake_score=0.5, domain="ffhq"),
    ]
    same = scores_of(faces)
    assert [pick(same, "auc", name).value for name in ("ddpm", "simswap", "stylegan3")] == [1, 0, 0.5]
    every = scores_of(faces, reals="all")
    assert [pick(every, "auc", name).value for name in ("ddpm", "simswap", "stylegan3")] == [0.5, 0.5, 0.5]


def test_a_generator_without_reals_of_its_domain_has_no_value_and_undoes_the_mean() -> None:
    scores = scores_of([*TWO_CLASSES, Face("simswap", domain="vggface2")])
    for metric in ("auc", "accuracy@0.5"):
        assert pick(scores, metric, "simswap").value is None
        assert pick(scores, metric, "simswap").reason == "no real face of vggface2"
        assert pick(scores, metric, "mean").value is None
        assert pick(scores, metric, "mean").reason == "simswap: no real face of vggface2"
    assert pick(scores, "auc", "pooled").value is not None


def test_a_subset_without_fakes_has_no_value() -> None:
    scores = scores_of([Face(REAL)])
    reasons = {each.reason for each in scores if each.task == "detection" and not each.metric.endswith("@val")}
    assert reasons == {"no fake face"}
    assert pick(scores, "accuracy", "pooled", level="family").reason == "no fake face"


def test_no_face_at_all_is_no_error() -> None:
    assert {each.value for each in scores_of([])} == {None}


def test_constant_scores_give_half_an_auc_and_the_share_of_fakes_as_precision() -> None:
    scores = scores_of([replace(face, fake_score=0.5) for face in TWO_CLASSES])
    assert pick(scores, "auc", "pooled").value == 0.5
    assert pick(scores, "average_precision", "pooled").value == pytest.approx(3 / 5)


def test_scores_that_are_no_probabilities_have_no_accuracy_but_an_auc() -> None:
    scores = scores_of([replace(face, fake_score=10 * face.fake_score) for face in TWO_CLASSES])
    assert pick(scores, "accuracy@0.5", "ddpm").value is None
    assert pick(scores, "accuracy@0.5", "ddpm").reason == "fake scores leave 0..1, so they are no probabilities"
    assert pick(scores, "auc", "ddpm").value == pytest.approx(3 / 4)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=15))
@example([(False, -1)] + [(False, 0)] * 6 + [(False, 1)] * 3 + [(True, 0)] * 3 + [(True, 1)] * 2)  # 0.4 + 0.7 = 1 + 0.1
def test_the_threshold_from_val_is_the_highest_of_those_with_the_best_balanced_accuracy(
    pairs: list[tuple[bool, int]],
) -> None:
    val = [Face("ddpm" if fake else REAL, VAL, fake_score=float(score)) for fake, score in pairs]
    threshold = Detector.of(frames(predictions(val)), same_domain=False).threshold
    reals, fakes = ([score for fake, score in pairs if fake is which] for which in (False, True))
    if not reals or not fakes:
        assert threshold == f"val has no {'real' if fakes else 'fake'} face"
        return
    assert isinstance(threshold, float)

    def balanced(threshold: float) -> Fraction:
        found, spared = sum(each >= threshold for each in fakes), sum(each < threshold for each in reals)
        return Fraction(found, len(fakes)) + Fraction(spared, len(reals))

    tried = [number / 2 for number in range(-10, 11)]  # every score, the middles between them, and beyond both ends
    best = max(map(balanced, tried))
    assert balanced(threshold) == best
    higher = [each for each in tried if balanced(each) == best and each > threshold]
    called = sum(each >= threshold for _, each in pairs)
    assert all(sum(score >= each for _, score in pairs) == called for each in higher)


def test_the_threshold_lies_in_the_middle_between_two_scores_of_val() -> None:
    val = [Face(REAL, VAL, fake_score=0.25), Face("ddpm", VAL, fake_score=0.75)]
    faces = [*val, Face(REAL, fake_score=0.49), Face("ddpm", fake_score=0.5), Face("ddpm", fake_score=0.4)]
    report = score(predictions(faces), Options(0))
    assert report.scoring.thresholds == {"frame": 0.5, "video": 0.5}
    assert pick(report.scores, "accuracy@val", "ddpm").value == pytest.approx(2 / 3)
    assert pick(report.scores, "accuracy@oracle", "ddpm").value == pytest.approx(2 / 3)


def test_a_detector_that_is_worst_upside_down_calls_nothing_fake() -> None:
    val = [Face(REAL, VAL, fake_score=1.0), Face("ddpm", VAL, fake_score=0.0)]
    report = score(predictions([*val, Face(REAL, fake_score=1.0), Face("ddpm", fake_score=0.0)]), Options(0))
    assert pick(report.scores, "accuracy@val", "ddpm").value == 0.5
    assert report.scoring.thresholds["frame"] == np.nextafter(1.0, 2.0)


def test_the_same_fake_in_two_subsets_is_tested_in_both() -> None:
    faces = [Face("ddpm", subset, fake_score=0.9, id="f") for subset in ("seen", "unseen")]
    scores = scores_of([*faces, Face(REAL, fake_score=0.1)])
    for subset in ("seen", "unseen"):
        assert (pick(scores, "auc", "ddpm", subset=subset).value, pick(scores, "auc", "ddpm", subset=subset).n) == (
            1,
            2,
        )


# --- attribution ---------------------------------------------------------------------------------------------------


def test_each_level_asks_the_same_answer_a_coarser_question() -> None:
    scores = scores_of(TWO_CLASSES)
    found = {
        level: pick(scores, "accuracy", "ddpm", level=level).value for level in ("generator", "family", "forgery_type")
    }
    assert found == {"generator": 0.5, "family": 0.5, "forgery_type": 1}
    assert pick(scores, "accuracy", "real", level="generator").value == 1
    assert pick(scores, "accuracy", "mean", level="generator").value == pytest.approx((1 + 0.5 + 1) / 3)
    assert pick(scores, "accuracy", "pooled", level="generator").value == pytest.approx(4 / 5)
    assert pick(scores, "balanced_accuracy", "pooled", level="family").value == pytest.approx((1 + 0.5 + 1) / 3)


def test_an_unseen_generator_is_right_when_its_family_is() -> None:
    scores = scores_of([Face("sd15", "unseen", says="ddpm"), Face(REAL, "unseen")])
    assert pick(scores, "accuracy", "sd15", subset="unseen", level="family").value == 1
    unseen = pick(scores, "accuracy", "sd15", subset="unseen", level="generator")
    assert (unseen.value, unseen.n, unseen.unknown) == (None, 0, 1)
    assert unseen.reason == "training has no such class at this level"


def test_being_right_on_reals_alone_is_no_attribution() -> None:
    scores = scores_of([Face("sd15", "unseen", says="ddpm"), Face(REAL, "unseen")])
    assert pick(scores, "accuracy", "real", subset="unseen", level="generator").value == 1
    for group in ("mean", "pooled"):
        found = pick(scores, "accuracy", group, subset="unseen", level="generator")
        assert (found.value, found.n, found.unknown) == (None, 0, 1)


def test_an_unknown_family_is_left_out_and_counted() -> None:
    faces = [Face("sd15", "unseen", says="ddpm"), *[Face("flux", "unseen", says="ddpm")] * 3]
    scores = scores_of(faces)
    flux = pick(scores, "accuracy", "flux", subset="unseen", level="family")
    assert (flux.value, flux.n, flux.unknown) == (None, 0, 3)
    mean = pick(scores, "accuracy", "mean", subset="unseen", level="family")
    assert (mean.value, mean.n, mean.unknown) == (1, 1, 3)
    pooled = pick(scores, "accuracy", "pooled", subset="unseen", level="family")
    assert (pooled.value, pooled.n, pooled.unknown) == (1, 1, 3)


def test_assume_says_what_counts_as_right() -> None:
    faces = [Face("flux", "unseen", says="ddpm"), Face("flux", "unseen", says="simswap")]
    scores = scores_of(faces, assume={"family": {"flow": "diffusion"}})
    flux = pick(scores, "accuracy", "flux", subset="unseen", level="family")
    assert (flux.value, flux.n, flux.unknown) == (0.5, 2, 0)


def test_a_group_may_be_known_in_part() -> None:
    faces = [Face("sd15", "unseen", says="ddpm"), Face("flux", "unseen", says="ddpm")]
    scores = scores_of(faces, subsets={"unseen": "forgery_type"})
    efs = pick(scores, "accuracy", "efs", subset="unseen", level="family")
    assert (efs.value, efs.n, efs.unknown) == (1, 1, 1)


def test_a_pure_detector_has_no_attribution() -> None:
    assert {each.task for each in scores_of(TWO_CLASSES, detector=True)} == {"detection"}


def test_only_the_levels_of_the_protocol_are_scored() -> None:
    scores = scores_of(TWO_CLASSES, levels=["family"])
    assert {each.level for each in scores} == {"authenticity", "family"}


# --- the whole -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(FACES, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit_of_a_report(faces: list[Face], random: Any) -> None:
    made = predictions(faces)
    order = list(range(len(faces)))
    random.shuffle(order)
    options = Options(resamples=20)
    assert score(made.take(np.asarray(order, dtype=np.intp)), options) == score(made, options)


@settings(max_examples=50, deadline=None)
@given(st.lists(FACES, max_size=25))
def test_what_has_no_value_says_why_and_what_has_one_is_a_fraction(faces: list[Face]) -> None:
    for each in scores_of(faces):
        assert (each.value is None) == (each.reason is not None)
        assert each.value is None or 0 <= each.value <= 1


def test_the_order_of_subsets_moves_scores_and_changes_none() -> None:
    faces = [*TWO_CLASSES, Face("sd15", "unseen", says="ddpm", fake_score=0.3), Face(REAL, "unseen", fake_score=0.2)]
    forward = scores_of(faces)
    backward = scores_of(faces, subsets={"unseen": "generator", "seen": "generator"})
    assert forward[0].subset == "seen"
    assert backward[0].subset == "unseen"
    assert sorted(map(repr, forward)) == sorted(map(repr, backward))


def test_groups_come_real_first_then_sorted_then_mean_then_pooled() -> None:
    scores = scores_of(TWO_CLASSES)
    groups = [each.group for each in scores if (each.metric, each.level) == ("accuracy", "family")]
    assert groups[:5] == ["real", "ddpm", "stylegan3", "mean", "pooled"]


def third_party(monkeypatch: pytest.MonkeyPatch, metric: Metric) -> None:
    own, entries = registry.load, registry.entries
    monkeypatch.setattr(
        registry, "entries", lambda kind: entries(kind) | {"theirs": registry.Entry("theirs", "their-package")}
    )
    monkeypatch.setattr(registry, "load", lambda kind, entry: metric if entry.name == "theirs" else own(kind, entry))


def test_plugins_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    entry_points = registry.entry_points

    def counting(*, group: str) -> Any:
        looked.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(registry, "entry_points", counting)
    scores_of(TWO_CLASSES)
    assert looked == ["dfad_bench.metrics"]


@pytest.mark.parametrize("given", [{"resamples": -1}, {"seed": -1}])
def test_options_that_mean_nothing_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="both are 0 or more"):
        Options(**given)


def test_a_metric_of_a_third_party_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    third_party(monkeypatch, Metric(lambda view: len(view.true) / 10, ("detection", "attribution"), True))
    scores = scores_of(TWO_CLASSES)
    assert pick(scores, "theirs", "pooled").value == 0.5
    assert pick(scores, "theirs", "ddpm", level="family").value == 0.2


def test_a_metric_that_is_pooled_only_has_neither_groups_nor_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    third_party(monkeypatch, Metric(lambda view: 1.0, ("detection",), True, pooled_only=("detection",)))
    scores = scores_of(TWO_CLASSES)
    assert {each.group for each in scores if each.metric == "theirs" and each.subset == "seen"} == {"pooled"}
    balanced = [each for each in scores if (each.metric, each.subset) == ("balanced_accuracy", "seen")]
    assert {each.group for each in balanced} == {"pooled"}


def test_a_metric_that_gives_nan_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    third_party(monkeypatch, Metric(lambda view: float("nan"), ("detection",), True))
    found = pick(scores_of(TWO_CLASSES), "theirs", "ddpm")
    assert (found.value, found.reason) == (None, "the metric gave nan")


@pytest.mark.slow
def test_a_million_faces_are_scored_and_agree_with_scikit_learn() -> None:
    count = 1_000_000
    rng = np.random.default_rng(0)
    names = np.asarray([leaf.name for leaf in CLASSES])
    generator = rng.integers(0, 4, count)
    logits = rng.normal(size=(count, 4)).astype(np.float32)
    logits[np.arange(count), generator] += 1
    fake_score = (1 - 1 / (1 + np.exp(-logits[:, 0]))).astype(np.float32).astype(np.float64).round(4)
    few = predictions([Face(leaf.name) for leaf in CLASSES])
    rows = generator.astype(np.intp)
    many = replace(
        few.take(rows),
        id=pa.array([f"{number:07d}" for number in range(count)]),
        video=Categorical.of([f"v{number // 32}" for number in range(count)]),
        fake_score=fake_score,
        logits=logits,
    )
    report = score(many, Options(resamples=0))
    is_fake = generator > 0
    found = pick(report.scores, "auc", "pooled")
    assert (found.n, found.value) == (count, pytest.approx(roc_auc_score(is_fake, fake_score), abs=1e-12))
    precision = pick(report.scores, "average_precision", "pooled").value
    assert precision == pytest.approx(average_precision_score(is_fake, fake_score), abs=1e-10)
    for value, name in enumerate(names):
        accuracy = pick(report.scores, "accuracy", str(name), level="generator").value
        assert accuracy == pytest.approx((logits[generator == value].argmax(axis=1) == value).mean())
    # Every fourth frame or so of a video is of each generator: a video is one of each.
    assert pick(report.scores, "auc", "pooled", unit="video").n == len(
        np.unique(np.arange(count) // 32 * 4 + generator)
    )


def test_scoring_needs_no_torch() -> None:
    code = (
        "import sys; from dfad_bench import registry; import dfad_bench.scoring.score;"
        "[registry.get('metrics', name) for name in registry.entries('metrics')];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
