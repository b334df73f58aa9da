"""A dataset JSON of DeepfakeBench or DF40 is read whatever its paths look like, and what is wrong with it is named."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.dataset_json import (
    JsonClip,
    evenly_spaced,
    frame_number,
    in_numeric_order,
    normalise_path,
    read_dataset_json,
)
from dfad_bench.types import Defect


def clip(label: str, *frames: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "frames": list(frames), **more}


def written(folder: Path, content: Any, name: str = "Set.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> tuple[list[JsonClip], list[Defect]]:
    defects: list[Defect] = []
    return list(read_dataset_json(path, defects.append, **options)), defects


def test_a_file_with_compression_levels_and_one_without_give_the_same_kind_of_record(tmp_path: Path) -> None:
    with_level = {
        "FF-DF": {
            "FF-DF": {"train": {"c23": {"000_003": clip("FF-DF", "F/000.png", masks=["F/masks/000.png"])}}},
            "FF-real": {
                "test": {"raw": {"000": clip("FF-real", "R/000.png")}, "c40": {"000": clip("FF-real", "Q/0.png")}}
            },
        }
    }
    fake, raw, c40 = read(written(tmp_path, with_level))[0]
    assert fake == JsonClip("FF-DF", "FF-DF", True, "train", "c23", "000_003", ("F/000.png",), ("F/masks/000.png",))
    assert (raw.compression, c40.compression, raw.is_fake) == ("raw", "c40", False)
    without = {"UADFV": {"UADFV_Fake": {"val": {"0000_fake": clip("UADFV_Fake", "u/1.png")}}}}
    (plain,), defects = read(written(tmp_path, without))
    assert (plain.compression, plain.split, plain.video, plain.is_fake, plain.masks) == (
        None,
        "val",
        "0000_fake",
        True,
        (),
    )
    assert defects == []


def test_a_video_called_c23_is_a_video(tmp_path: Path) -> None:
    (only,), _ = read(written(tmp_path, {"D": {"D_Fake": {"test": {"c23": clip("D_Fake", "a/1.png")}}}}))
    assert (only.video, only.compression) == ("c23", None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("FaceForensics++\\a\\b.png", "FaceForensics++/a/b.png"),
        ("./datasets/rgb//x.png", "datasets/rgb/x.png"),
        (".\\rgb\\x.png", "rgb/x.png"),
        ("/abs/./x/../y.png", "/abs/y.png"),
        ("//server/share/y.png", "/server/share/y.png"),
        ("a/../../secret.png", "../secret.png"),
        ("C:\\data\\x.png", "C:/data/x.png"),
    ],
)
def test_a_path_is_brought_to_one_spelling(path: str, expected: str) -> None:
    assert normalise_path(path) == expected


def test_both_separators_are_read_and_backslashes_are_told_once_with_their_count(tmp_path: Path) -> None:
    videos = {"a": clip("D_Real", "D\\a\\0.png", "D/a/1.png"), "b": clip("D_Real", "D\\b\\0.png")}
    clips, defects = read(written(tmp_path, {"D": {"D_Real": {"train": videos}}}))
    assert [c.frames for c in clips] == [("D/a/0.png", "D/a/1.png"), ("D/b/0.png",)]
    assert defects == [Defect("backslash_path", "Set.json: 2 paths hold backslashes, read as '/'")]


@pytest.mark.parametrize(
    ("label", "is_fake"),
    [
        *(("FF-real", False), ("CelebDFv2_real", False), ("DFDC_Real", False), ("real", False), ("sd2.1_Real", False)),
        *(("FF-DF", True), ("FF-F2F", True), ("FF-FS", True), ("FF-NT", True), ("FF-FH", True), ("FF-SH", True)),
        *(("DFD_fake", True), ("DFDCP_FakeA", True), ("DFDCP_FakeB", True), ("roop_Fake", True), ("fake", True)),
    ],
)
def test_real_or_fake_is_read_from_the_label(label: str, is_fake: bool, tmp_path: Path) -> None:
    (only,), _ = read(written(tmp_path, {"fake_or_real": {label: {"test": {"v": clip(label, "a.png")}}}}))
    assert only.is_fake is is_fake


@pytest.mark.parametrize("label", ["Deepfakes", "surreal", "unreal", "FF-XY", "reality", "fakes"])
def test_a_label_that_says_neither_is_refused_until_it_is_mapped(label: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"D": {label: {"test": {"v": clip(label, "a.png")}}}})
    with pytest.raises(UsageError, match=rf"{label}' says neither real nor fake.*--set labels={label}=real"):
        read(path)
    assert read(path, fakes={label: True})[0][0].is_fake


def test_the_label_inside_a_clip_counts_and_the_difference_is_told(tmp_path: Path) -> None:
    content = {"simswap_ff": {"simswap_Fake": {"test": {v: clip("roop_Real", f"{v}.png") for v in "ab"}}}}
    clips, defects = read(written(tmp_path, content))
    assert [(c.label, c.is_fake) for c in clips] == [("roop_Real", False)] * 2
    assert [d.kind for d in defects] == ["wrong_label"]
    assert "simswap_ff/simswap_Fake/test: 2 clips are labelled roop_Real" in defects[0].detail


def test_empty_clips_and_splits_are_told_and_empty_clips_are_kept(tmp_path: Path) -> None:
    content = {
        "D": {"D_Fake": {"train": {}, "val": {"c23": {}}, "test": {"x": clip("D_Fake"), "y": clip("D_Fake", "a")}}}
    }
    clips, defects = read(written(tmp_path, content))
    assert [(c.video, c.frames) for c in clips] == [("x", ()), ("y", ("a",))]
    assert [d.detail for d in defects if d.kind == "empty_split"] == [
        "Set.json: D/D_Fake/train holds no clip",
        "Set.json: D/D_Fake/val/c23 holds no clip",
    ]
    assert [d.detail for d in defects if d.kind == "empty_clip"] == [
        "Set.json: D/D_Fake/test: 1 clips without frames: x"
    ]


def test_the_same_video_in_val_and_test_is_told_with_counts(tmp_path: Path) -> None:
    videos = {v: clip("m_Fake", f"m/{v}/0.png", f"m/{v}/1.png") for v in ("000_003", "005_010")}
    content = {"m_ff": {"m_Fake": {"train": {"001_870": clip("m_Fake", "m/t/0.png")}, "val": videos, "test": videos}}}
    (defect,) = read(written(tmp_path, content))[1]
    assert defect.kind == "in_two_splits"
    assert defect.detail == "Set.json: val and test share 2 videos, such as 000_003, and 4 frames"


def test_the_same_frame_under_another_video_name_is_told_too(tmp_path: Path) -> None:
    content = {
        "m": {"m_Fake": {"train": {"a": clip("m_Fake", "x\\0.png")}, "test": {"b": clip("m_Fake", "./x/0.png")}}}
    }
    details = [d.detail for d in read(written(tmp_path, content))[1] if d.kind == "in_two_splits"]
    assert details == ["Set.json: train and test share 0 videos, and 1 frames"]


def test_videos_of_one_name_under_two_labels_are_two_videos(tmp_path: Path) -> None:
    content = {
        "U": {
            "U_Real": {"train": {"0000": clip("U_Real", "r/0.png")}},
            "U_Fake": {"test": {"0000": clip("U_Fake", "f/0.png")}},
        }
    }
    assert read(written(tmp_path, content))[1] == []


def test_a_frame_listed_twice_in_its_clip_is_kept_once(tmp_path: Path) -> None:
    content = {"D": {"D_Real": {"test": {"v": clip("D_Real", "v/1.png", "v/2.png", "./v/1.png")}}}}
    (only,), (defect,) = read(written(tmp_path, content))
    assert only.frames == ("v/1.png", "v/2.png")
    assert defect == Defect(
        "duplicate_frame", "Set.json: 1 frames listed again in their own clip, first D/D_Real/test/v"
    )


def test_a_key_that_is_given_twice_does_not_vanish_in_silence(tmp_path: Path) -> None:
    text = '{"D": {"D_Real": {"test": {"v": {"label": "D_Real", "frames": ["a"]}, "v": {"label": "D_Real", "frames": ["b"]}}}}}'
    (only,), (defect,) = read(written(tmp_path, text))
    assert only.frames == ("b",)
    assert (defect.kind, "'v' is given 2 times" in defect.detail) == ("repeated_key", True)


def test_the_nameless_clip_of_dfdc_is_told_and_its_split_still_read(tmp_path: Path) -> None:
    val = {"label": "DFDC_Real", "frames": ["lost.png"], "aaa": clip("DFDC_Real", "kept.png")}
    clips, defects = read(written(tmp_path, {"DFDC": {"DFDC_Real": {"val": val}}}))
    assert [(c.video, c.frames) for c in clips] == [("aaa", ("kept.png",))]
    assert [d.kind for d in defects] == ["nameless_clip"]


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ('{"D": NaN}', "NaN is no JSON number"),
        ('{"D": Infinity}', "Infinity is no JSON number"),
        ('{"D": ' + "9" * 5000 + "}", "is not valid JSON"),
        ('{"D": 1e999}', "D is a number, expected an object"),
        (deep(100_000), "nested too deeply"),
        ([1, 2], "top level is a list, expected an object"),
        (None, "top level is missing or null"),
        ({"D": []}, "D is a list without content"),
        ({"D": {"D_Real": "x"}}, "D/D_Real is a text"),
        ({"D": {"D_Real": {"tests": {}}}}, "has a split 'tests', expected train, val or test. Did you mean 'test'?"),
        ({"D": {"D_Real": {"test": [1]}}}, "D/D_Real/test is a list"),
        ({"D": {"D_Real": {"test": {"v": 3}}}}, "D/D_Real/test/v is a number"),
        ({"D": {"D_Real": {"test": {"v": {"label": "D_Real"}}}}}, "v: frames is missing or null, expected a list"),
        ({"D": {"D_Real": {"test": {"v": {"label": 1, "frames": []}}}}}, "v: label is a number, expected text"),
        ({"D": {"D_Real": {"test": {"v": clip("D_Real", "a", 7)}}}}, r"v: frames\[1\] is a number, expected text"),
        ({"D": {"D_Real": {"test": {"v": clip("D_Real", "")}}}}, r"v: frames\[0\] is a text without content"),
        ({"D": {"D_Real": {"test": {"v": clip("D_Real", "a", masks="m")}}}}, "v: masks is a text, expected a list"),
        (
            '{"D": {"D_Real": {"test": {"v": {"label": "D_Real", "frames": ["\\ud800.png"]}}}}}',
            "characters that no text has",
        ),
        ('{"D": {"D_Real": {"test": {"\\ud800": {"label": "D_Real", "frames": []}}}}}', "characters that no text has"),
        ({"D": {"D\n_Real": {"test": {}}}}, r"the key 'D\\n_Real' holds line breaks"),
        ('{"\\ud800": {"D_Real": {"test": {}}}}', "holds line breaks or other characters"),
        ({"D": {"D_Real": {"test": {"v": clip("D\n_Real", "a")}}}}, "v: label is .* with line breaks"),
        ({"D": {"D_Real": {"test": {"v": clip("D_Real", "a\0b")}}}}, r"v: frames\[0\] is 'a\\x00b'"),
    ],
)
def test_a_hostile_file_is_one_line_that_names_file_and_place(content: Any, part: str, tmp_path: Path) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(DataError, match=part) as caught:
        read(written(tmp_path, text))
    told = str(caught.value)
    assert "Set.json" in told and "\n" not in told and len(told) < 1000
    told.encode()


def test_names_in_other_scripts_are_read(tmp_path: Path) -> None:
    (only,), _ = read(written(tmp_path, {"D": {"D_Real": {"test": {"видео\u00a01": clip("D_Real", "脸/1.png")}}}}))
    assert (only.video, only.frames) == ("видео\u00a01", ("脸/1.png",))


def test_a_missing_file_is_a_wrong_call_and_bytes_that_are_no_text_are_bad_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"bad\.json cannot be read as text"):
        read(tmp_path / "bad.json")


def test_the_file_is_checked_before_the_first_clip_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_dataset_json(written(tmp_path, "[]"), lambda defect: None)


def test_frames_are_spread_evenly_over_the_whole_video() -> None:
    chosen = evenly_spaced(range(270), 32)
    steps = Counter(after - before for before, after in pairwise(chosen))
    assert len(set(chosen)) == 32 and set(steps) <= {8, 9}
    assert chosen[0] < 9 and chosen[-1] > 260  # the first 32 would end at 31
    assert evenly_spaced("abc", 3) == evenly_spaced("abc", 9) == ["a", "b", "c"]
    assert evenly_spaced(range(9), 1) == [4]


def test_frames_are_ordered_by_number_and_not_by_text() -> None:
    assert in_numeric_order(["v/10.png", "v/9.png", "v/cover.png", "v/100.png"]) == [
        *("v/9.png", "v/10.png", "v/100.png", "v/cover.png")
    ]
    assert [
        frame_number(p) for p in ("v/seed0188.png", "7/x.png", f"{2**31}.png", "9" * 5000, "a_12_b3c.jpg", "٣.png")
    ] == [*(188, None, None, None, 3, None)]


def test_a_file_of_two_hundred_thousand_frames_is_read_in_seconds(tmp_path: Path) -> None:
    videos = {f"{v:05d}": clip("D_Fake", *(f"D\\f\\{v:05d}\\{i:03d}.png" for i in range(32))) for v in range(6250)}
    path = written(tmp_path, {"D": {"D_Fake": {"val": videos, "test": videos}}})
    start = time.perf_counter()
    clips, _ = read(path)
    assert len(clips) == 12_500 and time.perf_counter() - start < 10
