"""Do two models differ? Every number of both on the same faces, in the same resamples, with the test that belongs to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import UsageError
from dfad_bench.records.comparison import (
    FEW_CLUSTERS,
    BootstrapTest,
    ComparedProtocol,
    Comparison,
    DeLongTest,
    Difference,
    McNemarTest,
    ResamplingRecord,
    SideRecord,
    Test,
)
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import MEAN, POOLED, PredictionsRecord, Unit
from dfad_bench.scoring import detection
from dfad_bench.scoring.detection import AT_HALF, AT_VAL, HALF
from dfad_bench.scoring.joint import JOINT
from dfad_bench.scoring.pairing import Paired
from dfad_bench.scoring.questions import ONE_CLUSTER, Answer, Asked, OnProgress, Replicates, answer
from dfad_bench.scoring.score import Asking, Options
from dfad_bench.scoring.statistics.delong import paired_delong
from dfad_bench.scoring.statistics.intervals import bca_interval, defined_replicates
from dfad_bench.scoring.statistics.paired_tests import holm, mcnemar, paired_bootstrap_p
from dfad_bench.scoring.views import AttributionView, DetectionView, RatioView, Undefined, View

NO_RESAMPLES = "no resamples were asked for"
ALIKE = "the two models answer alike"
ALIKE_EVERYWHERE = "the two models are alike in every resample"
SAME_EVERYWHERE = "every resample gives the same difference"
_LAST_BITS = 1e-12
"""Two values that are the same fraction may differ by rounding, having been added up in another order."""
_ACCURACY = {
    "detection": (f"accuracy{AT_HALF}", f"accuracy{AT_VAL}"),
    "attribution": ("accuracy",),
    "joint": (JOINT,),
}
"""Metrics that are the fraction of right answers to the same faces for both models, which McNemar's test is about."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Compared:
    """What two predictions files differ in; ``record`` puts the files' hashes to it."""

    paired: Paired
    differences: Sequence[Difference]
    thresholds: tuple[dict[Unit, float | None], dict[Unit, float | None]]
    resampling: ResamplingRecord

    def record(self, a: PredictionsRecord, b: PredictionsRecord) -> Comparison:
        """Return the record of the comparison, given which files were compared."""
        context, subset = self.paired.a.context, self.paired.a.subset
        counts = np.bincount(subset.code, minlength=len(subset.values))
        sides = [
            SideRecord(model=of.model, seed=of.seed, predictions=file, left_out=left_out, thresholds=thresholds)
            for of, file, left_out, thresholds in zip(
                (context, self.paired.b.context),
                (a, b),
                (self.paired.left_out_a, self.paired.left_out_b),
                self.thresholds,
                strict=True,
            )
        ]
        return Comparison(
            a=sides[0],
            b=sides[1],
            protocol=ComparedProtocol(
                name=context.protocol,
                version=context.protocol_version,
                fingerprint=context.protocol_fingerprint,
                warning=context.protocol_warning,
            ),
            perturbation=context.perturbation,
            faces={name: int(count) for name, count in zip(subset.values, counts, strict=True) if count},
            detection_only=self.paired.a.logits is None,
            resampling=self.resampling,
            differences=list(self.differences),
        )


def compare(
    a: Predictions,
    b: Predictions,
    options: Options,
    *,
    metrics: Collection[str] | None = None,
    subsets: Collection[str] | None = None,
    on_progress: OnProgress | None = None,
) -> Compared:
    """Return the difference a − b of every number that both models have, on the faces that both were shown.

    Each comes with an interval and a p-value from the same resamples of clusters for both models, and with the test that
    belongs to its metric: DeLong for ``auc``, McNemar for accuracy, otherwise the bootstrap. Which one ``p`` is of does
    not depend on the data: where that one is undefined there is no p. Groups of one task, metric, level, unit and subset
    are adjusted by Holm; ``mean`` and ``pooled``, one question each, are not. The threshold chosen on val is each model's
    own. Numbers of test faces clustered by embedding are not compared. A pure function of the rows, in any order.

    metrics: recorded names such as ``accuracy@val``, or what stands before the @; subsets: names of test subsets, or
    ``all``; None: every one. Raises UsageError for a name that is none, and what ``Paired.of`` raises.
    """
    paired = Paired.of(a, b)
    askings = [Asking.of(side, options) for side in (paired.a, paired.b)]
    chosen = [list(_chosen(asking.asked, metrics, subsets)) for asking in askings]
    _check_found(askings[0].asked, chosen[0], metrics, subsets)
    resampler = askings[0].resampler
    # One after the other: the views of all questions to one model are what takes memory.
    answers = [answer(asked, resampler, _half(on_progress, part)) for part, asked in enumerate(chosen)]
    strata = None if resampler is None else resampler.deletions()[1]
    rows = [
        _difference(sides, name, *pair, strata)
        for sides, name, pair in _side_by_side(askings, chosen, answers)
    ]  # fmt: skip
    records = [asking.record(options) for asking in askings]
    resampling = ResamplingRecord(**records[0].model_dump(exclude={"thresholds"}))
    return Compared(paired, _adjusted(rows), (records[0].thresholds, records[1].thresholds), resampling)


