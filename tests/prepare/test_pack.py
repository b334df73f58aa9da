"""A packed manifest has the rows of the loose one, and its images where its rows say, whoever reads them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from dfad_bench.analysis.audit import check_files
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare import pack as packing
from dfad_bench.prepare import shards
from dfad_bench.prepare.add_gaze import add_gaze
from dfad_bench.prepare.pack import PackReport, pack, packed_folder
from dfad_bench.prepare.verify import verify_manifest
from dfad_bench.records.face_files import read_file
from dfad_bench.records.features import FeaturesWriter, read_features
from dfad_bench.records.gaze import read_gaze
from dfad_bench.records.image_columns import ROWS_PER_GROUP
from dfad_bench.records.manifest import COLUMNS, METADATA, read_footer, read_manifest, with_footer
from tests.prepare.builders import face, images, job, json_lines, rows, run, write

FACES = 23
SMALL = 20_000
"""Bytes of a shard that holds a few of the faces."""


@pytest.fixture(autouse=True)
def _groups_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 3)


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A manifest of 23 faces, some of them without a gaze, and a skipped input."""
    listing: list[dict[str, Any]] = []
    for number, name in enumerate(images(tmp_path / "root", FACES)):
        looks = {"gaze_pitch": 0.01 * number, "gaze_yaw": 0.1} if number % 4 else {}
        listing.append({"path": name, "generator": "real", "identities": ["a"], "licence": f"L{number % 2}", **looks})
    json_lines(tmp_path / "root" / "a.jsonl", [*listing, {"path": "img/gone.png", "generator": "real"}])
    return run(job(tmp_path / "root", tmp_path / "data", "table")).root


@pytest.fixture
def out(loose: Path) -> Path:
    return packed_folder(loose, "faces")


def packed(loose: Path, out: Path, **options: Any) -> PackReport:
    return pack(loose, out, **{"shard_bytes": SMALL, **options})


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_rows_and_their_order_are_the_same_save_where_the_images_lie(loose: Path, out: Path) -> None:
    report = packed(loose, out)
    assert out == loose.parent.with_name("data-packed") / "faces"
    assert (report.faces, report.resumed) == (FACES, 0) and report.shards > 2
    files = ("file_name", "gaze_file_name")
    before, after = read_manifest(loose), read_manifest(out)
    assert after.footer == before.footer
    assert after.table.drop_columns(files).equals(before.table.drop_columns(files))
    for one, other in zip(rows(loose), rows(out), strict=True):
        for column in files:
            assert (one[column] is None) == (other[column] is None)
            if one[column] is not None:
                assert re.fullmatch(r"shards/0000\d\.parquet@\d+\+\d+", other[column])
                assert read_file(out, other[column]) == (loose / one[column]).read_bytes()
    assert report.bytes == sum(path.stat().st_size for path in (out / "shards").iterdir())
    for name in ("skipped.parquet", "report.json"):
        assert (out / name).read_bytes() == (loose / name).read_bytes()
    assert not (out / "faces").exists() and not (out / "gaze").exists()


