"""What a metric sees, and what a metric is."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.results import Level
from dfad_bench.scoring.ranking import Curve, Ranking, divided
from dfad_bench.scoring.statistics.wins import Wins, win_matrix

Value = float | NDArray[np.float64]
"""A number, or one for each of R resamples."""

Asks = Literal["detection", "attribution"]
"""The two kinds of view a metric can be computed from."""
Counts = NDArray[Any]
"""Numbers of faces, of any shape."""

THREADS = min(4, os.cpu_count() or 1)
"""Threads that work is spread over; each needs some megabytes of its own."""
_MANY = 4_000_000
"""Cells that a table per cluster may have before faces are counted one by one instead."""
_WINS_PAY_FROM = 20_000
"""Faces from which comparing clusters once is cheaper than a curve for every resample."""


class Undefined(ValueError):
    """Raised by a metric that has no value here; its message is a short reason such as ``one class only``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class View(ABC):
    """N faces (or videos), as they are or as a resample weighs them.

    cluster [N]: the cluster of each face, numbered from 0 within this view; clusters [c]: what those are called outside;
    multiplicity [R, c]: how often each is drawn in R resamples, None for the faces as they are.
    """

    cluster: NDArray[np.int32] | None = None
    clusters: NDArray[np.intp] | None = None
    multiplicity: NDArray[np.int32] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return N."""

    @property
    def size(self) -> int:
        """The number of faces that enter a value."""
        return len(self)

    def clustered(self, cluster: NDArray[np.int32]) -> Self:
        """Return the view with the cluster [N] of each face, as numbered outside."""
        held = np.bincount(cluster) > 0
        local = np.cumsum(held, dtype=np.int32) - np.int32(1)
        return replace(self, cluster=local[cluster], clusters=np.flatnonzero(held))

    def resampled(self, multiplicity: NDArray[np.int32]) -> Self:
        """Return the view in R resamples, given how often every cluster there is [R, C] is drawn."""
        assert self.clusters is not None
        return replace(self, multiplicity=np.take(multiplicity, self.clusters, axis=1))

    @cached_property
    def weight(self) -> NDArray[np.int32] | None:
        """How often each face counts, [R, N]; None for the faces as they are."""
        if self.multiplicity is None:
            return None
        assert self.cluster is not None
        return np.take(self.multiplicity, self.cluster, axis=1)

    def total(self, values: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Return the sum of values [N] over the faces, or their number: of shape [], or [R] in resamples."""
        return self.histogram(np.zeros(len(self), np.intp), 1, values)[..., 0]

    def histogram(self, index: NDArray[np.intp], size: int, values: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Return the sums of values [N] (or the number of faces) by index [N] in 0..size−1: [size], or [R, size]."""
        if self.multiplicity is None:
            return np.bincount(index, weights=values, minlength=size).astype(np.float64)
        assert self.cluster is not None
        clusters = self.multiplicity.shape[1]
        if clusters * size <= _MANY:
            flat = self.cluster.astype(np.intp) * size + index
            table = np.bincount(flat, weights=values, minlength=clusters * size).reshape(clusters, size)
            return self.multiplicity.astype(np.float64) @ table.astype(np.float64)
        assert self.weight is not None
        weighed = (row if values is None else row * values for row in self.weight)
        return np.stack([np.bincount(index, weights=row, minlength=size) for row in weighed]).astype(np.float64)

    @abstractmethod
    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return the given faces, some of them perhaps several times, without clusters."""


_UNCLUSTERED: dict[str, Any] = {"cluster": None, "clusters": None, "multiplicity": None}


@dataclass(eq=False)
class _Shared:
    """What views of the same faces in different resamples need only once."""

    ranking: Ranking | None = None
    wins: Wins | None = None
    cluster_in_order: NDArray[np.int32] | None = None


@dataclass(frozen=True, eq=False)
class DetectionView(View):
    """N faces asked one question: is it fake?

    is_fake [N] bool; fake_score [N] float64, higher = more fake; a face is called fake where its score is at least
    ``threshold``, as in scikit-learn's ``roc_curve``.
    """

    is_fake: NDArray[np.bool_]
    fake_score: NDArray[np.float64]
    threshold: float
    _shared: _Shared = field(default_factory=_Shared, repr=False)

    def __len__(self) -> int:
        """Return N."""
        return len(self.is_fake)

    @property
    def true(self) -> NDArray[np.bool_]:
        """Which faces are fake, [N] bool."""
        return self.is_fake

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which faces are called fake, [N] bool."""
        return self.fake_score >= self.threshold

    @property
    def ranking(self) -> Ranking:
        """The faces in descending order of score."""
        if self._shared.ranking is None:
            self._shared.ranking = Ranking.of(self.fake_score)
        return self._shared.ranking

    def counted(self, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return [..., K + 1] how many of the chosen faces [N] score at least each of the ranking's thresholds."""
        faces = self.ranking.in_order(chosen).astype(np.int32)
        return self.ranking.counted(faces if self._in_order is None else self._in_order * faces)

    @cached_property
    def _in_order(self) -> NDArray[np.int32] | None:
        """How often each face counts, [R, N], in the order of the ranking."""
        if self.multiplicity is None:
            return None
        if self._shared.cluster_in_order is None:
            assert self.cluster is not None
            self._shared.cluster_in_order = self.ranking.in_order(self.cluster)
        return np.take(self.multiplicity, self._shared.cluster_in_order, axis=1)

    @cached_property
    def curve(self) -> Curve:
        """The ROC curve, in counts."""
        fakes = self.counted(self.is_fake)
        everyone = np.ones(len(self), np.int32) if self._in_order is None else self._in_order
        return Curve(self.ranking.threshold, self.ranking.counted(everyone) - fakes, fakes)

    def clustered(self, cluster: NDArray[np.int32]) -> Self:
        """Return the view with the cluster [N] of each face, as numbered outside."""
        return replace(super().clustered(cluster), _shared=_Shared(ranking=self._shared.ranking))

    @property
    def has_curve(self) -> bool:
        """Whether the curve was drawn already, so that reading it costs nothing."""
        return "curve" in self.__dict__

    @property
    def wins(self) -> Wins | None:
        """Which clusters win against which, in resamples of so many faces that it pays; None elsewhere."""
        if self.multiplicity is None or self.has_curve or len(self) < _WINS_PAY_FROM:
            return None
        assert self.cluster is not None
        if self._shared.wins is None and self.multiplicity.shape[1] ** 2 <= _MANY:
            self._shared.wins = win_matrix(self.is_fake, self.fake_score, self.cluster, self.multiplicity.shape[1])
        return self._shared.wins

    def at(self, threshold: float) -> DetectionView:
        """Return the same faces, called fake from another threshold on."""
        return replace(self, threshold=threshold)

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return the given faces, some of them perhaps several times, without clusters."""
        return replace(
            self, is_fake=self.is_fake[rows], fake_score=self.fake_score[rows], _shared=_Shared(), **_UNCLUSTERED
        )


@dataclass(frozen=True, eq=False)
class AttributionView(View):
    """N faces asked which of K values they have at one level.

    true [N] and predicted [N] int32, indices of ``values``: the level values of training, ``real`` first. table: the
    probabilities, float64 in 0..1, of all faces there are, and rows [N]: which of its rows these are, None for all. A
    view of every group that held its own copy would hold each face several times.
    """

    true: NDArray[np.int32]
    predicted: NDArray[np.int32]
    table: NDArray[np.float64]
    values: tuple[str, ...]
    rows: NDArray[np.intp] | None = None
    _against_rest: dict[int, DetectionView] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return N."""
        return len(self.true)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probability of each value, [N, K]."""
        chosen: NDArray[np.float64] = self.table if self.rows is None else self.table[self.rows]
        return chosen

    def probability(self, value: int | NDArray[np.int32]) -> NDArray[np.float64]:
        """Return [N] the probability of one value, or of another for each face, by index."""
        rows = np.arange(len(self.table)) if self.rows is None else self.rows
        chosen: NDArray[np.float64] = self.table[rows, value]
        return chosen

    @cached_property
    def present(self) -> NDArray[np.intp]:
        """The indices of the values that are true of a face, ascending."""
        return np.flatnonzero(np.bincount(self.true, minlength=len(self.values)))

    @cached_property
    def confusion(self) -> NDArray[np.float64]:
        """Faces by true and predicted value, [K, K], or [R, K, K] in resamples."""
        size = len(self.values)
        counts = self.histogram(self.true.astype(np.intp) * size + self.predicted, size * size)
        return counts.reshape(*counts.shape[:-1], size, size)

    def asked_for(self, value: int) -> DetectionView:
        """Return the same faces asked: is it this value, or any other? Its score is the value's probability."""
        asked = self._against_rest.get(value)
        if asked is None:
            asked = DetectionView(self.true == value, self.probability(value), 0.5)
            if self.multiplicity is not None:  # to be sorted once for all resamples
                self._against_rest[value] = asked
        return replace(asked, cluster=self.cluster, clusters=self.clusters, multiplicity=self.multiplicity)

    def clustered(self, cluster: NDArray[np.int32]) -> Self:
        """Return the view with the cluster [N] of each face, as numbered outside."""
        return replace(super().clustered(cluster), _against_rest={})

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return the given faces, some of them perhaps several times, without clusters."""
        return replace(
            self,
            true=self.true[rows],
            predicted=self.predicted[rows],
            rows=rows if self.rows is None else self.rows[rows],
            _against_rest={},
            **_UNCLUSTERED,
        )


@dataclass(frozen=True, eq=False)
class RatioView(View):
    """N faces of which a fraction is asked: numerator [N] and denominator [N] are summed, and divided.

    otherwise: why there is no fraction where the denominator is 0.
    """

    numerator: NDArray[np.bool_]
    denominator: NDArray[np.bool_]
    otherwise: str

    def __len__(self) -> int:
        """Return N."""
        return len(self.numerator)

    @property
    def size(self) -> int:
        """The number of faces that the fraction is of."""
        return int(np.count_nonzero(self.denominator))

    def ratio(self) -> Value:
        """Return Σ numerator / Σ denominator; raise Undefined where the denominator is 0."""
        if not self.denominator.any():
            raise Undefined(self.otherwise)
        return divided(self.total(self.numerator), self.total(self.denominator))

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return the given faces, some of them perhaps several times, without clusters."""
        return replace(self, numerator=self.numerator[rows], denominator=self.denominator[rows], **_UNCLUSTERED)


@dataclass(frozen=True, slots=True)
class Metric:
    """A number computed from a view; a file in ``scoring/metrics`` exposes one as ``METRIC`` and gives it its name.

    compute: maps a DetectionView or an AttributionView, as ``tasks`` says, to a float; raises Undefined.
    resamples: compute heeds a view's weights, and gives R numbers for R resamples; what does not is given each resample
    as a view of its own, which is slower.
    uses_threshold: a detection value depends on the threshold, which then stands in the recorded name (``accuracy@0.5``).
    of_counts: the same value from (true positives, false positives, fakes, reals), arrays that broadcast; with it the
    best value over all thresholds can be found (``accuracy@oracle``).
    needs_probability: a detection value has no meaning where scores leave 0..1.
    pooled_only: tasks in which the value has no meaning within one group of faces, so that groups and their mean lack it.
    levels: where the value has a meaning; None: everywhere.
    closed_form: a 95 % interval without resampling, (low, high), shown beside the other.
    """

    compute: Callable[[Any], Value]
    tasks: tuple[Asks, ...]
    higher_is_better: bool
    resamples: bool = False
    uses_threshold: bool = False
    of_counts: Callable[[Counts, Counts, Counts, Counts], NDArray[np.float64]] | None = None
    needs_probability: bool = False
    pooled_only: tuple[Asks, ...] = ()
    levels: tuple[Level, ...] | None = None
    closed_form: Callable[[Any], tuple[float, float]] | None = None


def check_two_classes(view: DetectionView) -> None:
    """Raise Undefined where a view holds no real or no fake face."""
    fakes = int(view.is_fake.sum())
    if not len(view.is_fake):
        raise Undefined("no face")
    if fakes == len(view.is_fake):
        raise Undefined("no real face")
    if not fakes:
        raise Undefined("no fake face")