def _half(on_progress: OnProgress | None, part: int) -> OnProgress | None:
    """Return the progress of the first or second of two equal halves."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(done + part * (total or 0), total and 2 * total)


# --- which questions -----------------------------------------------------------------------------------------------


def _chosen(
    asked: Sequence[Asked], metrics: Collection[str] | None, subsets: Collection[str] | None
) -> Iterator[Asked]:
    for each in asked:
        if subsets is not None and each.subset not in subsets:
            continue
        kept = {name: metric for name, metric in each.metrics.items() if metrics is None or _names(name) & {*metrics}}
        if kept:
            yield replace(each, metrics=kept)


def _names(metric: str) -> set[str]:
    """Return what a metric may be called by: its recorded name, or what stands before the @."""
    return {metric, metric.partition("@")[0]}


def _check_found(
    asked: Sequence[Asked],
    chosen: Sequence[Asked],
    metrics: Collection[str] | None,
    subsets: Collection[str] | None,
) -> None:
    """Raise UsageError for a name that is none, and where nothing is left to compare."""
    known_metrics = sorted({name for each in asked for name in each.metrics})
    known_subsets = list(dict.fromkeys(each.subset for each in asked))
    for name in metrics or ():
        if not any(name in _names(each) for each in known_metrics):
            raise UsageError(f"There is no metric {name!r} to compare. Choose from {', '.join(known_metrics)}.")
    for name in subsets or ():
        if name not in known_subsets:
            raise UsageError(f"There is no subset {name!r} to compare. Choose from {', '.join(known_subsets)}.")
    if not chosen:
        raise UsageError(
            f"None of the metrics {', '.join(metrics or known_metrics)} belongs to {', '.join(subsets or known_subsets)}. "
            "Choose others with --metric."
        )


# --- both models' answers to a question ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sides:
    """One question to both models, with the views of both, face by face."""

    asked: Asked
    looks: tuple[Callable[[], View] | None, ...]
    thresholds: tuple[float | str, ...]

    @cached_property
    def views(self) -> list[Any]:
        """What the models said of the same faces in the same order; raises Undefined where there is nothing to see."""
        return [look() for look in self.looks if look is not None]

    def right(self, metric: str) -> list[Bools]:
        """Return which faces [N] each model gets right."""
        return [
            _right(view, HALF if metric.endswith(AT_HALF) else threshold)
            for view, threshold in zip(self.views, self.thresholds, strict=True)
        ]


def _right(view: View, threshold: float | str) -> Bools:
    if isinstance(view, RatioView):
        return view.numerator
    if isinstance(view, DetectionView):
        assert not isinstance(threshold, str)
        view = view.at(threshold)
    assert isinstance(view, DetectionView | AttributionView)
    right: Bools = view.true == view.predicted
    return right


def _side_by_side(
    askings: Sequence[Asking], chosen: Sequence[Sequence[Asked]], answers: Sequence[Sequence[Answer]]
) -> Iterator[tuple[_Sides, str, tuple[Answer, Answer]]]:
    """Yield each question, a metric's name, and the answers of both models."""
    detections = [_face_by_face(asking) for asking in askings]
    thresholds = [{each.faces.unit: each.threshold for each in asking.detectors} for asking in askings]
    left, right = (iter(each) for each in answers)
    for one, other in zip(*chosen, strict=True):
        assert (one.place, one.group, [*one.metrics]) == (other.place, other.group, [*other.metrics])
        looks = (
            [found.get((one.place, one.group)) for found in detections]
            if one.task == "detection"
            else [one.look, other.look]
        )
        sides = _Sides(one, tuple(looks), tuple(each[one.unit] for each in thresholds))
        for name in one.metrics:
            yield sides, name, (next(left), next(right))


def _face_by_face(asking: Asking) -> Mapping[tuple[tuple[str, ...], str], Callable[[], View] | None]:
    """Return the views of detection, by place and group, in the order of the faces.

    The engine's own are in the order of a model's scores, in which two models' faces do not lie side by side.
    """
    found: dict[tuple[tuple[str, ...], str], Callable[[], View] | None] = {}
    for detector in asking.detectors:
        unsorted = replace(detector, by_score=np.arange(len(detector.faces)))
        for subset, groups in asking.subsets[detector.faces.unit].items():
            for asked in detection.questions(unsorted, {}, subset, groups):
                found[asked.place, asked.group] = asked.look
    return found


# --- one difference ------------------------------------------------------------------------------------------------


def _test(asked: Asked, metric: str) -> Test:
    """Return which test a p-value is of; a mean over groups has no closed form."""
    if asked.group != MEAN:
        if (asked.task, metric) == ("detection", "auc"):
            return "delong"
        if metric in _ACCURACY.get(asked.task, ()):
            return "mcnemar"
    return "bootstrap"


