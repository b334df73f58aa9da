"""A dataset folder that anyone can load, and that holds no image whose licence does not say so."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare import pipeline
from dfad_bench.prepare.faces import pixel_sha256
from dfad_bench.prepare.options import build_job
from dfad_bench.prepare.plan import plan
from dfad_bench.publish.croissant import Publication
from dfad_bench.publish.export_dataset import export_dataset
from dfad_bench.publish.licences import REDISTRIBUTABLE, licence_url
from dfad_bench.records.manifest import METADATA, with_footer
from tests.analysis.builders import FOOTER, face, table_of

HOSTILE = "<script>alert(1)</script>|`[x](javascript:alert(1))"
PROTOCOL: Mapping[str, Any] = {
    "name": "toy",
    "version": 1,
    "origin": "ours",
    "reference": "a test",
    "description": "a test",
    "warning": "Only a toy.",
    "sources": ["toy"],
    "train": {"where": {"source_split": "train"}},
    "val": {"where": {"source_split": "val"}},
    "test": {"seen": {"where": {"source_split": "test"}}, "un-seen": {"where": {"source_split": "later"}}},
    "attribution": {"levels": ["generator"]},
}


def png(number: int, size: int = 8) -> tuple[bytes, str]:
    """Return a PNG of noise and the hash of its pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(), pixel_sha256(pixels)


def rows_of(
    counts: Mapping[str, int], splits: Sequence[str] = ("train", "val", "test", "later"), **changes: Any
) -> list[dict[str, Any]]:
    """Return rows of each generator, turn by turn in each split."""
    rows = []
    for generator, count in counts.items():
        for number in range(count):
            row = face(generator, number, source_split=splits[number % len(splits)], licence="CC0-1.0")
            rows.append(
                row | {"file_name": f"faces/{len(rows)}.png", "gaze_file_name": f"gaze/{len(rows)}.png"} | changes
            )
    return rows


def a_source(data: Path, rows: Iterable[dict[str, Any]], size: int = 8) -> Path:
    """Write a manifest called toy with an image for every face and gaze map that a row names."""
    root = data / "toy"
    written = []
    for number, row in enumerate(rows):
        for column in ("file_name", "gaze_file_name"):
            if row[column] is not None:
                data_, sha256 = png(number if column == "file_name" else -number - 1 & 0xFFFF, size)
                (root / row[column]).parent.mkdir(parents=True, exist_ok=True)
                (root / row[column]).write_bytes(data_)
                row = row | ({"sha256": sha256} if column == "file_name" else {})
        written.append(row)
    table = table_of(written)
    pq.write_table(table.cast(with_footer(table.schema, FOOTER)), root / METADATA)
    return root


def a_protocol_file(folder: Path, **changes: Any) -> str:
    """Write a protocol and return its path."""
    contents = {**PROTOCOL, **changes}
    path = folder / f"{contents['name']}.yaml"
    path.write_text(yaml.safe_dump(contents), encoding="utf-8")
    return str(path)


