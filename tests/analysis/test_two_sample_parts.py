"""Each part of the comparison of two samples against the slow, plain way to the same number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfad_bench.analysis.blocks import BOTH, Blocks
from dfad_bench.analysis.frechet import GaussianStatistics, frechet_distance
from dfad_bench.analysis.frechet_bias import extrapolated, jackknife, jackknife_bias, normal_bias
from dfad_bench.analysis.frechet_interval import MovedResamples, basic_interval
from dfad_bench.analysis.kernels import cubic_features, cubic_kernel, energy, features_for_tests, kid, whiten
from dfad_bench.analysis.moments import Moments, between
from dfad_bench.analysis.two_samples import TwoSample, compare_samples

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
SD = np.asarray([12.0, 8.0])


def clustered(seed: int, dimensions: int = 2) -> tuple[Floats, Floats, Ints, Ints]:
    """Rows of two sides in clusters of several sizes, some of them on both sides."""
    rng = np.random.default_rng(seed)
    reals, fakes = rng.normal(size=(40, dimensions)), 1.3 * rng.normal(size=(55, dimensions)) + 0.2
    return reals, fakes, rng.integers(0, 15, 40), rng.integers(5, 25, 55)


def gathered(reals: Floats, fakes: Floats, mine: Ints, theirs: Ints) -> Moments:
    return Moments.of(Blocks.of(reals, fakes, mine, theirs), reals, fakes)


def distance(reals: Floats, fakes: Floats) -> float:
    return frechet_distance(GaussianStatistics.of(reals), GaussianStatistics.of(fakes), strict=False)


def across_clusters(kernel: Callable[[Floats, Floats], Floats], drawn: tuple[Floats, Floats, Ints, Ints]) -> float:
    """The mean over pairs of different clusters, one by one."""
    reals, fakes, mine, theirs = drawn

    def mean(x: Floats, y: Floats, a: Ints, b: Ints) -> float:
        return float(kernel(x, y)[a[:, None] != b[None, :]].mean())

    return mean(reals, reals, mine, mine) + mean(fakes, fakes, theirs, theirs) - 2 * mean(reals, fakes, mine, theirs)


def minus_distance(x: Floats, y: Floats) -> Floats:
    return -np.linalg.norm(x[:, None] - y[None, :], axis=2)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), dimensions=st.sampled_from([1, 2, 3, 9]))
def test_kid_and_energy_distance_are_means_over_pairs_of_different_clusters(seed: int, dimensions: int) -> None:
    drawn = clustered(seed, dimensions)
    moments = gathered(*drawn)
    white = whiten(np.concatenate(drawn[:2]))
    by_pairs = across_clusters(cubic_kernel, (white[:40], white[40:], *drawn[2:]))
    assert kid(moments.blocks, whiten(moments.values)) == pytest.approx(by_pairs, rel=1e-9, abs=1e-9)
    by_pairs = across_clusters(minus_distance, drawn)
    assert energy(moments.blocks, moments.values) == pytest.approx(by_pairs, rel=1e-9, abs=1e-9)


def test_features_are_those_of_the_cubic_kernel() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 7, 3))
    np.testing.assert_allclose(cubic_features(x) @ cubic_features(y).T, cubic_kernel(x, y), rtol=1e-12)


def test_landmarks_find_the_energy_of_a_difference() -> None:
    reals, fakes = np.random.default_rng(0).normal(size=(2, 400, 2))
    fakes = fakes + 0.3
    moments = gathered(reals, fakes, np.arange(400), np.arange(400, 800))
    _, features = features_for_tests(moments.values, whiten(moments.values))
    found = features[:400].mean(axis=0) - features[400:].mean(axis=0)
    exact = sum(
        sign * minus_distance(x, y).mean() for x, y, sign in ((reals, reals, 1), (fakes, fakes, 1), (reals, fakes, -2))
    )
    assert found @ found == pytest.approx(exact, rel=0.02)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), dimensions=st.sampled_from([1, 2, 3, 9]))
def test_weights_stand_for_rows_taken_so_many_times(seed: int, dimensions: int) -> None:
    drawn = clustered(seed, dimensions)
    moments = gathered(*drawn)
    reference, candidate = next(moments.blocks.resampled(2, seed))
    times = (reference + candidate)[1][moments.blocks.block].astype(int)
    rows = np.repeat(moments.values, times, axis=0)
    first = int(times[:40].sum())
    found = between(moments.gaussians(reference), moments.gaussians(candidate))[1]
    assert found == pytest.approx(distance(rows[:first], rows[first:]), rel=1e-8, abs=1e-9)


def test_a_cluster_is_drawn_with_both_its_sides() -> None:
    blocks = Blocks.of(*clustered(0))
    for reference, candidate in blocks.resampled(20, 0):
        for cluster in np.flatnonzero(blocks.kind == BOTH):
            here = blocks.cluster == cluster
            one, two = (weights[:, here].max(axis=1) for weights in (reference, candidate))
            np.testing.assert_array_equal(one, two)


def test_the_jackknife_leaves_out_one_cluster_at_a_time() -> None:
    drawn = clustered(1)
    moments = gathered(*drawn)
    found, _ = jackknife(moments)
    reals, fakes, mine, theirs = drawn
    slow = [distance(reals[mine != each], fakes[theirs != each]) for each in set(mine) | set(theirs)]
    np.testing.assert_allclose(np.sort(found), np.sort(slow), rtol=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_normal_bias_is_what_normal_samples_show(dimensions: int) -> None:
    rng = np.random.default_rng(0)
    one, two = (np.diag(rng.uniform(0.5, 2, dimensions)) for _ in range(2))
    shift, n, m = np.full(dimensions, 0.7), 150, 250
    truth = float(shift @ shift + ((np.sqrt(np.diag(one)) - np.sqrt(np.diag(two))) ** 2).sum())
    found = [
        distance(
            rng.normal(size=(n, dimensions)) @ np.sqrt(one), rng.normal(size=(m, dimensions)) @ np.sqrt(two) + shift
        )
        for _ in range(3000)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - truth - normal_bias(one, n, two, m)) < 3.5 * error


def test_no_difference_in_two_dimensions_has_the_bias_of_the_closed_form() -> None:
    covariance = np.diag(SD**2)
    expected = (3 / 2 * (144 + 64) + 144 * 64 / (144 + 64)) * (2 / 1000)
    assert normal_bias(covariance, 1000, covariance, 1000) == pytest.approx(expected, rel=2e-3)


def test_corrections_agree_where_faces_are_many_and_normal() -> None:
    rng = np.random.default_rng(0)
    reals, fakes = rng.normal(size=(2, 2000, 2)) * SD
    moments = gathered(reals, fakes, np.arange(2000), np.arange(2000, 4000))
    raw = distance(reals, fakes)
    by_jackknife = jackknife_bias(raw, *jackknife(moments))
    by_formula = normal_bias(np.cov(reals.T), 2000, np.cov(fakes.T), 2000)
    assert by_jackknife == pytest.approx(by_formula, rel=0.1)
    assert raw - extrapolated(moments) == pytest.approx(by_formula, rel=0.35)


def test_relabelling_keeps_numbers_and_swaps_only_within_a_person() -> None:
    drawn = clustered(2)
    blocks = Blocks.of(*drawn)
    alone = blocks.kind[blocks.cluster] != BOTH
    held = [int((blocks.kind == side).sum()) for side in (0, 1)]
    for reference, candidate in blocks.exchanged(50, 0):
        np.testing.assert_array_equal((reference + candidate)[:, alone], 1)
        assert (reference[:, alone].sum(axis=1) == held[0]).all()
        # Each side of a person on both sides keeps the weight that it had, whatever fills it.
        for cluster in np.flatnonzero(blocks.kind == BOTH):
            here = blocks.cluster == cluster
            for side, weights in ((False, reference), (True, candidate)):
                kept = blocks.count[here & (blocks.is_candidate == side)].sum()
                np.testing.assert_allclose((weights * blocks.count)[:, here].sum(axis=1), kept)


@pytest.mark.parametrize(("frames", "exchangeable"), [(1, True), (10, False)])
def test_videos_are_not_exchanged_for_single_faces(frames: int, exchangeable: bool) -> None:
    rng = np.random.default_rng(0)
    reals, fakes = rng.normal(size=(2, 200, 2))
    assert Blocks.of(reals, fakes, np.arange(200) // frames, np.arange(200, 400)).exchangeable() is exchangeable


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), factor=st.floats(0, 1.3))
def test_sides_moved_along_the_path_are_so_far_apart(seed: int, factor: float) -> None:
    moments = gathered(*clustered(seed))
    one, two = (moments.gaussians(weights) for weights in moments.blocks.whole)
    whole = float(between(one, two)[0])
    found = MovedResamples(one, two, one, two, whole).at(factor)
    assert found is not None
    assert float(found[0]) == pytest.approx(factor**2 * whole, rel=1e-6, abs=1e-9)


def test_the_basic_interval_is_cut_off_at_no_difference() -> None:
    low, high = basic_interval(0.1, np.asarray([0.0, 1.0, 2.0]), 0.025)
    assert low == 0 and high == pytest.approx(0.1 + 0.95)


def compared(reals: Floats, fakes: Floats) -> TwoSample:
    return compare_samples(reals, fakes, np.arange(len(reals)), np.arange(len(fakes)) + len(reals), resamples=99)


REALS, FAKES = np.random.default_rng(0).normal(size=(2, 300, 2)) * np.asarray([0.2, 0.1])
FAKES = FAKES * [1.3, 0.9] + [0.05, -0.02]


def test_both_sides_are_treated_alike() -> None:
    one, two = compared(REALS, FAKES), compared(FAKES, REALS)
    for name in ("frechet", "bias", "corrected", "kid", "energy", "mean_part"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-9), name


def test_degrees_give_their_square_and_tests_have_no_unit() -> None:
    one, two = compared(REALS, FAKES), compared(np.rad2deg(REALS), np.rad2deg(FAKES))
    for name in ("frechet", "bias", "corrected", "low", "high", "raw_low", "raw_high", "null_p95"):
        assert getattr(two, name) == pytest.approx(3282.806350011744 * getattr(one, name), rel=1e-6), name
    assert two.energy == pytest.approx(np.rad2deg(one.energy))
    assert (two.kid, two.p, two.kid_p, two.energy_p) == pytest.approx((one.kid, one.p, one.kid_p, one.energy_p))


def test_a_rotation_of_both_sides_changes_nothing_and_of_one_side_much() -> None:
    angle = 0.7
    turn = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    one, two = compared(REALS, FAKES), compared(REALS @ turn, FAKES @ turn)
    for name in ("frechet", "bias", "kid", "energy"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-8), name
    swapped = compared(REALS, FAKES[:, ::-1])
    assert swapped.frechet > 3 * one.frechet and swapped.kid > 3 * one.kid


def test_the_order_of_rows_changes_not_even_rounding() -> None:
    order = np.random.default_rng(1).permutation(300)
    assert compared(REALS[order], FAKES[::-1]) == compared(REALS, FAKES)
