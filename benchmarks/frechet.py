"""The Fréchet distance up to 2048 dimensions, against SciPy's square root of the product of covariances in the same run."""

from __future__ import annotations

import statistics

import numpy as np
from measure import record, timed
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from dfad_bench.analysis.frechet import GaussianStatistics, frechet_distance

ROWS = 5000
RUNS = 3


def by_square_root(one: GaussianStatistics, other: GaussianStatistics) -> float:
    """Return the distance as FID tools compute it."""
    shift: NDArray[np.float64] = one.mean - other.mean
    root = np.real(sqrtm(one.covariance @ other.covariance))
    return float(shift @ shift + np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.trace(root))


def main() -> None:
    """Measure and record; the two take turns, and the median of each is kept."""
    rng = np.random.default_rng(0)
    rows = []
    for dimensions in (64, 512, 2048):
        mixing = np.eye(dimensions) + 0.3 * rng.normal(size=(2, dimensions, dimensions)) / np.sqrt(dimensions)
        sides = [GaussianStatistics.of(rng.normal(size=(ROWS, dimensions)) @ each) for each in mixing]
        value = frechet_distance(*sides)
        ours, theirs = [], []
        for _ in range(RUNS):
            ours.append(timed(frechet_distance, *sides)[0])
            seconds, expected = timed(by_square_root, *sides)
            theirs.append(seconds)
        rows.append(
            {
                "dimensions": dimensions,
                "seconds": statistics.median(ours),
                "sqrtm_seconds": statistics.median(theirs),
                "speed": statistics.median(theirs) / statistics.median(ours),
                "relative_difference": abs(value - expected) / expected,
            }
        )
    record("frechet", rows)


if __name__ == "__main__":
    main()
