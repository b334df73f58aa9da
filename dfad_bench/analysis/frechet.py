"""The Fréchet distance between two Gaussians, from moments that are gathered in one pass.

‖μ₁−μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½ (Dowson & Landau 1982, J. Multivariate Analysis 12:450; Heusel et al. 2017,
arXiv:1706.08500, eq. 6). With Σ₁ = A Aᵀ and Σ₂ = B Bᵀ the last trace is the sum of the singular values of AᵀB, and the sum
of the roots of the eigenvalues of the symmetric AᵀΣ₂A: no root of a matrix, and nothing complex. The unit is the square of
the data's: 1 rad² is 3282.8 deg².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dsygst

from dfad_bench.errors import DataError, shorten

Floats = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_WELL_CONDITIONED = 1e-8
"""Eigenvalues err by eps times the largest, their roots so by eps over the root of this share: 1e-12 at most."""


@dataclass(frozen=True, slots=True)
class GaussianStatistics:
    """What a Gaussian needs to know of N rows of D numbers; two of them merge into that of all rows.

    count: N. mean [D]. scatter [D, D]: Σ (x − mean)(x − mean)ᵀ, symmetric; both float64. Nothing is ever summed but
    deviations from a mean, so that a large mean cancels nothing.
    """

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, dimensions: int) -> GaussianStatistics:
        """Return the statistics of no row of ``dimensions`` numbers."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def of(cls, rows: ArrayLike, what: str = "sample") -> GaussianStatistics:
        """Return the statistics of rows [N, D], any real dtype, N may be 0. ``what`` names them in errors.

        Raises DataError where rows is not of two dimensions, or a number is NaN or infinite.
        """
        return _of(finite_rows(rows, what))

    def add(self, batch: ArrayLike, what: str = "sample") -> GaussianStatistics:
        """Return the statistics with the rows of batch [n, D] too. Errors as ``of``, rows counted from the first batch's."""
        return self.merge(_of(finite_rows(batch, what, self.count)), what)

    def merge(self, other: GaussianStatistics, what: str = "sample") -> GaussianStatistics:
        """Return the statistics of both sets of rows (Chan, Golub & LeVeque 1983, The American Statistician 37:242).

        The order of merging changes rounding only. Raises DataError where D differs.
        """
        if len(self.mean) != len(other.mean):
            raise DataError(f"The {what} has rows of {len(self.mean)} numbers and rows of {len(other.mean)}.")
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        difference = other.mean - self.mean
        return GaussianStatistics(
            count,
            self.mean + difference * (other.count / count),
            self.scatter + other.scatter + np.outer(difference, difference) * (self.count * other.count / count),
        )

    @property
    def covariance(self) -> Floats:
        """The unbiased covariance [D, D], scatter / (N − 1). Raises DataError where N < 2."""
        if self.count < 2:
            raise DataError(f"A covariance needs two rows or more, and there {_are(self.count)}.")
        return self.scatter / (self.count - 1)


