"""Which true Fréchet distances the data do not rule out, and whether 0 is one of them.

Resamples of two samples lie further apart than the samples do, as the samples lie further apart than their populations, so
that quantiles of a plain bootstrap miss a distance of 0. Here each supposed distance is tried: the two Gaussians are moved
along the shortest path between them (McCann's interpolation, affine for Gaussians) until they are that far apart, every
resample is moved along, and the supposed distance stands unless the observed one lies in a tail of what resamples then
give (inversion of bootstrap tests; Davison & Hinkley 1997, sec. 5.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dfad_bench.analysis.frechet import Floats
from dfad_bench.analysis.moments import Gaussians, between

_STEPS = 24
_LARGEST_FACTOR = 64.0
_SMALLEST_STRETCH = 0.05
"""A direction must keep this share of its length, or the path has been left."""


@dataclass(frozen=True, slots=True)
class MovedResamples:
    """Resamples of two sides that can be moved along the path between the sides.

    reference, candidate: R resampled Gaussians of each side. whole_reference, whole_candidate: the sides' own (R = 1).
    distance: between these.
    """

    reference: Gaussians
    candidate: Gaussians
    whole_reference: Gaussians
    whole_candidate: Gaussians
    distance: float

    def at(self, factor: float) -> Floats | None:
        """Return the distances [R] of resamples of sides ``factor`` times as far apart (in the root of the distance).

        0: the sides have the same mean and covariance; 1: as they are. None where no path leads so far.
        """
        moved = (1 - factor) / 2
        there, back = _transport(self.whole_reference.covariance[0], self.whole_candidate.covariance[0])
        one = self._moved(self.reference, self.whole_reference, self.whole_candidate, there, moved)
        two = self._moved(self.candidate, self.whole_candidate, self.whole_reference, back, moved)
        return None if one is None or two is None else between(one, two)

    def matched(self) -> Floats:
        """Return the distances [R] of resamples of sides that were given one mean and covariance: ``at(0)``."""
        found = self.at(0.0)
        assert found is not None
        return found

    @staticmethod
    def _moved(side: Gaussians, own: Gaussians, other: Gaussians, path: Floats, moved: float) -> Gaussians | None:
        stretch = (1 - moved) * np.eye(len(path)) + moved * path
        if np.linalg.eigvalsh(stretch)[0] < _SMALLEST_STRETCH and moved < 0:
            return None
        mean = (1 - moved) * own.mean + moved * other.mean + (side.mean - own.mean) @ stretch
        return Gaussians(side.weight, mean, stretch @ side.covariance @ stretch)

    def interval(self, matched: Floats, tail: float) -> tuple[float, float]:
        """Return the lowest and highest true distance that stand, 0 <= low <= high.

        matched [R]: ``at(0)``. tail: how much of each tail is given up, 0.025 for 95 %. Where the observed distance is
        smaller than half of those that no difference would give, the median of these takes its place in ``high``: luck
        does not narrow the interval (power-constrained limits; Cowan et al. 2011, arXiv:1105.3166).
        """
        return self._low(matched, tail), self._high(matched, tail)

    def _low(self, matched: Floats, tail: float) -> float:
        if (matched >= self.distance).mean() > tail:
            return 0.0
        inside, outside = 1.0, 0.0
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            found = self.at(middle)
            if found is None or (found >= self.distance).mean() > tail:
                inside = middle
            else:
                outside = middle
        return outside**2 * self.distance

    def _high(self, matched: Floats, tail: float) -> float:
        observed = max(self.distance, float(np.median(matched)))
        # No distance lies further away than this: the root of the Fréchet distance obeys the triangle inequality.
        beyond = (np.sqrt(observed) + np.sqrt(np.quantile(matched, 1 - tail))) ** 2
        inside = outside = 1.0
        while True:
            found = self.at(outside)
            if found is None or outside > _LARGEST_FACTOR or not self.distance:
                return float(beyond)
            if (found <= observed).mean() <= tail:
                break
            inside, outside = outside, outside * 1.5
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            found = self.at(middle)
            if found is not None and (found <= observed).mean() > tail:
                inside = middle
            else:
                outside = middle
        return float(outside**2 * self.distance)


def _transport(reference: Floats, candidate: Floats) -> tuple[Floats, Floats]:
    """Return the symmetric maps T and T⁻¹ [D, D] with T Σ₁ T = Σ₂ (Dowson & Landau 1982)."""
    values, vectors = np.linalg.eigh(reference)
    values = np.maximum(values, 1e-12 * values[-1])
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse_root = (vectors / np.sqrt(values)) @ vectors.T
    inner, basis = np.linalg.eigh(root @ candidate @ root)
    inner = np.sqrt(np.maximum(inner, 1e-12 * inner[-1]))
    there = inverse_root @ (basis * inner) @ basis.T @ inverse_root
    back = root @ (basis / inner) @ basis.T @ root
    return (there + there.T) / 2, (back + back.T) / 2


def basic_interval(corrected: float, replicates: Floats, tail: float) -> tuple[float, float]:
    """Return the basic bootstrap interval of a corrected distance, cut off at 0: cheap, for many dimensions.

    replicates [R]: distances of resamples. What they scatter about their own mean is taken for the scatter of the
    corrected distance about the truth (the bootstrap repeats the bias, so its mean is left out). Near 0 it is too wide.
    """
    low, high = np.quantile(replicates - replicates.mean(), (tail, 1 - tail))
    return max(0.0, float(corrected - high)), max(0.0, float(corrected - low))