def test_it_is_sound_and_an_audit_finds_every_file(loose: Path, out: Path) -> None:
    packed(loose, out)
    assert verify_manifest(out) == []
    found = check_files(read_manifest(out))
    with_gaze = FACES - len(range(0, FACES, 4))
    assert (found.checked, found.missing, found.empty) == (FACES + with_gaze, 0, 0)
    last = sorted((out / "shards").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    in_last = [row for row in rows(out) if row["file_name"].startswith(f"shards/{last.name}")]
    assert len(verify_manifest(out)) == len(in_last) > 0
    assert check_files(read_manifest(out)).missing >= len(in_last)


def test_a_shard_is_parquet_with_every_column_and_images_that_pillow_opens(loose: Path, out: Path) -> None:
    packed(loose, out)
    tables = [pq.read_table(path) for path in sorted((out / "shards").iterdir())]
    stored = [row for table in tables for row in table.to_pylist()]
    assert set(tables[0].column_names) == set(COLUMNS.names) - {"file_name", "gaze_file_name"} | {"image", "gaze_map"}
    for one, other in zip(rows(loose), stored, strict=True):
        assert (one["id"], one["licence"], one["identities"]) == (other["id"], other["licence"], other["identities"])
        assert other["image"]["bytes"] == (loose / one["file_name"]).read_bytes()
        assert other["image"]["path"].endswith(".png") and "/" not in other["image"]["path"]
        assert (other["gaze_map"] is None) == (one["gaze_file_name"] is None)
    group = pq.ParquetFile(out / "shards" / "00000.parquet").metadata
    assert group.row_group(0).num_rows == 3
    by_path = {
        group.row_group(0).column(at).path_in_schema: group.row_group(0).column(at) for at in range(group.num_columns)
    }
    assert by_path["image.bytes"].compression == "UNCOMPRESSED"
    assert by_path["id"].compression == "ZSTD"


@pytest.mark.filterwarnings("ignore")  # of datasets' own
@pytest.mark.parametrize("gazes", ["some", "none"])
def test_load_dataset_shows_every_row_with_its_images(tmp_path: Path, loose: Path, out: Path, gazes: str) -> None:
    datasets = pytest.importorskip("datasets")
    if gazes == "none":
        blind = [row | dict.fromkeys(("gaze_file_name", "gaze_pitch", "gaze_yaw")) for row in rows(loose)]
        schema = with_footer(COLUMNS, read_footer(loose))
        pq.write_table(pq.read_table(loose / METADATA).from_pylist(blind, schema), loose / METADATA)
    packed(loose, out)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    expected = rows(loose)
    assert len(loaded["train"]) == FACES
    for shown, row in zip(loaded["train"], expected, strict=True):
        assert shown["id"] == row["id"] and shown["licence"] == row["licence"]
        assert isinstance(shown["image"], Image.Image)
        np.testing.assert_array_equal(np.asarray(shown["image"]), face(loose, row["file_name"]))
        if row["gaze_file_name"] is None:
            assert shown["gaze_map"] is None
        else:
            np.testing.assert_array_equal(np.asarray(shown["gaze_map"]), face(loose, row["gaze_file_name"]))


RAY = """
import json, sys
import ray
ray.init("local", num_cpus=1, log_to_driver=False, include_dashboard=False)
rows = ray.data.read_parquet(sys.argv[1]).take_all()
print(json.dumps({row["id"]: len(row["image"]["bytes"]) for row in rows}))
"""


@pytest.mark.slow
def test_ray_reads_the_shards_as_parquet(loose: Path, out: Path) -> None:
    pytest.importorskip("ray")
    packed(loose, out)
    command = [sys.executable, "-W", "ignore", "-c", RAY, str(out / "shards")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(answer.stdout.strip().splitlines()[-1])
    assert told == {row["id"]: (loose / row["file_name"]).stat().st_size for row in rows(loose)}


def test_the_card_says_which_files_to_load(loose: Path, out: Path) -> None:
    packed(loose, out)
    match = re.match(r"---\n(.*?)\n---\n\n# faces\n", (out / "README.md").read_text(), re.DOTALL)
    assert match
    front = yaml.safe_load(match[1])
    assert front["configs"] == [{"config_name": "default", "data_files": "shards/*.parquet"}]
    assert front["license_name"] == "per-row"


# --- the same bytes, however it came about -------------------------------------------------------------------------


def test_two_workers_and_packing_what_is_packed_give_the_same_bytes(
    loose: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", ROWS_PER_GROUP)  # as the workers have it
    packed(loose, out)
    packed(loose, tmp_path / "two" / "faces", engine=LocalEngine(2))
    packed(out, tmp_path / "again" / "faces")
    once = contents(out)
    assert contents(tmp_path / "two" / "faces") == once
    again = contents(tmp_path / "again" / "faces")
    # what a shard's rows were packed from is noted with them
    assert {name: data for name, data in again.items() if not name.startswith(".pack/")} == {
        name: data for name, data in once.items() if not name.startswith(".pack/")
    }


@pytest.mark.parametrize("moment", ["writing images", "finding them", "writing rows", "copying", "joining", "gaze"])
def test_a_run_that_was_stopped_leaves_no_manifest_and_goes_on_to_the_same_bytes(
    loose: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    packed(loose, tmp_path / "whole" / "faces")
    where: dict[str, tuple[Any, str]] = {
        "writing images": (shards, "read_sound"),
        "finding them": (shards, "_find"),
        "writing rows": (shards, "write_table"),
        "copying": (packing, "_copy_beside"),
        "joining": (packing, "AtomicParquet"),
        "gaze": (packing, "_copy_gaze"),
    }
    module, name = where[moment]
    right, calls = getattr(module, name), 0
    most = {"writing images": FACES, "finding them": 2, "writing rows": 2}.get(moment, 0)

    def stops(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > most:
            raise KeyboardInterrupt
        return right(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, stops)
        with pytest.raises(KeyboardInterrupt):
            packed(loose, out)
    assert not (out / METADATA).exists()
    with pytest.raises(UsageError, match="no manifest"):
        read_manifest(out)
    assert all(path.name.startswith("0") for path in (out / "shards").iterdir()), (
        "a shard has its name when it is whole"
    )
    report = packed(loose, out)
    assert report.resumed == {"writing images": 2, "finding them": 2, "writing rows": 2}.get(moment, report.shards)
    assert contents(out) == contents(tmp_path / "whole" / "faces")


def test_files_that_a_killed_run_left_are_cleared_away(loose: Path, out: Path, tmp_path: Path) -> None:
    packed(loose, tmp_path / "whole" / "faces")
    packed(loose, out)
    (out / METADATA).unlink()
    for left in (
        "shards/.00001.parquet.part",
        "shards/00099.parquet",
        ".pack/00099.parquet",
        ".pack/.metadata.parquet.part",
    ):
        (out / left).write_bytes(b"left")
    assert packed(loose, out).resumed > 2
    assert contents(out) == contents(tmp_path / "whole" / "faces")


def test_a_second_call_writes_no_shard_and_a_damaged_one_is_written_anew(loose: Path, out: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    first = packed(loose, out, on_progress=lambda *step: steps.append(step))
    assert steps[0] == (0, FACES) and steps[-1] == (FACES, FACES)
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert packed(loose, out).resumed == first.shards
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == times
    (out / "shards" / "00001.parquet").write_bytes(b"short")
    assert packed(loose, out).resumed == first.shards - 1
    assert contents(out) == before


def test_another_size_or_other_faces_replace_what_was_packed(loose: Path, out: Path) -> None:
    many = packed(loose, out).shards
    assert packed(loose, out, shard_bytes=10**9).shards == 1 < many
    assert sorted(path.name for path in (out / "shards").iterdir()) == ["00000.parquet"]
    assert verify_manifest(out) == []
    fewer = rows(loose)[5:]
    schema = with_footer(COLUMNS, read_footer(loose))
    pq.write_table(pq.read_table(loose / METADATA).from_pylist(fewer, schema), loose / METADATA)
    assert packed(loose, out).faces == len(fewer)
    assert [row["id"] for row in rows(out)] == [row["id"] for row in fewer]
    assert verify_manifest(out) == []


def test_a_shard_holds_no_more_than_was_asked_and_no_more_than_so_many_faces(
    loose: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(loose, out)
    held: dict[str, int] = {}
    for row in rows(out):
        for name in (row["file_name"], row["gaze_file_name"]):
            if name is not None:
                shard, _, place = name.partition("@")
                held[shard] = held.get(shard, 0) + int(place.partition("+")[2])
    assert all(size <= SMALL for size in held.values())
    monkeypatch.setattr(shards, "MOST_FACES", 5)
    assert packed(loose, out, shard_bytes=10**9).shards == -(-FACES // 5)
    assert packed(loose, out, shard_bytes=1).shards == FACES, "a face is never left out for its size"


# --- gaze beside the rows ------------------------------------------------------------------------------------------


def _with_features(loose: Path) -> None:
    footer = read_footer(loose).model_copy(update={"feature_dim": 3})
    with FeaturesWriter(loose, FACES, 3) as file:
        file.add(np.arange(3 * FACES, dtype=np.float32).reshape(FACES, 3))
    pq.write_table(pq.read_table(loose / METADATA).cast(with_footer(COLUMNS, footer)), loose / METADATA)


def test_features_come_along_and_are_missed_before_anything_is_written(loose: Path, out: Path) -> None:
    _with_features(loose)
    packed(loose, out)
    np.testing.assert_array_equal(read_features(out), read_features(loose))
    (loose / "gaze_features.safetensors").unlink()
    with pytest.raises(DataError, match="has no gaze_features"):
        packed(loose, out.parent.parent / "other" / "faces")
    assert not (out.parent.parent / "other").exists()


def test_gaze_that_was_added_comes_along_and_can_be_added_later(loose: Path, out: Path) -> None:
    add_gaze(loose, "gradient")
    report = packed(loose, out)
    assert (report.gaze, report.gaze_left_out) == (("gradient",), ())
    one, other = read_gaze(loose, "gradient"), read_gaze(out, "gradient")
    assert one.ids == other.ids and one.flags == other.flags
    np.testing.assert_array_equal(one.pitch, other.pitch)
    assert verify_manifest(out) == []
    assert add_gaze(out, "gradient").already
    before = (out / "other_gaze" / "gradient.parquet").read_bytes()
    (out / "other_gaze" / "gradient.parquet").unlink()
    add_gaze(out, "gradient")
    assert (out / "other_gaze" / "gradient.parquet").read_bytes() == before
    assert packed(loose, out).resumed == report.shards


def test_gaze_of_other_faces_stays_behind(loose: Path, out: Path) -> None:
    add_gaze(loose, "gradient")
    fewer = rows(loose)[1:]
    schema = with_footer(COLUMNS, read_footer(loose))
    pq.write_table(pq.read_table(loose / METADATA).from_pylist(fewer, schema), loose / METADATA)
    report = packed(loose, out)
    assert (report.gaze, report.gaze_left_out) == ((), ("gradient",))
    assert not (out / "other_gaze").exists()


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "other pixels", "no image", "missing gaze map", "broken gaze map"])
def test_an_image_that_is_not_as_it_was_prepared_stops_it_in_one_line(loose: Path, out: Path, damage: str) -> None:
    row = rows(loose)[6]
    path = loose / row["gaze_file_name" if "gaze" in damage else "file_name"]
    if "missing" in damage:
        path.unlink()
    elif damage == "other pixels":
        altered = face(loose, row["file_name"]).copy()
        altered[0, 0, 0] ^= 1
        assert cv2.imwrite(str(path), altered[..., ::-1])
    else:
        path.write_bytes(b"<html></html>")
    with pytest.raises(DataError) as told:
        packed(loose, out)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(f"{row['id']}: {path.relative_to(loose)} ")
    assert not (out / METADATA).exists()


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(loose: Path, out: Path, tmp_path: Path) -> None:
    write(out / "mine.txt", b"mine")
    with pytest.raises(UsageError, match="holds files that 'dfad-bench pack' did not write"):
        packed(loose, out)
    assert contents(out) == {"mine.txt": b"mine"}
    for inside in (loose, loose / "faces", loose.parent):
        with pytest.raises(UsageError, match="lie in each other"):
            packed(loose, inside)
    with pytest.raises(UsageError, match=r"give --output .*/other/faces\."):
        packed(loose, tmp_path / "other")
    with pytest.raises(UsageError, match="no manifest"):
        packed(tmp_path, tmp_path / "nowhere" / "faces")


def test_nothing_is_prepared_into_a_packed_folder(loose: Path, out: Path, tmp_path: Path) -> None:
    packed(loose, out)
    before = contents(out)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(UsageError, match="is a packed manifest"):
            run(job(tmp_path / "root", out.parent, "table"), **options)
    assert contents(out) == before


def test_a_manifest_without_faces_cannot_be_packed(loose: Path, out: Path) -> None:
    schema = with_footer(COLUMNS, read_footer(loose))
    pq.write_table(schema.empty_table(), loose / METADATA)
    with pytest.raises(DataError, match="holds no face"):
        packed(loose, out)


def test_the_folder_of_a_relative_manifest_lies_beside_its_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    assert packed_folder(Path("data/toy"), "toy") == Path("data-packed/toy")
    assert packed_folder(Path("toy"), "toy") == tmp_path / "data-packed" / "toy"
