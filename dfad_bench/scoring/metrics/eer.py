"""The equal error rate."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_curve

from dfad_bench.scoring.views import DetectionView, Metric, check_two_classes


def eer(view: DetectionView) -> float:
    """Return the error rate at which as many reals are called fake as fakes are called real, in 0..1.

    The ROC curve has one point per distinct score, so that ties fall on one side together. Where no point has
    FPR = FNR, the two that straddle it are joined by a straight line, and its crossing is the value; constant scores
    give 0.5. Raises Undefined without a real or without a fake face.
    """
    check_two_classes(view)
    false_positive, true_positive, _ = roc_curve(view.is_fake, view.fake_score)
    excess = (1 - true_positive) - false_positive  # FNR − FPR falls from 1 to −1 along the curve
    after = int(np.argmax(excess <= 0))
    before = after - 1
    share = excess[before] / (excess[before] - excess[after])
    return float(false_positive[before] + share * (false_positive[after] - false_positive[before]))


METRIC = Metric(eer, tasks=("detection",), higher_is_better=False)
