"""The area under the precision-recall curve, fake being the positive class."""

from __future__ import annotations

from sklearn.metrics import average_precision_score

from dfad_bench.scoring.views import DetectionView, Metric, check_two_classes


def average_precision(view: DetectionView) -> float:
    """Return Σ (R_n − R_{n−1}) P_n over the distinct scores, descending, in 0..1.

    Faces that tie enter together, so constant scores give the fraction of fakes. Raises Undefined without a real or
    without a fake face.
    """
    check_two_classes(view)
    return float(average_precision_score(view.is_fake, view.fake_score))


METRIC = Metric(average_precision, tasks=("detection",), higher_is_better=True)
