"""The faces that numbers are computed from, frame by frame or pooled into videos, in an order that never changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import UsageError
from dfad_bench.records.categorical import Categorical, Rows
from dfad_bench.records.predictions import VAL, Predictions, same_as_before
from dfad_bench.records.results import Unit
from dfad_bench.scoring.rollup import softmax
from dfad_bench.scoring.statistics.resampling import find_clusters
from dfad_bench.types import REAL

CLUSTER_BY = ("auto", "identity", "video", "face")


@dataclass(frozen=True, eq=False)
class Faces:
    """N frames, or N videos, with what a model said of them.

    key [N]: the same number for the same face, or video of a generator, in several subsets; cluster [N]: which of them
    stand or fall together; probabilities [N, C] over the leaf classes, energy [N] = −log Σ exp(logits): both None for a
    pure detector.
    """

    unit: Unit
    key: NDArray[np.intp]
    subset: Categorical
    generator: Categorical
    family: Categorical
    forgery_type: Categorical
    domain: Categorical
    cluster: NDArray[np.int32]
    fake_score: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None
    energy: NDArray[np.float64] | None

    def __len__(self) -> int:
        """Return N."""
        return len(self.key)

    @property
    def is_fake(self) -> NDArray[np.bool_]:
        """Which are fake, [N]."""
        return ~self.generator.is_(REAL)

    def labels(self, column: str) -> Categorical:
        """Return the labels at ``generator``, ``family`` or ``forgery_type``."""
        return {"generator": self.generator, "family": self.family, "forgery_type": self.forgery_type}[column]

    def tested(self) -> Rows:
        """Return the rows of all test subsets, each face or video once: where it stands in several, the first."""
        rows = np.flatnonzero(~self.subset.is_(VAL))
        _, first = np.unique(self.key[rows], return_index=True)
        return rows[first]

    def subsets(self, report_by: Mapping[str, str]) -> dict[str, dict[str, Rows]]:
        """Return per test subset the rows of each group, ``real`` first, given the column that each is reported by."""
        return {
            subset: self.labels(column).groups(np.flatnonzero(self.subset.is_(subset)), first=REAL)
            for subset, column in report_by.items()
        }


def frames(predictions: Predictions, cluster_by: str = "auto") -> Faces:
    """Return the faces of predictions as they are; ``predictions`` must be in order (``in_order``).

    cluster_by: ``auto`` binds faces that share their first identity or their video; ``identity`` and ``video`` bind by one
    of them alone; ``face`` leaves each by itself. Raises UsageError for another word.
    """
    if cluster_by not in CLUSTER_BY:
        raise UsageError(f"Faces cannot be clustered by {cluster_by!r}. Choose one of {', '.join(CLUSTER_BY)}.")
    unknown = np.full(len(predictions), -1, np.int32)
    key = np.cumsum(~same_as_before(predictions.id)) - 1
    identity = predictions.identity.code if cluster_by in ("auto", "identity") else unknown
    video = predictions.video.code if cluster_by in ("auto", "video") else unknown
    # A face that stands in several subsets is one face: without an identity and a video, its id binds it.
    alone = (identity < 0) & (video < 0)
    video = np.where(alone, key + len(predictions.video.values), video)
    probabilities = energy = None
    if predictions.logits is not None:
        probabilities = softmax(predictions.logits)
        top = predictions.logits.max(axis=1).astype(np.float64)
        # softmax's largest share is exp(top − log Σ exp), so the energy needs no second pass over all logits
        energy = np.log(probabilities.max(axis=1)) - top
    return Faces(
        unit="frame",
        key=key,
        subset=predictions.subset,
        generator=predictions.generator,
        family=predictions.family,
        forgery_type=predictions.forgery_type,
        domain=predictions.domain,
        cluster=find_clusters(identity, video),
        fake_score=predictions.fake_score,
        probabilities=probabilities,
        energy=energy,
    )


def videos(faces: Faces, video: Categorical, pooling: str) -> Faces:
    """Return one row per video: what a model said of its frames, pooled; a face that is in no video is its own.

    Frames belong together where subset, generator and video are the same. pooling: ``mean``; ``median`` (probabilities
    are then scaled to sum to 1; where the median of each is 0, their mean is taken); ``top<k>``, the mean over the k
    frames that look most fake, ties by id. Raises UsageError for another word.
    """
    if not re.fullmatch("mean|median|top[1-9][0-9]*", pooling):
        raise UsageError(f"Frames cannot be pooled by {pooling!r}. Choose mean, median or top<k>, such as top5.")
    clip = np.where(video.code < 0, faces.key + len(video.values), video.code).astype(np.int64)
    key = clip * max(len(faces.generator.values), 1) + faces.generator.code  # one video may show real and fake faces
    own = key * max(len(faces.subset.values), 1) + faces.subset.code
    _, first, unit = np.unique(own, return_index=True, return_inverse=True)
    unit = unit.astype(np.intp)
    pooled = _Pooling(unit, len(first), pooling, faces.fake_score)
    probabilities = None
    if faces.probabilities is not None:
        probabilities = np.stack([pooled(column) for column in faces.probabilities.T], axis=1)
        if pooling == "median":
            nowhere = probabilities.sum(axis=1) == 0
            if nowhere.any():
                mean = _Pooling(unit, len(first), "mean", faces.fake_score)
                probabilities[nowhere] = np.stack([mean(column) for column in faces.probabilities.T], axis=1)[nowhere]
            probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = ("subset", "generator", "family", "forgery_type", "domain")
    return replace(
        faces,
        unit="video",
        key=key[first].astype(np.intp),
        cluster=faces.cluster[first],
        fake_score=pooled(faces.fake_score),
        probabilities=probabilities,
        energy=None if faces.energy is None else pooled(faces.energy),
        **{name: getattr(faces, name).take(first) for name in labels},
    )


class _Pooling:
    """Turns a column [N] of frames into one [V] of videos."""

    def __init__(self, unit: Rows, units: int, pooling: str, fake_score: NDArray[np.float64]) -> None:
        self._unit, self._units, self._is_median = unit, units, pooling == "median"
        self._frames = np.bincount(unit, minlength=units)
        self._start = np.cumsum(self._frames) - self._frames
        self._chosen: Rows | None = None
        if pooling.startswith("top"):
            order = np.lexsort((-fake_score, unit))  # stable: frames that tie keep the order of their ids
            place = np.arange(len(unit)) - np.repeat(self._start, self._frames)
            self._chosen = order[place < int(pooling.removeprefix("top"))]

    def __call__(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._is_median:
            ranked = column[np.lexsort((column, self._unit))]
            lower, upper = self._start + (self._frames - 1) // 2, self._start + self._frames // 2
            middle: NDArray[np.float64] = (ranked[lower] + ranked[upper]) / 2
            return middle
        unit = self._unit if self._chosen is None else self._unit[self._chosen]
        values = column if self._chosen is None else column[self._chosen]
        pooled: NDArray[np.float64] = np.bincount(unit, values, self._units) / np.bincount(unit, minlength=self._units)
        return pooled
