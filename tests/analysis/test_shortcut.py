"""A classifier that sees only the file's header: what it must find, and what it must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.analysis.shortcut import (
    MIN_FACES,
    ShortcutFinding,
    find_shortcuts,
    shortcut_tables,
    shortcut_verdict,
    shortcut_warnings,
)
from dfad_bench.analysis.telling_apart import (
    FOLDS,
    MOST_TABLES,
    chance_bound,
    commonest,
    cross_validated_scores,
    deal_folds,
    effective_size,
    mean_auc,
)
from dfad_bench.records.manifest import header_features
from tests.analysis.builders import alike, any_header, face, table_of

Row = dict[str, Any]


def _found(rows: list[Row]) -> ShortcutFinding:
    """Return the finding of the only generator in these rows."""
    (found,) = find_shortcuts(table_of(rows), seed=0).generators
    return found


@pytest.mark.parametrize(
    ("told_by", "real", "fake"),
    [
        ("is_jpeg", {"original_format": "JPEG"}, {"original_format": "PNG"}),
        ("log2_width", {"original_width": 256}, {"original_width": 260}),
        ("log2_height", {"original_height": 256}, {"original_height": 1024}),
        (
            "jpeg_quality",
            {"original_format": "JPEG", "jpeg_quality": 95},
            {"original_format": "JPEG", "jpeg_quality": 90},
        ),
    ],
)
def test_a_planted_difference_of_one_header_field_is_found_and_named(told_by: str, real: Row, fake: Row) -> None:
    rows = [face("real", i, **real) for i in range(60)] + [face("ddim", i, **fake) for i in range(60)]
    found = _found(rows)
    assert found.verdict == "shortcut"
    assert found.auc == 1.0
    assert found.told_by == told_by


def test_a_rule_that_no_threshold_can_express_is_found() -> None:
    rows = [face("real", i, original_width=256) for i in range(80)]
    rows += [face("ddim", i, original_width=64 if i % 2 else 1024) for i in range(80)]
    assert _found(rows).auc == pytest.approx(1.0)


def test_a_rule_of_two_fields_that_says_nothing_in_either_alone_is_found() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(200):
        for name in ("real", "ddim"):
            jpeg = bool(rng.integers(2))
            wide = jpeg if name == "real" else not jpeg
            rows.append(
                face(
                    name,
                    number,
                    original_format="JPEG" if jpeg else "PNG",
                    original_width=512 if wide else 256,
                    original_height=512 if wide else 256,
                )
            )
    assert _found(rows).auc == pytest.approx(1.0)


def test_a_shortcut_in_the_files_is_said_loudly() -> None:
    rows = [face("real", i, original_format="JPEG") for i in range(60)] + [face("ddim", i) for i in range(60)]
    audit = find_shortcuts(table_of(rows), seed=0)
    assert (audit.verdict, audit.auc) == ("shortcut", 1.0)
    assert shortcut_verdict(audit).startswith(
        "SHORTCUT: a classifier that never sees a face tells fake from real with AUC 1.00."
    )
    assert shortcut_warnings(audit) == ["Told from reals by the file alone: ddim (AUC 1.00, is_jpeg)."]


def test_a_shortcut_in_one_generator_is_said_even_where_the_mean_hides_it() -> None:
    rows = alike({"real": 300, "glow": 100})
    rows += [face("ddim", i, original_width=4096) for i in range(100)]
    audit = find_shortcuts(table_of(rows), seed=0)
    assert [each.generator for each in audit.generators if each.verdict == "shortcut"] == ["ddim"]
    hidden = audit.model_copy(update={"verdict": "none found", "auc": 0.55})
    assert shortcut_verdict(hidden).startswith(
        "SHORTCUT: a classifier that never sees a face tells 1 of 2 generators that could be judged from real, ddim with"
    )
    assert "ddim" in "".join(shortcut_warnings(audit))


@pytest.mark.parametrize("seed", range(2))
def test_headers_of_one_distribution_give_no_shortcut(seed: int) -> None:
    audit = find_shortcuts(table_of(alike({"real": 300, "ddim": 300, "glow": 300}, seed)), seed=0)
    assert audit.verdict == "none found"
    assert audit.auc is not None and audit.bound is not None
    assert 0.4 < audit.auc < audit.bound < 0.6
    assert [each.verdict for each in audit.generators] == ["none found"] * 2
    assert shortcut_verdict(audit).startswith("No shortcut found")
    assert shortcut_warnings(audit) == []


def test_files_that_are_all_alike_give_exactly_one_half() -> None:
    """Folds of unequal shares of fakes must not show through in scores that say nothing."""
    rows = [face("real", i) for i in range(71)] + [face("ddim", i) for i in range(33)]
    audit = find_shortcuts(table_of(rows), seed=0)
    assert audit.auc == 0.5
    assert audit.generators[0].auc == 0.5


def test_a_second_call_and_another_order_of_rows_give_the_same_numbers() -> None:
    rows = alike({"real": 80, "ddim": 80})
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    first = find_shortcuts(table_of(rows), seed=0)
    assert first == find_shortcuts(table_of(shuffled), seed=0)


def _people(count: int, images: int) -> list[Row]:
    """Give every person an image size of their own, and by chance only reals or only fakes."""
    rng = np.random.default_rng(0)
    fake = rng.permutation(np.arange(count) % 2).astype(bool)
    return [
        face(
            "ddim" if fake[person] else "real",
            person * images + i,
            identities=[f"p{person}"],
            original_width=100 + person,
        )
        for person in range(count)
        for i in range(images)
    ]


def test_a_person_is_never_on_both_sides_of_a_fold() -> None:
    """Sizes that tell people apart tell nothing of new people; folds that divide a person would say otherwise."""
    rows = _people(60, 20)
    header = header_features(table_of(rows))
    label = np.asarray([row["generator"] for row in rows], dtype=object)
    person = np.asarray([row["identities"][0] for row in rows], dtype=object)
    alone = np.asarray([row["id"] for row in rows], dtype=object)
    grouped = mean_auc(cross_validated_scores(header, label, person, seed=0), label)
    ungrouped = mean_auc(cross_validated_scores(header, label, alone, seed=0), label)
    assert ungrouped > 0.9
    assert abs(grouped - 0.5) < chance_bound(30, 30) - 0.5
    found = _found(rows)
    assert found.auc is not None and found.auc < chance_bound(30, 30)
    assert found.verdict != "shortcut"


def test_swaps_that_link_everyone_do_not_stop_the_audit() -> None:
    """The source's picture left no trace in a swap's file, so only the target, who comes first, binds faces together."""
    rows = alike({"real": 100, "fake": 100})
    for index, row in enumerate(rows):
        person = index % 50
        row["identities"] = [f"p{person}"] if row["generator"] == "real" else [f"p{person}", f"p{(person + 1) % 50}"]
    assert _found(rows).verdict == "none found"


@pytest.mark.parametrize("shared", ["video", "sha256"])
def test_faces_of_one_video_and_copies_of_one_face_stay_together(shared: str) -> None:
    rows = [{**row, "identities": [], shared: None if shared == "video" else row["sha256"]} for row in _people(60, 20)]
    for number, row in enumerate(rows):
        row[shared] = f"{shared}-{number // 20}"
    auc = _found(rows).auc
    assert auc is not None and auc < chance_bound(30, 30)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=80), st.integers(0, 3))
def test_folds_never_divide_a_group_and_both_sides_reach_every_training_part(
    faces: list[tuple[int, bool]], seed: int
) -> None:
    group = np.asarray([f"group {each}" for each, _ in faces], dtype=object)
    fake = np.asarray([each for _, each in faces])
    folds = deal_folds(group, fake, seed)
    assert all(len(set(folds[group == each])) == 1 for each in set(group))
    for side in (fake, ~fake):
        if len(set(group[side])) >= FOLDS:
            assert set(folds[side]) == set(range(FOLDS))


def test_many_frames_of_few_videos_are_few_files() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for name in ("real", "ddim"):
        for video in range(6):
            header = any_header(rng)
            rows += [
                face(name, video * 50 + i, video=f"toy/{name}/{video}", identities=[], **header) for i in range(50)
            ]
    found = _found(rows)
    assert found.bound == pytest.approx(chance_bound(6, 6, tests=4))
    assert found.bound is not None and found.bound > 0.8


def test_the_effective_size_counts_independent_files() -> None:
    weight = np.ones(12)
    assert effective_size(weight, np.arange(12).astype(str).astype(object)) == pytest.approx(12)
    assert effective_size(weight, np.asarray(["one"] * 12, dtype=object)) == pytest.approx(1)
    assert effective_size(weight, np.repeat(np.asarray(["a", "b", "c"], dtype=object), 4)) == pytest.approx(3)


def test_chance_stays_below_the_bound_as_often_as_promised() -> None:
    """On noise, in 19 of 20 audits: 8 audits exceed it more than 2 times in less than 1 of 100 runs."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.asarray(["ddim", "real"], dtype=object), 30)
    group = np.arange(60).astype(str).astype(object)
    aucs = [
        mean_auc(cross_validated_scores(rng.normal(size=(60, 8)).astype(np.float32), label, group, 0), label)
        for _ in range(8)
    ]
    assert sum(auc > chance_bound(30, 30) for auc in aucs) <= 2
    assert chance_bound(30, 30, tests=20) > chance_bound(30, 30) > chance_bound(300, 300) > 0.5


