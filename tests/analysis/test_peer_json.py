"""What is wrong in a peer's dataset JSON: the splits that peers published, made small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfad_bench.analysis.peer_json import PeerReport, audit_json, peer_tables
from dfad_bench.errors import DataError, UsageError

Videos = dict[str, list[str]]


def _frames(video: str, numbers: Any = range(0, 160, 16)) -> list[str]:
    return [f"data/{video}/{number:03}.png" for number in numbers]


def _videos(*names: str, folder: str = "frames") -> Videos:
    return {name: _frames(f"{folder}/{name}") for name in names}


def _write(folder: Path, labels: dict[str, dict[str, Videos]], dataset: str = "Toy") -> Path:
    body = {
        label: {
            split: {video: {"label": label, "frames": frames} for video, frames in videos.items()}
            for split, videos in splits.items()
        }
        for label, splits in labels.items()
    }
    path = folder / f"{dataset}.json"
    path.write_text(json.dumps({dataset: body}), encoding="utf-8")
    return path


def _sound(folder: Path) -> Path:
    return _write(
        folder,
        {
            f"Toy_{kind}": {
                split: _videos(*(f"{kind}{split}{number}" for number in range(4)), folder=kind)
                for split in ("train", "val", "test")
            }
            for kind in ("real", "fake")
        },
    )


def _shared(report: PeerReport) -> dict[tuple[str, str, str], int]:
    return {(each.what, each.first, each.second): each.count for each in report.shared}


def test_a_sound_file_has_no_problems_and_no_warnings(tmp_path: Path) -> None:
    report = audit_json(_sound(tmp_path))
    assert (report.problems, report.warnings, report.shared) == ([], [], [])
    assert (report.clips, report.frames, report.splits) == (24, 240, ["train", "val", "test"])
    assert report.verdict.startswith("No leakage found")


def test_celeb_df_whose_test_clips_are_in_train_and_val_is_broken(tmp_path: Path) -> None:
    """Every video goes to train, and those of the test list to val and to test as well."""
    fake = _videos(*(f"id{i}_id{i + 1}_0001" for i in range(0, 20, 2)), folder="fake")
    real = _videos(*(f"id{i}_0000" for i in range(20, 30)), folder="real")
    tested = {name: frames for name, frames in fake.items() if name < "id14"}
    tested_real = dict(list(real.items())[:4])
    path = _write(
        tmp_path,
        {
            "CelebDFv2_fake": {"train": fake, "val": tested, "test": tested},
            "CelebDFv2_real": {
                "train": dict(list(real.items())[4:]),
                "val": tested_real,
                "test": tested_real,
            },
        },
        "Celeb-DF-v2",
    )
    report = audit_json(path)
    assert report.problems[0].startswith("val and test are the same: ")
    assert _shared(report)["video", "train", "test"] == len(tested)
    assert _shared(report)["frame", "train", "test"] == 10 * len(tested)
    assert _shared(report)["identity", "train", "test"] == 2 * len(tested)
    assert any(each.startswith("Leakage: train and test share") and "videos" in each for each in report.problems)
    assert report.verdict.startswith("BROKEN")


def test_uadfv_whose_three_splits_are_one_is_told_for_each_pair(tmp_path: Path) -> None:
    real, fake = (_videos(*(f"{i:04}" for i in range(5)), folder=kind) for kind in ("real", "fake"))
    splits = ("train", "val", "test")
    path = _write(tmp_path, {"UADFV_Real": dict.fromkeys(splits, real), "UADFV_Fake": dict.fromkeys(splits, fake)})
    told = audit_json(path).problems
    assert [each.partition(":")[0] for each in told] == [
        "train and val are the same",
        "train and test are the same",
        "val and test are the same",
    ]


def test_a_test_set_that_is_a_part_of_train_is_called_that(tmp_path: Path) -> None:
    real = _videos(*(f"{i:04}" for i in range(8)), folder="real")
    path = _write(tmp_path, {"a_Real": {"train": real, "test": dict(list(real.items())[:4])}})
    (problem,) = audit_json(path).problems
    assert problem.startswith("test is a part of train: 4 of 4 videos stand in both.")


def test_the_same_frames_under_other_names_of_videos_are_found(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        {
            "a_Real": {"train": {"one": _frames("x")}, "test": {"two": _frames("y")}},
            "a_Fake": {"train": {"three": _frames("z")}, "test": {"four": _frames("z"), "five": _frames("u")}},
        },
    )
    report = audit_json(path)
    assert _shared(report) == {("frame", "train", "test"): 10}
    assert any("share 10 of 20 frames" in each and "data/z/000.png" in each for each in report.problems)


@pytest.mark.parametrize(
    ("dataset", "train", "test", "expected"),
    [
        ("FF-DF", "033_097", "097_033", {"033", "097"}),
        ("simswap_ff", "001_870", "870_002", {"870"}),
        ("FaceForensics++", "033", "033_097", {"033"}),
        ("Celeb-DF-v1", "id3_0002", "id16_id3_0001", {"id3"}),
        ("UADFV", "0033", "0033_b", set()),
        ("UADFV", "033", "034", set()),
    ],
)
def test_people_are_read_off_both_halves_of_a_name(
    tmp_path: Path, dataset: str, train: str, test: str, expected: set[str]
) -> None:
    path = _write(
        tmp_path,
        {
            "x_real": {"train": _videos(train, folder="a")},
            "x_fake": {"test": _videos(test, folder="b")},
        },
        dataset,
    )
    found = [each for each in audit_json(path).shared if each.what == "identity"]
    assert {name for each in found for name in each.examples} == expected


def test_bare_names_of_videos_that_collide_are_counted_against_the_truth(tmp_path: Path) -> None:
    names = [f"{i:03}" for i in range(140)]
    path = _write(
        tmp_path,
        {label: {"test": _videos(*names, folder=label)} for label in ("FF-real", "FF-DF", "FF-F2F", "FF-FS", "FF-NT")},
        "FaceForensics++",
    )
    report = audit_json(path)
    names_ = report.video_names
    assert (names_.videos, names_.groups, names_.mixed) == (700, 140, 140)
    assert any("700 videos form 140 groups, 140 of them of reals and fakes" in each for each in report.warnings)


def test_the_first_frames_of_every_video_are_no_even_choice(tmp_path: Path) -> None:
    first = {f"v{i}": _frames(f"a{i}", range(32)) for i in range(10)}
    even = {f"w{i}": _frames(f"b{i}", range(0, 270, 9)) for i in range(10)}
    few = {f"u{i}": _frames(f"c{i}", range(4)) for i in range(10)}
    path = _write(tmp_path, {"a_real": {"train": first}, "a_fake": {"train": even | few}})
    assert audit_json(path).frame_choice.consecutive == 10
    assert audit_json(path).frame_choice.clips == 20
    assert not any("consecutive" in each for each in audit_json(path).warnings)
    warned = audit_json(
        _write(tmp_path, {"a_real": {"train": first}, "a_fake": {"train": {"z": first["v0"]}}})
    ).warnings
    assert any("11 of 11 clips list consecutive frames only" in each and "(0…31)" in each for each in warned)


def test_absent_classes_and_unequal_ones_are_told(tmp_path: Path) -> None:
    fakes = _videos(*(f"f{i}" for i in range(12)), folder="f")
    path = _write(
        tmp_path, {"a_Real": {"train": _videos("r")}, "a_Fake": {"train": fakes, "test": _videos("t", folder="t")}}
    )
    warnings = audit_json(path).warnings
    assert any("no val" in each and "no real in test" in each and "no a_Real in test" in each for each in warnings)
    assert any("train (10 real, 120 fake frames)" in each for each in warnings)


def test_defects_of_the_file_itself_are_passed_on(tmp_path: Path) -> None:
    path = _sound(tmp_path)
    data = json.loads(path.read_text())
    clips = data["Toy"]["Toy_real"]["train"]
    clips["realtrain0"]["frames"] = []
    clips["realtrain1"]["frames"] = [frame.replace("/", "\\") for frame in clips["realtrain1"]["frames"]]
    clips["realtrain2"]["frames"] *= 2
    path.write_text(json.dumps(data), encoding="utf-8")
    report = audit_json(path)
    assert set(report.defects) == {"empty_clip", "backslash_path", "duplicate_frame"}
    assert report.problems == []
    assert sum(each.empty for each in report.labels) == 1
    for words in ("Empty clip: ", "Backslash path: ", "Duplicate frame: "):
        assert any(each.startswith(words) for each in report.warnings)


def test_missing_files_are_counted_below_the_root_and_nothing_outside_it_counts(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "there.png").write_bytes(b"x")
    names = ["there.png", "gone.png", "../outside.png", "link.png", str(tmp_path / "outside.png")]
    path = _write(tmp_path, {"a_Real": {"train": {"v": names}}})
    report = audit_json(path, root)
    assert report.files is not None
    assert (report.files.checked, report.files.missing) == (5, 4)
    assert any("4 of 5 files are missing below the root" in each for each in report.problems)
    assert audit_json(path).files is None
    with pytest.raises(UsageError, match="There is no folder"):
        audit_json(path, tmp_path / "nowhere")


def test_files_are_found_where_prepare_finds_them(tmp_path: Path) -> None:
    for name in ("rgb/UADFV/real/a.png", "rgb/UADFV/real/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [f"/data/lab/datasets/rgb/UADFV/real/{name}.png" for name in "abc"]
    path = _write(tmp_path, {"UADFV_Real": {"train": {"v": names}}}, "UADFV")
    for path_map in (None, "/data/lab/datasets=", "/data/lab/datasets/rgb=rgb"):
        files = audit_json(path, tmp_path, path_map).files
        assert files is not None
        assert (files.checked, files.missing, files.examples) == (3, 1, [names[2]])


def test_a_file_that_is_no_dataset_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.json"):
        audit_json(tmp_path / "x.json")
    with pytest.raises(UsageError, match="There is no file"):
        audit_json(tmp_path / "y.json")


def test_one_split_alone_is_not_said_to_be_free_of_leaks(tmp_path: Path) -> None:
    report = audit_json(_write(tmp_path, {"a_Real": {"test": _videos("r")}}))
    assert "cannot be said" in report.verdict


def test_the_report_survives_json_and_its_tables_are_rectangular(tmp_path: Path) -> None:
    real = _videos(*(f"{i:04}" for i in range(5)))
    report = audit_json(_write(tmp_path, {"a_Real": {"train": real, "test": real}}), tmp_path)
    assert PeerReport.model_validate_json(report.model_dump_json()) == report
    for _, columns, rows in peer_tables(report):
        assert rows and all(len(row) == len(columns) for row in rows)
