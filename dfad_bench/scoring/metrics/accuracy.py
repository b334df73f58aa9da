"""The fraction of faces that are answered right."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Undefined


def accuracy(view: DetectionView | AttributionView) -> float:
    """Return the fraction of faces whose predicted value is the true one, in 0..1; raise Undefined without faces."""
    if not len(view.true):
        raise Undefined("no face")
    return float(np.mean(view.true == view.predicted))


METRIC = Metric(accuracy, tasks=("detection", "attribution"), higher_is_better=True, uses_threshold=True)
