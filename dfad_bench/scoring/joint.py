"""Both tasks at once, as the paper asks for them: who made the faces that are detected as fake, and is all of it right?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from dfad_bench.records.categorical import Rows
from dfad_bench.records.results import MEAN, POOLED
from dfad_bench.scoring.attribution import LevelAnswer, fakes_known
from dfad_bench.scoring.detection import NO_FAKE, Detector
from dfad_bench.scoring.questions import NO_SUCH_CLASS, Asked
from dfad_bench.scoring.views import Metric, RatioView
from dfad_bench.types import REAL

OF_DETECTED, JOINT = "accuracy_of_detected@val", "joint_accuracy@val"
_RATIO = Metric(RatioView.ratio, tasks=("attribution",), higher_is_better=True, resamples=True)


def questions(
    detector: Detector, answer: LevelAnswer, subset: str, groups: Mapping[str, Rows], everyone: Rows
) -> Iterator[Asked]:
    """Ask both tasks of each group, of the mean over groups and of ``everyone``, at one level.

    A face is detected where its fake score reaches the threshold chosen on val; whom it is then attributed to is the
    fake value of the highest probability, ``real`` being ruled out. ``accuracy_of_detected@val``: of the faces detected
    as fake, the fraction attributed right; a real among them is wrong. ``joint_accuracy@val``: the fraction of all faces
    that are right twice: a real that is not detected, a fake that is detected and attributed right. Faces of a value
    that training lacks are left out and counted.
    """
    faces = answer.faces
    where = Asked("joint", answer.level, faces.unit, subset, POOLED, {OF_DETECTED: _RATIO, JOINT: _RATIO})
    if isinstance(detector.threshold, str):
        yield replace(where, group=MEAN, reason=detector.threshold)
        yield replace(where, reason=detector.threshold)
        return
    detected = faces.fake_score >= detector.threshold
    right = _fake_value(answer) == answer.true
    twice = np.where(detector.is_fake, detected & right, ~detected)
    hits = {OF_DETECTED: detector.is_fake & detected & right, JOINT: twice}
    among = {OF_DETECTED: detected, JOINT: np.ones(len(faces), bool)}

    def look(name: str, rows: Rows) -> RatioView:
        known = np.sort(answer.known(rows))
        view = RatioView(hits[name][known], among[name][known], "no face is detected as fake")
        return view.clustered(faces.cluster[known])

    def about(group: str, rows: Rows) -> Iterator[Asked]:
        unknown = len(rows) - answer.count_known(rows)
        asked = replace(where, group=group, unknown=unknown, reason=None if unknown < len(rows) else NO_SUCH_CLASS)
        for name in where.metrics:
            yield replace(asked, metrics={name: _RATIO}, look=partial(look, name, rows))

    for group, rows in groups.items():
        if group != REAL:  # nobody asks who made a real
            yield from about(group, rows)
    fakes, unknown = fakes_known(answer, groups)
    if unknown < fakes:
        yield replace(where, group=MEAN)
        yield from about(POOLED, everyone)
    else:
        none = replace(where, unknown=unknown, reason=NO_SUCH_CLASS if fakes else NO_FAKE)
        yield replace(none, group=MEAN)
        yield none


def _fake_value(answer: LevelAnswer) -> Rows:
    """Return [N] the index of the most probable value that is not ``real``, which is the first."""
    found: Rows = answer.probabilities[:, 1:].argmax(axis=1) + 1
    return found
