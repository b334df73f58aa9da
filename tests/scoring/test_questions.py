"""Intervals are those of whole clusters, a mean moves with its groups, and what cannot vary claims no interval."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from dfad_bench import registry
from dfad_bench.records.results import Score
from dfad_bench.scoring import questions
from dfad_bench.scoring.metrics.accuracy import accuracy
from dfad_bench.scoring.metrics.auc import auc
from dfad_bench.scoring.metrics.balanced_accuracy import balanced_accuracy
from dfad_bench.scoring.questions import ONE_CLUSTER
from dfad_bench.scoring.score import Asking, Options, score
from dfad_bench.scoring.statistics.delong import delong_interval, delong_variance
from dfad_bench.scoring.statistics.intervals import bca_interval
from dfad_bench.scoring.views import DetectionView, Metric
from dfad_bench.types import REAL
from tests.scoring.builders import Face, pick, predictions, scores_of

DRAWN = Options(resamples=60)


def people(generator: str, number: int, seed: int, frames: int = 3, **changes: Any) -> list[Face]:
    """Faces of as many people, a few frames of each, whose scores share what is theirs."""
    rng = np.random.default_rng(seed)
    shift = 0.15 * (generator != REAL)
    names = (REAL, "ddpm", "simswap", "stylegan3")
    return [
        Face(
            generator,
            fake_score=float(np.clip(base + rng.normal(0, 0.05), 0, 1).round(3)),
            says=names[int(rng.integers(4))] if rng.random() < 0.4 else generator if generator in names else "ddpm",
            identity=f"{generator}-{person}",
            video=f"{generator}-{person}-{frame // 2}",
            **changes,
        )
        for person, base in enumerate(rng.normal(0.45 + shift, 0.15, number).tolist())
        for frame in range(frames)
    ]


CROWD = [*people(REAL, 9, 0), *people("ddpm", 8, 1), *people("simswap", 5, 2)]
LONELY = [*CROWD, *people("stylegan3", 1, 3)]


def third_party(monkeypatch: pytest.MonkeyPatch, **metrics: Metric) -> None:
    own, entries = registry.load, registry.entries
    added = {name: registry.Entry(name, "their-package") for name in metrics}
    monkeypatch.setattr(registry, "entries", lambda kind: entries(kind) | (added if kind == "metrics" else {}))
    monkeypatch.setattr(registry, "load", lambda kind, entry: metrics.get(entry.name) or own(kind, entry))


def ends(found: Score) -> tuple[float | None, float | None, str | None, str | None]:
    return found.low, found.high, found.interval, found.no_interval


def test_without_resamples_there_are_values_and_no_interval_of_any_kind() -> None:
    plain = score(predictions(CROWD), Options(resamples=0))
    drawn = score(predictions(CROWD), DRAWN)
    assert {(each.low, each.high, each.interval, each.no_interval, each.delong) for each in plain.scores} == {
        (None,) * 5
    }
    assert [each.value for each in plain.scores] == [each.value for each in drawn.scores]
    assert plain.details == drawn.details
    assert (plain.scoring.resamples, plain.scoring.clusters, drawn.scoring.clusters) == (0, 22, 22)


def test_every_value_has_an_interval_or_says_why_not() -> None:
    for each in score(predictions(LONELY), DRAWN).scores:
        if each.value is None:
            assert (*ends(each), each.delong) == (None,) * 5
        else:
            assert (each.low is None) == (each.high is None) == (each.interval is None)
            assert (each.low is None) == (each.no_interval is not None)
            assert each.low is None or 0 <= each.low < each.high <= 1  # type: ignore[operator]


def test_clusters_are_counted_on_the_side_that_has_fewer_and_a_mean_has_those_of_its_weakest_group() -> None:
    scores = scores_of(CROWD, options=DRAWN)
    found = {group: pick(scores, "auc", group).clusters for group in ("ddpm", "simswap", "mean", "pooled")}
    assert found == {"ddpm": 8, "simswap": 5, "mean": 5, "pooled": 9}
    assert pick(scores, "accuracy", "pooled", level="family").clusters == 22
    assert pick(scores, "accuracy", "mean", level="family").clusters == 5
    by_face = scores_of(CROWD, options=replace(DRAWN, cluster_by="face"))
    assert pick(by_face, "auc", "ddpm").clusters == 24
    assert pick(by_face, "auc", "ddpm", unit="video").clusters == 16


def test_a_group_whose_fakes_are_one_cluster_has_no_interval_and_neither_has_a_mean_that_it_is_in() -> None:
    scores = scores_of(LONELY, options=DRAWN)
    for metric in ("auc", "accuracy@0.5"):
        for group in ("stylegan3", "mean"):
            found = pick(scores, metric, group)
            assert (found.clusters, *ends(found)) == (1, None, None, None, ONE_CLUSTER)
            assert found.value is not None
        for group in ("ddpm", "pooled"):
            assert pick(scores, metric, group).low is not None
    assert ends(pick(scores, "accuracy", "stylegan3", level="family")) == (None, None, None, ONE_CLUSTER)


def test_reals_that_are_one_cluster_leave_no_interval() -> None:
    scores = scores_of([*people(REAL, 1, 0, frames=9), *people("ddpm", 8, 1)], options=DRAWN)
    assert ends(pick(scores, "auc", "ddpm")) == (None, None, None, ONE_CLUSTER)


def test_what_no_resample_changes_has_no_interval_and_says_so() -> None:
    faces = [replace(face, fake_score=float(face.generator != REAL)) for face in CROWD]
    found = pick(scores_of(faces, options=DRAWN), "auc", "ddpm")
    assert (found.value, *ends(found)) == (1, None, None, None, "every resample gives the same value")
    assert found.delong is None


def test_the_delong_interval_beside_an_auc_is_that_of_the_same_clusters() -> None:
    scores = scores_of(CROWD, options=DRAWN)
    faces = [face for face in CROWD if face.generator in (REAL, "ddpm")]
    is_fake = np.asarray([face.generator != REAL for face in faces])
    cluster = np.unique([face.identity or "" for face in faces], return_inverse=True)[1]
    found = delong_variance(is_fake, np.asarray([face.fake_score for face in faces]), cluster)
    assert pick(scores, "auc", "ddpm").delong == pytest.approx(delong_interval(*found))
    assert {each.metric for each in scores if each.delong} == {"auc"}


def resampled(asking: Asking, compute: Any) -> Any:
    """Values of a function of the drawn rows of frames, in every resample and with every group of clusters left out."""
    assert asking.resampler is not None
    cluster = asking.detectors[0].faces.cluster
    everyone = np.arange(len(cluster))
    deletions, strata = asking.resampler.deletions()
    parts = [np.concatenate(list(chunks)) for chunks in (asking.resampler.draws(), deletions)]
    values = [np.asarray([compute(np.repeat(everyone, drawn[cluster])) for drawn in part]) for part in parts]
    return values[0], values[1], strata


def check(found: Score, draws: Any, deletions: Any, strata: Any) -> None:
    assert found.value is not None
    expected = bca_interval(found.value, draws, deletions, strata)
    assert ends(found) == (pytest.approx(expected.low), pytest.approx(expected.high), expected.method, None)


def test_the_interval_is_that_of_the_faces_of_each_resample_written_out() -> None:
    asking = Asking.of(predictions(CROWD).in_order(), DRAWN)
    faces = asking.detectors[0].faces

    def auc_of(generator: str, rows: Any) -> float:
        chosen = rows[faces.generator.is_(generator)[rows] | faces.generator.is_(REAL)[rows]]
        fakes = faces.fake_score[chosen[faces.is_fake[chosen]]][:, None]
        reals = faces.fake_score[chosen[~faces.is_fake[chosen]]][None, :]
        return float(np.mean((fakes > reals) + 0.5 * (fakes == reals)))

    scores = scores_of(CROWD, options=DRAWN)
    both = []
    for group in ("ddpm", "simswap"):
        draws, deletions, strata = resampled(asking, partial(auc_of, group))
        both.append((draws, deletions))
        check(pick(scores, "auc", group), draws, deletions, strata)
    check(pick(scores, "auc", "mean"), *(sum(pair) / 2 for pair in zip(*both, strict=True)), strata)


def test_every_resample_holds_as_many_clusters_of_each_generator() -> None:
    mixed = [Face(REAL, identity="m"), Face("ddpm", identity="m"), Face(REAL, identity="n"), Face("flux", identity="n")]
    asking = Asking.of(predictions([*CROWD, *mixed]).in_order(), DRAWN)
    faces = asking.detectors[0].faces
    assert asking.resampler is not None
    generators: dict[int, set[str | None]] = {}
    for cluster, name in zip(faces.cluster.tolist(), faces.generator.tolist(), strict=True):
        generators.setdefault(cluster, set()).add(name)
    kinds = [
        tuple(sorted(map(str, generators[cluster]))) if len(generators[cluster]) == 1 else "mixed"
        for cluster in sorted(generators)
    ]
    for drawn in np.concatenate(list(asking.resampler.draws())):
        for kind in {*kinds}:
            held = np.asarray([each == kind for each in kinds])
            assert drawn[held].sum() == held.sum()


def test_a_longer_run_and_more_memory_change_no_earlier_number(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = score(predictions(LONELY), DRAWN)
    monkeypatch.setattr(questions, "_CELLS", 150)  # a few resamples at a time
    found = score(predictions(LONELY), DRAWN)
    for one, other in zip(found.scores, expected.scores, strict=True):
        assert one.model_copy(update={"low": None, "high": None}) == other.model_copy(
            update={"low": None, "high": None}
        )
        assert (one.low, one.high) == (pytest.approx(other.low, abs=1e-12), pytest.approx(other.high, abs=1e-12))


def test_another_seed_moves_intervals_and_no_value() -> None:
    one, other = (scores_of(CROWD, options=replace(DRAWN, seed=seed)) for seed in (0, 1))
    assert [each.value for each in one] == [each.value for each in other]
    assert pick(one, "auc", "ddpm").low != pick(other, "auc", "ddpm").low


def test_progress_counts_resamples_and_deletions_to_the_end() -> None:
    seen: list[tuple[int, int | None]] = []
    score(predictions(CROWD), DRAWN, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_no_face_and_no_test_face_are_no_error_with_resamples() -> None:
    for faces in ([], [Face(REAL, "val", fake_score=0.1), Face("ddpm", "val", fake_score=0.9)]):
        report = score(predictions(faces), DRAWN)
        assert {each.value for each in report.scores} == {None}
        assert report.scoring.clusters == 0


# --- means ---------------------------------------------------------------------------------------------------------


def test_a_group_that_is_undefined_undoes_the_mean_and_its_interval() -> None:
    scores = scores_of([*CROWD, Face("stylegan3", domain="elsewhere")], options=DRAWN)
    found = pick(scores, "auc", "mean")
    assert (found.value, found.reason) == (None, "stylegan3: no real face of elsewhere")
    assert ends(found) == (None,) * 4


def test_a_group_that_is_wholly_unknown_is_left_out_of_the_mean_and_of_its_interval() -> None:
    without = scores_of(CROWD, options=DRAWN)
    found = pick(scores_of([*CROWD, *people("flux", 4, 5)], options=DRAWN), "accuracy", "mean", level="family")
    mean = pick(without, "accuracy", "mean", level="family")
    assert (found.value, found.n, found.unknown) == (mean.value, 3, 12)
    assert found.low is not None and found.clusters == mean.clusters


# --- metrics of third parties --------------------------------------------------------------------------------------


def test_a_metric_that_heeds_no_weights_gets_the_interval_of_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("detection", "attribution")
    third_party(
        monkeypatch,
        theirs=Metric(auc, ("detection",), True),
        their_accuracy=Metric(
            lambda view: float((view.true == view.predicted).mean()), both, True, uses_threshold=True
        ),
        their_balanced_accuracy=Metric(balanced_accuracy, ("attribution",), True, pooled_only=("attribution",)),
    )
    scores = scores_of(LONELY, options=DRAWN)
    for unit in ("frame", "video"):
        for group in ("ddpm", "stylegan3", "mean", "pooled"):
            for theirs, ours in (("theirs", "auc"), ("their_accuracy@0.5", "accuracy@0.5")):
                one, other = (pick(scores, name, group, unit=unit) for name in (theirs, ours))
                assert one.value == pytest.approx(other.value, abs=1e-12)
                assert ends(one) == (*map(pytest.approx, ends(other)[:2]), *ends(other)[2:])
        one, other = (
            pick(scores, name, "pooled", level="family", unit=unit)
            for name in ("their_balanced_accuracy", "balanced_accuracy")
        )
        assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_a_metric_that_is_infinite_in_resamples_has_no_value_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(view: DetectionView) -> Any:
        value = np.asarray(accuracy(view))
        return np.where(np.arange(value.size) % 2 == 1, np.inf, value) if value.ndim else value

    third_party(monkeypatch, theirs=Metric(sometimes, ("detection",), True, resamples=True))
    found = pick(scores_of(CROWD, options=DRAWN), "theirs", "ddpm")
    assert ends(found) == (None, None, None, "30 of 60 resamples have no value")
