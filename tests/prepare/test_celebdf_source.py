"""Celeb-DF v2 keeps its test clips out of training, its people apart, and says what is wrong with a copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import UsageError
from dfad_bench.prepare.payloads import MISSING, FilePayload
from dfad_bench.prepare.sources.celebdf import FOLDERS, TEST_LIST, CelebDfSource
from dfad_bench.prepare.video import VideoFrame
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import write

CLIPS = ("Celeb-real/id0_0000", "Celeb-real/id1_0000", "YouTube-real/00001", "YouTube-real/00170")
SWAPS = ("Celeb-synthesis/id0_id1_0000", "Celeb-synthesis/id1_id0_0000", "Celeb-synthesis/id2_id3_0001")
TEST = ("1 YouTube-real/00170.mp4", "0 Celeb-synthesis/id2_id3_0001.mp4")


def tree(root: Path, lines: tuple[str, ...] = TEST) -> Path:
    for name in (*CLIPS, *SWAPS):
        write(root / f"{name}.mp4", b"x")
    write(root / TEST_LIST, "\n".join(lines).encode() + b"\n")
    return root


def listed(root: Path, **options: Any) -> tuple[dict[str, RawImage], dict[str, str]]:
    """The images by video, one of each clip, and the defects by kind."""
    defects: list[Defect] = []
    images = list(CelebDfSource(**{"frames": 1} | options).images(root, defects.append))
    assert len({defect.kind for defect in defects}) == len(defects)
    return {str(image.video): image for image in images}, {defect.kind: defect.detail for defect in defects}


def test_every_clip_has_its_label_people_and_split(tmp_path: Path) -> None:
    images, defects = listed(tree(tmp_path))
    assert defects == {}
    assert sorted(images) == sorted((*CLIPS, *SWAPS))
    swap = images["Celeb-synthesis/id0_id1_0000"]
    assert (swap.generator, swap.family, swap.forgery_type) == ("celebdf", "autoencoder", "fs")
    assert (swap.domain, swap.identities) == ("celeb-df", ("id0", "id1"))
    assert images["Celeb-real/id1_0000"].identities == ("id1",)
    assert images["YouTube-real/00001"].identities == ()
    assert {images[clip].generator for clip in CLIPS} == {"real"}
    check_source(CelebDfSource(frames=2), tmp_path)


def test_test_clips_are_not_in_train(tmp_path: Path) -> None:
    images, _ = listed(tree(tmp_path))
    assert {video for video, image in images.items() if image.source_split == "test"} == {
        "YouTube-real/00170",
        "Celeb-synthesis/id2_id3_0001",
    }
    assert {image.source_split for image in images.values()} == {"train", "test"}


def test_clips_of_one_name_in_two_folders_are_two_videos(tmp_path: Path) -> None:
    for folder in ("Celeb-real", "YouTube-real"):
        write(tree(tmp_path) / folder / "00001.mp4", b"x")
    images, _ = listed(tmp_path)
    assert {"Celeb-real/00001", "YouTube-real/00001"} <= set(images)
    assert images["Celeb-real/00001"].key != images["YouTube-real/00001"].key


def test_people_in_test_and_in_train_are_told_once(tmp_path: Path) -> None:
    _, defects = listed(tree(tmp_path, (*TEST, "0 Celeb-synthesis/id0_id1_0000.mp4")))
    assert defects == {
        "identity_in_two_splits": "2 identities stand in test and in train: the official split shares them (id0, id1)"
    }


@pytest.mark.parametrize("digit", ["0", "1"])
def test_a_label_that_contradicts_the_folder_is_told_and_the_folder_wins(tmp_path: Path, digit: str) -> None:
    real, fake = "YouTube-real/00170", "Celeb-synthesis/id2_id3_0001"
    images, defects = listed(tree(tmp_path, (f"{digit} {real}.mp4", f"{digit} {fake}.mp4")))
    assert (images[real].generator, images[fake].generator) == ("real", "celebdf")
    assert {images[clip].source_split for clip in (real, fake)} == {"test"}
    assert defects["wrong_label"].startswith(fake if digit == "1" else real)


def test_a_test_clip_that_is_not_there_is_told_and_counted_as_missing(tmp_path: Path) -> None:
    images, defects = listed(tree(tmp_path, (*TEST, "1 Celeb-real/id9_0009.mp4")))
    assert images["Celeb-real/id9_0009"].payload.stamp() == MISSING
    assert images["Celeb-real/id9_0009"].source_split == "test"
    assert defects["missing_clips"] == f"Celeb-real lacks 1 clips of {TEST_LIST}: id9_0009"


def test_lines_that_name_no_clip_and_lines_that_stand_twice_are_told(tmp_path: Path) -> None:
    lines = (*TEST, TEST[0], "", "2 YouTube-real/00001.mp4", "1 ../../etc/passwd.mp4", "1 Elsewhere/1.mp4", "gibberish")
    images, defects = listed(tree(tmp_path, lines))
    assert set(images) == {*CLIPS, *SWAPS}
    assert images["YouTube-real/00001"].source_split == "train"
    assert defects["listed_twice"].startswith("YouTube-real/00170 ")
    for number, line in ((5, lines[4]), (6, lines[5]), (7, lines[6]), (8, lines[7])):
        assert f"{number} ({line!r})" in defects["bad_line"]


def test_without_the_list_no_face_has_a_split(tmp_path: Path) -> None:
    (tree(tmp_path) / TEST_LIST).unlink()
    images, defects = listed(tmp_path)
    assert {image.source_split for image in images.values()} == {None}
    assert set(defects) == {"no_split_file"}


def test_frames_are_read_where_there_is_no_video(tmp_path: Path) -> None:
    for number in (0, 5, 10):
        write(tmp_path / f"Celeb-real/frames/id0_0000/{number:03d}.png", b"x")
    (tmp_path / "Celeb-real/frames/id1_0000").mkdir()
    write(tmp_path / "YouTube-real/videos/00001.mp4", b"x")
    write(tmp_path / TEST_LIST, b"1 Celeb-real/id7_0000.mp4\n")
    images, defects = listed(tmp_path)
    assert images["Celeb-real/id0_0000"].payload == FilePayload(tmp_path, "Celeb-real/frames/id0_0000/005.png")
    assert images["Celeb-real/id0_0000"].frame == 5
    assert images["YouTube-real/00001"].payload == VideoFrame(tmp_path, "YouTube-real/videos/00001.mp4", 0, 1)
    assert images["Celeb-real/id7_0000"].payload.stamp() == MISSING
    assert "id1_0000" in defects["empty_clip"]
    assert "Celeb-synthesis" in defects["missing_folder"]


def test_a_name_that_is_not_the_datasets_is_told(tmp_path: Path) -> None:
    write(tree(tmp_path) / "Celeb-synthesis/id5_0000.mp4", b"x")
    images, defects = listed(tmp_path)
    assert images["Celeb-synthesis/id5_0000"].identities == ()
    assert defects["odd_name"].startswith("Celeb-synthesis/id5_0000 ")


@pytest.mark.parametrize("given", ["parent", "parent/Celeb-DF-v2/Celeb-real"])
def test_a_root_above_or_below_the_right_one_is_corrected(tmp_path: Path, given: str) -> None:
    root = tree(tmp_path / "parent" / "Celeb-DF-v2")
    with pytest.raises(UsageError) as caught:
        listed(tmp_path / given)
    assert f"Did you mean {root.resolve()}?" in str(caught.value)


def test_a_root_of_something_else_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"holds none of {', '.join(FOLDERS)}.*celeb-deepfakeforensics"):
        listed(tmp_path)
