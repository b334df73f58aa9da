"""A fake's gaze is held against that of the one real face it was made from."""

from __future__ import annotations

import numpy as np
import pytest

from dfad_bench.analysis.gaze_preservation import deviation, preservation
from tests.analysis.gaze_builders import Look, gaze_faces


def people(count: int = 24) -> list[Look]:
    rng = np.random.default_rng(0)
    return [Look("real", *rng.normal(0, 10, 2), identity=f"p{number}") for number in range(count)]


def moved(looks: list[Look], generator: str, pitch: float) -> list[Look]:
    return [Look(generator, look.pitch + pitch, look.yaw, identity=look.identity) for look in looks]


def test_the_angle_is_that_between_directions_and_exact_where_small() -> None:
    one, other = (
        np.radians([[0.0, 0.0], [0.0, -179.0], [80.0, 0.0]]),
        np.radians([[1e-6, 0.0], [0.0, 179.0], [80.0, 180.0]]),
    )
    np.testing.assert_allclose(deviation(one, other), [1e-6, 2.0, 20.0], rtol=1e-6)


def test_each_generator_and_family_has_its_median_and_families_are_compared() -> None:
    reals = people()
    looks = [*reals, *moved(reals, "stargan", 4.0), *moved(reals, "flux", 9.0)]
    found = preservation(gaze_faces(looks), ["stargan", "flux"], resamples=200)
    assert found.generators["stargan"].median == pytest.approx(4.0)
    assert found.families["flow"].median == pytest.approx(9.0)
    assert found.generators["stargan"].by_chance > 8
    assert (found.generators["flux"].pairs, found.generators["flux"].clusters) == (24, 24)
    (difference,) = found.differences
    assert {difference.family, difference.other} == {"flow", "gan"}
    assert abs(difference.difference) == pytest.approx(5.0)


def test_the_interval_holds_the_median_of_noisy_deviations() -> None:
    reals, rng = people(60), np.random.default_rng(1)
    fakes = [Look("stargan", r.pitch + abs(rng.normal(0, 5)), r.yaw, identity=r.identity) for r in reals]
    found = preservation(gaze_faces([*reals, *fakes]), ["stargan"], resamples=300).generators["stargan"]
    assert found.low is not None and found.high is not None
    assert found.low < found.median < found.high


def test_a_target_that_is_not_one_alone_is_none() -> None:
    reals = people(4)
    twice = [*reals, Look("real", 0.0, 0.0, identity="p0")]
    found = preservation(gaze_faces([*twice, *moved(reals, "stargan", 1.0)]), ["stargan"], resamples=99)
    assert (found.generators["stargan"].pairs, found.generators["stargan"].unpaired) == (3, 1)


def test_in_a_video_the_target_is_the_frame_of_the_same_number() -> None:
    reals = [Look("real", float(k), 0.0, identity="a", video="r", frame=k) for k in range(5)]
    fakes = [Look("simswap", float(k) + 2, 0.0, identity="a", video="f", frame=k) for k in range(6)]
    found = preservation(gaze_faces([*reals, *fakes]), ["simswap"], resamples=99).generators["simswap"]
    assert (found.pairs, found.unpaired, found.median) == (5, 1, pytest.approx(2.0))
    assert found.low is None and found.no_interval == "one cluster only"


def test_a_generator_without_targets_is_absent() -> None:
    looks = [*people(4), Look("sd15", 0.0, 0.0)]
    assert preservation(gaze_faces(looks), ["sd15"], resamples=99).generators == {}
