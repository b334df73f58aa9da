"""A prepared source opens with Hugging Face datasets, without any code of ours."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dfad_bench.prepare import ledger
from dfad_bench.prepare.ledger import file_stem
from dfad_bench.prepare.verify import verify_manifest
from dfad_bench.records.manifest import without_split_words
from tests.prepare.builders import encoded, face, images, job, json_lines, pixels, rows, run, write

datasets = pytest.importorskip("datasets")
data_files = pytest.importorskip("datasets.data_files")


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


WORDS = sorted(word for words in data_files.SPLIT_KEYWORDS.values() for word in words)
ABOUT = data_files.NON_WORDS_CHARS


@pytest.mark.filterwarnings("ignore")
def test_names_that_load_dataset_would_take_for_splits_leave_no_face_out(tmp_path: Path) -> None:
    keys = [
        *(f"{word}.png" for word in WORDS),
        *(f"a_{word}_{number}.png" for number, word in enumerate(WORDS)),
        "test_test-val.1.png",
        "contest_1.png",
        "deep/train/x.png",
        "x0.png",
    ]
    generators = (
        {"generator": "real"},
        {"generator": "flux1_dev"},  # one of the taxonomy
        {"generator": "validation", "family": "gan", "forgery_type": "efs"},
        {"generator": "test.v2", "family": "gan", "forgery_type": "efs"},
    )
    listing = []
    for number, key in enumerate(keys):
        write(tmp_path / "root" / key, encoded(pixels(number), "PNG"))
        listing.append({"path": key, **generators[number % 4], "identities": ["a"], "gaze_pitch": 0.1, "gaze_yaw": 0.2})
    json_lines(tmp_path / "root" / "a.jsonl", listing)
    folder = run(job(tmp_path / "root", tmp_path / "data", "table")).root
    made = rows(folder)
    assert {row["id"].split("/", 2)[2] for row in made} == set(keys), "ids are as they always were"
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    shown = {row["id"]: row for row in loaded["train"]}
    assert set(shown) == {row["id"] for row in made}
    for row in made:
        np.testing.assert_array_equal(
            np.asarray(shown[row["id"]]["image"].convert("RGB")), face(folder, row["file_name"])
        )
        np.testing.assert_array_equal(np.asarray(shown[row["id"]]["gaze"]), face(folder, row["gaze_file_name"]))
    assert verify_manifest(folder) == []


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_marked_wherever_load_dataset_would_see_it(word: str) -> None:
    befores, afters = ["", *(f"a{each}" for each in ABOUT)], ["", *(f"{each}z" for each in ABOUT)]
    for before, after in itertools.product(befores, afters):
        marked = f"{before}{word}+{after}"
        assert without_split_words(before + word + after) == marked == without_split_words(marked)


@pytest.mark.parametrize(
    "name", ["contest", "trainer_1", "evaluate", "img_0001", "stylegan3", "developer", "retrain-a"]
)
def test_other_names_stay_as_they_are(name: str) -> None:
    assert without_split_words(name) == name
    assert file_stem(f"faces/real/{name}.png").startswith(f"{name}_png-")


@pytest.mark.filterwarnings("ignore")
def test_a_manifest_of_before_is_verified_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(["flux1_dev/a.png", "real/test_1.png", "real/b.png"]):
        write(tmp_path / "root" / name, encoded(pixels(number), "PNG"))
    what = job(tmp_path / "root", tmp_path / "data")
    with monkeypatch.context() as before:
        before.setattr(ledger, "without_split_words", lambda name: name)
        folder = run(what).root
    old = {row["id"]: row["file_name"] for row in rows(folder)}
    assert verify_manifest(folder) == []
    assert {Path(name).parts[1] for name in old.values()} == {"flux1_dev", "real"}
    report = run(what)
    assert (report.parts, report.resumed) == (2, 1), "a generator's folder is made anew, other parts stay"
    new = {row["id"]: row["file_name"] for row in rows(folder)}
    assert {id for id in new if new[id] != old[id]} == {"faces/flux1_dev/flux1_dev/a.png"}
    assert verify_manifest(folder) == []
    assert not (folder / "faces" / "flux1_dev").exists()
    run(what, overwrite=True)
    assert len(load(folder, tmp_path)) == 3


def test_the_card_begins_with_front_matter_that_is_yaml(tmp_path: Path) -> None:
    card = (prepared(tmp_path, [None]) / "README.md").read_text()
    match = re.match(r"---\n(.*?)\n---\n\n# faces\n", card, re.DOTALL)
    assert match
    assert yaml.safe_load(match[1])["pretty_name"] == "faces"
    assert "1 of 2 inputs" in card
    assert "1 missing_file" in card
