"""From predictions to scores: which faces enter each number, and which metrics are computed on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import Score
from dfad_bench.scoring.rollup import level_values, roll_up, softmax
from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Task, Undefined
from dfad_bench.types import REAL

THRESHOLD = 0.5
MEAN, POOLED = "mean", "pooled"
NO_SUCH_CLASS = "training has no such class at this level"
NO_FAKE = "no fake face"
NO_PROBABILITY = "fake scores leave 0..1, so 0.5 is no threshold"

Level = Literal["authenticity", "forgery_type", "family", "generator"]
Rows = NDArray[np.intp]


def score(predictions: Predictions) -> list[Score]:
    """Return every score of a predictions file: test subset by test subset, detection before attribution.

    Detection sets the fakes of each group (a value of the subset's ``report_by`` column) against the real test faces
    of all subsets, each once, of the fakes' domains where the protocol says so. Attribution asks for the value at each
    level; a face whose value training lacks, and the protocol assumes nothing about, is left out and counted as
    unknown. ``mean`` is the macro average over groups, ``pooled`` takes a subset's faces together. What is undefined
    is None with a reason. A pure function: the order of rows does not matter.
    """
    metrics: dict[str, Metric] = {name: registry.get("metrics", name) for name in registry.entries("metrics")}
    subsets = _subsets(predictions)
    detector = _Detector.of(predictions, subsets.values())
    answers = _answers(predictions)
    scores: list[Score] = []
    for subset, groups in subsets.items():
        fakes = {name: rows for name, rows in groups.items() if name != REAL}
        scores += _detection(detector, metrics, subset, fakes)
        for answer in answers:
            scores += _attribution(answer, metrics, subset, groups)
    return scores


def _subsets(predictions: Predictions) -> dict[str, dict[str, Rows]]:
    """Return per test subset the rows of each group, ``real`` first, then sorted."""
    membership = _Coded.of(predictions.subset)
    labels = {column: _Coded.of(predictions.labels(column)) for column in set(predictions.context.subsets.values())}
    grouped = {}
    for subset, column in predictions.context.subsets.items():
        rows = membership.rows(subset)
        grouped[subset] = labels[column].groups(rows)
    return grouped


def _joined(parts: Iterable[Rows]) -> Rows:
    return np.concatenate([np.empty(0, np.intp), *parts])


@dataclass(frozen=True, slots=True)
class _Coded:
    """A column of N strings as integers: ``values[code]`` is the string."""

    values: tuple[str, ...]
    code: NDArray[np.intp]

    @classmethod
    def of(cls, column: NDArray[np.object_]) -> _Coded:
        encoded = pa.array(column, pa.string()).dictionary_encode()
        return cls(tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.intp))

    def rows(self, value: str) -> Rows:
        return np.flatnonzero(self.code == self.values.index(value)) if value in self.values else np.empty(0, np.intp)

    def groups(self, rows: Rows) -> dict[str, Rows]:
        """Return the given rows by value, ``real`` first, then sorted; values without a row are absent."""
        order = np.argsort(self.code[rows], kind="stable")
        counts = np.bincount(self.code[rows], minlength=len(self.values))
        parts = np.split(rows[order], np.cumsum(counts)[:-1]) if len(self.values) else []
        found = {value: part for value, part in zip(self.values, parts, strict=True) if len(part)}
        return dict(sorted(found.items(), key=lambda item: (item[0] != REAL, item[0])))


@dataclass(frozen=True, slots=True)
class _Cell:
    """A score without its coordinates."""

    value: float | None
    n: int
    unknown: int = 0
    reason: str | None = None


Cells = dict[str, _Cell]
"""By recorded metric name."""


def _compute(metric: Metric, view: DetectionView | AttributionView, unknown: int = 0) -> _Cell:
    n = len(view.true)
    try:
        value = float(metric.compute(view))
    except Undefined as undefined:
        return _Cell(None, n, unknown, str(undefined))
    return _Cell(value, n, unknown) if math.isfinite(value) else _Cell(None, n, unknown, f"the metric gave {value}")


def _mean(cells: Mapping[str, _Cell]) -> _Cell:
    """Return the macro average over groups; one that is wholly unknown leaves it, one that is undefined undoes it."""
    unknown = sum(cell.unknown for cell in cells.values())
    entered = {group: cell for group, cell in cells.items() if cell.reason != NO_SUCH_CLASS}
    for group, cell in entered.items():
        if cell.value is None:
            return _Cell(None, len(entered), unknown, f"{group}: {cell.reason}")
    values = [cell.value for cell in entered.values() if cell.value is not None]
    return _Cell(math.fsum(values) / len(values), len(values), unknown)


def _scores(task: Task, level: Level, subset: str, table: Mapping[str, Cells]) -> Iterator[Score]:
    for group, cells in table.items():
        for metric, cell in cells.items():
            yield Score(
                task=task,
                metric=metric,
                level=level,
                subset=subset,
                group=group,
                value=cell.value,
                n=cell.n,
                unknown=cell.unknown,
                reason=cell.reason,
            )


# --- detection -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reals:
    """The real test faces of all subsets, each once, by domain."""

    domain: _Coded
    by_domain: Mapping[str, Rows]
    same_domain: bool

    @classmethod
    def of(cls, predictions: Predictions, subsets: Iterable[Mapping[str, Rows]]) -> _Reals:
        rows = _joined(groups[REAL] for groups in subsets if REAL in groups)
        # A face that stands in several subsets is taken from the first: np.unique returns first occurrences.
        _, first = np.unique(_Coded.of(predictions.id[rows]).code, return_index=True)
        domain = _Coded.of(predictions.domain)
        return cls(domain, domain.groups(rows[first]), predictions.context.reals == "same_domain")

    def against(self, fakes: Rows) -> Rows:
        """Return the reals that the given fakes are tested against; raise Undefined where there is none."""
        domains = set(self.by_domain)
        wanted = {self.domain.values[code] for code in np.unique(self.domain.code[fakes])}
        chosen = sorted(domains & wanted if self.same_domain else domains)
        if not chosen:
            raise Undefined(f"no real face of {', '.join(sorted(wanted))}" if self.same_domain else "no real face")
        return _joined(self.by_domain[domain] for domain in chosen)


@dataclass(frozen=True, slots=True)
class _Detector:
    """What the model says about being fake, and whom it is tested against.

    by_score [N]: rows in ascending order of fake score. Ranking metrics sort stably, which takes linear time where the
    faces come sorted; sorting once instead of per group and metric halves the time for a million faces.
    """

    fake_score: NDArray[np.float64]
    is_fake: NDArray[np.bool_]
    by_score: Rows
    is_probability: bool
    reals: _Reals

    @classmethod
    def of(cls, predictions: Predictions, subsets: Iterable[Mapping[str, Rows]]) -> _Detector:
        fake_score = predictions.fake_score
        return cls(
            fake_score,
            predictions.generator != REAL,
            np.argsort(fake_score, kind="stable"),
            bool(((fake_score >= 0) & (fake_score <= 1)).all()),
            _Reals.of(predictions, subsets),
        )

    def view(self, fakes: Rows) -> DetectionView:
        """Return the given fakes against their reals; raise Undefined where there is no real."""
        entering = np.zeros(len(self.by_score), dtype=bool)
        entering[fakes] = True
        entering[self.reals.against(fakes)] = True
        rows = self.by_score[entering[self.by_score]]
        return DetectionView(self.is_fake[rows], self.fake_score[rows], THRESHOLD)


def _detection(
    detector: _Detector, metrics: Mapping[str, Metric], subset: str, fakes: Mapping[str, Rows]
) -> Iterator[Score]:
    chosen = {
        f"{name}@{THRESHOLD}" if metric.uses_threshold else name: metric
        for name, metric in metrics.items()
        if "detection" in metric.tasks
    }
    grouped = {name: metric for name, metric in chosen.items() if "detection" not in metric.pooled_only}
    table = {name: _detection_cells(detector, grouped, rows) for name, rows in fakes.items()}
    if table:
        mean = {name: _mean({group: cells[name] for group, cells in table.items()}) for name in grouped}
        pooled = _detection_cells(detector, chosen, _joined(fakes.values()))
    else:
        none = _Cell(None, 0, reason=NO_FAKE)
        mean, pooled = dict.fromkeys(grouped, none), dict.fromkeys(chosen, none)
    yield from _scores("detection", "authenticity", subset, table | {MEAN: mean, POOLED: pooled})


def _detection_cells(detector: _Detector, metrics: Mapping[str, Metric], fakes: Rows) -> Cells:
    try:
        view = detector.view(fakes)
    except Undefined as undefined:
        return dict.fromkeys(metrics, _Cell(None, len(fakes), reason=str(undefined)))
    return {
        name: _Cell(None, len(view.true), reason=NO_PROBABILITY)
        if metric.uses_threshold and not detector.is_probability
        else _compute(metric, view)
        for name, metric in metrics.items()
    }


# --- attribution ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the model says at one level about N faces.

    probabilities [N, K] over ``values``; predicted [N] and true [N] index ``values``, true being −1 where unknown.
    """

    level: Level
    values: tuple[str, ...]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.intp]
    true: NDArray[np.intp]

    def view(self, rows: Rows) -> AttributionView:
        names = np.asarray(self.values, dtype=object)
        return AttributionView(
            names[self.true[rows]], names[self.predicted[rows]], self.probabilities[rows], self.values
        )


