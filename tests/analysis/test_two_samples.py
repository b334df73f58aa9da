"""No difference is told as none, a known one as what it is, with people as the unit of chance."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from dfad_bench.analysis.two_samples import compare_samples, real_null
from dfad_bench.errors import DataError

Floats = NDArray[np.float64]
SD = np.asarray([8.0, 12.0])


def gaze(rows: int, seed: int) -> Floats:
    return np.asarray(np.random.default_rng(seed).normal(size=(rows, 2)) * SD)


def alone(rows: int, start: int = 0) -> NDArray[np.intp]:
    return np.arange(start, start + rows)


def test_two_samples_of_one_distribution_do_not_differ() -> None:
    found = compare_samples(gaze(800, 0), gaze(800, 1), alone(800), alone(800, 800), resamples=400)
    assert found.p > 0.05 and found.kid_p > 0.05 and found.energy_p > 0.05
    assert found.low == 0
    assert abs(found.corrected) < 1.5
    assert found.frechet < 2 * found.null_p95


def test_a_known_shift_and_spread_lie_in_the_interval() -> None:
    fake = gaze(2000, 1) * 1.2 + np.asarray([2.0, -1.0])
    truth = 4 + 1 + (0.2 * SD) @ (0.2 * SD)
    found = compare_samples(gaze(2000, 0), fake, alone(2000), alone(2000, 2000), resamples=400)
    assert found.low < truth < found.high
    assert found.corrected == pytest.approx(truth, rel=0.25)
    assert found.mean_part == pytest.approx(5, rel=0.4)
    assert found.p == pytest.approx(1 / 401)


@pytest.mark.parametrize(("rows", "expected"), [(100, 7.3), (1000, 0.75)])
def test_a_sample_of_this_size_adds_what_it_is_known_to_add(rows: int, expected: float) -> None:
    # The mean at no difference with sd 12 and 8 degrees, and what is left of it when it is corrected
    found = [
        compare_samples(gaze(rows, 2 * s), gaze(rows, 2 * s + 1), alone(rows), alone(rows, rows), resamples=99)
        for s in range(30)
    ]
    assert np.mean([each.frechet for each in found]) == pytest.approx(expected, rel=0.4)
    assert abs(np.mean([each.corrected for each in found])) < 0.35 * expected


def test_p_is_uniform_where_nothing_differs() -> None:
    found = [
        compare_samples(gaze(60, 2 * s), gaze(60, 2 * s + 1), alone(60), alone(60, 60), resamples=99).p
        for s in range(120)
    ]
    assert kstest(found, "uniform").pvalue > 0.001


def test_frames_of_one_person_are_not_so_many_witnesses() -> None:
    rng = np.random.default_rng(3)
    people = [rng.normal(size=(12, 2)) * SD for _ in range(2)]
    frames = [np.repeat(each, 40, axis=0) + rng.normal(size=(480, 2)) for each in people]
    person = np.repeat(np.arange(12), 40)
    clustered = compare_samples(*frames, person, person + 12, resamples=400)
    single = compare_samples(*frames, alone(480), alone(480, 480), resamples=400)
    assert single.p < clustered.p
    assert clustered.p > 0.01
    assert "fewer than 20 clusters" in clustered.flags
    assert (clustered.reference_clusters, clustered.candidate_clusters) == (12, 12)


def test_the_order_of_rows_and_the_names_of_clusters_do_not_matter() -> None:
    one, other = gaze(90, 0), gaze(90, 1)
    first = compare_samples(one, other, alone(90), alone(90, 90), resamples=199)
    order = np.random.default_rng(0).permutation(90)
    again = compare_samples(one[order], other[order], alone(90)[order] + 500, alone(90, 90)[order] + 500, resamples=199)
    for name, value in asdict(first).items():
        assert getattr(again, name) == (pytest.approx(value) if isinstance(value, float) else value), name


def test_small_samples_are_flagged_and_two_sizes_too() -> None:
    found = compare_samples(gaze(60, 0), gaze(50, 1), alone(60), alone(50, 60), resamples=99)
    assert {"fewer than 10,000 faces", "different numbers of faces"} <= set(found.flags)


def test_a_null_of_smaller_halves_is_scaled_to_the_size_of_the_comparison() -> None:
    reals = gaze(400, 0)
    large, small = (real_null(reals, alone(400), faces, resamples=300) for faces in (200, 100))
    assert small.values.mean() == pytest.approx(2 * large.values.mean(), rel=0.3)
    found = compare_samples(gaze(200, 1), gaze(200, 2), alone(200), alone(200, 200), resamples=99, null=small)
    assert found.null_scale == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("dimensions", [1, 3, 12])
def test_any_number_of_dimensions_has_its_numbers(dimensions: int) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 150, dimensions))
    found = compare_samples(one, other + 1.0, alone(150), alone(150, 150), resamples=99)
    assert found.dimensions == dimensions and found.p == pytest.approx(0.01)
    assert found.low <= dimensions * 1.4 and found.high >= dimensions * 0.6


def test_what_has_no_distance_is_an_error_in_one_line() -> None:
    with pytest.raises(DataError, match="one cluster"):
        compare_samples(gaze(30, 0), gaze(30, 1), np.zeros(30, int), alone(30, 1))
    broken = gaze(30, 0)
    broken[4, 0] = np.inf
    with pytest.raises(DataError, match="NaN or infinite"):
        compare_samples(broken, gaze(30, 1), alone(30), alone(30, 30))
