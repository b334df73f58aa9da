"""The contract of a metric."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dfad_bench.scoring.views import Asks, AttributionView, DetectionView, Metric, Undefined, View
from dfad_bench.testing.contract import ContractError, require

FACES = 4000
"""Enough for metrics that need a thousand real faces."""


def check_metric(metric: Metric) -> None:
    """Check that a metric is a finite number independent of row order, and where undefined says why instead of NaN.

    One that says that it heeds weights (``resamples``) must give, for a resample, what it gives for the faces drawn.
    """
    require(set(metric.tasks) <= {"detection", "attribution"} and bool(metric.tasks), f"unknown tasks {metric.tasks}")
    for task in metric.tasks:
        view, shuffled, empty = (
            _view(task, rows) for rows in (np.arange(FACES), np.random.default_rng(0).permutation(FACES), np.arange(0))
        )
        value = _value(metric, view)
        require(math.isfinite(value), f"{task}: the value is {value}")
        require(abs(value - _value(metric, shuffled)) < 1e-9, f"{task}: the value depends on the order of faces")
        try:
            undefined = metric.compute(empty)
        except Undefined as reason:
            require(bool(str(reason)), f"{task}: Undefined must give a reason")
        else:
            raise ContractError(f"{task}: of no face it says {undefined}; raise Undefined with a reason")
        if metric.resamples:
            _check_weights(metric, task, view)


def _value(metric: Metric, view: View) -> float:
    value = np.asarray(metric.compute(view))
    require(value.ndim == 0, f"the value of faces as they are must be one number, it is of shape {list(value.shape)}")
    return float(value)


def _check_weights(metric: Metric, task: Asks, view: View) -> None:
    """Draw clusters of about ten faces, and hold the weighted values against those of the faces drawn."""
    rng = np.random.default_rng(2)
    cluster = rng.permutation(np.arange(FACES, dtype=np.int32) // 10)
    multiplicity = rng.multinomial(FACES // 10, np.full(FACES // 10, 10 / FACES), size=3).astype(np.int32)
    values = np.asarray(metric.compute(view.clustered(cluster).resampled(multiplicity)))
    require(values.shape == (3,), f"{task}: three resamples gave values of shape {list(values.shape)}")
    for value, drawn in zip(values, multiplicity, strict=True):
        faces = view.take(np.repeat(np.arange(FACES), drawn[cluster]))
        gap = abs(value - _value(metric, faces))
        require(
            bool(gap < 1e-9), f"{task}: a resample's value is {value}, that of the faces drawn differs by {gap:.2g}"
        )


def _view(task: Asks, rows: NDArray[np.intp]) -> DetectionView | AttributionView:
    rng = np.random.default_rng(1)
    values = ("real", "autoencoder", "diffusion", "flow", "gan")
    probabilities = rng.dirichlet(np.ones(len(values)), FACES).round(2)  # rounded, so that some tie
    true = (np.arange(FACES) % len(values)).astype(np.int32)
    if task == "detection":
        # Rounding may leave 0..1 by an ulp
        return DetectionView((true > 2)[rows], np.clip(1 - probabilities[rows, 0], 0, 1), 0.5)
    return AttributionView(true[rows], probabilities.argmax(axis=1).astype(np.int32)[rows], probabilities[rows], values)
