"""A prepared source opens with Hugging Face datasets, without any code of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.prepare.builders import face, images, job, json_lines, rows, run

datasets = pytest.importorskip("datasets")


def prepared(tmp_path: Path, gazes: list[tuple[float, float] | None]) -> Path:
    listing: list[dict[str, Any]] = []
    for name, gaze in zip(images(tmp_path / "root", len(gazes)), gazes, strict=True):
        looks = {} if gaze is None else {"gaze_pitch": gaze[0], "gaze_yaw": gaze[1]}
        listing.append({"path": name, "generator": "real", "identities": ["a"], **looks})
    json_lines(tmp_path / "root" / "a.jsonl", [*listing, {"path": "img/gone.png", "generator": "real"}])
    return run(job(tmp_path / "root", tmp_path / "data", "table")).root


def load(folder: Path, tmp_path: Path) -> Any:
    return datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore")  # of datasets' own
def test_faces_gaze_maps_and_columns_are_shown(tmp_path: Path) -> None:
    folder = prepared(tmp_path, [(0.1, 0.2), (-0.1, 0.4), (0.0, 0.0)])
    loaded = load(folder, tmp_path)
    expected = rows(folder)
    assert len(loaded) == 3
    assert {"image", "gaze", "id", "generator", "gaze_pitch", "identities", "sha256"} <= set(loaded.column_names)
    for shown, row in zip(sorted(loaded, key=lambda row: row["id"]), expected, strict=True):
        assert shown["id"] == row["id"]
        assert shown["gaze_yaw"] == pytest.approx(row["gaze_yaw"])
        np.testing.assert_array_equal(np.asarray(shown["image"].convert("RGB")), face(folder, row["file_name"]))
        np.testing.assert_array_equal(np.asarray(shown["gaze"]), face(folder, row["gaze_file_name"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gazes", [[(0.1, 0.2), None], [None, (0.1, 0.2)], [None, None]])
def test_faces_without_gaze_are_shown_too(tmp_path: Path, gazes: list[tuple[float, float] | None]) -> None:
    loaded = load(prepared(tmp_path, gazes), tmp_path)
    shown = sorted(loaded, key=lambda row: row["id"])
    assert [row["gaze_pitch"] is None for row in shown] == [gaze is None for gaze in gazes]
    assert all(row["image"].size == (32, 32) for row in shown)
    if any(gazes):
        assert [row["gaze"] is None for row in shown] == [gaze is None for gaze in gazes]


def test_the_card_begins_with_front_matter_that_is_yaml(tmp_path: Path) -> None:
    card = (prepared(tmp_path, [None]) / "README.md").read_text()
    match = re.match(r"---\n(.*?)\n---\n\n# faces\n", card, re.DOTALL)
    assert match
    assert yaml.safe_load(match[1])["pretty_name"] == "faces"
    assert "1 of 2 inputs" in card
    assert "1 missing_file" in card
