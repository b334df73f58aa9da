"""Accuracy as it would be if every true class had as many faces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import AttributionView, Counts, DetectionView, Metric, Undefined, Value, check_two_classes


def balanced_accuracy(view: DetectionView | AttributionView) -> Value:
    """Return the mean over true classes of the fraction answered right, in 0..1; raise Undefined below two classes.

    In a resample, a class of which no face was drawn is left out; one of a single class has no value.
    """
    if not len(view):
        raise Undefined("no face")
    if isinstance(view, AttributionView):
        if len(view.present) < 2:
            raise Undefined("one class only")
        right, faces = np.diagonal(view.confusion, axis1=-2, axis2=-1), view.confusion.sum(axis=-1)
    else:
        check_two_classes(view)
        true = view.true.astype(np.intp)
        right, faces = view.histogram(true, 2, view.true == view.predicted), view.histogram(true, 2)
    recall = divided(right, faces)
    drawn = (faces > 0).sum(axis=-1)
    return np.where(drawn < 2, np.nan, divided(np.nansum(recall, axis=-1), drawn))


def of_counts(true_positives: Counts, false_positives: Counts, fakes: Counts, reals: Counts) -> NDArray[np.float64]:
    """Return the balanced accuracy of a detector that calls so many fakes and reals fake."""
    return (divided(true_positives, fakes) + 1 - divided(false_positives, reals)) / 2


METRIC = Metric(
    balanced_accuracy,
    tasks=("detection", "attribution"),
    higher_is_better=True,
    resamples=True,
    uses_threshold=True,
    of_counts=of_counts,
    pooled_only=("attribution",),
)
