"""A face that somebody asked to be taken out goes with all that was made of it, is counted, and never comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare import take_down as stage
from dfad_bench.prepare.add_gaze import add_gaze
from dfad_bench.prepare.ledger import Ledger
from dfad_bench.prepare.take_down import TakenDown, take_down
from dfad_bench.prepare.verify import verify_manifest
from dfad_bench.records.gaze import read_gaze
from dfad_bench.records.manifest import read_manifest
from dfad_bench.records.tombstones import add_tombstones
from tests.prepare.builders import contents, images, job, json_lines, rows, run
from tests.prepare.test_only_gaze import estimator_file

DAY, WHY = "2026-01-31", "by letter"
PEOPLE = ("ann", "ben", "cleo")
FACES = 80
"""More than a part holds, of one generator."""


def source(root: Path) -> Path:
    """A table of 80 faces: frames of clips of two, every third a swap of two people, every fifth of gaze unknown."""
    listed = []
    for at, name in enumerate(images(root, FACES)):
        swap = at % 3 == 0
        labels: dict[str, Any] = {"path": name, "generator": "simswap" if swap else "real", "domain": "ff"}
        labels |= {"video": f"clip{at // 6}", "frame": at, "identities": [PEOPLE[at % 3], *(["dora"] if swap else [])]}
        if at % 5:
            labels |= {"gaze_pitch": 0.01 * at, "gaze_yaw": -0.01 * at}
        listed.append(labels)
    json_lines(root / "a.jsonl", listed)
    return root


def prepared(root: Path, data: Path) -> Path:
    return run(job(root, data, "table")).root


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A source, and the folder of data that it was prepared in."""
    folder = tmp_path_factory.mktemp("taken")
    root = source(folder / "root")
    prepared(root, folder / "data")
    yield root, folder / "data"


@pytest.fixture
def root(original: tuple[Path, Path]) -> Path:
    return original[0]


@pytest.fixture
def faces(original: tuple[Path, Path], tmp_path: Path) -> Path:
    """A manifest of one's own."""
    shutil.copytree(original[1], tmp_path / "data")
    return tmp_path / "data" / "faces"


def ask(folder: Path, *asked: tuple[str, str]) -> TakenDown:
    return take_down(folder, asked, DAY, WHY)


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


