"""What an audit must notice in a manifest, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfad_bench.analysis.audit import AuditReport, audit, tables
from dfad_bench.errors import DataError
from dfad_bench.records.manifest import SKIPPED, SKIPPED_COLUMNS, Manifest
from tests.analysis.builders import alike, face, manifest_of


def _skips(*reasons: tuple[str, str]) -> pa.Table:
    rows = [
        {"id": f"toy/{name}/s{i}", "generator": name, "reason": reason, "detail": "."}
        for i, (name, reason) in enumerate(reasons)
    ]
    return pa.Table.from_pylist(rows, schema=SKIPPED_COLUMNS)


def test_a_sound_manifest_has_no_problems_and_no_warnings(tmp_path: Path) -> None:
    report = audit(manifest_of(tmp_path, alike({"real": 300, "ddim": 300})))
    assert (report.problems, report.warnings) == ([], [])
    assert report.verdict.startswith("No shortcut found")
    assert (report.source, report.faces, report.files.checked) == ("toy", 600, 1200)


def test_a_shortcut_is_a_warning_and_a_loud_verdict_but_no_problem(tmp_path: Path) -> None:
    rows = [face("real", i, original_format="JPEG") for i in range(40)] + [face("ddim", i) for i in range(40)]
    report = audit(manifest_of(tmp_path, rows))
    assert report.problems == []
    assert report.verdict.startswith("SHORTCUT: a classifier that never sees a face")
    assert any("ddim (AUC 1.00" in warning for warning in report.warnings)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, [face("real", i) for i in range(3)])
    (tmp_path / "faces/real-00001.png").unlink()
    (tmp_path / "gaze/real-00002.png").write_bytes(b"")
    report = audit(manifest)
    assert (report.files.checked, report.files.missing, report.files.empty) == (6, 1, 1)
    (problem,) = report.problems
    assert "faces/real-00001.png (missing)" in problem
    assert "gaze/real-00002.png (empty)" in problem
    assert report.verdict.startswith("BROKEN: 1 problem ")


def test_a_folder_in_a_files_place_is_a_missing_file(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, [face("real", 0)])
    (tmp_path / "faces/real-00000.png").unlink()
    (tmp_path / "faces/real-00000.png").mkdir()
    assert audit(manifest).files.missing == 1


def test_a_face_without_gaze_map_has_no_file_to_miss(tmp_path: Path) -> None:
    row = face("real", 0, gaze_file_name=None, gaze_pitch=None, gaze_yaw=None)
    report = audit(manifest_of(tmp_path, [row]))
    assert (report.files.checked, report.problems) == (1, [])
    assert report.balance[0].without_gaze == 1


def test_a_table_that_was_cut_short_is_a_problem(tmp_path: Path) -> None:
    whole = manifest_of(tmp_path, [face("real", i) for i in range(3)])
    (problem,) = audit(Manifest(whole.root, whole.table.slice(0, 2), whole.footer)).problems
    assert "has 2 faces and its footer promises 3" in problem


@pytest.mark.parametrize(
    ("change", "kind", "example"),
    [
        ({"identities": ["toy/anna", "toy/bo"]}, "identity", "toy/anna"),
        ({"video": "toy/real/clip"}, "video", "toy/real/clip"),
        ({"sha256": "pixels"}, "pixel hash", "pixels"),
    ],
)
def test_each_kind_of_leakage_between_source_splits_is_a_problem_with_an_example(
    tmp_path: Path, change: dict[str, Any], kind: str, example: str
) -> None:
    rows = [face("real", i, source_split=split) for i, split in enumerate(["train", "test", "val", None])]
    for row in (rows[0], rows[1], rows[3]):
        row.update(change)
    rows[1]["identities"] = rows[1]["identities"][:1]
    report = audit(manifest_of(tmp_path, rows))
    (problem,) = report.problems
    assert problem.startswith("Leakage: 1 shared by test and train by ")
    assert kind in problem and example in problem
    checks = {row[0]: row[2] for row in tables(report)[0][2]}
    assert checks[f"shared {kind}"] == "1 by test and train"


def test_without_two_source_splits_leakage_is_not_claimed_to_be_absent(tmp_path: Path) -> None:
    rows = [face("real", i, identities=["toy/anna"]) for i in range(3)]
    report = audit(manifest_of(tmp_path, rows))
    assert (report.source_splits, report.overlaps) == ([], [])
    assert ("shared between splits", "the source gives no two splits", "–") in tables(report)[0][2]


def test_a_real_face_that_stands_as_a_fake_is_a_problem(tmp_path: Path) -> None:
    rows = [face("real", 0, sha256="same"), face("ddim", 0, sha256="same"), face("ddim", 1)]
    report = audit(manifest_of(tmp_path, rows))
    (problem,) = report.problems
    assert "1 faces of ddim and real have the same pixels (a fake is a real face)" in problem
    assert "toy/ddim/00000 and toy/real/00000" in problem


def test_copies_within_a_generator_are_counted_and_warned_of(tmp_path: Path) -> None:
    report = audit(manifest_of(tmp_path, [face("ddim", i, sha256="same" if i < 3 else str(i)) for i in range(5)]))
    assert [(each.first, each.second, each.count) for each in report.duplicates] == [("ddim", "ddim", 2)]
    assert report.problems == []
    assert any("2 of ddim" in warning for warning in report.warnings)


def test_the_balance_counts_faces_splits_enlargement_gaze_identity_and_skips(tmp_path: Path) -> None:
    rows = [
        face("ddim", 0, source_split="train", crop_scale=1.5, identities=[]),
        face("ddim", 1, source_split="test", gaze_yaw=None),
        face("real", 0),
    ]
    manifest = manifest_of(tmp_path, rows)
    pq.write_table(
        _skips(("ddim", "no_face"), ("ddim", "truncated"), ("ddim", "no_face"), ("glow", "no_face")), tmp_path / SKIPPED
    )
    report = audit(manifest)
    real, ddim, glow = report.balance
    assert (real.generator, real.faces, real.by_split, real.skipped) == ("real", 1, {"no split": 1}, {})
    assert (ddim.faces, ddim.by_split) == (2, {"test": 1, "train": 1})
    assert (ddim.enlarged, ddim.without_gaze, ddim.without_identity) == (1, 1, 1)
    assert ddim.skipped == {"no_face": 2, "truncated": 1}
    assert (glow.faces, glow.skipped) == (0, {"no_face": 1})
    assert any("ddim 3 of 5, glow 1 of 1" in warning for warning in report.warnings)
    assert any("1 of 3 faces were enlarged" in warning and "50% of ddim" in warning for warning in report.warnings)
    assert any("ddim (2)" in warning and "real (1)" in warning for warning in report.warnings)


def test_a_broken_ledger_is_told_in_one_line(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, [face("real", 0)])
    (tmp_path / SKIPPED).write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"skipped\.parquet cannot be read"):
        audit(manifest)


def test_without_reals_it_is_said(tmp_path: Path) -> None:
    report = audit(manifest_of(tmp_path, alike({"ddim": 30})))
    assert report.shortcut.auc is None
    assert any("no real faces" in warning for warning in report.warnings)
    assert "there are no real faces" in report.verdict


def test_an_empty_manifest_is_audited_too(tmp_path: Path) -> None:
    report = audit(manifest_of(tmp_path, []))
    assert (report.faces, report.balance, report.problems) == (0, [], [])
    assert "cannot be said" in report.verdict


def test_the_report_survives_json_and_two_calls_agree(tmp_path: Path) -> None:
    rows = alike({"real": 40, "ddim": 40, "glow": 5})
    rows[0] |= {"source_split": "train", "sha256": "same"}
    rows[1] |= {"source_split": "test", "sha256": "same"}
    rows[50] |= {"sha256": "same"}
    manifest = manifest_of(tmp_path, rows)
    report = audit(manifest)
    assert report.problems and report.duplicates and report.overlaps
    text = report.model_dump_json()
    assert "NaN" not in text
    assert AuditReport.model_validate_json(text) == report
    assert audit(manifest).model_dump_json() == text


def test_every_table_row_has_as_many_cells_as_there_are_columns(tmp_path: Path) -> None:
    rows = alike({"real": 40, "ddim": 40, "glow": 5})
    rows[0]["source_split"] = "train"
    shown = tables(audit(manifest_of(tmp_path, rows)))
    assert [title for title, _, _ in shown[:2]] == ["checks", "faces"]
    for _, columns, cells in shown:
        assert cells and all(len(row) == len(columns) for row in cells)


# --- splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pixels", "perceptual hash", "video"])
def test_a_split_that_holds_the_faces_of_another_is_a_problem_of_its_own(tmp_path: Path, what: str) -> None:
    """As DF40 ships its JSON: what is called val is the test set."""
    column = {"pixels": "sha256", "perceptual hash": "perceptual_hash", "video": "video"}[what]
    rows = [face("real", i, source_split="test", **{column: f"{i:08x}deadbeef"}) for i in range(200)]
    rows += [face("real", 200 + i, source_split="val", **{column: f"{i:08x}deadbeef"}) for i in range(100)]
    rows += [face("real", 300 + i, source_split="train") for i in range(100)]
    rows[210] |= {"sha256": "other", "video": "other", "perceptual_hash": "0123456789abcdef"}
    report = audit(manifest_of(tmp_path, rows))
    (same,) = report.same_splits
    assert (same.smaller, same.larger, same.what, same.shared, same.faces) == ("val", "test", what, 99, 100)
    (problem,) = (each for each in report.problems if "hold the same faces" in each)
    assert problem.startswith("val and test hold the same faces: 99 of the 100 faces of val are in test")
    rows[220] |= {"sha256": "third", "video": "third", "perceptual_hash": "fedcba9876543210"}
    assert audit(manifest_of(tmp_path, rows)).same_splits == []


def test_faces_without_structure_do_not_make_two_splits_the_same(tmp_path: Path) -> None:
    rows = [face("real", i, source_split=("train", "test")[i % 2], perceptual_hash="0" * 16) for i in range(60)]
    report = audit(manifest_of(tmp_path, rows))
    assert (report.same_splits, report.problems) == ([], [])
    assert any("60 faces are all of one colour" in each for each in report.warnings)


def test_near_duplicates_between_splits_are_a_problem_and_across_labels_a_warning(tmp_path: Path) -> None:
    rows = alike({"real": 40, "ddim": 40, "glow": 40})
    for number, split in ((0, "train"), (1, "test")):
        rows[number] |= {"source_split": split, "perceptual_hash": "0123456789abcdef"}
    rows[2] |= {"perceptual_hash": "1123456789abcdff"}
    rows[50] |= {"perceptual_hash": "1123456789abcdff"}
    rows[51] |= {"perceptual_hash": "f0f0f0f00f0f0f0f"}
    rows[100] |= {"perceptual_hash": "f0f0f0f00f0f0f0f"}
    report = audit(manifest_of(tmp_path, rows))
    (problem,) = report.problems
    assert problem.startswith("Near-duplicates: 1 pairs of faces of test and train look alike")
    assert any(each.startswith("Near-duplicates: 3 pairs of faces of ddim and real") for each in report.warnings)
    assert any("ddim and glow (1 pairs)" in each for each in report.warnings)
    assert ("near-duplicates between splits", "splits test, train", "1 of test and train") in tables(report)[0][2]


def test_hashes_that_are_near_by_chance_are_no_problem(tmp_path: Path) -> None:
    rows = [face("real", i, source_split=s, perceptual_hash="0f" * 8) for i, s in enumerate(["train", "test"])]
    manifest = manifest_of(tmp_path, rows)
    for row, seed in zip(rows, (0, 1), strict=True):
        noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / row["file_name"]), noise)
    report = audit(manifest)
    assert [(each.pairs, each.looked_at, each.same) for each in report.near_duplicates.splits] == [(1, 1, 0)]
    assert report.problems == []
    assert any("1 of test and train (by chance)" in str(row[2]) for row in tables(report)[0][2])


# --- classes that were not treated alike ---------------------------------------------------------------------------


def test_a_split_without_a_generator_and_one_of_unequal_classes_are_pointed_out(tmp_path: Path) -> None:
    rows = [face("real", i, source_split="train" if i < 50 else "test") for i in range(55)]
    rows += [face("ddim", i, source_split="train") for i in range(50)]
    rows += [face("glow", i, source_split="train" if i < 20 else "test") for i in range(100)]
    warnings = audit(manifest_of(tmp_path, rows)).warnings
    assert "Generators without a face in a split that others have: ddim (test)." in warnings
    assert "Splits of very unequal numbers of reals and fakes: test (5 real, 80 fake)." in warnings


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gaze_pitch": None, "gaze_flag": "profile"}, "Gaze is missing for another share"),
        ({"cut_off": 0.2}, "is cut off by the image's border"),
        ({"sharpness": 1.0}, "Median sharpness unlike that of the reals (10.0): ddim 1.0."),
    ],
)
def test_what_befell_one_generator_more_than_the_reals_is_told(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    rows = [face("real", i, **(change if i < 2 else {})) for i in range(60)]
    rows += [face("ddim", i, **(change if i < 45 else {})) for i in range(60)]
    rows += [face("glow", i, **(change if i < 6 else {})) for i in range(60)]
    told = [each for each in audit(manifest_of(tmp_path, rows)).warnings if expected in each]
    assert len(told) == 1 and "ddim" in told[0] and "glow" not in told[0]


def test_the_reasons_for_missing_gaze_are_counted(tmp_path: Path) -> None:
    rows = [face("real", i, gaze_pitch=None, gaze_flag="profile" if i else "closed_eyes") for i in range(3)]
    (real,) = audit(manifest_of(tmp_path, rows)).balance
    assert (real.without_gaze, real.gaze_flags) == (3, {"closed_eyes": 1, "profile": 2})


def test_inputs_that_prepare_left_out_more_often_for_fakes_are_a_selection(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, alike({"real": 60, "ddim": 60, "glow": 60}))
    skips = [("ddim", "blurred_face")] * 30 + [("real", "no_face")] * 2 + [("glow", "no_face")] * 2
    pq.write_table(_skips(*skips), tmp_path / SKIPPED)
    (told,) = (each for each in audit(manifest).warnings if each.startswith("Prepare left out another share"))
    assert "ddim 30 of 90, against 2 of 62 real" in told and "glow" not in told
