"""What a preparation leaves beside its faces: whole clips, gaze features, counts, defects; and what stops it leaves a state."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError
from dfad_bench.prepare import ledger
from dfad_bench.prepare.ledger import MOST_IN_PART
from dfad_bench.prepare.pipeline import prepare
from dfad_bench.prepare.plan import Job, plan
from dfad_bench.records.features import read_features
from dfad_bench.records.manifest import read_footer
from tests.prepare.builders import contents, encoded, face, folder_tree, job, json_lines, pixels, rows, run, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder_tree(tmp_path / "root")


def test_a_part_ends_where_a_clip_ends_unless_the_clip_is_very_long(tmp_path: Path) -> None:
    lengths = {"a": 40, "b": 40, "c": 10, "d": MOST_IN_PART + 5}
    names = [f"{clip}/{number:04d}.png" for clip, length in lengths.items() for number in range(length)]
    for name in names:
        write(tmp_path / "root" / name, encoded(pixels(1), "PNG"))
    listing = [{"path": name, "generator": "real", "video": name.split("/", maxsplit=1)[0]} for name in names]
    json_lines(tmp_path / "root" / "a.jsonl", listing)
    report = run(job(tmp_path / "root", tmp_path / "data", "table"))
    folders = [row["file_name"].split("/")[2] for row in rows(report.root)]
    assert [folders.count(f"{part:05d}") for part in range(4)] == [80, MOST_IN_PART, 15, 0]
    assert len(rows(report.root)) == len(names)


ESTIMATOR = """
import numpy as np
from dfad_bench.types import Gaze

class Brightness:
    weights = ()
    weights_sha256 = None
    feature_dim = 3

    def estimate(self, faces, landmarks, annotations):
        features = faces.reshape(len(faces), -1, 3).mean(axis=1).astype(np.float32)
        dark = features.mean(axis=1) < 5
        features[dark] = np.nan
        pitch = np.where(dark, np.nan, 0.1).astype(np.float32)
        flags = tuple("closed_eyes" if each else None for each in dark)
        return Gaze(pitch, pitch * 2, head_pitch=pitch * 3, head_yaw=pitch * 4, features=features,
                    confidence=np.where(dark, 0, 0.5).astype(np.float32), flags=flags)

GAZE_ESTIMATOR = Brightness
"""


def with_features(root: Path, folder: Path, **options: Any) -> Job:
    what = job(root, folder / "data", **options)
    estimator = str(write(folder / "brightness.py", ESTIMATOR.encode()))
    return dataclasses.replace(what, recipe=dataclasses.replace(what.recipe, estimator=estimator))


def test_gaze_features_lie_beside_the_manifest_in_its_order(root: Path, tmp_path: Path) -> None:
    write(root / "real" / "dark.png", encoded(np.zeros((48, 48, 3), np.uint8), "PNG"))
    report = run(with_features(root, tmp_path))
    features, table = read_features(report.root), rows(report.root)
    assert features.shape == (len(table), 3) and features.dtype == np.float32
    for row, vector in zip(table, features, strict=True):
        if row["gaze_flag"]:
            assert np.isnan(vector).all()
        else:
            mean = face(report.root, row["file_name"]).reshape(-1, 3).mean(axis=0)
            np.testing.assert_allclose(vector, mean, rtol=1e-5)
    assert read_footer(report.root).feature_dim == 3


def test_a_face_whose_gaze_is_flagged_is_kept_without_a_gaze_and_counted(root: Path, tmp_path: Path) -> None:
    write(root / "real" / "dark.png", encoded(np.zeros((48, 48, 3), np.uint8), "PNG"))
    report = run(with_features(root, tmp_path))
    flagged = [row for row in rows(report.root) if row["gaze_flag"] is not None]
    assert [(r["gaze_flag"], r["gaze_pitch"], r["gaze_head_yaw"], r["gaze_file_name"]) for r in flagged] == [
        ("closed_eyes", None, None, None)
    ]
    other = next(row for row in rows(report.root) if row["gaze_flag"] is None)
    angles = [other[f"gaze_{name}"] for name in ("pitch", "yaw", "head_pitch", "head_yaw", "confidence")]
    assert angles == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    real = next(count for count in report.generators if count.generator == "real")
    assert (real.with_gaze, real.without_gaze) == (real.kept - 1, {"closed_eyes": 1})


def test_features_that_were_deleted_are_written_again_without_making_a_face(root: Path, tmp_path: Path) -> None:
    what = with_features(root, tmp_path)
    report = run(what)
    before = (report.root / "gaze_features.safetensors").read_bytes()
    (report.root / "gaze_features.safetensors").unlink()
    again = run(what)
    assert again.resumed == again.parts
    assert (report.root / "gaze_features.safetensors").read_bytes() == before


def test_one_and_two_workers_write_the_same_features(root: Path, tmp_path: Path) -> None:
    one = run(with_features(root, tmp_path / "one"))
    two = run(with_features(root, tmp_path / "two", engine=LocalEngine(2)))
    written = [(r.root / "gaze_features.safetensors").read_bytes() for r in (one, two)]
    assert written[0] == written[1]


@pytest.mark.parametrize("kind", ["faces", "gaze"])
def test_a_part_that_lost_a_file_is_made_again(root: Path, tmp_path: Path, kind: str) -> None:
    what = with_features(root, tmp_path)
    report = run(what)
    before = contents(report.root)
    lost = sorted((report.root / kind).rglob("*.png"))[0]
    lost.unlink()
    again = run(what)
    assert (again.resumed, again.parts) == (2, 3)
    assert contents(report.root) == before


def test_the_report_that_is_kept_says_what_became_of_every_generator(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    kept = json.loads((report.root / "report.json").read_text())
    assert kept["generators"] == [dataclasses.asdict(count) for count in report.generators]
    for count in kept["generators"]:
        assert count["kept"] + sum(count["skipped"].values()) == count["declared"]


def test_defects_of_the_dataset_are_counted_shown_and_kept(root: Path, tmp_path: Path) -> None:
    (root / "sdxl").mkdir()
    what = job(root, tmp_path / "data")
    planned = plan(what)
    assert planned.defects.counts == {"empty_folder": 1}
    report = prepare(what, planned)
    assert read_footer(report.root).defects == {"empty_folder": 1}
    kept = json.loads((report.root / "report.json").read_text())
    assert list(kept["defects"]) == ["empty_folder"] and "sdxl" in kept["defects"]["empty_folder"][0]


def test_a_root_that_vanishes_while_preparing_stops_the_run_which_goes_on_when_it_is_back(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = job(root, tmp_path / "data")
    planned = plan(what)
    expected = contents(run(job(root, tmp_path / "whole")).root)
    put, written = ledger._put, []

    def vanishing(path: Path, data: bytes) -> None:
        put(path, data)
        written.append(path)
        if len(written) == 3:
            root.rename(tmp_path / "away")

    monkeypatch.setattr(ledger, "_put", vanishing)
    with pytest.raises(DataError, match="has disappeared"):
        prepare(what, planned)
    monkeypatch.undo()
    (tmp_path / "away").rename(root)
    assert contents(run(what).root) == expected


def test_an_interrupted_run_keeps_what_was_finished(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = job(root, tmp_path / "data")
    expected = contents(run(job(root, tmp_path / "whole")).root)
    done: list[int] = []

    def interrupt(finished: int, total: int | None) -> None:
        done.append(finished)
        if finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(what, plan(what), on_progress=interrupt)
    again = run(what)
    assert again.resumed == 1
    assert contents(again.root) == expected
