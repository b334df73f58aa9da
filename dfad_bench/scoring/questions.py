"""From questions about sets of faces to scores: the values, their means over groups, and how far chance could move them."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dfad_bench.records.results import MEAN, POOLED, Level, Score, Task, Unit
from dfad_bench.scoring.statistics.intervals import bca_interval
from dfad_bench.scoring.statistics.resampling import Resampler
from dfad_bench.scoring.views import THREADS, DetectionView, Metric, RatioView, Undefined, Value, View

NO_SUCH_CLASS = "training has no such class at this level"
ONE_CLUSTER = "its faces, or those they are set against, are one cluster: nothing shows how another would differ"
_CELLS = 1_000_000
"""Faces (or clusters) times resamples that are computed at once: what bounds the memory of resampling."""


OnProgress = Callable[[int, int | None], None]
Replicates = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Asked:
    """Numbers wanted of one set of faces: their coordinates, and the metrics by the names they are recorded under.

    look: builds the view of the faces, and may raise Undefined; None where there are no faces to ask, and ``reason`` then
    says why. refused: metrics that have no value here whatever the faces, with the reason. unknown: faces that training's
    classes leave out. A ``mean`` asks for the macro average
    over the other groups of its task, level, unit and subset; ``reason`` is then set where there is no such mean.
    """

    task: Task
    level: Level
    unit: Unit
    subset: str
    group: str
    metrics: Mapping[str, Metric]
    look: Callable[[], View] | None = None
    unknown: int = 0
    reason: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What a mean shares with its groups."""
        return self.task, self.level, self.unit, self.subset


@dataclass(eq=False)
class Answer:
    """One number: its score, and its values in all resamples [R] and jackknife deletions [J], where it was resampled."""

    score: Score
    metric: Metric
    draws: Replicates | None = None
    deletions: Replicates | None = None


@dataclass(frozen=True, eq=False)
class _Seen:
    """A question with its view and its answers."""

    asked: Asked
    view: View | None
    answers: Sequence[Answer]


def answer(
    asked: Sequence[Asked],
    resampler: Resampler | None,
    on_progress: OnProgress | None = None,
    on_view: Callable[[Asked, View], None] | None = None,
) -> list[Answer]:
    """Return the answers to all questions, in order; with intervals where a resampler is given.

    All questions see the same resamples, so that a mean over groups varies as its groups do together, and so that two
    models can be compared resample by resample. Without a resampler one view exists at a time. ``on_view`` is shown each.
    """
    seen = []
    for each in asked:
        view, point = _point(each, resampler is not None)
        if view is not None and on_view is not None:
            on_view(each, view)
        seen.append(_Seen(each, view if resampler is not None else None, point))
    if resampler is not None:
        _resample(seen, resampler, on_progress)
    for one in seen:
        if one.asked.group == MEAN and one.asked.reason is None:
            _average(one, seen)
    flat = [found for one in seen for found in one.answers]
    if resampler is not None:
        strata = resampler.deletions()[1]
        for found in flat:
            found.score = _with_interval(found, strata)
    return flat


def _point(asked: Asked, with_interval: bool) -> tuple[View | None, list[Answer]]:
    """Return the faces of a question, and its answers without intervals."""
    view, reason = None, asked.reason
    if asked.look is not None and reason is None:
        try:
            view = asked.look()
        except Undefined as undefined:
            reason = str(undefined)
    common: dict[str, Any] = {
        "task": asked.task,
        "level": asked.level,
        "unit": asked.unit,
        "subset": asked.subset,
        "group": asked.group,
        "n": 0 if view is None else view.size,
        "clusters": None if view is None else _clusters(view),
        "unknown": asked.unknown,
    }
    answers = []
    for name, metric in asked.metrics.items():
        value, missing, delong = None, asked.refused.get(name, reason), None
        if view is not None and missing is None:
            value, missing = _value(metric, view)
            if with_interval and value is not None and metric.closed_form is not None:
                delong = _closed_form(metric, view)
        answers.append(Answer(Score(**common, metric=name, value=value, reason=missing, delong=delong), metric))
    return view, answers


def _value(metric: Metric, view: View) -> tuple[float | None, str | None]:
    """Return a metric's value, or why it has none."""
    try:
        value = float(metric.compute(view))
    except Undefined as undefined:
        return None, str(undefined)
    return (value, None) if math.isfinite(value) else (None, f"the metric gave {value}")


def _closed_form(metric: Metric, view: View) -> tuple[float, float] | None:
    assert metric.closed_form is not None
    try:
        return metric.closed_form(view)
    except Undefined:
        return None


def _clusters(view: View) -> int | None:
    """Return how many clusters there are, on the side that has fewer where fakes stand against reals."""
    if view.cluster is None:
        return None
    sides: tuple[NDArray[np.bool_], ...] = (np.ones(len(view), bool),)
    if isinstance(view, DetectionView):
        sides = view.is_fake, ~view.is_fake
    elif isinstance(view, RatioView):
        sides = (view.denominator,)
    return min(int(np.count_nonzero(np.bincount(view.cluster[side]))) for side in sides)


