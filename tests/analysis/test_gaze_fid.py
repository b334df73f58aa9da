"""Gaze-FID compares what may be compared, follows known disturbances, and says what it cannot measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfad_bench.analysis.gaze_fid import GazeFidOptions, gaze_fid
from dfad_bench.analysis.gaze_samples import choose_sides, directions, find_generators
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.options import build_source
from dfad_bench.records.gaze_fid import GazeFidReport, read_report, write_report
from tests.analysis.gaze_builders import ALIKE, Look, gaze_faces, looking, normal

QUICK = GazeFidOptions(resamples=199)


def report_of(looks: list[Look], *generators: str, options: GazeFidOptions = QUICK) -> GazeFidReport:
    return gaze_fid(gaze_faces(looks), generators, options)[0]


@pytest.fixture(scope="module")
def demo() -> list[Look]:
    """The gazes that the demo's generators are given, without a face being drawn: one person each."""
    images = build_source("demo", ["faces=3000"]).images(None, lambda defect: None)
    looks = []
    for number, image in enumerate(images):
        assert image.annotation is not None and image.annotation.gaze is not None
        pitch, yaw = np.degrees(image.annotation.gaze)
        looks.append(Look(image.generator, float(pitch), float(yaw), image.domain, identity=str(number)))
    return looks


def test_on_the_demo_the_ranking_follows_what_is_done_to_gaze(demo: list[Look]) -> None:
    faces = replace(gaze_faces(demo), labels={look.generator: ("gan", "efs") for look in demo})
    found, _ = gaze_fid(faces, find_generators(faces, []), QUICK)
    values = {row.generator: row.distance for row in found.generators}
    ranked = sorted(values, key=lambda name: -(values[name].corrected if values[name] else 0))  # type: ignore[union-attr]
    assert ranked[:3] == ["demo_gan", "demo_flow", "demo_edit"], (
        "collapsed, drifting, halved; the others barely change it"
    )
    for name in ranked[:3]:
        distance = values[name]
        assert distance is not None and distance.p < 0.01 and distance.low > 0
        assert distance.frechet > distance.null_p95


def test_the_demos_reals_do_not_differ_from_each_other(demo: list[Look]) -> None:
    reals = [look for look in demo if look.generator == "real"]
    halves = [replace(look, generator=("real", "sd15")[number % 2]) for number, look in enumerate(reals)]
    distance = report_of(halves, "sd15").generators[0].distance
    assert distance is not None
    assert distance.p > 0.05 and distance.kid_p > 0.05 and distance.energy_p > 0.05
    assert distance.low == 0


# --- whom it sets against whom ------------------------------------------------------------------------------------


def test_both_sides_have_as_many_faces_of_every_domain() -> None:
    looks = [
        *looking("real", normal(50, 0), "ffhq"),
        *looking("real", normal(20, 1), "celeba"),
        *looking("real", normal(99, 2), "elsewhere"),
        *looking("sd15", normal(30, 3), "ffhq"),
        *looking("sd15", normal(40, 4), "celeba"),
    ]
    faces = gaze_faces(looks)
    sides = choose_sides(faces, "sd15", most=10_000, seed=0)
    for rows in (sides.real, sides.fake):
        domains = [looks[row].domain for row in rows.tolist()]
        assert (domains.count("ffhq"), domains.count("celeba"), len(domains)) == (30, 20, 50)
    assert sides.domains == ("celeba", "ffhq")
    fewer = choose_sides(faces, "sd15", most=25, seed=0)
    assert len(fewer.real) == len(fewer.fake) == 25
    assert set(fewer.fake.tolist()) <= set(sides.fake.tolist()), "chosen by hash: fewer are among more"


def test_with_every_domain_the_reals_are_of_any() -> None:
    looks = [*looking("real", normal(50, 0), "celeba"), *looking("sd15", normal(30, 1), "ffhq")]
    with pytest.raises(DataError, match="no real face of ffhq was measured alike"):
        choose_sides(gaze_faces(looks), "sd15", most=100, seed=0)
    assert len(choose_sides(gaze_faces(looks), "sd15", most=100, seed=0, every_domain=True).real) == 30


