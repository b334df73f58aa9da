"""How well a manipulated face keeps the gaze of the face it was made from: the paper's second observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dfad_bench.analysis.gaze_samples import GazeFaces, directions
from dfad_bench.records.categorical import Rows
from dfad_bench.scoring.statistics.intervals import bca_interval
from dfad_bench.scoring.statistics.resampling import Resampler
from dfad_bench.scoring.views import Undefined
from dfad_bench.types import REAL

_CELLS = 1_000_000
SHUFFLES = 200
"""Random pairings that the deviation by chance is the mean over."""


@dataclass(frozen=True, slots=True)
class Preservation:
    """The angle between the gaze of a fake and that of the real face it was made from, in degrees.

    median over the pairs, with its 95 % interval by resampling clusters (people); by_chance: the same between fakes and the
    reals that other fakes of the group were made from. pairs, clusters; unpaired: fakes whose real face is not there, or not
    one alone. no_interval says why there is none.
    """

    pairs: int
    clusters: int
    unpaired: int
    median: float
    low: float | None
    high: float | None
    by_chance: float
    no_interval: str | None


@dataclass(frozen=True, slots=True)
class FamilyDifference:
    """By how much the median deviation of one family exceeds another's, in degrees, with its 95 % interval."""

    family: str
    other: str
    difference: float
    low: float | None
    high: float | None
    no_interval: str | None


@dataclass(frozen=True, slots=True)
class PreservationReport:
    """Preservation by generator and by family, and between families."""

    generators: Mapping[str, Preservation]
    families: Mapping[str, Preservation]
    differences: Sequence[FamilyDifference]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """P fakes and, face by face, the reals they were made from."""

    fake: Rows
    real: Rows
    unpaired: int


