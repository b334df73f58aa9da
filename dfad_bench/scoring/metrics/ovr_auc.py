"""How well the probability of each class ranks its own faces above all others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dfad_bench.scoring.metrics.auc import auc
from dfad_bench.scoring.ranking import divided
from dfad_bench.scoring.views import AttributionView, Metric, Undefined, Value


def ovr_auc(view: AttributionView) -> Value:
    """Return the mean over true classes of the AUC of one class against the rest, in 0..1; raise Undefined below two.

    In a resample, a class of which no face was drawn is left out; one of a single class has no value. Equal to
    scikit-learn's ``roc_auc_score(multi_class="ovr", average="macro")`` where every class has faces.
    """
    if len(view.present) < 2:
        raise Undefined("one class only" if len(view) else "no face")
    if view.multiplicity is None:
        with ThreadPoolExecutor(2) as pool:  # NumPy lets go of the interpreter while it sorts; a class takes memory
            each = np.stack(list(pool.map(lambda value: np.asarray(auc(view.asked_for(value))), view.present.tolist())))
    else:
        each = np.stack([np.asarray(auc(view.asked_for(value))) for value in view.present.tolist()])
    drawn = np.isfinite(each)
    return divided(np.where(drawn, each, 0).sum(axis=0), drawn.sum(axis=0))


METRIC = Metric(ovr_auc, tasks=("attribution",), higher_is_better=True, resamples=True, pooled_only=("attribution",))