def finite_rows(rows: ArrayLike, what: str, first: int = 0) -> Floats:
    """Return rows [N, D] as float64; ``first`` is the number of the first row in errors.

    Raises DataError where rows is not of two dimensions or holds NaN or infinity, naming these rows.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(f"The {what} has shape {list(values.shape)}; it must be [N, D] with D of 1 or more.")
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        named = shorten(str(first + row) for row in broken.tolist())
        raise DataError(f"The {what} is NaN or infinite in {_rows(len(broken))} ({named}); leave these rows out.")
    return values


def frechet_distance(reference: GaussianStatistics, candidate: GaussianStatistics, *, strict: bool = True) -> float:
    """Return the Fréchet distance, >= 0, in the data's unit squared; the same with the two sides exchanged.

    Raises DataError, naming the side, where D differs or N < 2, and with ``strict`` also where N <= D (the covariance
    is singular whatever the distribution) or a column is constant. A sample's distance is biased upwards, see
    ``two_samples``.
    """
    _check(reference, candidate, strict)
    return gaussian_distance(reference.mean, reference.covariance, candidate.mean, candidate.covariance)


def frechet_distance_of_samples(reference: ArrayLike, candidate: ArrayLike, *, strict: bool = False) -> float:
    """Return the Fréchet distance between the Gaussians of two samples [N, D] and [M, D], never forming a covariance.

    The singular values of X Yᵀ, centred, [min(N, D), min(M, D)], are those of Σ₁^½Σ₂^½ but for a factor: cheap where
    N < D, and exact to rounding where a covariance is singular and eigenvalues lose half the digits. Errors as
    ``frechet_distance``; N <= D is accepted unless ``strict``.
    """
    first, second = finite_rows(reference, "reference"), finite_rows(candidate, "candidate")
    one, two = _moments_only(first), _moments_only(second)
    _check(one, two, strict)
    factors = [_factor_of_rows(rows - side.mean) for rows, side in ((first, one), (second, two))]
    cross = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    traces = float(sum((factor * factor).sum() for factor in factors))
    return _joined(one.mean - two.mean, traces, float(cross))


def gaussian_distance(mean_a: Floats, covariance_a: Floats, mean_b: Floats, covariance_b: Floats) -> float:
    """Return the Fréchet distance between two Gaussians given by mean [D] and covariance [D, D], singular or not.

    The covariances must be symmetric and, but for rounding, have no negative eigenvalue.
    """
    traces = float(np.trace(covariance_a) + np.trace(covariance_b))
    return _joined(mean_a - mean_b, traces, _trace_of_root(covariance_a, covariance_b))


def frechet_distances(means_a: Floats, covariances_a: Floats, means_b: Floats, covariances_b: Floats) -> Floats:
    """Return the Fréchet distances [R], >= 0, of R pairs of Gaussians: means [R, D], covariances [R, D, D].

    For D = 1 and 2 in closed form: the roots of the two eigenvalues of Σ₁Σ₂ sum to
    (tr Σ₁Σ₂ + 2 (det Σ₁ det Σ₂)^½)^½. Any other D by batches of decompositions. A leading axis of 1 stands for all R.
    Where a covariance is singular, the absolute error reaches 1e-8 of the traces for D = 2.
    """
    difference = means_a - means_b
    traces = np.trace(covariances_a, axis1=-2, axis2=-1) + np.trace(covariances_b, axis1=-2, axis2=-1)
    dimensions = means_a.shape[-1]
    if dimensions == 1:
        cross = np.sqrt(np.maximum(covariances_a[..., 0, 0] * covariances_b[..., 0, 0], 0.0))
    elif dimensions == 2:
        product = np.einsum("...ij,...ij->...", covariances_a, covariances_b)
        both = np.maximum(_determinant(covariances_a), 0.0) * np.maximum(_determinant(covariances_b), 0.0)
        cross = np.sqrt(np.maximum(product, 0.0) + 2 * np.sqrt(both))
    else:
        one, two = _factor(covariances_a), _factor(covariances_b)
        cross = np.linalg.svd(np.swapaxes(one, -1, -2) @ two, compute_uv=False).sum(axis=-1)
    distances: Floats = np.maximum((difference * difference).sum(axis=-1) + traces - 2 * cross, 0.0)
    return distances


def _of(values: Floats) -> GaussianStatistics:
    if not len(values):
        return GaussianStatistics.empty(values.shape[1])
    moments = _moments_only(values)
    centred = values - moments.mean
    return GaussianStatistics(len(values), moments.mean, centred.T @ centred)


def _moments_only(values: Floats) -> GaussianStatistics:
    """Return count, mean, and of the scatter the diagonal only."""
    if not len(values):
        return GaussianStatistics.empty(values.shape[1])
    # The mean of deviations from one row, and then from the mean so found: a large offset costs no digits.
    mean = values[0] + (values - values[0]).mean(axis=0)
    mean = mean + (values - mean).mean(axis=0)
    return GaussianStatistics(len(values), mean, np.diag(((values - mean) ** 2).sum(axis=0)))


def _check(reference: GaussianStatistics, candidate: GaussianStatistics, strict: bool) -> None:
    """Raise DataError where one side cannot have a distance."""
    dimensions = len(reference.mean)
    if dimensions != len(candidate.mean):
        raise DataError(f"The reference has rows of {dimensions} numbers, the candidate of {len(candidate.mean)}.")
    for what, side in (("reference", reference), ("candidate", candidate)):
        if side.count < 2:
            raise DataError(f"The {what} needs two rows or more for a spread, and there {_are(side.count)}.")
        if not strict:
            continue
        if side.count <= dimensions:
            raise DataError(
                f"The {what} has {side.count} rows of {dimensions} numbers; their covariance needs more rows than numbers."
            )
        spread = np.sqrt(np.diag(side.scatter) / side.count)
        constant = np.flatnonzero(spread <= 4 * _EPS * np.abs(side.mean))
        if len(constant):
            named = shorten(str(column) for column in constant.tolist())
            raise DataError(f"The {what} is constant in column {named}; nothing can be said about its spread.")


def _trace_of_root(first: Floats, second: Floats) -> float:
    """Return tr (Σ₁Σ₂)^½ of two covariances [D, D]."""
    try:
        lower = np.linalg.cholesky(first)
    except np.linalg.LinAlgError:
        lower = None
    if lower is not None:
        # LAPACK forms LᵀΣ₂L from triangles, in half the time of two products; only its lower triangle is filled.
        symmetric, _ = dsygst(second, lower, itype=2, lower=1)
        eigenvalues = np.linalg.eigvalsh(symmetric, UPLO="L")
        if eigenvalues[0] > _WELL_CONDITIONED * eigenvalues[-1]:
            return float(np.sqrt(eigenvalues).sum())
    # Twice as slow, but the roots are taken of the factors' eigenvalues, and the singular values keep all digits.
    return float(np.linalg.svd(_factor(first).T @ _factor(second), compute_uv=False).sum())


def _factor(covariance: Floats) -> Floats:
    """Return A [..., D, D] with A Aᵀ the covariance [..., D, D]; eigenvalues that are rounding count as 0."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    noise = 8 * _EPS * np.abs(eigenvalues).max(axis=-1, keepdims=True)
    roots = np.sqrt(np.where(eigenvalues > noise, eigenvalues, 0.0))
    factor: Floats = vectors * roots[..., None, :]
    return factor


def _factor_of_rows(centred: Floats) -> Floats:
    """Return F [min(N, D), D] with FᵀF the unbiased covariance of centred rows [N, D]."""
    count, dimensions = centred.shape
    short = np.linalg.qr(centred, mode="r") if count > dimensions else centred
    factor: Floats = short / np.sqrt(count - 1)
    return factor


def _determinant(covariances: Floats) -> Any:
    return covariances[..., 0, 0] * covariances[..., 1, 1] - covariances[..., 0, 1] * covariances[..., 1, 0]


def _joined(difference: Floats, traces: float, cross: float) -> float:
    return max(0.0, float(difference @ difference) + traces - 2 * cross)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _are(count: int) -> str:
    return "is 1" if count == 1 else "are none"