def test_without_reals_there_is_a_reason_instead_of_a_number() -> None:
    audit = find_shortcuts(table_of(alike({"ddim": 40})), seed=0)
    for found in (audit, audit.generators[0]):
        assert (found.verdict, found.auc, found.bound) == ("too few faces", None, None)
        assert found.reason == f"there are no real faces, and at least {MIN_FACES} are needed"
    assert audit.generators[0].real_files is None
    assert "cannot be said" in shortcut_verdict(audit)


def test_without_fakes_there_is_a_reason_instead_of_a_number() -> None:
    audit = find_shortcuts(table_of(alike({"real": 40})), seed=0)
    assert (audit.auc, audit.generators) == (None, [])
    assert audit.reason == f"no generator has {MIN_FACES} faces"


def test_a_tiny_generator_has_too_few_faces_and_leaves_the_mean() -> None:
    rows = [face("real", i, original_format="JPEG") for i in range(60)] + [face("ddim", i) for i in range(60)]
    audit = find_shortcuts(table_of(rows + [face("glow", i) for i in range(MIN_FACES - 1)]), seed=0)
    glow = audit.generators[1]
    assert (glow.verdict, glow.auc) == ("too few faces", None)
    assert glow.reason is not None and "19 fake faces" in glow.reason
    assert audit.averaged == 1


