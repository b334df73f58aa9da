"""The area under the ROC curve."""

from __future__ import annotations

import numpy as np

from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.statistics.delong import delong_interval, delong_variance
from dfad_bench.scoring.views import DetectionView, Metric, Value, check_two_classes


def auc(view: DetectionView) -> Value:
    """Return the probability that a fake scores higher than a real, ties counting half, in 0..1.

    Constant scores give 0.5. Raises Undefined without a real or without a fake face.
    """
    check_two_classes(view)
    if view.wins is not None:
        assert view.multiplicity is not None
        return view.wins.auc(view.multiplicity)
    if view.multiplicity is None and not view.has_curve:
        return _by_sorting(view)
    curve = view.curve
    # Products of whole numbers below 2**53: summed exactly, in float64, without copies of that size.
    reals = np.diff(curve.false_positives, axis=-1)
    twice_the_fakes = curve.true_positives[..., 1:] + curve.true_positives[..., :-1]
    won = np.einsum("...k,...k->...", reals, twice_the_fakes, dtype=np.float64) / 2
    return divided(won, curve.reals.astype(np.float64) * curve.fakes)


def _by_sorting(view: DetectionView) -> float:
    """Return the same number from sorted scores alone, which takes a third of the time of a curve for one number."""
    fakes, reals = np.sort(view.fake_score[view.is_fake]), np.sort(view.fake_score[~view.is_fake])
    won = np.searchsorted(reals, fakes, side="left").sum() + np.searchsorted(reals, fakes, side="right").sum()
    return float(won / 2 / (float(len(reals)) * len(fakes)))


def closed_form(view: DetectionView) -> tuple[float, float]:
    """Return DeLong's 95 % interval for the view's clusters; raise Undefined where it has no width."""
    return delong_interval(*delong_variance(view.is_fake, view.fake_score, view.cluster))


METRIC = Metric(auc, tasks=("detection",), higher_is_better=True, resamples=True, closed_form=closed_form)
