"""The area under the part of the ROC curve that a detector would be used in."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.views import DetectionView, Metric, Value, check_two_classes

MOST = 0.1
"""The highest false positive rate that enters."""


def partial_auc(view: DetectionView) -> Value:
    """Return the area under the ROC curve up to FPR 10 %, scaled so that chance is 0.5 and perfection 1.

    The scale is McClish's (Medical Decision Making 9:190, 1989, equation 2), as in scikit-learn's
    ``roc_auc_score(max_fpr=0.1)``; the points of the curve are joined by straight lines. Raises Undefined without a real
    or without a fake face.
    """
    check_two_classes(view)
    fpr, tpr = view.curve.fpr, view.curve.tpr
    width = np.diff(np.minimum(fpr, MOST), axis=-1)
    share = np.divide(width, np.diff(fpr, axis=-1), out=np.zeros_like(width), where=width > 0)
    height = tpr[..., :-1] + share * np.diff(tpr, axis=-1) / 2
    area = np.einsum("...k,...k->...", width, height)
    lowest, highest = MOST**2 / 2, MOST
    scaled: Value = (1 + (area - lowest) / (highest - lowest)) / 2
    return scaled


METRIC = Metric(partial_auc, tasks=("detection",), higher_is_better=True, resamples=True)
