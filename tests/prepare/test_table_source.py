"""A table of images is read the same from every format, and what is wrong with it is told before any work starts."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.ledger import Ledger
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.prepare.pipeline import prepare
from dfad_bench.prepare.plan import plan
from dfad_bench.prepare.sources.table import TableSource
from dfad_bench.testing import check_source
from dfad_bench.types import RawImage
from tests.prepare.builders import encoded, images, job, json_lines, no_defect, pixels, rows, run, write

ROW = {"path": "img/0000.png", "generator": "stylegan3"}
SECRET = encoded(pixels(99), "PNG")


def listed(root: Path, **options: Any) -> list[RawImage]:
    return list(TableSource(**options).images(root, no_defect))


def complaint(root: Path, *bad: dict[str, Any], **options: Any) -> str:
    json_lines(root / "faces.jsonl", bad)
    with pytest.raises(UsageError) as caught:
        listed(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FULL = [
    {
        "path": "img/0000.png",
        "generator": "StyleGAN3",
        "domain": "ffhq",
        "source_split": "train",
        "video": "clip1",
        "frame": 12,
        "identities": ["a", "b"],
        "licence": "CC0",
        "mask": "masks/0000.png",
        "box": [1.0, 2.0, 30.0, 40.5],
        "landmarks": [float(n) for n in range(10)],
        "gaze_pitch": 0.25,
        "gaze_yaw": -0.5,
    },
    {"path": "img/0001.png", "generator": "real"},
]


def write_csv(path: Path, lists: str, delimiter: str = ",") -> None:
    def cell(value: Any) -> Any:
        if isinstance(value, list):
            return json.dumps(value) if lists == "json" else "|".join(map(str, value))
        return value

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(FULL[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in FULL)


def comparable(image: RawImage) -> tuple[Any, ...]:
    note = image.annotation
    plain = {
        name: getattr(image, name) for name in RawImage.__dataclass_fields__ if name not in ("annotation", "payload")
    }
    landmarks = None if note is None or note.landmarks is None else note.landmarks.tolist()
    return plain, None if note is None else (note.box, landmarks, note.gaze)


@pytest.mark.parametrize(
    "kind", ["csv with bars", "csv with JSON lists", "tsv", "parquet", "csv with a byte-order mark"]
)
def test_every_format_gives_the_same_images(tmp_path: Path, kind: str) -> None:
    json_lines(tmp_path / "a.jsonl", FULL)
    expected = [comparable(image) for image in listed(tmp_path, file="a.jsonl", domain="d")]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(FULL), tmp_path / "b.parquet")
        file = "b.parquet"
    else:
        file = "b.tsv" if kind == "tsv" else "b.csv"
        write_csv(tmp_path / file, "json" if "JSON" in kind else "bars", "\t" if kind == "tsv" else ",")
        if "mark" in kind:
            write(tmp_path / file, b"\xef\xbb\xbf" + (tmp_path / file).read_bytes())
    assert [comparable(image) for image in listed(tmp_path, file=file, domain="d")] == expected


def test_every_column_arrives_where_it_belongs(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", FULL)
    fake, real = listed(tmp_path, domain="d", default_licence="ours")
    assert (fake.generator, fake.family, fake.forgery_type) == ("stylegan3", "gan", "efs")
    assert (fake.domain, fake.source_split, fake.video, fake.frame) == ("ffhq", "train", "clip1", 12)
    assert (fake.identities, fake.licence) == (("a", "b"), "CC0")
    assert fake.mask == FilePayload(tmp_path, "masks/0000.png")
    assert fake.annotation is not None
    assert fake.annotation.box == (1.0, 2.0, 30.0, 40.5)
    assert fake.annotation.landmarks is not None
    assert fake.annotation.landmarks.tolist()[4] == [8.0, 9.0]
    assert fake.annotation.gaze == (0.25, -0.5)
    assert (real.generator, real.family, real.forgery_type) == ("real", "real", "real")
    assert (real.domain, real.licence, real.identities, real.annotation) == ("d", "ours", (), None)
    assert real.mask is None


def test_it_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", FULL)
    check_source(TableSource(), tmp_path)


def test_a_domain_that_nobody_names_is_the_folder_s(tmp_path: Path) -> None:
    json_lines(tmp_path / "celeb" / "a.jsonl", [ROW])
    assert listed(tmp_path / "celeb")[0].domain == "celeb"


def test_other_names_of_columns_are_understood(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [ROW | {"identity": "a|b", "split": "val"}])
    (image,) = listed(tmp_path)
    assert (image.identities, image.source_split) == (("a", "b"), "val")


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    message = complaint(tmp_path, {"paht": "img/0000.png", "generator": "real"})
    assert "no column 'path'" in message
    assert "Did you mean 'paht'?" in message


def test_another_path_column_can_be_chosen(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [{"image": "x.png", "generator": "real"}])
    assert listed(tmp_path, path_column="image")[0].key == "x.png"


def test_an_unused_column_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    json_lines(tmp_path / "a.jsonl", [ROW | {"identitty": "x"}])
    with caplog.at_level(logging.INFO, "dfad_bench"):
        listed(tmp_path)
    assert "identitty" in caplog.text


@pytest.mark.parametrize("empty", ["", "  ", None])
@pytest.mark.parametrize("column", ["generator", "path"])
def test_an_empty_cell_names_its_row_and_column(tmp_path: Path, column: str, empty: str | None) -> None:
    message = complaint(tmp_path, ROW, ROW | {column: empty})
    assert "row 2" in message
    assert f"{column} is empty" in message


def test_an_unknown_generator_names_its_row_and_the_nearest_one(tmp_path: Path) -> None:
    message = complaint(tmp_path, ROW, ROW | {"generator": "stylegan33"})
    assert "row 2" in message
    assert "'stylegan33' is no known generator. Did you mean 'stylegan3'?" in message


def test_a_new_generator_is_taken_with_both_labels(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [ROW | {"generator": "our_own", "family": "flow", "forgery_type": "fr"}])
    (image,) = listed(tmp_path)
    assert (image.generator, image.family, image.forgery_type) == ("our_own", "flow", "fr")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"generator": "our_own", "family": "flow"}, "no known generator"),
        ({"generator": "our own/..", "family": "flow", "forgery_type": "fr"}, "letters, digits"),
        ({"generator": "mean", "family": "flow", "forgery_type": "fr"}, "no generator can be called 'mean'"),
        ({"generator": "Pooled", "family": "flow", "forgery_type": "fr"}, "no generator can be called 'Pooled'"),
        ({"family": "gann"}, "Did you mean 'gan'?"),
        ({"forgery_type": "fe"}, "is no forgery type"),
        ({"family": "real"}, "labelled real"),
        ({"forgery_type": "real"}, "labelled real"),
        ({"generator": "real", "family": "gan"}, "a real face is labelled family gan"),
        ({"generator": "Real", "forgery_type": "fs"}, "a real face is labelled"),
        ({"source_split": "validation"}, "expected one of test, train, val"),
        ({"box": [1, 2, float("nan"), 4]}, "box needs 4 finite numbers"),
        ({"box": [1, 2, 3]}, "box needs 4 finite numbers"),
        ({"box": "1|2|x|4"}, "box needs 4 finite numbers"),
        ({"box": "[1, 2, 3, 4"}, "box needs 4 finite numbers"),
        ({"landmarks": [1, 2]}, "landmarks needs 10 finite numbers"),
        ({"gaze_pitch": 0.1}, "go together"),
        ({"gaze_pitch": "inf", "gaze_yaw": 0}, "gaze_pitch needs 1 finite number"),
        ({"frame": "twelve"}, "frame needs 1 finite number"),
        ({"identities": "[a, b"}, "begins like a JSON list"),
    ],
)
def test_a_wrong_cell_is_one_line_that_names_its_row(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    message = complaint(tmp_path, ROW, ROW | change)
    assert "row 2" in message
    assert part in message


def test_a_table_that_contradicts_the_taxonomy_wins_and_it_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    json_lines(tmp_path / "a.jsonl", [ROW | {"family": "diffusion"}, ROW | {"path": "b.png", "family": "diffusion"}])
    assert {image.family for image in listed(tmp_path)} == {"diffusion"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "diffusion/efs here, gan/efs in the taxonomy" in warnings[0]


def test_two_labels_for_one_generator_are_refused(tmp_path: Path) -> None:
    message = complaint(tmp_path, ROW, ROW | {"path": "b.png", "family": "diffusion"})
    assert "row 2" in message
    assert "diffusion/efs here and gan/efs before" in message


def test_no_table_and_several_tables_ask_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no table"):
        listed(tmp_path)
    for name in ("b.csv", "a.jsonl"):
        json_lines(tmp_path / name, [ROW])
    with pytest.raises(UsageError, match=r"several tables \(a.jsonl, b.csv\).*--set file=NAME"):
        listed(tmp_path)


@pytest.mark.parametrize("file", ["../outside.csv", "/etc/outside.csv", "absent.csv", "notes.txt"])
def test_a_table_that_is_not_there_or_not_below_the_root_is_refused(tmp_path: Path, file: str) -> None:
    root = tmp_path / "root"
    for path in (root / "notes.txt", tmp_path / "outside.csv"):
        write(path, b"path,generator\nx.png,real\n")
    with pytest.raises(UsageError, match="table"):
        listed(root, file=file)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"PAR1 not really PAR1"),
        ("a.jsonl", b'{"path": "x.png", "generator": "real"}\n{"path": \n'),
        ("a.jsonl", b"[1, 2]\n"),
        ("a.csv", b"path,generator\n\xff\xfe,real\n"),
        ("a.csv", b'path,generator\n"x.png"y,real\n'),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    write(tmp_path / name, data)
    with pytest.raises(DataError, match=f"{name} cannot be read as"):
        listed(tmp_path)


def test_a_csv_row_with_too_many_cells_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", b"path,generator\nx.png,real\ny.png,real,surplus\n")
    with pytest.raises(UsageError, match="more cells than the header"):
        listed(tmp_path)


def test_backslashes_in_paths_lead_to_the_files(tmp_path: Path) -> None:
    images(tmp_path / "root", 2)
    json_lines(tmp_path / "root" / "a.jsonl", [ROW | {"path": "img\\0000.png"}, ROW | {"path": "img\\0001.png"}])
    report = run(job(tmp_path / "root", tmp_path / "data", "table"))
    assert report.skipped == 0
    assert {row["id"] for row in rows(report.root)} == {f"faces/stylegan3/img/000{n}.png" for n in (0, 1)}


@pytest.mark.parametrize("kind", ["dots", "absolute", "link", "linked folder", "absent"])
def test_a_path_out_of_the_root_is_a_ledger_row_and_its_target_is_not_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    images(root, 1)
    secret = write(tmp_path / "elsewhere" / "secret.png", SECRET)
    path = {
        "dots": "../elsewhere/secret.png",
        "absolute": str(secret),
        "link": "img/link.png",
        "linked folder": "img/folder/secret.png",
        "absent": "../elsewhere/absent.png",
    }[kind]
    (root / "img" / "link.png").symlink_to(secret)
    (root / "img" / "folder").symlink_to(secret.parent)
    json_lines(root / "a.jsonl", [ROW, ROW | {"path": path}])
    read, reads = Path.read_bytes, list[Path]()
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.resolve()) or read(path))
    report = run(job(root, tmp_path / "data", "table"))
    (skipped,) = rows(report.root, "skipped.parquet")
    assert (skipped["reason"], skipped["id"]) == ("outside_root", f"faces/stylegan3/{path}")
    assert len(rows(report.root)) == 1
    assert reads, "the other image was read"
    assert secret not in reads


def test_a_link_that_stays_below_the_root_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    images(root, 1)
    (root / "link.png").symlink_to(root / "img" / "0000.png")
    json_lines(root / "a.jsonl", [ROW | {"path": "link.png"}])
    assert run(job(root, tmp_path / "data", "table")).skipped == 0


@pytest.mark.parametrize(
    ("path", "reason"), [("loop.png", "bad_path"), ("a\0b.png", "bad_path"), ("img", "not_a_file")]
)
def test_a_path_that_cannot_be_read_is_a_ledger_row(tmp_path: Path, path: str, reason: str) -> None:
    root = tmp_path / "root"
    images(root, 1)
    (root / "loop.png").symlink_to(root / "loop.png")
    json_lines(root / "a.jsonl", [ROW, ROW | {"path": path}])
    report = run(job(root, tmp_path / "data", "table"))
    assert [row["reason"] for row in rows(report.root, "skipped.parquet")] == [reason]
    assert len(rows(report.root)) == 1


def test_missing_files_are_counted_in_the_plan_and_named_in_the_ledger(tmp_path: Path) -> None:
    images(tmp_path / "root", 2)
    listing = [ROW, ROW | {"path": "img/0001.png"}, ROW | {"path": "img/gone.png"}, ROW | {"path": "img/gone2.png"}]
    json_lines(tmp_path / "root" / "a.jsonl", listing)
    what = job(tmp_path / "root", tmp_path / "data", "table")
    planned = plan(what)
    assert (planned.declared["stylegan3"], planned.missing["stylegan3"]) == (4, 2)
    assert planned.first_missing == "stylegan3/img/gone.png"
    assert not what.out.exists(), "a plan writes nothing"
    report = prepare(what, planned)
    skipped = rows(report.root, "skipped.parquet")
    assert [(row["id"], row["reason"]) for row in skipped] == [
        (f"faces/stylegan3/img/{name}.png", "missing_file") for name in ("gone", "gone2")
    ]


def test_a_root_that_disappears_stops_the_run_and_it_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    names = images(root, 150)
    json_lines(root / "a.jsonl", [{"path": name, "generator": "real"} for name in names])
    what = job(root, tmp_path / "data", "table")
    planned = plan(what)
    write_part = Ledger.write

    def write_then_unplug(self: Any, part: Any, inputs: str, faces: Iterator[Any]) -> Any:
        summary = write_part(self, part, inputs, faces)
        shutil.move(root, away)
        return summary

    monkeypatch.setattr(Ledger, "write", write_then_unplug)
    with pytest.raises(DataError, match="has disappeared"):
        prepare(what, planned)
    assert not (what.out / "metadata.parquet").exists()
    monkeypatch.undo()
    shutil.move(away, root)
    report = run(what)
    assert (report.parts, report.resumed, report.skipped) == (3, 1, 0)
    assert len(rows(report.root)) == 150


@pytest.mark.parametrize("frame", [2**31, -1, 1.5])
def test_a_frame_that_no_manifest_can_hold_is_named_with_its_row(tmp_path: Path, frame: float) -> None:
    root = tmp_path / "root"
    images(root, 1)
    json_lines(root / "a.jsonl", [ROW | {"frame": frame}])
    with pytest.raises(UsageError, match=r"row 1: frame .* is no whole number"):
        run(job(root, tmp_path / "data", "table"))
