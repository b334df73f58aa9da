"""What a single number cannot say: who is taken for whom, how far a confidence can be believed, and whole curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.categorical import Rows, concatenated
from dfad_bench.records.results import (
    EVERY_SUBSET,
    POOLED,
    ConfusionRecord,
    CurveRecord,
    Details,
    ReliabilityRecord,
    Unit,
)
from dfad_bench.scoring.attribution import LevelAnswer
from dfad_bench.scoring.calibration import binned
from dfad_bench.scoring.detection import Detector
from dfad_bench.scoring.open_set import open_set_view
from dfad_bench.scoring.questions import Asked
from dfad_bench.scoring.views import Asks, AttributionView, DetectionView, View
from dfad_bench.types import REAL

_POINTS = 200


class DetailsSeen:
    """Collects, while questions are answered, what their views show beyond numbers.

    Reliability diagrams of all faces of a subset; the ROC of each group of fakes and of all.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._is_probability = {each.faces.unit: each.is_probability for each in detectors}
        self._reliability: list[ReliabilityRecord] = []
        self._curves: list[CurveRecord] = []

    def __call__(self, asked: Asked, view: View) -> None:
        """Look at the view of a question."""
        if asked.task == "detection" and isinstance(view, DetectionView):
            if view.is_fake.any() and not view.is_fake.all():
                self._curves.append(_roc(asked, view))
            if asked.group == POOLED and self._is_probability[asked.unit]:
                self._reliability.append(_reliability("detection", asked, view))
        elif asked.task == "attribution" and isinstance(view, AttributionView) and asked.group == POOLED:
            self._reliability.append(_reliability("attribution", asked, view))

    def details(
        self, answers: Sequence[LevelAnswer], subsets: Mapping[Unit, Mapping[str, Mapping[str, Rows]]]
    ) -> Details:
        """Return what was seen, with the confusion matrix of each subset and the OSCR curve of each level.

        subsets: by unit, then by test subset, the rows of each group.
        """
        return Details(
            confusion=[
                _confusion(answer, subset, groups)
                for answer in answers
                for subset, groups in subsets[answer.faces.unit].items()
            ],
            reliability=self._reliability,
            curves=[*self._curves, *(curve for answer in answers for curve in _oscr(answer))],
        )


def _confusion(answer: LevelAnswer, subset: str, groups: Mapping[str, Rows]) -> ConfusionRecord:
    rows = concatenated(groups.values())
    label = answer.faces.labels(answer.level)
    size = len(answer.values)
    counts = np.bincount(label.code[rows] * size + answer.predicted[rows], minlength=len(label.values) * size)
    table = counts.reshape(len(label.values), size)
    order = sorted(np.flatnonzero(table.sum(axis=1)).tolist(), key=lambda code: (label.values[code] != REAL, code))
    return ConfusionRecord(
        level=answer.level,
        unit=answer.faces.unit,
        subset=subset,
        rows=[label.values[code] for code in order],
        columns=list(answer.values),
        counts=[table[code].tolist() for code in order],
    )


def _reliability(task: Asks, asked: Asked, view: AttributionView | DetectionView) -> ReliabilityRecord:
    faces, confidence, so = binned(view)

    def per_face(sums: NDArray[np.float64]) -> list[float | None]:
        return [float(total / count) if count else None for total, count in zip(sums, faces, strict=True)]

    return ReliabilityRecord(
        task=task,
        level=asked.level,
        unit=asked.unit,
        subset=asked.subset,
        faces=[int(count) for count in faces],
        confidence=per_face(confidence),
        fraction=per_face(so),
    )


def _roc(asked: Asked, view: DetectionView) -> CurveRecord:
    x, y = _thinned(view.curve.fpr, view.curve.tpr)
    return CurveRecord(kind="roc", level=asked.level, unit=asked.unit, subset=asked.subset, group=asked.group, x=x, y=y)


def _oscr(answer: LevelAnswer) -> Iterator[CurveRecord]:
    tested = answer.faces.tested()
    known, unknown = answer.known(tested), tested[answer.true[tested] < 0]
    if not len(known) or not len(unknown):
        return
    view = open_set_view(answer, -answer.probabilities.max(axis=1), known, unknown)
    # The counts run from the most doubtful face to the least: what is accepted is what has not come yet.
    accepted = 1 - view.curve.true_positives / view.curve.fakes
    right = view.right_counts()
    x, y = _thinned(accepted[::-1], ((right[-1] - right) / view.curve.reals)[::-1])
    yield CurveRecord(
        kind="oscr", level=answer.level, unit=answer.faces.unit, subset=EVERY_SUBSET, group=POOLED, x=x, y=y
    )


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Return a monotone curve at most _POINTS of whose points are kept, its ends and its corners among them.

    Points on a straight line between others say nothing; of the rest, those are kept that lie evenly along the curve.
    """
    moved = np.append(True, (np.diff(x) != 0) | (np.diff(y) != 0))  # where a curve rests, it may also turn
    x, y = x[moved], y[moved]
    corner = np.ones(len(x), bool)
    corner[1:-1] = np.diff(x)[:-1] * np.diff(y)[1:] != np.diff(x)[1:] * np.diff(y)[:-1]
    x, y = x[corner], y[corner]
    if len(x) > _POINTS:
        along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)).clip(max=len(x) - 1))
        x, y = x[keep], y[keep]
    return [round(float(each), 6) for each in x], [round(float(each), 6) for each in y]