def preservation(
    faces: GazeFaces, generators: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> PreservationReport:
    """Return how well each generator keeps the gaze of its targets; those that have no known target are absent.

    A fake's target is the real face of the same first identity, measured alike and, in a video, at the same frame number.
    Where several real faces fit, none is known. Fakes and targets without known gaze are left out.
    """
    targets = _Targets(faces)
    pairs = {name: found for name in generators if (found := targets.of(name)) is not None}
    by_family: dict[str, list[str]] = {}
    for name in pairs:
        by_family.setdefault(faces.labels[name][0], []).append(name)
    families = {
        family: _Pairs(
            np.concatenate([pairs[name].fake for name in names]),
            np.concatenate([pairs[name].real for name in names]),
            sum(pairs[name].unpaired for name in names),
        )
        for family, names in sorted(by_family.items())
    }
    medians = _Medians(faces, families, resamples, seed)
    return PreservationReport(
        generators={name: _Medians(faces, {name: found}, resamples, seed).of(name) for name, found in pairs.items()},
        families={family: medians.of(family) for family in families},
        differences=[medians.difference(one, other) for one, other in combinations(families, 2)],
    )


def deviation(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles in degrees, 0..180, between gazes [n, 2] of pitch and yaw in radians.

    By the arc tangent of |a × b| and a · b, which is exact for small angles where the arc cosine is not.
    """
    a, b = directions(one), directions(other)
    degrees: NDArray[np.float64] = np.degrees(
        np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.einsum("nd,nd->n", a, b))
    )
    return degrees


class _Targets:
    """Finds the one real face that a fake was made from."""

    def __init__(self, faces: GazeFaces) -> None:
        self._faces = faces
        self._usable = faces.has_gaze & (faces.identity.code >= 0)
        reals = np.flatnonzero(faces.generator.is_(REAL) & self._usable)
        self._real: dict[tuple[int, int, int], int] = {}
        for row, key in zip(reals.tolist(), self._keys(reals), strict=True):
            self._real[key] = -1 if key in self._real else row

    def _keys(self, rows: Rows) -> list[tuple[int, int, int]]:
        """Return what a fake has in common with its target: how it was measured, whom it shows, which frame it is."""
        faces = self._faces
        columns = (faces.measuring[rows], faces.identity.code[rows], faces.frame[rows])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def of(self, generator: str) -> _Pairs | None:
        """Return the pairs of a generator; None where there is none."""
        fakes = np.flatnonzero(self._faces.generator.is_(generator))
        usable = fakes[self._usable[fakes]]
        found = np.asarray([self._real.get(key, -1) for key in self._keys(usable)], dtype=np.intp)
        if not (found >= 0).any():
            return None
        return _Pairs(usable[found >= 0], found[found >= 0], len(fakes) - int((found >= 0).sum()))


class _Medians:
    """The median deviation of groups of pairs, as they are and in resamples of the clusters of all of them."""

    def __init__(self, faces: GazeFaces, groups: Mapping[str, _Pairs], resamples: int, seed: int) -> None:
        self._faces, self._groups, self._seed = faces, groups, seed
        every = np.concatenate([pairs.fake for pairs in groups.values()]) if groups else np.empty(0, np.intp)
        self._clusters, local = np.unique(faces.cluster[every], return_inverse=True)
        self._resampler = Resampler(np.zeros(len(self._clusters), np.intp), resamples, seed)
        self._weighed: dict[str, tuple[NDArray[np.float64], NDArray[np.intp]]] = {}
        start = 0
        for name, pairs in groups.items():
            angle = deviation(faces.angles[pairs.fake], faces.angles[pairs.real])
            order = np.argsort(angle, kind="stable")
            self._weighed[name] = (angle[order], local[start : start + len(angle)][order])
            start += len(angle)
        self._draws = {name: self._replicates(name) for name in groups}

    def of(self, name: str) -> Preservation:
        """Return a group's preservation."""
        pairs = self._groups[name]
        angle, cluster = self._weighed[name]
        median = float(np.median(angle))
        low, high, reason = _interval(median, self._draws[name], len(np.unique(cluster)))
        return Preservation(
            pairs=len(angle),
            clusters=len(np.unique(cluster)),
            unpaired=pairs.unpaired,
            median=median,
            low=low,
            high=high,
            by_chance=self._by_chance(pairs),
            no_interval=reason,
        )

    def difference(self, one: str, other: str) -> FamilyDifference:
        """Return by how much the median of one group exceeds another's."""
        medians = [float(np.median(self._weighed[name][0])) for name in (one, other)]
        fewest = min(len(np.unique(self._weighed[name][1])) for name in (one, other))
        difference = medians[0] - medians[1]
        low, high, reason = _interval(difference, self._draws[one] - self._draws[other], fewest)
        return FamilyDifference(one, other, difference, low, high, reason)

    def _replicates(self, name: str) -> NDArray[np.float64]:
        """Return the weighted median of a group in each resample, NaN where none of it was drawn."""
        angle, cluster = self._weighed[name]
        medians = [np.empty(0)]
        for multiplicity in self._resampler.draws(cells=_CELLS):
            weight = np.cumsum(np.take(multiplicity, cluster, axis=1), axis=1)
            total = weight[:, -1:]
            lower = (weight < np.ceil(total / 2)).sum(axis=1)
            upper = (weight < np.floor(total / 2) + 1).sum(axis=1)
            ends = len(angle) - 1
            middle = (angle[np.minimum(lower, ends)] + angle[np.minimum(upper, ends)]) / 2
            medians.append(np.where(total[:, 0] > 0, middle, np.nan))
        return np.concatenate(medians)

    def _by_chance(self, pairs: _Pairs) -> float:
        """Return the mean over random pairings of the median deviation."""
        rng = np.random.default_rng(self._seed)
        fakes, reals = self._faces.angles[pairs.fake], self._faces.angles[pairs.real]
        medians = [np.median(deviation(fakes, reals[rng.permutation(len(reals))])) for _ in range(SHUFFLES)]
        return float(np.mean(medians))


def _interval(value: float, draws: NDArray[np.float64], clusters: int) -> tuple[float | None, float | None, str | None]:
    """Return the 95 % interval of a median or of a difference of two, or why there is none.

    By percentiles: a median moves by jumps, so that leaving out clusters one by one says little of it.
    """
    if clusters < 2:
        return None, None, "one cluster only"
    try:
        found = bca_interval(value, draws, None)
    except Undefined as undefined:
        return None, None, str(undefined)
    return found.low, found.high, None
