"""Is it fake? The fakes of each group against real faces, asked of every metric at every threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.categorical import Rows, concatenated
from dfad_bench.records.predictions import VAL
from dfad_bench.records.results import MEAN, POOLED
from dfad_bench.scoring.faces import Faces
from dfad_bench.scoring.questions import Asked
from dfad_bench.scoring.views import DetectionView, Metric, Undefined, Value, check_two_classes
from dfad_bench.types import REAL

HALF = 0.5
AT_HALF, AT_VAL, AT_ORACLE = f"@{HALF}", "@val", "@oracle"
"""What stands behind the name of a metric that depends on a threshold, by where the threshold is from."""
NO_FAKE = "no fake face"
NO_PROBABILITY = "fake scores leave 0..1, so they are no probabilities"


@dataclass(frozen=True, eq=False)
class Detector:
    """What a model says about being fake, and whom it is tested against.

    by_score [N]: rows in descending order of fake score, so that no view of some of them need sort again. threshold: the
    one chosen on val, or the reason why there is none.
    """

    faces: Faces
    is_fake: NDArray[np.bool_]
    by_score: Rows
    is_probability: bool
    reals: Mapping[str, Rows]
    same_domain: bool
    threshold: float | str

    @classmethod
    def of(cls, faces: Faces, same_domain: bool) -> Detector:
        """Return the detector that faces were shown to; ``same_domain``: fakes meet the reals of their domain only."""
        is_fake = faces.is_fake
        tested = faces.tested()
        score = faces.fake_score
        return cls(
            faces=faces,
            is_fake=is_fake,
            by_score=np.argsort(-score, kind="stable"),
            is_probability=bool(((score >= 0) & (score <= 1)).all()),
            reals=faces.domain.groups(tested[~is_fake[tested]], first=REAL),
            same_domain=same_domain,
            threshold=_threshold_on_val(faces),
        )

    def view(self, fakes: Rows) -> DetectionView:
        """Return the given fakes against their reals; raise Undefined where there is no real."""
        entering = np.zeros(len(self.by_score), dtype=bool)
        entering[fakes] = True
        entering[self._against(fakes)] = True
        rows = self.by_score[entering[self.by_score]]
        view = DetectionView(self.is_fake[rows], self.faces.fake_score[rows], HALF)
        return view.clustered(self.faces.cluster[rows])

    def _against(self, fakes: Rows) -> Rows:
        wanted = {self.faces.domain.values[code] for code in np.unique(self.faces.domain.code[fakes])}
        chosen = sorted(set(self.reals) & wanted if self.same_domain else self.reals)
        if not chosen:
            raise Undefined(f"no real face of {', '.join(sorted(wanted))}" if self.same_domain else "no real face")
        return concatenated(self.reals[domain] for domain in chosen)


def _threshold_on_val(faces: Faces) -> float | str:
    """Return the threshold of the highest balanced accuracy on val, the highest such one; or why there is none.

    It lies in the middle between the score that is just called fake and the next lower one.
    """
    rows = np.flatnonzero(faces.subset.is_(VAL))
    view = DetectionView(faces.is_fake[rows], faces.fake_score[rows], HALF)
    try:
        check_two_classes(view)
    except Undefined as undefined:
        return f"val has {undefined}"
    curve = view.curve
    # In whole numbers, as balanced accuracy rises with it: rounding would choose between thresholds that are as good.
    found, spoilt = curve.true_positives.astype(np.int64), curve.false_positives.astype(np.int64)
    best = int(np.argmax(found * curve.reals - spoilt * curve.fakes))
    upper, lower = curve.threshold[best], curve.threshold[min(best + 1, len(curve.threshold) - 1)]
    if best == 0:  # nothing is called fake
        return float(np.nextafter(lower, np.inf))
    middle = lower + (upper - lower) / 2
    return float(middle if middle > lower else upper)


def variants(metrics: Mapping[str, Metric], detector: Detector) -> tuple[dict[str, Metric], dict[str, str]]:
    """Return the detection metrics by the names they are recorded under, and those that have no value here, with why."""
    found: dict[str, Metric] = {}
    refused: dict[str, str] = {}
    for name, metric in metrics.items():
        if "detection" not in metric.tasks:
            continue
        if not metric.uses_threshold:
            found[name] = metric
            if metric.needs_probability and not detector.is_probability:
                refused[name] = NO_PROBABILITY
            continue
        found[name + AT_HALF] = replace(metric, compute=_at(metric, HALF))
        if not detector.is_probability:
            refused[name + AT_HALF] = NO_PROBABILITY
        if isinstance(detector.threshold, str):
            found[name + AT_VAL] = metric
            refused[name + AT_VAL] = detector.threshold
        else:
            found[name + AT_VAL] = replace(metric, compute=_at(metric, detector.threshold))
        if metric.of_counts is not None:
            found[name + AT_ORACLE] = replace(metric, compute=partial(_at_best, metric))
    return found, refused


def _at(metric: Metric, threshold: float) -> Callable[[DetectionView], Value]:
    return lambda view: metric.compute(view.at(threshold))


def _at_best(metric: Metric, view: DetectionView) -> Value:
    """Return the best value that any threshold has on these very faces: a bound, not a result."""
    check_two_classes(view)
    assert metric.of_counts is not None
    curve = view.curve
    values = metric.of_counts(
        curve.true_positives, curve.false_positives, curve.fakes[..., None], curve.reals[..., None]
    )
    return curve.defined(values.max(axis=-1) if metric.higher_is_better else values.min(axis=-1))


def questions(
    detector: Detector, metrics: Mapping[str, Metric], subset: str, groups: Mapping[str, Rows]
) -> Iterator[Asked]:
    """Ask of each group of fakes, of their mean and of all of them together."""
    chosen, refused = variants(metrics, detector)
    grouped = {name: metric for name, metric in chosen.items() if "detection" not in metric.pooled_only}
    fakes = {name: rows for name, rows in groups.items() if name != REAL}
    where = Asked("detection", "authenticity", detector.faces.unit, subset, POOLED, {}, refused=refused)
    for name, rows in fakes.items():
        yield replace(where, group=name, metrics=grouped, look=partial(detector.view, rows))
    yield replace(where, group=MEAN, metrics=grouped, reason=None if fakes else NO_FAKE)
    everyone = partial(detector.view, concatenated(fakes.values()))
    yield replace(where, metrics=chosen, look=everyone, reason=None if fakes else NO_FAKE)
