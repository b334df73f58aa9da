"""Faces sorted once by score, and the curve that every ranking metric reads, for the faces as they are or re-weighted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """N faces in descending order of score, equal scores together.

    order [N]: their rows, None where they came in this order; end [K]: the position of the last face of each of the K
    distinct scores, None where no two faces tie; threshold [K + 1]: +inf, at which no face is called positive, then the
    distinct scores.
    """

    order: NDArray[np.intp] | None
    end: NDArray[np.intp] | None
    threshold: NDArray[np.float64]

    @classmethod
    def of(cls, score: NDArray[np.float64]) -> Ranking:
        """Sort scores [N]; those that come sorted already are not sorted again."""
        order = None
        if not (score[1:] <= score[:-1]).all():
            order = np.argsort(-score)
            score = score[order]
        last = np.append(score[1:] != score[:-1], True) if len(score) else np.empty(0, bool)
        end = None if last.all() else np.flatnonzero(last)
        distinct = score if end is None else score[end]
        return cls(order, end, np.concatenate([[np.inf], distinct]))

    def in_order(self, column: NDArray[Any]) -> NDArray[Any]:
        """Return a column [N] of the faces in their order here."""
        return column if self.order is None else column[self.order]

    def counted(self, counting: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return [..., K + 1]: the sum of [..., N] numbers, in order, over the faces that score at least each threshold."""
        counts = np.zeros((*counting.shape[:-1], len(self.threshold)), np.int32)
        if self.end is None:
            np.cumsum(counting, axis=-1, dtype=np.int32, out=counts[..., 1:])
        else:
            # np.take, since indexing the last of several axes takes seven times as long
            np.take(np.cumsum(counting, axis=-1, dtype=np.int32), self.end, axis=-1, out=counts[..., 1:])
        return counts


@dataclass(frozen=True, eq=False)
class Curve:
    """What is called fake at each of K + 1 thresholds, from none to all.

    false_positives, true_positives [..., K + 1]: reals and fakes whose score is at least ``threshold`` [K + 1]. Leading
    axes are resamples. Rates are NaN in a resample that has no real, or no fake.
    """

    threshold: NDArray[np.float64]
    false_positives: NDArray[np.int32]
    true_positives: NDArray[np.int32]

    @property
    def reals(self) -> NDArray[np.int32]:
        """The number of reals, [...]."""
        return self.false_positives[..., -1]

    @property
    def fakes(self) -> NDArray[np.int32]:
        """The number of fakes, [...]."""
        return self.true_positives[..., -1]

    @cached_property
    def fpr(self) -> NDArray[np.float64]:
        """The false positive rate [..., K + 1], rising from 0 to 1."""
        return divided(self.false_positives, self.reals[..., None])

    @cached_property
    def tpr(self) -> NDArray[np.float64]:
        """The true positive rate [..., K + 1], rising from 0 to 1."""
        return divided(self.true_positives, self.fakes[..., None])

    def tpr_at(self, fpr: float) -> NDArray[np.float64]:
        """Return [...] the highest true positive rate at a false positive rate of at most ``fpr``, without interpolation.

        Between two points of the curve no threshold exists, so no rate between them can be had.
        """
        last = (self.fpr <= fpr).sum(axis=-1, keepdims=True) - 1
        return self.defined(picked(self.tpr, last))

    def defined(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values [...], NaN in a resample that has no real or no fake."""
        return np.where((self.reals > 0) & (self.fakes > 0), values, np.nan)


def divided(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the quotient of sums over faces in float64, NaN over no face (where the numerator is 0 too)."""
    with np.errstate(invalid="ignore"):
        quotient: NDArray[np.float64] = np.true_divide(numerator, denominator, dtype=np.float64)
    return quotient


def picked(values: NDArray[np.float64], index: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return [...] the values [..., K] at an index [..., 1] of the last axis."""
    chosen: NDArray[np.float64] = np.take_along_axis(values, index, axis=-1)[..., 0]
    return chosen
