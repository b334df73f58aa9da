"""Tests of whether two samples have one distribution: Fréchet distance, KID and energy distance from the same draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfad_bench.analysis.blocks import Floats
from dfad_bench.analysis.frechet_interval import MovedResamples
from dfad_bench.analysis.kernels import features_for_tests, squared_norm
from dfad_bench.analysis.moments import Moments, between

Method = Literal["permutation", "matched bootstrap"]
_ROUNDING = 1e-9
"""Statistics that differ by less than this share of themselves are the same."""


@dataclass(frozen=True, slots=True)
class PValues:
    """p-values (k + 1) / (R + 1) by Fréchet distance, KID and energy distance, and how the R draws were made."""

    method: Method
    frechet: float
    kid: float
    energy: float


def run_tests(moments: Moments, white: Floats, resamples: int, seed: int) -> PValues:
    """Test whether both sides have one distribution. white [N + M, D]: the rows whitened, in the blocks' order.

    By ``Blocks.exchanged`` where clusters are ``exchangeable``. Otherwise clusters are resampled, all sides of one together,
    after both sides were given the same mean and covariance (for the Fréchet distance), or the same mean feature.
    KID and energy distance are tested by their biased forms, which order the draws alike.
    """
    blocks = moments.blocks
    exchangeable = blocks.exchangeable()
    draws = blocks.exchanged(resamples, seed) if exchangeable else blocks.resampled(resamples, seed)
    cubic, distances = features_for_tests(moments.values, white)
    cut = cubic.shape[1]
    features = np.hstack([cubic, distances])
    sums = blocks.sums(features - features.mean(axis=0))
    whole = [moments.gaussians(weights) for weights in blocks.whole]
    observed_sums = [weights @ sums for weights in blocks.whole]
    observed = float(between(whole[0], whole[1])[0])
    found, kid, energy = [], [], []
    for weights in draws:
        sides = [moments.gaussians(side) for side in weights]
        totals = [side @ sums for side in weights]
        if exchangeable:
            found.append(between(sides[0], sides[1]))
        else:
            found.append(MovedResamples(sides[0], sides[1], whole[0], whole[1], observed).matched())
            # Each side's resampled mean feature, less its own mean feature.
            totals = [
                total - mine.count[:, None] / own.count * own_total
                for total, mine, own, own_total in zip(totals, sides, whole, observed_sums, strict=True)
            ]
        kid.append(squared_norm(totals[0][:, :cut], sides[0].count, totals[1][:, :cut], sides[1].count))
        energy.append(squared_norm(totals[0][:, cut:], sides[0].count, totals[1][:, cut:], sides[1].count))
    own_kid, own_energy = (
        squared_norm(observed_sums[0][:, part], whole[0].count, observed_sums[1][:, part], whole[1].count)
        for part in (slice(None, cut), slice(cut, None))
    )
    return PValues(
        "permutation" if exchangeable else "matched bootstrap",
        p_value(observed, np.concatenate(found)),
        p_value(float(own_kid[0]), np.concatenate(kid)),
        p_value(float(own_energy[0]), np.concatenate(energy)),
    )


def p_value(observed: float, draws: Floats) -> float:
    """Return (k + 1) / (R + 1), k of the R draws being as large as the observed (Phipson & Smyth 2010)."""
    return float((1 + (draws >= observed * (1 - _ROUNDING)).sum()) / (len(draws) + 1))
