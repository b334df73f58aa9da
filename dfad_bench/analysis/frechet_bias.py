"""By how much a finite sample overstates the Fréchet distance: three estimates of it.

The distance is a smooth function of means and covariances, convex near its least value, so noise in them adds to it: by
about c / N. Which estimate is the default, and why, is measured in ``benchmarks/gaze_fid_calibration.py``.
"""

from __future__ import annotations

import numpy as np

from dfad_bench.analysis.blocks import Floats, Ints, Weights
from dfad_bench.analysis.moments import SMALL, Moments

SIZES, DRAWS = 12, 25
"""FID-infinity fits distances of so many sizes of subsets, each drawn so often."""
SMALLEST = 0.25
"""The smallest subset holds this share of the clusters."""


def normal_bias(covariance_a: Floats, effective_a: float, covariance_b: Floats, effective_b: float) -> float:
    """Return the leading bias of the distance between samples of two normal distributions, unit squared.

    covariances [D, D]; effective: how many independent rows each side is worth, > 1. With n, m these sizes and s_i the D
    singular values of Σ₁^½Σ₂^½,

        tr Σ₁ / n + tr Σ₂ / m + (1/(n − 1) + 1/(m − 1)) (½ Σ s_i + Σ_{i<j} s_i s_j / (s_i + s_j)).

    Derived here. The means' part is E‖m₁ − m₂‖² − ‖μ₁ − μ₂‖². For the rest let M = Σ₂^½Σ₁Σ₂^½ with eigenvalues s_i².
    The second-order term of tr (M + E)^½ is −¼ Σ_ij E_ij² / (s_i s_j (s_i + s_j)) in M's eigenbasis (the divided
    differences of ½ x^−½, half of them), and Wishart noise has E[E_ij²] = s_i² s_j² (1 + δ_ij) / (n − 1). Minus twice
    that is the part of side one; side two is the same by symmetry. Covariances are unbiased, so first-order terms
    vanish. With Σ₁ = Σ₂ of variances λ_i the whole is (1/n + 1/m) (3/2 Σ λ_i + Σ_{i<j} λ_i λ_j / (λ_i + λ_j)): D = 1
    3/2 λ, D = 2 3/2 (λ₁ + λ₂) + λ₁λ₂/(λ₁ + λ₂), D = 3 the three pairs.
    """
    values, vectors = np.linalg.eigh(covariance_b)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_a @ root), 0.0))
    total = s[:, None] + s[None, :]
    pairs = np.divide(np.outer(s, s), total, out=np.zeros_like(total), where=total > 0)
    spread = s.sum() / 2 + np.triu(pairs, 1).sum()
    means = np.trace(covariance_a) / effective_a + np.trace(covariance_b) / effective_b
    return float(means + spread * (1 / (effective_a - 1) + 1 / (effective_b - 1)))


def effective_sizes(moments: Moments) -> tuple[float, float]:
    """Return how many independent rows each side is worth to its mean: tr Σ over the trace of the mean's variance.

    The variance is that between clusters (Kish 1965's design effect), with n / (n − 1) for n clusters; never more than
    the rows there are, and at least 2.
    """
    found = []
    for side, weights in zip((False, True), moments.blocks.whole, strict=True):
        gaussian = moments.gaussians(weights)
        here = np.flatnonzero(moments.blocks.is_candidate == side)
        member = moments.blocks.is_candidate[moments.blocks.block] == side
        sums = moments.blocks.sums(moments.values)[here]
        influence = sums - moments.blocks.count[here, None] * gaussian.mean[0]
        count = float(member.sum())
        variance = (influence**2).sum() / count**2 * len(here) / max(1, len(here) - 1)
        spread = float(np.trace(gaussian.covariance[0]))
        found.append(min(count, max(2.0, spread / variance if variance > 0 else count)))
    return found[0], found[1]


def clustered_normal_bias(moments: Moments) -> float:
    """Return ``normal_bias`` at the ``effective_sizes``; what clusters on both sides share is not allowed for."""
    one, two = effective_sizes(moments)
    reference, candidate = (moments.gaussians(weights) for weights in moments.blocks.whole)
    return normal_bias(reference.covariance[0], one, candidate.covariance[0], two)


def jackknife(moments: Moments, groups: int = 200) -> tuple[Floats, Ints]:
    """Return the distance without each cluster [J], or each group of clusters where D > SMALL, and its kind [J]."""
    if moments.values.shape[1] <= SMALL:
        return moments.without_each(), moments.blocks.kind
    draws, kind = moments.blocks.left_out(groups)
    return moments.distances(draws), kind


def jackknife_bias(distance: float, left_out: Floats, kind: Ints) -> float:
    """Return the bias by the jackknife over whole clusters, kind by kind (Jones 1974, J. R. Statist. Soc. B 36:175).

    Σ over kinds of (n − 1) (mean of the n distances without one cluster − distance). It assumes no distribution, and
    knows what clusters share, also across the sides. A kind of a single cluster adds nothing; NaN are dropped.
    """
    bias = 0.0
    for each in np.unique(kind):
        found = left_out[kind == each]
        found = found[~np.isnan(found)]
        if len(found) > 1:
            bias += (len(found) - 1) * float((found - distance).mean())
    return bias


def extrapolated(moments: Moments, seed: int = 0) -> float:
    """Return the distance at infinitely many rows, by a line in 1/N through those of subsets.

    As FID-infinity (Chong & Forsyth 2020, arXiv:1911.07023, sec. 3), but of whole clusters, each kind by the same
    share, at sizes evenly spaced in 1/N. May be negative.
    """
    kind = moments.blocks.kind
    share = 1 / np.linspace(1.0, 1 / SMALLEST, SIZES)
    inverse, found = [], []
    for number, each in enumerate(share):
        weights, used = _subsets(moments, kind, each, seed + 7919 * number, 1 if each == 1 else DRAWS)
        found.append(float(moments.distances([weights]).mean()))
        inverse.append(used)
    return float(np.polyfit(inverse, found, 1)[1])


def _subsets(moments: Moments, kind: Ints, share: float, seed: int, draws: int) -> tuple[Weights, float]:
    """Return weights of random subsets, and by what factor their 1/N exceeds that of all."""
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = np.zeros((draws, len(kind)))
    for each in np.unique(kind):
        members = np.flatnonzero(kind == each)
        size = max(1, round(share * len(members)))
        for row in chosen:
            row[rng.permutation(members)[:size]] = 1.0
    weights = chosen[:, moments.blocks.cluster]
    sides = tuple(np.where(moments.blocks.is_candidate == side, weights, 0.0) for side in (False, True))
    whole = [float(moments.blocks.count[moments.blocks.is_candidate == side].sum()) for side in (False, True)]
    used = [float((side @ moments.blocks.count).mean()) for side in sides]
    return (sides[0], sides[1]), sum(1 / n for n in used) / sum(1 / n for n in whole)
