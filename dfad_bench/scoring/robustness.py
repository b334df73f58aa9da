"""From the scores of one run at several severities to curves, and the area under each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from dfad_bench.errors import shorten
from dfad_bench.records.results import MEAN, POOLED, Score, Task
from dfad_bench.records.robustness import MeanCurve, SeverityCurve

SEVERITIES = range(6)
"""From 0, the faces as they are, to 5."""
HEADLINE: Mapping[Task, tuple[str, ...]] = {
    "detection": ("auc", "eer", "accuracy@val", "average_precision"),
    "attribution": ("accuracy",),
    "joint": ("joint_accuracy@val",),
}
"""The metrics that get a curve; every other number of a level stands in that level's own result."""
_GROUPS = (MEAN, POOLED)

LevelKey = tuple[str, int]
"""The name of a perturbation, and a severity of 1 to 5."""
_Place = tuple[str, ...]


def curves(
    clean: Sequence[Score],
    levels: Mapping[LevelKey, Sequence[Score]],
    headline: Mapping[Task, Sequence[str]] = HEADLINE,
) -> list[SeverityCurve]:
    """Return the curve of every headline number under every perturbation that has a level, sorted by perturbation.

    clean: the scores at severity 0. A number is curved for its means over groups and for all faces together, at each
    level, unit and subset that ``clean`` has; a severity without a value says why.
    """
    wanted = [score for score in clean if score.metric in headline.get(score.task, ()) and score.group in _GROUPS]
    found = {key: {_place(score): score for score in scores} for key, scores in levels.items()}
    return [
        _curve(name, [score, *(_at(found.get((name, severity)), _place(score)) for severity in SEVERITIES[1:])])
        for name in sorted({name for name, _ in levels})
        for score in wanted
    ]


def _place(score: Score) -> _Place:
    return score.task, score.metric, score.level, score.unit, score.subset, score.group


def _at(scores: Mapping[_Place, Score] | None, place: _Place) -> Score | str:
    """Return the score of a level, or why there is none."""
    if scores is None:
        return NOT_RUN
    return scores.get(place, "not scored")


NOT_RUN = "not run"


def _curve(name: str, scores: Sequence[Score | str]) -> SeverityCurve:
    first = scores[0]
    assert isinstance(first, Score)
    undefined = {}
    for severity, score in enumerate(scores):
        if isinstance(score, str):
            undefined[severity] = score
        elif score.value is None:
            undefined[severity] = score.reason or "undefined"
    value = [None if isinstance(score, str) else score.value for score in scores]
    return SeverityCurve(
        perturbation=name,
        task=first.task,
        metric=first.metric,
        level=first.level,
        unit=first.unit,
        subset=first.subset,
        group=first.group,
        value=value,
        low=[None if isinstance(score, str) else score.low for score in scores],
        high=[None if isinstance(score, str) else score.high for score in scores],
        undefined=undefined,
        area=area(value),
        reason=_reason(undefined),
    )


def _reason(undefined: Mapping[int, str]) -> str | None:
    """Return why there is no area, None where there is one: what is left to do before what cannot be helped."""
    left = [str(severity) for severity, reason in undefined.items() if reason == NOT_RUN]
    if left:
        return f"not run at severity {shorten(left)}"
    return next((f"severity {severity}: {reason}" for severity, reason in undefined.items()), None)


def area(value: Sequence[float | None]) -> float | None:
    """Return the area under six values over the severities 0 to 5, by the trapezoid rule, divided by 5.

    That is the curve's mean height, between its least and its greatest value. None where a value is.
    """
    heights = [each for each in value if each is not None]
    if len(heights) < len(SEVERITIES):
        return None
    mean = (math.fsum(heights) - (heights[0] + heights[-1]) / 2) / (len(SEVERITIES) - 1)
    return min(max(mean, min(heights)), max(heights))  # a constant curve has its own height, to the last bit


def mean_curves(curves: Sequence[SeverityCurve]) -> list[MeanCurve]:
    """Return for every number the mean of its complete curves; what a single incomplete one would add is not guessed."""
    places: defaultdict[_Place, list[SeverityCurve]] = defaultdict(list)
    for curve in curves:
        places[curve.task, curve.metric, curve.level, curve.unit, curve.subset, curve.group].append(curve)
    return [_mean(found) for found in places.values()]


def _mean(curves: Sequence[SeverityCurve]) -> MeanCurve:
    first = curves[0]
    complete = [curve for curve in curves if curve.area is not None]
    value: list[float | None] = [
        math.fsum(curve.value[severity] or 0.0 for curve in complete) / len(complete) if complete else None
        for severity in SEVERITIES
    ]
    return MeanCurve(
        task=first.task,
        metric=first.metric,
        level=first.level,
        unit=first.unit,
        subset=first.subset,
        group=first.group,
        value=value,
        over=[curve.perturbation for curve in complete],
        area=area(value),
        reason=None if complete else f"no perturbation has all severities; {first.perturbation}: {first.reason}",
    )
