"""The Fréchet distance agrees with matrix square roots and closed forms, and refuses what has no distance."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning, sqrtm

from dfad_bench.analysis.frechet import (
    GaussianStatistics,
    frechet_distance,
    frechet_distance_of_samples,
    frechet_distances,
)
from dfad_bench.errors import DataError
from dfad_bench.modelling.torchvision_ops import declare_missing_operators

Floats = NDArray[np.float64]
Tool = Callable[[GaussianStatistics, GaussianStatistics], float]


def by_square_root(one: Floats, other: Floats) -> float:
    """The textbook formula, with SciPy's root of the product."""
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.real(sqrtm(first @ second))
    shift = one.mean(axis=0) - other.mean(axis=0)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(root))


def samples(dimensions: int, rows: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(2, dimensions, dimensions))
    return rng.normal(size=(rows, dimensions)) @ mixing[0], rng.normal(size=(rows, dimensions)) @ mixing[1] + 0.3


def distance(one: Floats, other: Floats, strict: bool = True) -> float:
    return frechet_distance(GaussianStatistics.of(one), GaussianStatistics.of(other), strict=strict)


@pytest.mark.parametrize("dimensions", [2, 3, 16, 128, 512])
def test_it_agrees_with_the_root_of_the_product(dimensions: int) -> None:
    one, other = samples(dimensions, 4 * dimensions + 20, dimensions)
    assert distance(one, other) == pytest.approx(by_square_root(one, other), rel=1e-8)
    assert frechet_distance_of_samples(one, other) == pytest.approx(distance(one, other), rel=1e-8)


@pytest.mark.slow
def test_by_covariances_and_by_rows_it_is_the_same_at_1024_dimensions() -> None:
    one, other = samples(1024, 1300, 0)  # 2048 against SciPy: benchmarks/frechet.py
    assert distance(one, other) == pytest.approx(frechet_distance_of_samples(one, other), rel=1e-8)


def test_one_dimension_is_the_difference_of_means_and_deviations() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(2, 3, (50, 1)), rng.normal(-1, 5, (60, 1))
    expected = (one.mean() - other.mean()) ** 2 + (one.std(ddof=1) - other.std(ddof=1)) ** 2
    assert distance(one, other) == pytest.approx(expected, rel=1e-10)


def test_covariances_that_commute_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    first, second = rng.uniform(0.1, 5, 6), rng.uniform(0.1, 5, 6)
    sides = [GaussianStatistics(100, np.zeros(6), 99 * turn @ np.diag(values) @ turn.T) for values in (first, second)]
    assert frechet_distance(*sides) == pytest.approx(((np.sqrt(first) - np.sqrt(second)) ** 2).sum(), rel=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_singular_and_nearly_singular_covariances_are_no_obstacle(rank: int) -> None:
    rng = np.random.default_rng(rank)
    one = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, 8))
    other = one + 1e-9 * rng.normal(size=one.shape) + 0.5
    assert distance(one, other, strict=False) == pytest.approx(8 * 0.25, rel=1e-6)
    assert distance(one, one, strict=False) == pytest.approx(0, abs=1e-10)


# --- the tools of the field ---------------------------------------------------------------------------------------


def by_pytorch_fid(one: GaussianStatistics, other: GaussianStatistics) -> float:
    fid = tool("pytorch_fid.fid_score")
    if "disp" not in inspect.signature(sqrtm).parameters:
        pytest.skip("pytorch-fid calls sqrtm(disp=False), which this SciPy no longer has")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `disp` argument is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "Matrix is singular", LinAlgWarning)
        return float(fid.calculate_frechet_distance(one.mean, one.covariance, other.mean, other.covariance))


def by_torch_fidelity(one: GaussianStatistics, other: GaussianStatistics) -> float:
    fid = tool("torch_fidelity.metric_fid")
    sides = [{"mu": each.mean, "sigma": each.covariance} for each in (one, other)]
    return float(fid.fid_statistics_to_metric(*sides, verbose=False)[fid.KEY_METRIC_FID])


def tool(module: str) -> Any:
    declare_missing_operators()  # both import torchvision
    return pytest.importorskip(module, reason="not installed: pip install 'dfad-bench[fid]'")


tools = pytest.mark.parametrize("theirs", [by_pytorch_fid, by_torch_fidelity])


