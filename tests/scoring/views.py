"""Views of a few faces for Hypothesis, and the slow, plain ways to the numbers that metrics find quickly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata

from dfad_bench import registry
from dfad_bench.scoring.detection import Detector, variants
from dfad_bench.scoring.faces import frames
from dfad_bench.scoring.open_set import OpenSetView, fpr95, oscr
from dfad_bench.scoring.views import AttributionView, DetectionView, Metric, Undefined, View
from tests.scoring.builders import Face, predictions

VALUES = ("real", "ddpm", "flux", "simswap", "stylegan3")
EIGHTHS = st.integers(0, 8).map(lambda n: n / 8)
ANY_SCORE = st.one_of(
    EIGHTHS, st.floats(allow_nan=False), st.sampled_from([np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e308, -1e308])
)


def a_view(is_fake: Any, fake_score: Any, threshold: float = 0.5) -> DetectionView:
    """Return a detection view without clusters."""
    return DetectionView(np.asarray(is_fake, dtype=bool), np.asarray(fake_score, dtype=np.float64), threshold)


def an_attribution(true: Any, probabilities: Any, predicted: Any = None) -> AttributionView:
    """Return an attribution view; what is predicted is the most probable value unless it is given."""
    table = np.asarray(probabilities, dtype=np.float64)
    answer = table.argmax(axis=1) if predicted is None else np.asarray(predicted)
    return AttributionView(np.asarray(true, dtype=np.int32), answer.astype(np.int32), table, VALUES[: table.shape[1]])


def an_open_set(is_unknown: Any, doubt: Any, right: Any) -> OpenSetView:
    """Return an open-set view without clusters."""
    unknown = np.asarray(is_unknown, dtype=bool)
    right = np.asarray(right, dtype=bool) & ~unknown
    return OpenSetView(unknown, np.asarray(doubt, dtype=np.float64), 0.0, right=right)


@st.composite
def detection_views(draw: st.DrawFn, score: st.SearchStrategy[float] = EIGHTHS, most: int = 30) -> DetectionView:
    """Views of both classes; scores are multiples of 1/8, so that many tie, unless told otherwise."""
    labels = draw(st.permutations([False, True, *draw(st.lists(st.booleans(), max_size=most))]))
    constant = draw(st.booleans()) and draw(st.booleans())
    scores = draw(st.lists(score, min_size=len(labels), max_size=len(labels)))
    return a_view(labels, [scores[0]] * len(scores) if constant else scores)


@st.composite
def attribution_views(draw: st.DrawFn, values: int = 4, least: int = 1, most: int = 20) -> AttributionView:
    """Views whose probabilities are few sevenths, so that they tie."""
    faces = draw(st.integers(least, most))
    true = draw(st.lists(st.integers(0, values - 1), min_size=faces, max_size=faces))
    shares = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=values, max_size=values), min_size=faces, max_size=faces)
    )
    raised = np.asarray(shares, dtype=np.float64) + 0.25
    return an_attribution(true, raised / raised.sum(axis=1, keepdims=True))


@st.composite
def open_set_views(draw: st.DrawFn, most: int = 20) -> OpenSetView:
    """Views of known and unknown faces with many ties."""
    plain = draw(detection_views(most=most))
    right = draw(st.lists(st.booleans(), min_size=len(plain), max_size=len(plain)))
    return an_open_set(plain.is_fake, plain.fake_score, right)


@st.composite
def resamples(draw: st.DrawFn, faces: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Clusters [N] of which some have no face here, and how often each is drawn in four resamples, often never."""
    clusters = draw(st.integers(1, 5))
    cluster = draw(st.lists(st.integers(0, clusters - 1), min_size=faces, max_size=faces))
    drawn = st.lists(st.integers(0, 3), min_size=clusters, max_size=clusters)
    return np.asarray(cluster, np.int32), np.asarray(draw(st.lists(drawn, min_size=4, max_size=4)), np.int32)


def dense(score: Any) -> NDArray[np.float64]:
    """Return the ranks of scores, equal ones alike: the same order without infinities, which scikit-learn refuses."""
    return np.asarray(rankdata(score, method="dense"), dtype=np.float64)


def written_out(view: View, cluster: Any, drawn: Any) -> View:
    """Return the faces of one resample, each as often as its cluster is drawn."""
    return view.take(np.repeat(np.arange(len(view)), drawn[cluster]))


def value_or_nan(compute: Callable[[Any], Any], view: View) -> float:
    """Return a metric's value, NaN where it is undefined."""
    try:
        return float(compute(view))
    except Undefined:
        return float("nan")


def in_resamples(compute: Callable[[Any], Any], view: View, cluster: Any, multiplicity: Any) -> list[float]:
    """Return a metric's values in resamples, as the engine asks for them: NaN in all where it is undefined."""
    try:
        values = np.asarray(compute(view.clustered(cluster).resampled(multiplicity)))
    except Undefined:
        return [float("nan")] * len(multiplicity)
    assert values.shape == (len(multiplicity),)
    return [float(value) for value in values]


def built_in() -> dict[str, Metric]:
    """Return the metrics of this package."""
    entries = registry.entries("metrics")
    return {name: registry.get("metrics", name) for name, entry in entries.items() if entry.origin == "built-in"}


@cache
def recorded() -> dict[str, Metric]:
    """Return the detection metrics under the names they are recorded by, the oracle's among them; val's is 0.375."""
    detector = Detector.of(frames(predictions([Face("real")])), same_domain=False)
    found, _ = variants(built_in(), replace(detector, threshold=0.375))
    return found


OPEN_SET: dict[str, Callable[[Any], Any]] = {"auroc": built_in()["auc"].compute, "fpr95": fpr95, "oscr": oscr}
"""The open-set metrics by name."""
