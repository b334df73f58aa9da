"""What a metric sees, and what a metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["detection", "attribution"]


class Undefined(ValueError):
    """Raised by a metric that has no value here; its message is a short reason such as ``one class only``."""


@dataclass(frozen=True, slots=True)
class DetectionView:
    """N faces asked one question: is it fake?

    is_fake [N] bool; fake_score [N] float64, higher = more fake; a face is called fake where its score is at least
    ``threshold``, as in scikit-learn's ``roc_curve``.
    """

    is_fake: NDArray[np.bool_]
    fake_score: NDArray[np.float64]
    threshold: float

    @property
    def true(self) -> NDArray[np.bool_]:
        """Which faces are fake, [N] bool."""
        return self.is_fake

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which faces are called fake, [N] bool."""
        return self.fake_score >= self.threshold


@dataclass(frozen=True, slots=True)
class AttributionView:
    """N faces asked which of K values they have at one level.

    true [N] and predicted [N] object arrays of level values; probabilities [N, K] float64 in 0..1, its columns being
    ``values``: the level values of training, ``real`` first.
    """

    true: NDArray[np.object_]
    predicted: NDArray[np.object_]
    probabilities: NDArray[np.float64]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number computed from a view; a file in ``scoring/metrics`` exposes one as ``METRIC`` and gives it its name.

    compute: maps a DetectionView or an AttributionView, as ``tasks`` says, to a float; raises Undefined.
    uses_threshold: a detection value depends on the threshold, which then stands in the recorded name (``accuracy@0.5``).
    pooled_only: tasks in which the value has no meaning within one group of faces, so that groups and their mean lack it.
    """

    compute: Callable[[Any], float]
    tasks: tuple[Task, ...]
    higher_is_better: bool
    uses_threshold: bool = False
    pooled_only: tuple[Task, ...] = ()


def check_two_classes(view: DetectionView) -> None:
    """Raise Undefined where a view holds no real or no fake face."""
    fakes = int(view.is_fake.sum())
    if not len(view.is_fake):
        raise Undefined("no face")
    if fakes == len(view.is_fake):
        raise Undefined("no real face")
    if not fakes:
        raise Undefined("no fake face")
