"""The fraction of faces that are answered right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import AttributionView, Counts, DetectionView, Metric, Undefined, Value


def accuracy(view: DetectionView | AttributionView) -> Value:
    """Return the fraction of faces whose predicted value is the true one, in 0..1; raise Undefined without faces."""
    if not len(view.true):
        raise Undefined("no face")
    return divided(view.total(view.true == view.predicted), view.total())


def of_counts(true_positives: Counts, false_positives: Counts, fakes: Counts, reals: Counts) -> NDArray[np.float64]:
    """Return the accuracy of a detector that calls so many fakes and reals fake."""
    return divided(true_positives + (reals - false_positives), fakes + reals)


METRIC = Metric(
    accuracy,
    tasks=("detection", "attribution"),
    higher_is_better=True,
    resamples=True,
    uses_threshold=True,
    of_counts=of_counts,
)