def front_matter(out: Path) -> dict[str, Any]:
    """Return the YAML at the head of the card."""
    _, front, _ = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def tree(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The folder of data, with a source of 40 faces in four splits, and a protocol beside it."""
    a_source(tmp_path / "data", rows_of({"real": 16, "stylegan3": 16, "simswap": 8}))
    return tmp_path / "data"


def test_the_files_hold_images_and_labels_that_plain_parquet_reads(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = export_dataset(toy, ["toy"], [a_protocol_file(tmp_path)], out)
    assert sorted(files) == sorted(path for path in out.rglob("*") if path.is_file())
    table = pq.read_table(out / "data" / "toy-test_seen-00000.parquet")
    assert table.num_rows == 10
    assert set(table["source_split"].to_pylist()) == {"test"}
    for row in table.to_pylist():
        original = (toy / "toy" / row["image"]["path"]).read_bytes()
        assert row["image"]["bytes"] == original
        pixels = cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert pixel_sha256(pixels) == row["sha256"]
        assert row["gaze_map"]["bytes"] == (toy / "toy" / row["gaze_map"]["path"]).read_bytes()
        assert (row["licence"], row["source"], row["identities_count"]) == ("CC0-1.0", "toy", 1)
    assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["image"] == {"_type": "Image"}


def test_whom_a_face_shows_is_not_exported(tmp_path: Path) -> None:
    a_source(tmp_path / "data", rows_of({"real": 4}, identities=["toy/jane-doe", "toy/john-doe"]))
    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "data" / "default-faces-00000.parquet")
    assert table["identities_count"].to_pylist() == [2, 2, 2, 2]
    assert not any("jane-doe" in str(row) for row in table.drop(["image", "gaze_map"]).to_pylist())


def test_datasets_loads_it_with_image_features(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    out = tmp_path / "out"
    other = a_protocol_file(tmp_path, name="other", test={"test": {"where": {"source_split": ["test", "later"]}}})
    export_dataset(toy, [], [a_protocol_file(tmp_path), other], out)
    loaded = datasets.load_dataset(str(out), "toy", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        "train": 10, "validation": 10, "test_seen": 10, "test_un_seen": 10
    }  # fmt: skip
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    assert isinstance(loaded["train"].features["gaze_map"], datasets.Image)
    assert loaded["train"][0]["image"].size == (8, 8)
    default = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(default) == set(loaded)
    shared = datasets.load_dataset(str(out), "other", split="test", cache_dir=str(tmp_path / "cache"))
    assert set(shared["source_split"]) == {"test", "later"} and len(shared) == 20


@pytest.mark.slow
def test_the_demo_loads_as_the_splits_of_its_protocol(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    job = build_job("demo", tmp_path / "data", settings=["faces=60"])
    pipeline.prepare(job, plan(job))
    export_dataset(job.data, ["demo"], ["demo"], tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), "demo", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train", "validation", "test_seen", "test_unseen"]
    assert set(loaded["test_unseen"]["generator"]) == {"demo_flow", "demo_edit"}
    assert loaded["train"][0]["image"].size == (256, 256)
    assert front_matter(tmp_path / "out")["license"] == "cc0-1.0"
    assert "they prove nothing about real generators" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_face_in_the_splits_of_two_protocols_is_stored_once(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = a_protocol_file(
        tmp_path,
        name="other",
        train={"where": {"source_split": ["train", "val"]}},
        val={"where": {"source_split": "test"}},
        test={"late": {"where": {"source_split": "later"}}},
    )
    export_dataset(toy, ["toy"], [a_protocol_file(tmp_path), other], out)
    ids = [
        each for path in sorted(out.glob("data/*")) for each in pq.read_table(path, columns=["id"])["id"].to_pylist()
    ]
    assert len(ids) == len(set(ids)) == 40
    of = {config["config_name"]: {each["split"]: each["path"] for each in config["data_files"]}
          for config in front_matter(out)["configs"]}  # fmt: skip
    assert set(of["other"]["train"]) == set(of["toy"]["train"]) | set(of["toy"]["validation"])
    assert [each.get("default", False) for each in front_matter(out)["configs"]] == [True, False]


def test_files_are_bounded_and_rows_come_in_small_groups(tmp_path: Path) -> None:
    a_source(tmp_path / "data", rows_of({"real": 130, "simswap": 120}), size=16)
    out = tmp_path / "out"
    export_dataset(tmp_path / "data", ["toy"], [], out, shard_bytes=1)
    shards = sorted(out.glob("data/*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in shards] == [100, 100, 50]
    again = tmp_path / "again"
    export_dataset(tmp_path / "data", ["toy"], [], again)
    (whole,) = again.glob("data/*.parquet")
    held = pq.read_metadata(whole)
    assert [held.row_group(number).num_rows for number in range(held.num_row_groups)] == [100, 100, 50]
    rows = [pq.read_table(path) for path in shards]
    assert pa.concat_tables(rows).equals(pq.read_table(whole))


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    a_source(tmp_path / "data", rows_of({"real": 400, "simswap": 400}), size=64)
    size = sum(path.stat().st_size for path in (tmp_path / "data" / "toy" / "faces").iterdir())
    held: list[int] = []
    told: list[tuple[int, int]] = []

    def progress(done: int, of: int) -> None:
        held.append(pa.total_allocated_bytes())
        told.append((done, of))

    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out", on_progress=progress)
    assert told[0] == (100, 800) and told[-1] == (800, 800)
    assert max(held[1:]) - held[0] < size / 4


def test_the_same_faces_give_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    protocol = a_protocol_file(tmp_path)
    for name in ("one", "two"):
        export_dataset(toy, ["toy"], [protocol], tmp_path / name, publication=Publication("toy faces"))
    assert tree(tmp_path / "one") == tree(tmp_path / "two") != {}


# --- licences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "licence",
    ["", " ", "CC-BY-NC-4.0", "CC BY-ND 4.0", "no licence file", "unknown", "AGPL-3.0 repo", "MIT repo",
     "MIT (CelebA images: non-commercial)", "public domain; CelebA non-commercial", "other"],
)  # fmt: skip
def test_an_image_whose_licence_does_not_allow_it_stops_the_whole_export(licence: str, tmp_path: Path) -> None:
    rows = rows_of({"real": 8}) + rows_of({"simswap": 3}, licence=licence)
    for number, row in enumerate(rows):
        row |= {"file_name": f"faces/{number}.png", "gaze_file_name": None}
    a_source(tmp_path / "data", rows)
    with pytest.raises(DataError, match="Images of 3 of 11 rows may not be passed on") as caught:
        export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out")
    told = str(caught.value)
    assert "\n" not in told and "--metadata-only" in told
    assert ("toy: no licence (3 rows)" if not licence.strip() else f"toy: {licence!r} (3 rows)") in told
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out", metadata_only=True)
    (path,) = (tmp_path / "out").glob("data/*.parquet")
    table = pq.read_table(path)
    assert table.num_rows == 11 and not {"image", "gaze_map", "file_name"} & set(table.column_names)
    assert b"\x89PNG" not in path.read_bytes()
    assert front_matter(tmp_path / "out")["license"] == "other"


def test_licences_are_known_as_a_whole_and_blind_to_case_and_spaces() -> None:
    assert licence_url("cc by-sa 4.0") == licence_url("CC-BY-SA-4.0") == REDISTRIBUTABLE["CC-BY-SA-4.0"]
    assert licence_url(" MIT ") == REDISTRIBUTABLE["MIT"]
    assert not any("NC" in name or "ND" in name.split("-") for name in REDISTRIBUTABLE)
    assert all(url.startswith("https://") for url in REDISTRIBUTABLE.values())


def test_only_faces_that_are_exported_are_asked_for_a_licence(tmp_path: Path) -> None:
    rows = rows_of({"real": 16, "stylegan3": 16})
    for row in rows:
        row |= {"licence": "proprietary"} if row["source_split"] == "later" else {}
    a_source(tmp_path / "data", rows)
    protocol = a_protocol_file(tmp_path, test={"seen": {"where": {"source_split": "test"}}})
    export_dataset(tmp_path / "data", ["toy"], [protocol], tmp_path / "out")
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "out").glob("data/*")) == 24


# --- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "told"), [("gone", "is missing"), ("changed", "holds other pixels"), ("linked", "by a link")]
)
def test_an_image_that_is_not_what_was_prepared_stops_it_and_leaves_nothing(
    what: str, told: str, toy: Path, tmp_path: Path
) -> None:
    image = toy / "toy" / "faces" / "3.png"
    image.unlink()
    if what == "changed":
        image.write_bytes(png(999)[0])
    if what == "linked":
        (tmp_path / "secret.png").write_bytes(png(3)[0])
        image.symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=told):
        export_dataset(toy, ["toy"], [], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["data", *(["secret.png"] if what == "linked" else [])]
    )


def test_a_face_without_a_gaze_map_has_none(tmp_path: Path) -> None:
    a_source(tmp_path / "data", rows_of({"real": 4}, gaze_file_name=None, gaze_pitch=None, gaze_yaw=None))
    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "data")["gaze_map"].to_pylist() == [None] * 4


def test_names_that_do_not_fit_together_are_told(toy: Path, tmp_path: Path) -> None:
    protocol, out = a_protocol_file(tmp_path), tmp_path / "out"
    with pytest.raises(UsageError, match="nothing to export"):
        export_dataset(toy, [], [], out)
    with pytest.raises(UsageError, match="No protocol selects faces of other"):
        export_dataset(toy, ["toy", "other"], [protocol], out)
    with pytest.raises(UsageError, match="The protocols need toy too"):
        export_dataset(toy, ["other"], [protocol], out)
    with pytest.raises(UsageError, match="no manifest"):
        export_dataset(toy, ["other"], [], out)
    with pytest.raises(DataError, match="two subsets would both be the split test_a_b"):
        export_dataset(toy, [], [a_protocol_file(tmp_path, test={
            name: {"where": {"source_split": "test"}} for name in ("a b", "a-b")
        })], out)  # fmt: skip
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is in use"):
        export_dataset(toy, ["toy"], [], out)
    assert (out / "mine.txt").read_text(encoding="utf-8") == "mine"


# --- the card ------------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_faces_are_and_are_not_for(toy: Path, tmp_path: Path) -> None:
    about = Publication("Toy faces", url="https://huggingface.co/datasets/org/toy", contact="take-down@example.org")
    export_dataset(toy, ["toy"], [a_protocol_file(tmp_path)], tmp_path / "out", publication=about)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for said in (
        "Only a toy.",
        "No proof in any legal sense",
        "No inference about persons from gaze",
        "take-down@example.org",
    ):
        assert said in card
    for said in ('load_dataset("org/toy", "toy")', "| toy | simswap | gan | CC0-1.0 | 8 |", "| toy | train | 10 |"):
        assert said in card
    assert "the splits are those of the protocols" in card
    export_dataset(toy, ["toy"], [], tmp_path / "whole")
    assert "The faces are not split" in (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    front = front_matter(tmp_path / "out")
    assert front["pretty_name"] == "Toy faces" and front["size_categories"] == ["n<1K"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    rows = rows_of({"real": 4, HOSTILE: 4})
    for row in rows:
        row["id"] = f"toy/{row['file_name']}"
    a_source(tmp_path / "data", rows)
    about = Publication(f"--- {HOSTILE}\n# x", url="https://example.org", contact=HOSTILE)
    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out", publication=about)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    body = card.split("\n---\n", 1)[1]
    assert "<script" not in body and not re.search(r"(?<!\\)\]\(javascript", body)
    assert front_matter(tmp_path / "out")["pretty_name"] == about.name
    cells = [line for line in card.splitlines() if "script" in line and line.startswith("| toy |")]
    assert len(cells) == 1 and cells[0].replace("\\|", "").count("|") == 6
    described = json.loads((tmp_path / "out" / "croissant.json").read_text(encoding="utf-8"))
    assert described["name"] == about.name
