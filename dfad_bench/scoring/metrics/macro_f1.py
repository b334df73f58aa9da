"""The F1 score of attribution, every class counting alike."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import AttributionView, Metric, Undefined, Value


def macro_f1(view: AttributionView) -> Value:
    """Return the mean F1 over the classes that are true of a face, in 0..1; raise Undefined below two of them.

    F1 = 2 TP / (2 TP + FP + FN). A class that no tested face has is left out (scikit-learn's ``f1_score`` would count it
    as 0 where it is predicted): its faces that were taken for it count as misses of their own class.
    """
    if len(view.present) < 2:
        raise Undefined("one class only" if len(view) else "no face")
    right = np.diagonal(view.confusion, axis1=-2, axis2=-1)
    true, predicted = view.confusion.sum(axis=-1), view.confusion.sum(axis=-2)
    f1 = np.where(true > 0, divided(2 * right, true + predicted), 0)
    drawn = (true > 0).sum(axis=-1)
    return np.where(drawn < 2, np.nan, divided(f1.sum(axis=-1), drawn))  # a resample may hold fewer than two


METRIC = Metric(macro_f1, tasks=("attribution",), higher_is_better=True, resamples=True, pooled_only=("attribution",))
