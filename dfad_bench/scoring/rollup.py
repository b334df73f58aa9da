"""From logits over leaf classes to the probability of each value at a coarser level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfad_bench.types import REAL, Leaf


def level_values(classes: Sequence[Leaf], level: str) -> tuple[str, ...]:
    """Return the K values that leaf classes have at a level: ``real`` first, then sorted."""
    return tuple(sorted({leaf.value(level) for leaf in classes}, key=lambda value: (value != REAL, value)))


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the softmax over the classes of logits [N, C] in float64; logits of any finite size do not overflow."""
    shares: NDArray[np.float64] = logits.astype(np.float64)  # a copy, and the only one
    shares -= shares.max(axis=1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def roll_up(probabilities: NDArray[np.float64], classes: Sequence[Leaf], level: str) -> NDArray[np.float64]:
    """Return P(level value) [N, K]: class probabilities [N, C] summed over the leaves of each of ``level_values``."""
    # Sums, not a matrix product: BLAS may round a row differently when other rows stand beside it.
    values = level_values(classes, level)
    if list(values) == [leaf.value(level) for leaf in classes]:
        return probabilities
    rolled = np.zeros((len(probabilities), len(values)))
    for leaf, column in zip(classes, probabilities.T, strict=True):
        rolled[:, values.index(leaf.value(level))] += column
    return rolled
