"""Who made it? What the one class head says at each level of a protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.categorical import Rows
from dfad_bench.records.predictions import Context
from dfad_bench.records.results import MEAN, POOLED, Level
from dfad_bench.scoring.detection import NO_FAKE
from dfad_bench.scoring.faces import Faces
from dfad_bench.scoring.questions import NO_SUCH_CLASS, Asked
from dfad_bench.scoring.rollup import level_values, roll_up
from dfad_bench.scoring.views import AttributionView, Metric
from dfad_bench.types import REAL, Leaf


@dataclass(frozen=True, eq=False)
class LevelAnswer:
    """What a model says at one level about N faces.

    probabilities [N, K] over ``values``; predicted [N] and true [N] index ``values``, true being −1 where unknown.
    """

    faces: Faces
    level: Level
    values: tuple[str, ...]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int32]
    true: NDArray[np.int32]

    def count_known(self, rows: Rows) -> int:
        """Return how many of the rows have a true value that training has."""
        return int(np.count_nonzero(self.true[rows] >= 0))

    def known(self, rows: Rows) -> Rows:
        """Return those of the rows whose true value training has."""
        return rows[self.true[rows] >= 0]

    def view(self, rows: Rows) -> AttributionView:
        """Return those of the given faces that are known."""
        rows = np.sort(self.known(rows))
        view = AttributionView(self.true[rows], self.predicted[rows], self.probabilities, self.values, rows)
        return view.clustered(self.faces.cluster[rows])


def level_answers(faces: Faces, classes: tuple[Leaf, ...], context: Context) -> Iterator[LevelAnswer]:
    """Yield the model's answer at each level of the protocol, one after the other; none for a pure detector."""
    if faces.probabilities is None:
        return
    for level in context.levels:
        values = level_values(classes, level)
        index = {value: position for position, value in enumerate(values)}
        assume = {} if level == "generator" else context.assume.get(level, {})
        label = faces.labels(level)
        true = [index.get(value, index.get(assume.get(value, ""), -1)) for value in label.values]
        rolled = roll_up(faces.probabilities, classes, level)
        yield LevelAnswer(
            faces,
            level,
            values,
            rolled,
            rolled.argmax(axis=1).astype(np.int32),
            np.asarray([*true, -1], dtype=np.int32)[label.code],
        )


def questions(
    answer: LevelAnswer, metrics: Mapping[str, Metric], subset: str, groups: Mapping[str, Rows], everyone: Rows
) -> Iterator[Asked]:
    """Ask of each group, real faces being one, of their mean and of ``everyone``, the rows of all of them."""
    chosen = {
        name: metric
        for name, metric in metrics.items()
        if "attribution" in metric.tasks and (metric.levels is None or answer.level in metric.levels)
    }
    grouped = {name: metric for name, metric in chosen.items() if "attribution" not in metric.pooled_only}
    where = Asked("attribution", answer.level, answer.faces.unit, subset, POOLED, chosen)
    for name, rows in groups.items():
        yield _about(answer, rows, replace(where, group=name, metrics=grouped))
    fakes, unknown = fakes_known(answer, groups)
    if unknown < fakes:
        yield replace(where, group=MEAN, metrics=grouped)
        yield _about(answer, everyone, where)
    else:
        # Being right on reals alone is no attribution, and a mean over them would be taken for one.
        none = replace(where, unknown=unknown, reason=NO_SUCH_CLASS if fakes else NO_FAKE)
        yield replace(none, group=MEAN, metrics=grouped)
        yield none


def fakes_known(answer: LevelAnswer, groups: Mapping[str, Rows]) -> tuple[int, int]:
    """Return how many fakes there are, and how many of them have a value that training lacks."""
    fakes = [rows for name, rows in groups.items() if name != REAL]
    return sum(map(len, fakes)), sum(len(rows) - answer.count_known(rows) for rows in fakes)


def _about(answer: LevelAnswer, rows: Rows, asked: Asked) -> Asked:
    """Return the question with the known ones among its faces."""
    known = answer.count_known(rows)
    unknown = len(rows) - known
    if not known:
        return replace(asked, unknown=unknown, reason=NO_SUCH_CLASS)
    return replace(asked, look=partial(answer.view, rows), unknown=unknown)
