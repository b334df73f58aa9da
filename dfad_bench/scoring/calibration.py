"""Faces by how sure a model is of them, for the calibration error and for the reliability diagram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfad_bench.scoring.views import AttributionView, DetectionView

BINS = 15

_Sums = NDArray[np.float64]


def binned(view: DetectionView | AttributionView) -> tuple[_Sums, _Sums, _Sums]:
    """Return per bin of confidence, [..., 15]: faces, the sum of their confidence, and how many of them are so.

    Confidence is the fake score and "so" is fake, in detection; the probability of the answer and right, in attribution.
    Bin b holds confidences above b/15 up to (b + 1)/15, the first also 0.
    """
    if isinstance(view, AttributionView):
        confidence = view.probability(view.predicted)
        so = view.true == view.predicted
    else:
        confidence, so = view.fake_score, view.is_fake
    index = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.intp)
    return view.histogram(index, BINS), view.histogram(index, BINS, confidence), view.histogram(index, BINS, so)
