"""The area under the ROC curve."""

from __future__ import annotations

from sklearn.metrics import roc_auc_score

from dfad_bench.scoring.views import DetectionView, Metric, check_two_classes


def auc(view: DetectionView) -> float:
    """Return the probability that a fake scores higher than a real, ties counting half, in 0..1.

    Constant scores give 0.5. Raises Undefined without a real or without a fake face.
    """
    check_two_classes(view)
    return float(roc_auc_score(view.is_fake, view.fake_score))


METRIC = Metric(auc, tasks=("detection",), higher_is_better=True)
