"""A roll-up is a probability, is the sum of its leaves, and does not depend on what else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax as reference

from dfad_bench.scoring.rollup import level_values, roll_up, softmax
from dfad_bench.types import LEVELS, Leaf
from tests.scoring.builders import CLASSES

LOGITS = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(len(CLASSES))), elements=st.floats(-1e4, 1e4))


def test_values_come_real_first_then_sorted() -> None:
    assert level_values(CLASSES, "family") == ("real", "diffusion", "gan")
    assert level_values(CLASSES[::-1], "generator") == ("real", "ddpm", "simswap", "stylegan3")
    assert level_values(CLASSES, "authenticity") == ("real", "fake")


@given(LOGITS)
def test_softmax_agrees_with_scipy_and_never_overflows(logits: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(softmax(logits), reference(logits, axis=1), atol=1e-15)


def test_softmax_of_huge_logits_is_finite() -> None:
    assert softmax(np.asarray([[3e38, -3e38, 0.0]])).tolist() == [[1.0, 0.0, 0.0]]


@given(LOGITS)
@pytest.mark.parametrize("level", LEVELS)
def test_probabilities_sum_to_one_at_every_level(level: str, logits: NDArray[np.float64]) -> None:
    rolled = roll_up(softmax(logits), CLASSES, level)
    assert rolled.shape == (len(logits), len(level_values(CLASSES, level)))
    np.testing.assert_allclose(rolled.sum(axis=1), 1, atol=1e-12)


@given(LOGITS, st.permutations(CLASSES))
@pytest.mark.parametrize("level", LEVELS)
def test_the_order_of_the_classes_changes_no_more_than_the_last_bit(
    level: str, logits: NDArray[np.float64], classes: list[Leaf]
) -> None:
    moved = softmax(logits)[:, [CLASSES.index(leaf) for leaf in classes]]
    np.testing.assert_allclose(
        roll_up(moved, classes, level), roll_up(softmax(logits), CLASSES, level), rtol=0, atol=1e-15
    )


def test_a_value_is_the_sum_of_its_leaves() -> None:
    shares = np.asarray([[0.1, 0.2, 0.3, 0.4]])  # real, ddpm, simswap, stylegan3
    np.testing.assert_allclose(roll_up(shares, CLASSES, "family"), [[0.1, 0.2, 0.7]])
    np.testing.assert_allclose(roll_up(shares, CLASSES, "forgery_type"), [[0.1, 0.6, 0.3]])
    np.testing.assert_allclose(roll_up(shares, CLASSES, "authenticity"), [[0.1, 0.9]])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    classes = (*CLASSES, *(Leaf(f"g{i}", "gan", "efs") for i in range(20)))
    logits = np.random.default_rng(0).normal(size=(257, len(classes)))
    together = roll_up(softmax(logits), classes, "family")
    alone = np.concatenate([roll_up(softmax(logits[i : i + 1]), classes, "family") for i in range(257)])
    assert np.array_equal(together, alone)