def _answers(predictions: Predictions) -> list[_Answer]:
    """Return the model's answer at each level of the protocol; none for a pure detector."""
    if predictions.logits is None:
        return []
    probabilities = softmax(predictions.logits)
    answers = []
    for level in predictions.context.levels:
        values = level_values(predictions.classes, level)
        index = {value: position for position, value in enumerate(values)}
        assume = {} if level == "generator" else predictions.context.assume.get(level, {})
        label = _Coded.of(predictions.labels(level))
        true = [index.get(value, index.get(assume.get(value, ""), -1)) for value in label.values]
        rolled = roll_up(probabilities, predictions.classes, level)
        answers.append(
            _Answer(level, values, rolled, rolled.argmax(axis=1), np.asarray(true, dtype=np.intp)[label.code])
        )
    return answers


def _attribution(
    answer: _Answer, metrics: Mapping[str, Metric], subset: str, groups: Mapping[str, Rows]
) -> Iterator[Score]:
    chosen = {name: metric for name, metric in metrics.items() if "attribution" in metric.tasks}
    grouped = {name: metric for name, metric in chosen.items() if "attribution" not in metric.pooled_only}
    table = {name: _attribution_cells(answer, grouped, rows) for name, rows in groups.items()}
    fakes = _joined(rows for name, rows in groups.items() if name != REAL)
    if (answer.true[fakes] >= 0).any():
        mean = {name: _mean({group: cells[name] for group, cells in table.items()}) for name in grouped}
        pooled = _attribution_cells(answer, chosen, _joined(groups.values()))
    else:
        # Being right on reals alone is no attribution, and a mean over them would be taken for one.
        none = _Cell(None, 0, len(fakes), NO_SUCH_CLASS if len(fakes) else NO_FAKE)
        mean, pooled = dict.fromkeys(grouped, none), dict.fromkeys(chosen, none)
    yield from _scores("attribution", answer.level, subset, table | {MEAN: mean, POOLED: pooled})


def _attribution_cells(answer: _Answer, metrics: Mapping[str, Metric], rows: Rows) -> Cells:
    known = rows[answer.true[rows] >= 0]
    unknown = len(rows) - len(known)
    if not len(known):
        return dict.fromkeys(metrics, _Cell(None, 0, unknown, NO_SUCH_CLASS))
    view = answer.view(known)
    return {name: _compute(metric, view, unknown) for name, metric in metrics.items()}
