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
    features = np.hstack([cubic, distances])
    own = moments.columns.shape[1]
    columns = np.hstack([moments.columns, blocks.sums(features - features.mean(axis=0))])
    parts = slice(own, own + cubic.shape[1]), slice(own + cubic.shape[1], None)
    whole = [moments.gaussians(weights) for weights in blocks.whole]
    whole_sums = [weights @ columns for weights in blocks.whole]
    observed = float(between(whole[0], whole[1])[0])
    found: list[Floats] = []
    norms: tuple[list[Floats], list[Floats]] = [], []
    for weights in draws:
        one = weights[0] @ columns
        # What is not dealt to one side is dealt to the other, unless clusters with blocks of two sizes swap them.
        two = whole_sums[0] + whole_sums[1] - one if exchangeable and not blocks.clusters[2] else weights[1] @ columns
        sides = [moments.gaussians(each, sums[:, :own]) for each, sums in zip(weights, (one, two), strict=True)]
        if exchangeable:
            found.append(between(sides[0], sides[1]))
        else:
            found.append(MovedResamples(sides[0], sides[1], whole[0], whole[1], observed).matched())
            # Each side's resampled mean feature, less its own mean feature.
            one, two = (
                np.hstack([sums[:, :own], sums[:, own:] - sums[:, :1] * (all_of[:, own:] / all_of[:, :1])])
                for sums, all_of in ((one, whole_sums[0]), (two, whole_sums[1]))
            )
        for part, norm in zip(parts, norms, strict=True):
            norm.append(squared_norm(one[:, part], one[:, 0], two[:, part], two[:, 0]))
    observed_norms = [
        float(squared_norm(whole_sums[0][:, part], whole_sums[0][:, 0], whole_sums[1][:, part], whole_sums[1][:, 0])[0])
        for part in parts
    ]
    return PValues(
        "permutation" if exchangeable else "matched bootstrap",
        p_value(observed, np.concatenate(found)),
        *(p_value(seen, np.concatenate(norm)) for seen, norm in zip(observed_norms, norms, strict=True)),
    )


def p_value(observed: float, draws: Floats) -> float:
    """Return (k + 1) / (R + 1), k of the R draws being as large as the observed (Phipson & Smyth 2010)."""
    return float((1 + (draws >= observed * (1 - _ROUNDING)).sum()) / (len(draws) + 1))
