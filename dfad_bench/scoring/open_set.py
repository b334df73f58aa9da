"""Does a model know what it does not know? Faces of classes that training lacks, told apart by how sure the model is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.categorical import Rows, concatenated
from dfad_bench.records.results import EVERY_SUBSET, POOLED
from dfad_bench.scoring.attribution import LevelAnswer
from dfad_bench.scoring.metrics.auc import auc
from dfad_bench.scoring.questions import Asked
from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import DetectionView, Metric, Value, check_two_classes
from dfad_bench.types import REAL

MSP, ENERGY = "@msp", "@energy"
"""What stands behind a metric's name: by which sign unknown faces are told, maximum softmax probability
(Hendrycks & Gimpel, ICLR 2017) or energy (Liu et al., NeurIPS 2020, equation 4, at temperature 1)."""
_KNOWN_REJECTED = 0.05
NO_UNKNOWN, NO_KNOWN = "every test face is of a class that training has", "no test face is of a class that training has"


@dataclass(frozen=True, eq=False)
class OpenSetView(DetectionView):
    """N faces asked: is it of an unknown class? ``is_fake`` is that, ``fake_score`` rises with doubt.

    right [N]: which known faces are also answered right.
    """

    right: NDArray[np.bool_] | None = None

    def right_counts(self) -> NDArray[np.int32]:
        """Return [..., K + 1] the known faces that are right and as doubtful as each threshold, or more."""
        assert self.right is not None
        return self.counted(self.right)

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return the given faces, some of them perhaps several times, without clusters."""
        assert self.right is not None
        return replace(super().take(rows), right=self.right[rows])


def fpr95(view: DetectionView) -> Value:
    """Return the share of unknown faces that are accepted where 95 % of the known ones are, in 0..1; lower is better.

    The strictest threshold that accepts at least 95 % of the known faces; nothing is interpolated.
    """
    check_two_classes(view)
    return 1 - view.curve.tpr_at(_KNOWN_REJECTED)


def oscr(view: OpenSetView) -> Value:
    """Return the area under the open-set classification rate curve, in 0..1.

    The rate of known faces that are accepted and answered right, against the rate of unknown faces that are accepted
    (Dhamija et al., NeurIPS 2018, equations 8 and 9): the share of pairs of a known and an unknown face in which the
    known one is answered right and is the less doubtful, ties counting half.
    """
    check_two_classes(view)
    right = view.right_counts()
    unknown = np.diff(view.curve.true_positives, axis=-1).astype(np.float64)
    surer = right[..., -1:] - (right[..., 1:] + right[..., :-1]) / 2
    pairs = view.curve.reals.astype(np.float64) * view.curve.fakes
    return divided(np.einsum("...k,...k->...", unknown, surer), pairs)


_METRICS = {
    "auroc": Metric(auc, tasks=("detection",), higher_is_better=True, resamples=True),
    "fpr95": Metric(fpr95, tasks=("detection",), higher_is_better=False, resamples=True),
    "oscr": Metric(oscr, tasks=("detection",), higher_is_better=True, resamples=True),
}


def questions(answer: LevelAnswer) -> Iterator[Asked]:
    """Ask of the faces of each unknown value, and of all of them, against every known test face, at one level."""
    faces = answer.faces
    tested = faces.tested()
    known = answer.known(tested)
    unknown = faces.labels(answer.level).groups(tested[answer.true[tested] < 0], first=REAL)
    assert faces.energy is not None
    doubts = {MSP: -answer.probabilities.max(axis=1), ENERGY: faces.energy}
    for sign, doubt in doubts.items():
        metrics = {f"{name}{sign}": metric for name, metric in _METRICS.items()}
        where = Asked("open_set", answer.level, faces.unit, EVERY_SUBSET, POOLED, metrics)
        if not unknown or not len(known):
            yield replace(where, reason=NO_KNOWN if unknown else NO_UNKNOWN)
            continue
        groups = {**unknown, POOLED: concatenated(unknown.values())}
        for group, rows in groups.items():
            yield replace(where, group=group, look=partial(open_set_view, answer, doubt, known, rows))


def open_set_view(answer: LevelAnswer, doubt: NDArray[np.float64], known: Rows, unknown: Rows) -> OpenSetView:
    """Return known and unknown faces with the doubt [N] in each."""
    rows = np.sort(np.concatenate([known, unknown]))
    is_unknown = answer.true[rows] < 0
    right = answer.predicted[rows] == answer.true[rows]
    view = OpenSetView(is_unknown, doubt[rows], 0.0, right=right & ~is_unknown)
    return view.clustered(answer.faces.cluster[rows])
