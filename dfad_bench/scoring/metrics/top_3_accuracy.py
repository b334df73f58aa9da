"""The fraction of faces whose generator is among the three that a model finds most probable."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import AttributionView, Metric, Undefined, Value

K = 3


def top_3_accuracy(view: AttributionView) -> Value:
    """Return the fraction of faces whose true value has one of the three highest probabilities, in 0..1.

    Values that tie with the third are not all let in: the true value counts by the number of values that beat it and of
    those before it, in the order of ``view.values``, that tie with it. Raises Undefined without faces, and where there
    are no more than three values.
    """
    if not len(view):
        raise Undefined("no face")
    if len(view.values) <= K:
        raise Undefined(f"training has only {len(view.values)} classes")
    own = view.probability(view.true)
    beaten_by = np.zeros(len(view), np.intp)
    for value in range(len(view.values)):
        other = view.probability(value)
        beaten_by += (other > own) | ((other == own) & (value < view.true))
    return divided(view.total(beaten_by < K), view.total())


METRIC = Metric(top_3_accuracy, tasks=("attribution",), higher_is_better=True, resamples=True, levels=("generator",))