def test_what_was_measured_differently_is_never_compared() -> None:
    other = replace(ALIKE, estimator_sha256="0" * 64)
    looks = [*looking("real", normal(30, 0)), *looking("sd15", normal(30, 1), measuring=1)]
    with pytest.raises(DataError, match="measured alike"):
        choose_sides(gaze_faces(looks, (ALIKE, other)), "sd15", most=100, seed=0)
    looks += looking("sd15", normal(30, 2))
    with pytest.raises(DataError, match="measured in several ways"):
        choose_sides(gaze_faces(looks, (ALIKE, other)), "sd15", most=100, seed=0)


def test_faces_without_gaze_are_left_out_and_counted() -> None:
    looks = [*looking("real", normal(30, 0)), *looking("sd15", normal(29, 1)), Look("sd15", np.nan, np.nan)]
    row = report_of(looks, "sd15").generators[0]
    assert (row.fakes_without_gaze, row.reals_without_gaze) == (1, 0)
    assert row.distance is not None and row.distance.candidate_faces == 29


def test_a_generator_that_cannot_be_measured_has_a_reason_and_the_others_their_values() -> None:
    looks = [*looking("real", normal(30, 0)), *looking("sd15", normal(30, 1)), *looking("simswap", normal(2, 2))]
    rows = report_of(looks, "sd15", "simswap").generators
    assert rows[0].distance is not None
    assert rows[1].distance is None and rows[1].reason is not None and "\n" not in rows[1].reason


def test_an_unknown_generator_lists_those_there_are_and_an_alias_is_understood() -> None:
    faces = gaze_faces([*looking("real", normal(3, 0)), *looking("sd15", normal(3, 1))])
    with pytest.raises(UsageError, match="There are: sd15"):
        find_generators(faces, ["stylegan9"])
    assert find_generators(faces, ["Stable Diffusion 1.5"]) == find_generators(faces, []) == ["sd15"]


# --- what it says -------------------------------------------------------------------------------------------------


def test_a_shift_is_found_whole_in_degrees_squared() -> None:
    fakes = normal(400, 1) + np.asarray([3.0, 4.0])
    row = report_of([*looking("real", normal(400, 0)), *looking("sd15", fakes)], "sd15").generators[0]
    assert row.distance is not None
    assert row.distance.low < 25 < row.distance.high
    assert row.distance.mean_part == pytest.approx(25, rel=0.4)


def test_the_direction_is_a_unit_vector_with_pitch_up_and_yaw_to_the_right() -> None:
    found = directions(np.radians([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0]]))
    np.testing.assert_allclose(found, [[0, 0, 1], [0, 1, 0], [1, 0, 0]], atol=1e-12)


def test_reals_of_two_domains_are_set_against_each_other() -> None:
    looks = [
        *looking("real", normal(60, 0), "ffhq"),
        *looking("real", normal(50, 1) + np.asarray([10.0, 0.0]), "celeba"),
        *looking("sd15", normal(40, 2), "ffhq"),
    ]
    (row,) = report_of(looks, "sd15").domains
    assert {row.domain, row.other} == {"celeba", "ffhq"}
    assert row.distance is not None and row.distance.p < 0.05
    assert row.distance.reference_faces == row.distance.candidate_faces == 50


def test_the_report_is_the_same_each_time_and_comes_back_from_disk(tmp_path: Path) -> None:
    looks = [*looking("real", normal(40, 0)), *looking("sd15", normal(40, 1))]
    faces = gaze_faces(looks)
    report, _ = gaze_fid(faces, ["sd15"], QUICK)
    write_report(tmp_path / "g.json", report)
    assert read_report(tmp_path / "g.json") == report
    again, _ = gaze_fid(faces, ["sd15"], QUICK)
    assert again == report
