"""FaceForensics++ is read with its labels, people and official splits, and with what is wrong in a copy of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.payloads import MISSING, FilePayload
from dfad_bench.prepare.reading import open_images
from dfad_bench.prepare.sources.ffpp import METHODS, FaceForensicsSource
from dfad_bench.prepare.video import VideoFrame
from dfad_bench.taxonomy import known
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import write
from tests.prepare.clips import clip

SPLITS = {"train": [["000", "003"]], "val": [["001", "005"]], "test": [["002", "004"]]}


def video(root: Path, place: str, *names: str, compression: str = "c23") -> None:
    for name in names:
        write(root / place / compression / "videos" / f"{name}.mp4", b"x")


def split_files(folder: Path, splits: dict[str, list[list[Any]]] = SPLITS) -> None:
    for split, pairs in splits.items():
        write(folder / f"{split}.json", json.dumps(pairs).encode())


def tree(root: Path) -> Path:
    """Every clip that SPLITS name, of the originals and of all five methods, and two clips of the actors."""
    split_files(root / "splits")
    video(root, "original_sequences/youtube", "000", "001", "002", "003", "004", "005")
    for method in METHODS:
        if method != "DeepFakeDetection":
            pairs = ("000_003", "003_000", "001_005", "005_001", "002_004", "004_002")
            video(root, f"manipulated_sequences/{method}", *pairs)
    video(root, "original_sequences/actors", "01__exit_phone_room")
    video(root, "manipulated_sequences/DeepFakeDetection", "01_02__exit_phone_room__YVGY8LOK")
    return root


def listed(root: Path, **options: Any) -> tuple[list[RawImage], dict[str, str]]:
    defects: list[Defect] = []
    images = list(FaceForensicsSource(**{"frames": 1} | options).images(root, defects.append))
    assert len({defect.kind for defect in defects}) == len(defects)
    return images, {defect.kind: defect.detail for defect in defects}


def of(images: Sequence[RawImage], video: str) -> RawImage:
    (image,) = [image for image in images if image.video == video]
    return image


def test_every_folder_has_its_generator_domain_people_and_split(tmp_path: Path) -> None:
    images, defects = listed(tree(tmp_path))
    assert defects == {}
    assert len(images) == 6 + 5 * 6 + 2
    swap = of(images, "Deepfakes/c23/000_003")
    assert (swap.generator, swap.family, swap.forgery_type) == ("deepfakes", "autoencoder", "fs")
    assert (swap.domain, swap.identities, swap.source_split) == ("ff++", ("000", "003"), "train")
    assert of(images, "NeuralTextures/c23/004_002").identities == ("004", "002")
    assert of(images, "NeuralTextures/c23/004_002").source_split == "test"
    real = of(images, "youtube/c23/005")
    assert (real.generator, real.forgery_type, real.domain) == ("real", "real", "ff++")
    assert (real.identities, real.source_split) == (("005",), "val")
    dfd, actor = (
        of(images, "DeepFakeDetection/c23/01_02__exit_phone_room__YVGY8LOK"),
        of(images, "actors/c23/01__exit_phone_room"),
    )
    assert (dfd.generator, dfd.domain, dfd.identities, dfd.source_split) == ("dfd", "dfd", ("01", "02"), None)
    assert (actor.generator, actor.domain, actor.identities) == ("real", "dfd", ("01",))
    check_source(FaceForensicsSource(frames=2), tmp_path)


def test_its_faceswap_is_not_the_faceswap_of_df40(tmp_path: Path) -> None:
    images, _ = listed(tree(tmp_path))
    swap = of(images, "FaceSwap/c23/000_003")
    assert (swap.generator, swap.family) == ("faceswap_kowalski", "graphics")
    assert known().get("faceswap").name != swap.generator


def test_frames_are_spread_over_each_clip_and_lie_together(tmp_path: Path) -> None:
    images, _ = listed(tree(tmp_path), frames=3)
    first = images[:3]
    assert [image.key for image in first] == [f"youtube/c23/000#{position:03d}" for position in range(3)]
    path = "original_sequences/youtube/c23/videos/000.mp4"
    assert [image.payload for image in first] == [VideoFrame(tmp_path, path, position, 3) for position in range(3)]


def test_a_folder_of_frames_is_chosen_from_evenly_in_order_of_number(tmp_path: Path) -> None:
    folder = tmp_path / "original_sequences/youtube/c23/frames/000"
    for number in range(12):
        write(folder / f"{number}.png", b"x")  # as text, 10 would come before 2
    images, _ = listed(tmp_path, frames=4)
    assert [image.frame for image in images] == [1, 4, 7, 10]
    assert images[3].payload == FilePayload(tmp_path, "original_sequences/youtube/c23/frames/000/10.png")
    assert images[3].key == "youtube/c23/000#10.png"
    everything, _ = listed(tmp_path, frames=99)
    assert [image.frame for image in everything] == list(range(12))


def test_frames_as_the_official_script_extracts_them_are_found(tmp_path: Path) -> None:
    write(tmp_path / "manipulated_sequences/FaceShifter/c40/images/000_003/0007.png", b"x")
    images, _ = listed(tmp_path, compression="c40")
    assert [(image.generator, image.frame) for image in images] == [("faceshifter", 7)]


def test_a_video_is_read_rather_than_its_frames(tmp_path: Path) -> None:
    video(tmp_path, "original_sequences/youtube", "000")
    for name in ("000", "001"):
        write(tmp_path / f"original_sequences/youtube/c23/frames/{name}/0.png", b"x")
    images, defects = listed(tmp_path)
    assert [type(image.payload) for image in images] == [VideoFrame, FilePayload]
    assert "original_sequences/youtube/c23/frames/000" in defects["videos_and_frames"]


def test_masks_are_found_where_they_lie_as_their_clips_do(tmp_path: Path) -> None:
    base = tmp_path / "manipulated_sequences"
    video(tmp_path, "manipulated_sequences/Deepfakes", "000_003")
    write(base / "Deepfakes/masks/videos/000_003.mp4", b"x")
    for number in (4, 5):
        write(base / f"FaceSwap/c23/frames/000_003/{number:03d}.png", b"x")
    write(base / "FaceSwap/c23/masks/000_003/004.png", b"x")
    write(base / "NeuralTextures/c23/frames/000_003/004.png", b"x")
    write(base / "NeuralTextures/masks/frames/000_003/004.png", b"x")
    images, _ = listed(tmp_path, frames=2)
    assert [image.mask for image in images] == [
        VideoFrame(tmp_path, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4", 0, 2),
        VideoFrame(tmp_path, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4", 1, 2),
        FilePayload(tmp_path, "manipulated_sequences/FaceSwap/c23/masks/000_003/004.png"),
        None,
        FilePayload(tmp_path, "manipulated_sequences/NeuralTextures/masks/frames/000_003/004.png"),
    ]


# --- what is wrong with a copy -------------------------------------------------------------------------------------


def test_without_split_files_no_face_has_a_split(tmp_path: Path) -> None:
    video(tmp_path, "original_sequences/youtube", "000")
    images, defects = listed(tmp_path)
    assert [image.source_split for image in images] == [None]
    assert set(defects) == {"no_split_file"}


def test_the_splits_may_lie_elsewhere(tmp_path: Path) -> None:
    video(tmp_path / "root", "original_sequences/youtube", "004")
    split_files(tmp_path / "official")
    images, _ = listed(tmp_path / "root", splits=tmp_path / "official")
    assert of(images, "youtube/c23/004").source_split == "test"


def test_a_pair_across_two_splits_has_none(tmp_path: Path) -> None:
    video(tree(tmp_path), "manipulated_sequences/FaceSwap", "000_001")
    images, defects = listed(tmp_path)
    assert of(images, "FaceSwap/c23/000_001").source_split is None
    assert "manipulated_sequences/FaceSwap/c23" in defects["split_straddle"] and "000_001" in defects["split_straddle"]


def test_someone_in_two_split_files_has_none(tmp_path: Path) -> None:
    split_files(tree(tmp_path) / "splits", SPLITS | {"val": [["001", "005"], ["000", "003"]]})
    images, defects = listed(tmp_path)
    assert of(images, "youtube/c23/000").source_split is None
    assert of(images, "Deepfakes/c23/000_003").source_split is None
    assert of(images, "youtube/c23/001").source_split == "val"
    assert set(defects) == {"in_two_splits"} and "000, 003" in defects["in_two_splits"]


def test_a_clip_that_the_splits_do_not_name_has_none(tmp_path: Path) -> None:
    video(tree(tmp_path), "original_sequences/youtube", "777")
    images, defects = listed(tmp_path)
    assert of(images, "youtube/c23/777").source_split is None
    assert "777" in defects["not_in_splits"]


def test_clips_of_the_splits_that_are_not_there_are_counted_as_missing(tmp_path: Path) -> None:
    (tree(tmp_path) / "manipulated_sequences/Face2Face/c23/videos/005_001.mp4").unlink()
    images, defects = listed(tmp_path, frames=2)
    lost = [image for image in images if image.video == "Face2Face/c23/005_001"]
    assert [image.payload.stamp() for image in lost] == [MISSING] * 2
    assert {image.source_split for image in lost} == {"val"}
    assert "Face2Face/c23 lacks 1 clips of the splits: 005_001" in defects["missing_clips"]


def test_a_clip_without_frames_is_told_and_stays_in_the_ledger(tmp_path: Path) -> None:
    base = tmp_path / "original_sequences/youtube/c23/frames"
    write(base / "001/0.png", b"x")
    (base / "000").mkdir()
    images, defects = listed(tmp_path)
    assert "frames/000" in defects["empty_clip"]
    (_, first), _ = open_images(images)
    assert getattr(first, "reason", None) == "empty_clip"


def test_a_video_of_no_bytes_is_told_and_stays_in_the_ledger(tmp_path: Path) -> None:
    write(tmp_path / "original_sequences/youtube/c23/videos/000.mp4", b"")
    images, defects = listed(tmp_path)
    assert "videos/000.mp4" in defects["empty_clip"]
    assert [getattr(item, "reason", None) for _, item in open_images(images)] == ["empty_file"]


def test_one_clip_as_two_files_is_told_and_read_once(tmp_path: Path) -> None:
    write(tmp_path / "original_sequences/youtube/c23/videos/000.avi", b"x")
    video(tmp_path, "original_sequences/youtube", "000")
    images, defects = listed(tmp_path)
    assert [image.key for image in images] == ["youtube/c23/000#000"]
    assert "000.mp4" in defects["clip_twice"]


def test_names_that_are_not_the_datasets_are_told(tmp_path: Path) -> None:
    video(tree(tmp_path), "manipulated_sequences/FaceSwap", "someone")
    (tmp_path / "manipulated_sequences/DeepFake").mkdir()
    images, defects = listed(tmp_path)
    assert of(images, "FaceSwap/c23/someone").identities == ()
    assert "someone" in defects["odd_name"]
    assert "manipulated_sequences/DeepFake" in defects["unknown_folder"]


def test_a_folder_of_another_compression_is_told(tmp_path: Path) -> None:
    video(tmp_path, "original_sequences/youtube", "000")
    video(tmp_path, "manipulated_sequences/FaceSwap", "000_003", compression="c40")
    images, defects = listed(tmp_path)
    assert [image.generator for image in images] == ["real"]
    assert defects["no_such_compression"] == "manipulated_sequences/FaceSwap holds no c23, but c40"


def test_a_compression_that_is_nowhere_names_the_one_that_is(tmp_path: Path) -> None:
    video(tmp_path, "original_sequences/youtube", "000", compression="c40")
    with pytest.raises(UsageError, match="There is c40: choose it with --set compression=c40"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (".", "FF++"),
        ("FF++/original_sequences", "FF++"),
        ("FF++/original_sequences/youtube/c23", "FF++"),
    ],
)
def test_a_root_above_or_below_the_right_one_is_corrected(tmp_path: Path, given: str, meant: str) -> None:
    video(tmp_path / "FF++", "original_sequences/youtube", "000")
    with pytest.raises(UsageError, match="Did you mean") as caught:
        listed(tmp_path / given)
    assert f"Did you mean {(tmp_path / meant).resolve()}?" in str(caught.value)


def test_a_root_of_something_else_says_what_was_expected_and_where_to_ask(tmp_path: Path) -> None:
    write(tmp_path / "real/1.jpg", b"x")
    with pytest.raises(UsageError, match=r"holds none of original_sequences.*github.com/ondyari/FaceForensics"):
        listed(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[[1, 2, 3]]", '[["000"]]', "no json"])
def test_a_split_file_of_another_shape_is_one_line(tmp_path: Path, content: str) -> None:
    write(tree(tmp_path) / "splits/val.json", content.encode())
    with pytest.raises(DataError, match=r"val\.json is no list of pairs of ids"):
        listed(tmp_path)


def test_a_split_file_that_lacks_its_siblings_is_refused(tmp_path: Path) -> None:
    (tree(tmp_path) / "splits/val.json").unlink()
    with pytest.raises(UsageError, match=r"holds no val\.json"):
        listed(tmp_path)


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(UsageError, match="c23"):
        build_source("ffpp", ["compression=c24"])


def test_frames_and_masks_come_out_of_the_pipelines_reader(tmp_path: Path) -> None:
    clip(tmp_path / "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4", 20)
    clip(tmp_path / "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4", 20)
    images, _ = listed(tmp_path, frames=2)
    assert [getattr(item, "frame", None) for _, item in open_images(images)] == [5, 15]
    assert images[0].mask is not None and images[0].mask.read().startswith(b"\x89PNG")
