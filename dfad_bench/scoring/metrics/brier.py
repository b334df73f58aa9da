"""How far fake scores lie from the truth, as probabilities."""

from __future__ import annotations

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import DetectionView, Metric, Undefined, Value


def brier(view: DetectionView) -> Value:
    """Return the mean of (fake score − truth)², truth being 1 for a fake, in 0..1; raise Undefined without faces.

    Brier, Monthly Weather Review 78:1, 1950, for two classes.
    """
    if not len(view):
        raise Undefined("no face")
    return divided(view.total((view.fake_score - view.is_fake) ** 2), view.total())


METRIC = Metric(brier, tasks=("detection",), higher_is_better=False, resamples=True, needs_probability=True)
