"""The expected calibration error."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.calibration import binned
from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Undefined, Value


def ece(view: DetectionView | AttributionView) -> Value:
    """Return the mean over faces of |confidence − fraction right| in the face's bin, in 0..1.

    15 bins of equal width (Guo et al., ICML 2017, equation 3). In detection the confidence is the fake score and what it
    is held against is the fraction of fakes; in attribution it is the probability of the answer, against the fraction of
    right answers. Raises Undefined without faces.
    """
    if not len(view):
        raise Undefined("no face")
    faces, confidence, so = binned(view)
    return divided(np.abs(confidence - so).sum(axis=-1), faces.sum(axis=-1))


METRIC = Metric(ece, tasks=("detection", "attribution"), higher_is_better=False, resamples=True, needs_probability=True)
