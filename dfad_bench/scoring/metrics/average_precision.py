"""The area under the precision-recall curve, fake being the positive class."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import DetectionView, Metric, Value, check_two_classes


def average_precision(view: DetectionView) -> Value:
    """Return Σ (R_n − R_{n−1}) P_n over the distinct scores, descending, in 0..1.

    Faces that tie enter together, so constant scores give the fraction of fakes. Raises Undefined without a real or
    without a fake face.
    """
    check_two_classes(view)
    curve = view.curve
    called = curve.true_positives[..., 1:] + curve.false_positives[..., 1:]
    precision = curve.true_positives[..., 1:] / np.maximum(called, 1)
    sums = np.einsum("...k,...k->...", np.diff(curve.true_positives, axis=-1), precision)
    return curve.defined(divided(sums, curve.fakes))


METRIC = Metric(average_precision, tasks=("detection",), higher_is_better=True, resamples=True)
