"""Both tasks at once, counted by hand."""

from __future__ import annotations

import pytest

from dfad_bench.records.predictions import VAL
from dfad_bench.scoring.joint import JOINT, OF_DETECTED
from dfad_bench.scoring.score import Options
from dfad_bench.types import REAL
from tests.scoring.builders import Face, pick, scores_of

# The threshold chosen on val lies between 0.4 and 0.6.
CALIBRATED = [Face(REAL, VAL, fake_score=0.4), Face("ddpm", VAL, fake_score=0.6)]
FACES = [
    *CALIBRATED,
    Face(REAL, fake_score=0.1),
    Face(REAL, fake_score=0.3, says="ddpm"),  # not detected: right, whatever it would be attributed to
    Face(REAL, fake_score=0.9),  # a false alarm
    Face("ddpm", fake_score=0.9, says="ddpm"),  # right twice
    Face("ddpm", fake_score=0.9, says="simswap"),  # detected, attributed wrong
    Face("ddpm", fake_score=0.2, says="ddpm"),  # not detected
    Face("simswap", fake_score=0.8, says="simswap"),  # right twice
]


def joint(
    metric: str, group: str, faces: list[Face] = FACES, level: str = "generator", **where: str
) -> tuple[object, int]:
    found = pick(scores_of(faces), metric, group, level=level, task="joint", **where)
    return found.value, found.n


def test_of_detected_faces_the_fraction_attributed_right() -> None:
    assert joint(OF_DETECTED, "ddpm") == (1 / 2, 2)
    assert joint(OF_DETECTED, "simswap") == (1, 1)
    assert joint(OF_DETECTED, "mean") == (3 / 4, 2)
    assert joint(OF_DETECTED, "pooled") == (2 / 4, 4)  # the real among the detected is wrong


def test_of_all_faces_the_fraction_right_twice() -> None:
    assert joint(JOINT, "ddpm") == (pytest.approx(1 / 3), 3)
    assert joint(JOINT, "simswap") == (1, 1)
    assert joint(JOINT, "mean") == (pytest.approx(2 / 3), 2)
    assert joint(JOINT, "pooled") == (pytest.approx(4 / 7), 7)


def test_a_coarser_level_forgives() -> None:
    faces = [*CALIBRATED, Face(REAL), Face("stylegan3", fake_score=0.9, says="simswap")]
    assert joint(JOINT, "stylegan3", faces) == (0, 1)
    assert joint(JOINT, "stylegan3", faces, level="family") == (1, 1)
    assert joint(JOINT, "stylegan3", faces, level="forgery_type") == (0, 1)


def test_a_detected_face_is_attributed_to_a_fake_value_even_where_real_is_most_probable() -> None:
    faces = [*CALIBRATED, Face("ddpm", fake_score=0.9, says=REAL), Face("simswap", fake_score=0.9, says=REAL)]
    # All fake values tie; the first in order, which is ddpm, is taken.
    assert joint(OF_DETECTED, "ddpm", faces) == (1, 1)
    assert joint(OF_DETECTED, "simswap", faces) == (0, 1)


def test_a_group_of_which_nothing_is_detected_has_no_accuracy_of_detected_and_undoes_the_mean() -> None:
    scores = scores_of([*FACES, Face("stylegan3", fake_score=0.0)])
    none = "no face is detected as fake"
    assert pick(scores, OF_DETECTED, "stylegan3", level="generator").reason == none
    assert pick(scores, OF_DETECTED, "mean", level="generator").reason == f"stylegan3: {none}"
    assert pick(scores, JOINT, "stylegan3", level="generator").value == 0
    assert pick(scores, JOINT, "mean", level="generator").value == pytest.approx((1 / 3 + 1 + 0) / 3)


def test_faces_of_values_that_training_lacks_are_left_out_and_counted() -> None:
    scores = scores_of([*FACES, Face("flux", fake_score=0.9, says="ddpm")])
    flux = pick(scores, JOINT, "flux", level="generator", task="joint")
    assert (flux.value, flux.n, flux.unknown) == (None, 0, 1)
    for group, n in (("pooled", 7), ("mean", 2)):
        found = pick(scores, JOINT, group, level="generator", task="joint")
        assert (found.n, found.unknown) == (n, 1)
    unseen = scores_of([*CALIBRATED, Face(REAL, "unseen"), Face("flux", "unseen")])
    assert pick(unseen, JOINT, "pooled", subset="unseen", level="generator").reason is not None


def test_without_a_threshold_from_val_there_is_none_and_it_is_said() -> None:
    scores = scores_of(FACES[2:])
    assert {each.reason for each in scores if each.task == "joint"} == {"val has no face"}
    scores = scores_of([*FACES[2:], CALIBRATED[0]])
    assert {each.reason for each in scores if each.task == "joint"} == {"val has no fake face"}


def test_the_clusters_of_detected_faces_are_those_they_form() -> None:
    faces = [*CALIBRATED, *[Face("ddpm", fake_score=0.9, says="ddpm", identity="x") for _ in range(3)]]
    faces += [Face("ddpm", fake_score=0.1, identity=f"{n}") for n in range(40)]
    found = pick(scores_of(faces, options=Options(50)), OF_DETECTED, "ddpm", level="generator")
    assert (found.value, found.n, found.clusters, found.low) == (1, 3, 1, None)
    assert found.no_interval is not None and "one cluster" in found.no_interval