# --- resampling ----------------------------------------------------------------------------------------------------


def _resample(seen: Sequence[_Seen], resampler: Resampler, on_progress: OnProgress | None) -> None:
    deletions, strata = resampler.deletions(cells=_CELLS)
    steps = resampler.resamples + len(strata)
    live = [
        (one.view, [found for found in one.answers if found.score.value is not None])
        for one in seen
        if one.view is not None
    ]
    done = 0
    # NumPy lets go of the interpreter while it computes; threads of BLAS beside these would only wait for each other.
    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        for attribute, chunks in (("draws", resampler.draws(cells=_CELLS)), ("deletions", deletions)):
            parts: defaultdict[int, list[Replicates]] = defaultdict(list)
            for multiplicity in chunks:
                work = pool.map(partial(_values, multiplicity), live)
                for found, values in itertools.chain.from_iterable(work):
                    parts[id(found)].append(values)
                done += len(multiplicity)
                if on_progress is not None:
                    on_progress(done, steps)
            for _, wanted in live:
                for found in wanted:
                    setattr(found, attribute, np.concatenate(parts[id(found)] or [np.empty(0)]))


def _values(multiplicity: NDArray[np.int32], live: tuple[View, Sequence[Answer]]) -> list[tuple[Answer, Replicates]]:
    """Return each metric's values in the given resamples, computed for as many at a time as memory allows."""
    view, wanted = live
    computed = []
    at_once = max(1, _CELLS // max(len(view), 1))
    for start in range(0, len(multiplicity), at_once):
        resampled = view.resampled(multiplicity[start : start + at_once])
        for found in wanted:
            values = (_heeding if found.metric.resamples else _one_by_one)(found.metric, resampled)
            # A value that is not finite is none, as it is without resampling.
            computed.append((found, np.where(np.isfinite(values), values, np.nan)))
    return computed


def _heeding(metric: Metric, resampled: View) -> Replicates:
    try:
        return np.asarray(metric.compute(resampled), dtype=np.float64)
    except Undefined:
        assert resampled.multiplicity is not None
        return np.full(len(resampled.multiplicity), np.nan)


def _one_by_one(metric: Metric, resampled: View) -> Replicates:
    """Return the values of a metric that knows no weights: it is given each resample's faces, repeated."""
    assert resampled.weight is not None
    everyone = np.arange(len(resampled))
    values: list[Value] = []
    for weight in resampled.weight:
        try:
            values.append(float(metric.compute(resampled.take(np.repeat(everyone, weight)))))
        except Undefined:
            values.append(np.nan)
    return np.asarray(values, dtype=np.float64)


def _with_interval(found: Answer, strata: NDArray[np.intp]) -> Score:
    score = found.score
    if score.value is None or found.draws is None:
        return score
    if score.clusters is not None and score.clusters < 2:
        return score.model_copy(update={"no_interval": ONE_CLUSTER})
    try:
        interval = bca_interval(score.value, found.draws, found.deletions, strata)
    except Undefined as undefined:
        return score.model_copy(update={"no_interval": str(undefined)})
    return score.model_copy(update={"low": interval.low, "high": interval.high, "interval": interval.method})


# --- means ---------------------------------------------------------------------------------------------------------


def _average(mean: _Seen, seen: Sequence[_Seen]) -> None:
    """Fill the answers of a mean from those of its groups."""
    groups = [
        found
        for one in seen
        if one.asked.place == mean.asked.place and one.asked.group not in (MEAN, POOLED)
        for found in one.answers
    ]
    for found in mean.answers:
        if found.score.reason is None:
            _average_one(found, [group for group in groups if group.score.metric == found.score.metric])


def _average_one(mean: Answer, groups: Sequence[Answer]) -> None:
    """Average over groups: one that is wholly unknown leaves the mean, one that is undefined undoes it."""
    entered = [group for group in groups if group.score.reason != NO_SUCH_CLASS]
    update: dict[str, object] = {"n": len(entered), "unknown": sum(group.score.unknown for group in groups)}
    missing = next((group.score for group in entered if group.score.value is None), None)
    if not entered:
        update["reason"] = NO_SUCH_CLASS
    elif missing is not None:
        update["reason"] = f"{missing.group}: {missing.reason}"
    else:
        update["value"] = math.fsum(group.score.value for group in entered if group.score.value is not None) / len(
            entered
        )
        clusters = [group.score.clusters for group in entered if group.score.clusters is not None]
        update["clusters"] = min(clusters) if clusters else None
        if entered[0].draws is not None:
            mean.draws = np.mean([group.draws for group in entered if group.draws is not None], axis=0)
            mean.deletions = np.mean([group.deletions for group in entered if group.deletions is not None], axis=0)
    mean.score = mean.score.model_copy(update=update)
