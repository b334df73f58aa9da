"""The share of fakes that are found where 0.1 % of reals may be called fake."""

from __future__ import annotations

from dfad_bench.scoring.views import DetectionView, Metric, Undefined, Value, check_two_classes

FPR = 0.001


def tpr_at_fpr_01pct(view: DetectionView) -> Value:
    """Return the highest true positive rate at a false positive rate of at most 0.1 %, in 0..1.

    Nothing is interpolated: a threshold has the rate, or none has. Raises Undefined without a fake face, and with fewer
    than 1,000 real ones, of which no threshold could call 0.1 % fake.
    """
    check_two_classes(view)
    if (~view.is_fake).sum() * FPR < 1 - 1e-9:
        raise Undefined(f"fewer than {round(1 / FPR):,} real faces")
    return view.curve.tpr_at(FPR)


METRIC = Metric(tpr_at_fpr_01pct, tasks=("detection",), higher_is_better=True, resamples=True)