@tools
@pytest.mark.parametrize("dimensions", [2, 64, 512])
@pytest.mark.parametrize("condition", [1e2, 1e8])
def test_it_agrees_with_the_tools_of_the_field(theirs: Tool, dimensions: int, condition: float) -> None:
    rng = np.random.default_rng(dimensions)
    spread = np.geomspace(1, condition**-0.5, dimensions)
    turns = [np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0] for _ in range(2)]
    rows = [rng.normal(size=(4 * dimensions + 20, dimensions)) * spread @ turn for turn in turns]
    sides = GaussianStatistics.of(rows[0]), GaussianStatistics.of(rows[1] + 0.3)
    assert frechet_distance(*sides) == pytest.approx(theirs(*sides), rel=1e-8)


@tools
@pytest.mark.parametrize("dimensions", [2, 64, 512])
@pytest.mark.parametrize("smallest", [1e-14, 0.0])
def test_where_a_covariance_is_nearly_singular_it_has_the_digits_that_the_tools_lose(
    theirs: Tool, dimensions: int, smallest: float
) -> None:
    rng = np.random.default_rng(dimensions)
    turn = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    flat = np.arange(dimensions) >= dimensions // 2
    first, second = (np.where(flat, smallest, rng.uniform(0.1, 5, dimensions)) for _ in range(2))
    truth = ((np.sqrt(first) - np.sqrt(second)) ** 2).sum() + 0.09 * dimensions  # the covariances commute
    sides = [
        GaussianStatistics(10 * dimensions, np.full(dimensions, mean), (10 * dimensions - 1) * (turn * values) @ turn.T)
        for mean, values in ((0.0, first), (0.3, second))
    ]
    assert frechet_distance(*sides, strict=False) == pytest.approx(truth, rel=1e-10)
    # They take roots of eigenvalues of the product, off by 2e-16 of the largest, so the roots by 1e-8 of its root:
    # measured 8e-8 of the distance at most.
    assert theirs(*sides) == pytest.approx(truth, rel=1e-6)


# --- invariances --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_it_is_symmetric_never_negative_and_scales_with_the_square_of_the_unit(seed: int, scale: float) -> None:
    one, other = samples(2, 30, seed)
    found = distance(one, other)
    assert found >= 0
    assert distance(other, one) == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert distance(scale * one, scale * other) == pytest.approx(scale**2 * found, rel=1e-9, abs=1e-12)


def test_degrees_give_3283_times_radians_and_swapping_pitch_and_yaw_on_one_side_wrecks_it() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(500, 2)) * (0.1, 0.3), rng.normal(size=(500, 2)) * (0.1, 0.3)
    assert distance(np.degrees(one), np.degrees(other)) == pytest.approx(3282.806 * distance(one, other), rel=1e-6)
    assert distance(one, other[:, ::-1]) > 10 * distance(one, other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 40), max_size=4))
def test_statistics_gathered_in_batches_are_those_of_all_rows(seed: int, cuts: list[int]) -> None:
    rows = np.random.default_rng(seed).normal(1e6, 1, (40, 3))
    whole = GaussianStatistics.of(rows)
    gathered = GaussianStatistics.empty(3)
    for batch in np.split(rows, sorted(cuts)):
        gathered = gathered.add(batch)
    assert gathered.count == 40
    np.testing.assert_allclose(gathered.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(gathered.covariance, np.cov(rows, rowvar=False), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_many_at_once_are_the_same_as_one_by_one(dimensions: int) -> None:
    pairs = [samples(dimensions, 40, seed) for seed in range(6)]
    sides = [
        (
            np.stack([pair[side].mean(axis=0) for pair in pairs]),
            np.stack([np.cov(pair[side], rowvar=False).reshape(dimensions, dimensions) for pair in pairs]),
        )
        for side in (0, 1)
    ]
    found = frechet_distances(*sides[0], *sides[1])
    np.testing.assert_allclose(found, [distance(*pair) for pair in pairs], rtol=1e-8)


# --- what it refuses ----------------------------------------------------------------------------------------------


def test_nan_is_named_by_its_row() -> None:
    rows = np.zeros((5, 2))
    rows[3, 1] = np.nan
    with pytest.raises(DataError, match=r"NaN or infinite.*3"):
        GaussianStatistics.of(rows)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_rows_are_an_error_and_no_nan(rows: int) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError):
        distance(rng.normal(size=(rows, 2)), rng.normal(size=(30, 2)))


def test_a_constant_column_and_another_number_of_columns_are_errors() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2))
    flat[:, 1] = 4.0
    with pytest.raises(DataError):
        distance(flat, rng.normal(size=(30, 2)))
    with pytest.raises(DataError):
        distance(rng.normal(size=(30, 3)), rng.normal(size=(30, 2)))
