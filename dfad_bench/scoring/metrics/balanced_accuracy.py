"""Accuracy as it would be if every true class had as many faces."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Undefined


def balanced_accuracy(view: DetectionView | AttributionView) -> float:
    """Return the mean over true classes of the fraction answered right, in 0..1; raise Undefined below two classes.

    The value is scikit-learn's ``balanced_accuracy_score``, which sorts strings for it: 3.4 s for a million faces where
    this takes 0.5 s, and a warning for every class that is predicted and never true.
    """
    classes = sorted(set(view.true.tolist()))
    if len(classes) < 2:
        raise Undefined("one class only" if classes else "no face")
    right = view.true == view.predicted
    return float(np.mean([right[view.true == each].mean() for each in classes]))


METRIC = Metric(
    balanced_accuracy,
    tasks=("detection", "attribution"),
    higher_is_better=True,
    uses_threshold=True,
    pooled_only=("attribution",),
)