def test_faces_of_four_people_are_too_few_whatever_their_number() -> None:
    rows = [face("real", i, original_format="JPEG") for i in range(60)]
    found = _found(rows + [face("ddim", i, identities=[f"p{i % 4}"]) for i in range(60)])
    assert (found.verdict, found.auc) == ("too few faces", None)
    assert found.reason is not None and "4 groups" in found.reason


def test_a_high_number_that_chance_may_reach_is_no_finding() -> None:
    rng = np.random.default_rng(4)
    rows = []
    for name, wide in (("real", 0.3), ("ddim", 0.7)):
        rows += [face(name, i, original_width=512 if rng.random() < wide else 256) for i in range(20)]
    found = _found(rows)
    assert found.auc is not None and found.bound is not None
    assert 0.6 <= found.auc <= found.bound
    assert found.verdict == "too few faces"
    assert found.reason is not None and "chance reaches" in found.reason


def test_a_generator_is_held_against_reals_of_its_own_domain() -> None:
    """Reals of another domain have other files; that is no fault of the generator's."""
    rows = [face("real", i, domain="ffhq", original_width=1024) for i in range(60)]
    rows += [face("real", 100 + i, domain="celeba") for i in range(60)]
    rows += [face("ddim", i, domain="celeba") for i in range(60)]
    found = _found(rows)
    assert (found.reals, found.verdict, found.auc) == ("same domain", "none found", 0.5)
    assert found.real_files is not None and found.real_files.faces == 60


def test_without_reals_of_its_domain_a_generator_is_held_against_all_and_it_is_said() -> None:
    rows = [face("real", i, domain="ffhq", original_width=1024) for i in range(60)]
    rows += [face("ddim", i, domain="celeba") for i in range(60)]
    audit = find_shortcuts(table_of(rows), seed=0)
    assert (audit.generators[0].reals, audit.generators[0].verdict) == ("all", "shortcut")
    assert any(text.startswith("Held against all reals") and "ddim" in text for text in shortcut_warnings(audit))


def test_missing_jpeg_qualities_are_no_obstacle() -> None:
    rows = [face("real", i, original_format="JPEG", jpeg_quality=95 if i % 2 else None) for i in range(40)]
    rows += [face("ddim", i, original_format="JPEG", jpeg_quality=None) for i in range(40)]
    found = _found(rows)
    assert found.auc is not None and 0.65 < found.auc < 0.8
    assert found.fake_files.median_quality is None
    assert found.real_files is not None and found.real_files.median_quality == 95