def of(folder: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The rows that hold what is wanted."""
    return [
        row
        for row in rows(folder)
        if all(value in row[key] if isinstance(row[key], list) else row[key] == value for key, value in wanted.items())
    ]


# --- what goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["id", "identity", "video", "sha256"])
def test_every_face_that_a_value_names_goes_with_its_files_and_no_other(faces: Path, kind: str) -> None:
    column = "identities" if kind == "identity" else kind
    row = rows(faces)[3]
    value = row[column][0] if kind == "identity" else row[column]
    before, gone = rows(faces), of(faces, **{column: value})
    done = ask(faces, (kind, value))
    assert list(done.removed) == sorted(each["id"] for each in gone) != []
    assert rows(faces) == [each for each in before if each not in gone]
    files = {each[name] for each in gone for name in ("file_name", "gaze_file_name")} - {None}
    assert files.isdisjoint(contents(faces))
    assert {str(name) for each in rows(faces) for name in (each["file_name"], each["gaze_file_name"]) if name} == {
        name for name in contents(faces) if name.endswith(".png")
    }
    assert verify_manifest(faces) == []


def test_nothing_vanishes_unaccounted_for(faces: Path) -> None:
    gone = {row["id"] for row in of(faces, identities="ff/ann")}
    ask(faces, ("identity", "ff/ann"))
    footer = read_manifest(faces).footer
    assert (footer.declared, footer.kept, footer.skipped) == (FACES, FACES - len(gone), {"taken_down": len(gone)})
    skipped = rows(faces, "skipped.parquet")
    assert {(row["id"], row["reason"], row["detail"]) for row in skipped} == {
        (each, "taken_down", "asked for on 2026-01-31: by letter") for each in gone
    }
    report = json.loads((faces / "report.json").read_text(encoding="utf-8"))
    assert sum(each["skipped"].get("taken_down", 0) for each in report["generators"]) == len(gone)
    assert sum(each["kept"] for each in report["generators"]) == footer.kept
    assert f"({footer.kept} of {FACES} inputs)" in (faces / "README.md").read_text(encoding="utf-8")


def test_the_id_alone_is_left_of_a_face_anywhere_in_the_folder(faces: Path) -> None:
    row = next(row for row in rows(faces) if row["identities"] == ["ff/ann", "ff/dora"])
    ask(faces, ("video", row["video"]), ("identity", "ff/ann"), ("identity", "ff/dora"))
    for path in faces.rglob("*.parquet"):
        for text in (b"ff/ann", row["sha256"].encode()):
            columns = pq.read_table(path).to_pylist()
            assert text.decode() not in str(columns), path
            assert text not in path.read_bytes(), path


def test_what_is_left_is_what_a_preparation_under_the_same_list_writes(faces: Path, root: Path, tmp_path: Path) -> None:
    ask(faces, ("identity", "ff/ben"))
    ask(faces, ("id", rows(faces)[0]["id"]), ("video", rows(faces)[5]["video"]))
    fresh = tmp_path / "fresh" / "faces"
    fresh.mkdir(parents=True)
    shutil.copy(faces / "tombstones.csv", fresh)
    prepared(root, fresh.parent)
    assert contents(fresh) == contents(faces)
    assert {name: pq.read_table(fresh / ".prepare/parts" / name) for name in parts(fresh)} == {
        name: pq.read_table(faces / ".prepare/parts" / name) for name in parts(faces)
    }


def parts(folder: Path) -> list[str]:
    state = folder / ".prepare" / "parts"
    return sorted(path.relative_to(state).as_posix() for path in state.rglob("*.parquet"))


def test_a_generator_of_which_nothing_is_left_leaves_no_folder(faces: Path) -> None:
    ask(faces, ("identity", "ff/dora"))
    assert of(faces, generator="simswap") == []
    assert not (faces / "faces" / "simswap").exists()
    assert verify_manifest(faces) == []


# --- it stays so ---------------------------------------------------------------------------------------------------


def test_a_later_preparation_makes_nothing_and_brings_nobody_back(faces: Path, root: Path) -> None:
    ask(faces, ("identity", "ff/ann"))
    before = contents(faces)
    report = run(job(root, faces.parent, "table"))
    assert (report.resumed, report.parts) == (report.parts, len(parts(faces)))
    assert contents(faces) == before


def test_a_preparation_from_nothing_heeds_the_list_too(faces: Path, root: Path) -> None:
    ask(faces, ("identity", "ff/ann"))
    before = contents(faces)
    run(job(root, faces.parent, "table"), overwrite=True)
    assert contents(faces) == before


def test_a_line_that_was_written_by_hand_is_carried_out_by_the_next_preparation(faces: Path, root: Path) -> None:
    add_tombstones(faces, [("identity", "ff/ann")], DAY, WHY)
    assert of(faces, identities="ff/ann")
    report = run(job(root, faces.parent, "table"))
    assert of(faces, identities="ff/ann") == []
    assert report.resumed == report.parts, "it needs none of the images"
    assert verify_manifest(faces) == []


def test_the_list_alone_may_lie_in_the_folder_before_the_first_preparation(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "faces"
    folder.mkdir(parents=True)
    add_tombstones(folder, [("identity", "ff/ann")], DAY, WHY)
    prepared(root, folder.parent)
    assert of(folder, identities="ff/ann") == []
    assert read_manifest(folder).footer.skipped["taken_down"] > 0


def test_a_preparation_refuses_a_list_that_is_not_sound(faces: Path, root: Path) -> None:
    before = contents(faces)
    (faces / "tombstones.csv").write_text("kind,value,date,reason\nidentity,ann,2026-01-31,asked\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"tombstones\.csv, line 2"):
        prepared(root, faces.parent)
    assert {name: data for name, data in contents(faces).items() if name != "tombstones.csv"} == before


# --- added gaze and features ---------------------------------------------------------------------------------------


def test_the_rows_of_an_added_gaze_go_and_it_is_still_that_of_the_faces(faces: Path, tmp_path: Path) -> None:
    add_gaze(faces, estimator_file(tmp_path))
    before = read_gaze(faces, "bright")
    gone = {row["id"] for row in of(faces, identities="ff/ann")}
    ask(faces, ("identity", "ff/ann"))
    after = read_gaze(faces, "bright")
    keep = [each not in gone for each in before.ids]
    assert after.ids == [row["id"] for row in rows(faces)]
    np.testing.assert_array_equal(after.pitch, before.pitch[keep])
    assert before.features is not None and after.features is not None
    np.testing.assert_array_equal(after.features, before.features[keep])
    assert add_gaze(faces, estimator_file(tmp_path)).already
    assert verify_manifest(faces) == []
    left = list((faces / "other_gaze").rglob("*.parquet"))
    assert all(gone.isdisjoint(pq.read_table(path)["id"].to_pylist()) for path in left)


def test_an_added_gaze_of_other_faces_loses_the_rows_and_stays_refused(faces: Path, root: Path, tmp_path: Path) -> None:
    add_gaze(faces, estimator_file(tmp_path))
    run(job(root, faces.parent, "table", size=24), overwrite=True)
    ask(faces, ("identity", "ff/ann"))
    with pytest.raises(DataError, match="gaze of other faces"):
        read_gaze(faces, "bright")
    held = pq.read_table(faces / "other_gaze" / "bright.parquet")["id"].to_pylist()
    assert held == [row["id"] for row in rows(faces)]


def test_an_added_gaze_that_nobody_can_read_goes_whole(faces: Path, tmp_path: Path) -> None:
    add_gaze(faces, estimator_file(tmp_path))
    (faces / "other_gaze" / "bright.parquet").write_bytes(b"broken")
    ask(faces, ("identity", "ff/ann"))
    assert list((faces / "other_gaze").glob("[!.]*")) == []
    assert verify_manifest(faces) == []


# --- killed, locked, foreign ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["drop_rows", "_renew", "_drop_added_gaze", "drop_files"])
def test_a_call_that_was_killed_is_finished_by_the_next(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    add_gaze(faces, estimator_file(tmp_path))
    shutil.copytree(faces, tmp_path / "undisturbed" / "faces")
    ask(tmp_path / "undisturbed" / "faces", ("identity", "ff/ann"))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Ledger if step.startswith("drop") else stage, step, killed)
        ask(faces, ("identity", "ff/ann"))
    take_down(faces, [], DAY, "")
    told = {name: data for name, data in contents(faces).items() if "other_gaze" not in name}
    whole = contents(tmp_path / "undisturbed" / "faces")
    assert told == {name: data for name, data in whole.items() if "other_gaze" not in name}
    ids = pq.read_table(faces / "other_gaze" / "bright.parquet")["id"].to_pylist()
    assert ids == [row["id"] for row in rows(faces)]


def test_nobody_else_may_write_meanwhile(faces: Path) -> None:
    with FileLock(faces / ".prepare" / "lock"), pytest.raises(UsageError, match="Another dfad-bench is writing"):
        ask(faces, ("identity", "ff/ann"))
    assert not (faces / "tombstones.csv").exists()


def test_a_folder_without_a_ledger_is_refused_and_left_as_it_is(faces: Path, tmp_path: Path) -> None:
    """A copy, such as a packed one, has no parts to go by."""
    shutil.rmtree(faces / ".prepare")
    before = contents(faces)
    for folder in (faces, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="not where its source was prepared"):
            ask(folder, ("identity", "ff/ann"))
    assert contents(faces) == before
    assert not (tmp_path / "nothing").exists()


def test_a_preparation_that_was_not_finished_loses_the_faces_too(faces: Path, root: Path) -> None:
    (faces / "metadata.parquet").unlink()
    done = ask(faces, ("identity", "ff/ann"))
    assert done.removed and not done.has_manifest
    prepared(root, faces.parent)
    assert of(faces, identities="ff/ann") == []
    assert verify_manifest(faces) == []


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_says_what_went_and_what_it_does_not_reach(faces: Path) -> None:
    gone = sorted(row["id"] for row in of(faces, identities="ff/ann"))
    where = ("faces", "--data", faces.parent)
    answer = call("take-down", *where, "--identity", "ff/ann", "--reason", "asked", "--format", "json")
    told = json.loads(answer.stdout)
    assert told["removed"] == gone
    assert [(each["kind"], each["value"], each["reason"]) for each in told["added"]] == [
        ("identity", "ff/ann", "asked")
    ]
    assert "predictions hold ids" in " ".join(answer.stderr.split())
    again = json.loads(call("take-down", *where, "--format", "json").stdout)
    assert (again["removed"], again["added"]) == ([], [])


def test_a_value_that_names_no_face_is_kept_and_told(faces: Path) -> None:
    where = ("faces", "--data", faces.parent)
    answer = call("take-down", *where, "--identity", "ff/zoe", "--reason", "asked", expect=3)
    assert "No face of faces has the identity 'ff/zoe'" in " ".join(answer.stderr.split())
    assert "identity,ff/zoe," in (faces / "tombstones.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--id", "faces/real/a"), "Say why with --reason"), (("--reason", "asked"), "Give one of them")],
)
def test_a_wish_needs_a_reason_and_a_reason_a_wish(faces: Path, options: tuple[str, ...], told: str) -> None:
    answer = call("take-down", "faces", "--data", faces.parent, *options, expect=2)
    assert told in " ".join(answer.stderr.split())
    assert not (faces / "tombstones.csv").exists()
