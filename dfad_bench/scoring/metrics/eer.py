"""The equal error rate."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.ranking import divided, picked
from dfad_bench.scoring.views import DetectionView, Metric, Value, check_two_classes


def eer(view: DetectionView) -> Value:
    """Return the error rate at which as many reals are called fake as fakes are called real, in 0..1.

    The ROC curve has one point per distinct score, so that ties fall on one side together. Where no point has
    FPR = FNR, the two that straddle it are joined by a straight line, and its crossing is the value; constant scores
    give 0.5. Raises Undefined without a real or without a fake face.
    """
    check_two_classes(view)
    fpr = view.curve.fpr
    excess = (1 - view.curve.tpr) - fpr  # FNR − FPR falls from 1 to −1 along the curve
    after = np.maximum((excess > 0).sum(axis=-1, keepdims=True), 1)
    before = after - 1
    share = divided(picked(excess, before), picked(excess, before) - picked(excess, after))
    return picked(fpr, before) + share * (picked(fpr, after) - picked(fpr, before))


METRIC = Metric(eer, tasks=("detection",), higher_is_better=False, resamples=True)