def test_the_tables_show_why() -> None:
    rows = [face("real", i, original_format="JPEG", jpeg_quality=92) for i in range(40)]
    rows += [face("ddim", i, original_width=1024, original_height=512) for i in range(40)]
    (_, columns, numbers), (_, profile_columns, profiles) = shortcut_tables(find_shortcuts(table_of(rows), seed=0))
    assert all(len(row) == len(columns) for row in numbers)
    assert profiles == [("ddim", 40, "0%", "1024x512", "–", 40, "100%", "256x256", "92")]
    assert len(profiles[0]) == len(profile_columns)


@pytest.mark.parametrize("told_by", ["jpeg_chroma_quality", "jpeg_chroma_share", "jpeg_tables"])
def test_a_difference_of_the_chroma_tables_alone_is_found(told_by: str) -> None:
    """Luminance quality, format and size are equal; only how colour was quantised differs, or by which tables."""
    jpeg = {"original_format": "JPEG", "jpeg_quality": 90, "jpeg_chroma_quality": 90, "jpeg_subsampling": "4:2:0"}
    change = {
        "jpeg_chroma_quality": {"jpeg_chroma_quality": 84},
        "jpeg_chroma_share": {"jpeg_subsampling": "4:4:4"},
        "jpeg_tables": {"jpeg_tables": "of an image editor"},
    }[told_by]
    rows = [face("real", i, **{**jpeg, "jpeg_tables": "of libjpeg"}) for i in range(60)]
    rows += [face("ddim", i, **{**jpeg, "jpeg_tables": "of libjpeg", **change}) for i in range(60)]
    found = _found(rows)
    assert (found.verdict, found.auc, found.told_by) == ("shortcut", 1.0, told_by)


def test_tables_that_occur_once_each_tell_nothing_of_new_files() -> None:
    rows = [
        face(name, i, original_format="JPEG", jpeg_quality=90, jpeg_tables=f"{name} {i}")
        for name in ("real", "ddim")
        for i in range(60)
    ]
    assert _found(rows).verdict == "none found"


def test_tables_are_chosen_by_how_often_they_occur_and_then_by_name() -> None:
    tables = np.asarray([None, *(f"t{i:02}" for i in range(MOST_TABLES + 4)), "z", "z"], dtype=object)
    assert commonest(tables).tolist() == ["z", *(f"t{i:02}" for i in range(MOST_TABLES - 1))]


def _of_color(rows: list[Row], mean: float, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [row | {"original_mean_color": [*rng.normal(120, 15, 2), rng.normal(mean, 15)]} for row in rows]


def test_mean_colour_alone_is_told_apart_from_a_shortcut_in_the_file() -> None:
    rows = alike({"real": 200, "ddim": 200})
    audit = find_shortcuts(table_of(_of_color(rows[:200], 120, 0) + _of_color(rows[200:], 180, 1)), seed=0)
    (found,) = audit.generators
    assert (audit.verdict, found.verdict, found.told_by) == ("mean colour", "mean colour", "mean_blue")
    assert found.auc is not None and found.color_auc is not None
    assert found.auc < 0.6 and found.color_auc > 0.95
    verdict = shortcut_verdict(audit)
    assert verdict.startswith("No shortcut found in the files' headers (AUC 0.")
    assert "mean colour of the image" in verdict
    assert any("mean colour" in each and "ddim" in each for each in shortcut_warnings(audit))


def test_colours_of_one_distribution_tell_nothing() -> None:
    rows = alike({"real": 300, "ddim": 300})
    audit = find_shortcuts(table_of(_of_color(rows[:300], 120, 0) + _of_color(rows[300:], 120, 1)), seed=0)
    assert audit.verdict == "none found"
    assert audit.color_auc is not None and audit.bound is not None
    assert audit.color_auc < audit.bound


def test_a_shortcut_tells_both_numbers() -> None:
    rows = [face("real", i, original_format="JPEG") for i in range(60)] + [face("ddim", i) for i in range(60)]
    audit = find_shortcuts(table_of(rows), seed=0)
    assert (audit.auc, audit.color_auc) == (1.0, 1.0)
    assert "With the mean colour of the image added the AUC is 1.00." in shortcut_verdict(audit)
