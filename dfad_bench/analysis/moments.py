"""Means and covariances of many weightings of two samples at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfad_bench.analysis.blocks import Blocks, Floats, Weights
from dfad_bench.analysis.frechet import frechet_distances, gaussian_distance

SMALL = 8
"""Up to so many dimensions sums of products are kept for each block; above, rows are weighted anew for each resample."""


@dataclass(frozen=True, slots=True)
class Gaussians:
    """R Gaussians: weight [R] (sums of weights), mean [R, D], covariance [R, D, D] with divisor weight − 1."""

    weight: Floats
    mean: Floats
    covariance: Floats

    @classmethod
    def joined(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """Return the Gaussians of all parts, one after another."""
        return cls(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.mean for part in parts]),
            np.concatenate([part.covariance for part in parts]),
        )

    def only(self, rows: NDArray[np.bool_]) -> Gaussians:
        """Return those that ``rows`` [R] marks."""
        return Gaussians(self.weight[rows], self.mean[rows], self.covariance[rows])


@dataclass(frozen=True, slots=True)
class Moments:
    """The rows of two samples, ready to be weighted block by block.

    blocks: of the rows. values [N + M, D]: the rows in the blocks' order, less ``shift`` [D], their common mean. sums
    [U, D + D(D + 1)/2]: of the values and their products over each block, None where D > SMALL.
    """

    blocks: Blocks
    values: Floats
    shift: Floats
    sums: Floats | None

    @classmethod
    def of(cls, blocks: Blocks, reference: Floats, candidate: Floats) -> Moments:
        """Gather rows [N, D] and [M, D]."""
        values = np.concatenate([reference, candidate])[blocks.rows]
        shift = values.mean(axis=0)
        values = values - shift
        dimensions = values.shape[1]
        if dimensions > SMALL:
            return cls(blocks, values, shift, None)
        left, right = np.triu_indices(dimensions)
        return cls(blocks, values, shift, blocks.sums(np.hstack([values, values[:, left] * values[:, right]])))

    @property
    def columns(self) -> Floats:
        """Count and sums of each block [U, 1 + D + D(D + 1)/2], or [U, 1] where D > SMALL."""
        count = self.blocks.count[:, None]
        return count if self.sums is None else np.hstack([count, self.sums])

    def gaussians(self, weights: Floats, sums: Floats | None = None) -> Gaussians:
        """Return the Gaussians that the weights [R, U] make of the rows; mean without ``shift``.

        sums [R, 1 + D + D(D + 1)/2]: those of ``columns`` under the weights, where they are known; D <= SMALL.
        """
        dimensions = self.values.shape[1]
        if self.sums is not None:
            sums = weights @ self.columns if sums is None else sums
            return gaussians_of_sums(sums[:, 0], sums[:, 1:], dimensions)
        total = weights @ self.blocks.count
        mean = np.empty((len(weights), dimensions))
        covariance = np.empty((len(weights), dimensions, dimensions))
        for row, each in enumerate(weights):
            weight = each[self.blocks.block]
            held = np.flatnonzero(weight)
            rows = self.values[held]
            weighted = rows * weight[held, None]
            mean[row] = weighted.sum(axis=0) / total[row]
            covariance[row] = weighted.T @ rows / total[row] - np.outer(mean[row], mean[row])
            covariance[row] *= total[row] / (total[row] - 1)
        return Gaussians(total, mean, covariance)

    def distances(self, draws: Iterable[Weights]) -> Floats:
        """Return the Fréchet distance [R] of each weighting."""
        found = [between(self.gaussians(reference), self.gaussians(candidate)) for reference, candidate in draws]
        return np.concatenate(found)

    def without_each(self) -> Floats:
        """Return the Fréchet distance [C] without each cluster in turn; D <= SMALL.

        NaN where nothing, or a single row, is left of a side.
        """
        columns = self.columns
        sides = []
        for side in (False, True):
            here = self.blocks.is_candidate == side
            left = np.repeat(columns[here].sum(axis=0)[None], len(self.blocks.kind), axis=0)
            left[self.blocks.cluster[here]] -= columns[here]
            sides.append(left)
        enough = np.minimum(sides[0][:, 0], sides[1][:, 0]) > 1.5
        found = np.full(len(enough), np.nan)
        dimensions = self.values.shape[1]
        found[enough] = between(*(gaussians_of_sums(s[enough, 0], s[enough, 1:], dimensions) for s in sides))
        return found


def gaussians_of_sums(count: Floats, sums: Floats, dimensions: int) -> Gaussians:
    """Return Gaussians from counts [R] and sums [R, D + D(D + 1)/2] of values and of their products, i <= j."""
    sums = sums / count[:, None]
    mean = sums[:, :dimensions]
    covariance = np.empty((len(count), dimensions, dimensions))
    left, right = np.triu_indices(dimensions)
    product = sums[:, dimensions:] - mean[:, left] * mean[:, right]
    covariance[:, left, right] = covariance[:, right, left] = product * (count / (count - 1))[:, None]
    return Gaussians(count, mean, covariance)


def between(reference: Gaussians, candidate: Gaussians) -> Floats:
    """Return the Fréchet distances [R] of R pairs of Gaussians."""
    if reference.mean.shape[1] <= SMALL:
        return frechet_distances(reference.mean, reference.covariance, candidate.mean, candidate.covariance)
    pairs = zip(reference.mean, reference.covariance, candidate.mean, candidate.covariance, strict=True)
    return np.asarray([gaussian_distance(*pair) for pair in pairs])