def _difference(sides: _Sides, metric: str, a: Answer, b: Answer, strata: NDArray[np.intp] | None) -> Difference:
    asked, test = sides.asked, _test(sides.asked, metric)
    clusters = a.score.clusters
    common: dict[str, Any] = {
        **{name: getattr(asked, name) for name in ("task", "level", "unit", "subset", "group")},
        "metric": metric,
        "higher_is_better": a.metric.higher_is_better,
        "a": a.score.value,
        "b": b.score.value,
        "test": test,
        "n_a": a.score.n,
        "n_b": b.score.n,
        "clusters": clusters,
        "few_clusters": clusters is not None and clusters < FEW_CLUSTERS,
        "unknown": a.score.unknown,
    }
    if a.score.value is None or b.score.value is None:
        return Difference(**common, reason=_missing(a.score.reason, b.score.reason))
    difference = value_difference(a.score.value, b.score.value)
    resampled = resampled_difference(difference, a, b, clusters, strata)
    closed: dict[str, Any] = {}
    if test == "delong":
        closed["delong"] = _delong(sides)
    elif test == "mcnemar":
        closed["mcnemar"] = _mcnemar(sides, metric)
    declared = closed.get(test, resampled["bootstrap"])
    return Difference(
        **common,
        difference=difference,
        **resampled,
        **closed,
        p=declared.p,
        no_p=None if declared.p is not None else declared.reason,
    )


def _missing(a: str | None, b: str | None) -> str:
    """Return why there is no difference, given why either value is missing."""
    if a == b:
        return a or "undefined"
    return "; ".join(f"{name}: {reason}" for name, reason in (("A", a), ("B", b)) if reason is not None)


def value_difference(a: float, b: float) -> float:
    """Return a − b, 0 where only the last bits differ."""
    return float(_rounded(np.asarray(a - b)))


def _rounded(values: Replicates) -> Replicates:
    """Return differences [...], 0 where only the last bits differ."""
    return np.where(np.abs(values) <= _LAST_BITS, 0.0, values)


def resampled_difference(
    difference: float, a: Answer, b: Answer, clusters: int | None, strata: NDArray[np.intp] | None
) -> dict[str, Any]:
    """Return the interval of a difference a − b and its p-value by resampling, or why there is none.

    a, b: answers of two models to one question in the same resamples; strata: of the jackknife's deletions, None without
    resamples. The fields are those of ``Difference``: ``low``, ``high``, ``interval``, ``no_interval``, ``bootstrap``.
    """
    if a.draws is None or b.draws is None or strata is None:
        return {"no_interval": NO_RESAMPLES, "bootstrap": BootstrapTest(reason=NO_RESAMPLES)}
    if clusters is not None and clusters < 2:
        return {"no_interval": ONE_CLUSTER, "bootstrap": BootstrapTest(reason=ONE_CLUSTER)}
    assert a.deletions is not None and b.deletions is not None
    draws, deletions = _rounded(a.draws - b.draws), _rounded(a.deletions - b.deletions)
    try:
        defined = defined_replicates(draws)
        if defined.min() == defined.max():
            # A p-value of 2 / (R + 1) from resamples that cannot differ would be a certainty that nobody has.
            raise Undefined(SAME_EVERYWHERE if difference or defined[0] else ALIKE_EVERYWHERE)
        p = paired_bootstrap_p(draws)
    except Undefined as undefined:
        return {"no_interval": str(undefined), "bootstrap": BootstrapTest(reason=str(undefined))}
    found: dict[str, Any] = {"bootstrap": BootstrapTest(p=p)}
    try:
        interval = bca_interval(difference, draws, deletions, strata)
    except Undefined as undefined:
        return {**found, "no_interval": str(undefined)}
    return {**found, "low": interval.low, "high": interval.high, "interval": interval.method}


def _delong(sides: _Sides) -> DeLongTest:
    a, b = sides.views
    try:
        found = paired_delong(a.is_fake, a.fake_score, b.fake_score, a.cluster)
    except Undefined as undefined:
        alike = np.array_equal(a.fake_score, b.fake_score)
        return DeLongTest(reason=ALIKE if alike else str(undefined))
    return DeLongTest(p=found.p, z=found.z, low=found.low, high=found.high)


def _mcnemar(sides: _Sides, metric: str) -> McNemarTest:
    right_a, right_b = sides.right(metric)
    found = mcnemar(right_a, right_b, sides.views[0].cluster)
    return McNemarTest(p=found.p, only_a=found.b, only_b=found.c, statistic=found.statistic, method=found.method)


# --- several comparisons at once -----------------------------------------------------------------------------------


def _adjusted(rows: Sequence[Difference]) -> list[Difference]:
    """Return the differences with the p-values of groups adjusted for how many groups were compared.

    A group without a p-value counts as one with p = 1, since that it has none is seen only after looking at the data.
    """
    families: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.group not in (MEAN, POOLED) and row.difference is not None:
            families[row.task, row.metric, row.level, row.unit, row.subset].append(index)
    found = list(rows)
    for family in families.values():
        adjusted = holm([1.0 if (p := rows[index].p) is None else p for index in family])
        for index, p in zip(family, adjusted, strict=True):
            update = {"holm_of": len(family), "p_holm": None if rows[index].p is None else p}
            found[index] = rows[index].model_copy(update=update)
    return found
