"""A folder of videos per generator is read with the YAML of the folder source, a few frames of each clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import UsageError
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.reading import open_images
from dfad_bench.prepare.sources.video import VideoSource
from dfad_bench.prepare.video import VideoFrame
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import job, rows, run, write
from tests.prepare.clips import break_packet, clip


def clips(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, b"x")
    return root


def listed(source: VideoSource, root: Path) -> tuple[list[RawImage], list[Defect]]:
    defects: list[Defect] = []
    return list(source.images(root, defects.append)), defects


def mapped(folder: Path, content: Any, **options: Any) -> VideoSource:
    return VideoSource(write(folder / "map.yaml", yaml.safe_dump(content).encode()), **options)


def test_each_clip_gives_its_frames_in_turn(tmp_path: Path) -> None:
    root = clips(tmp_path / "ours", "real/a/1.mp4", "SimSwap/1.mp4", "SimSwap/2.MOV")
    images, defects = listed(VideoSource(frames=2), root)
    assert [(image.generator, image.key, image.video) for image in images] == [
        ("simswap", "SimSwap/1.mp4#000", "SimSwap/1"),
        ("simswap", "SimSwap/1.mp4#001", "SimSwap/1"),
        ("simswap", "SimSwap/2.MOV#000", "SimSwap/2"),
        ("simswap", "SimSwap/2.MOV#001", "SimSwap/2"),
        ("real", "real/a/1.mp4#000", "real/a/1"),
        ("real", "real/a/1.mp4#001", "real/a/1"),
    ]
    assert images[1].payload == VideoFrame(root, "SimSwap/1.mp4", 1, 2)
    assert {image.frame for image in images} == {None}
    assert defects == []


def test_clips_with_one_name_in_two_folders_are_two_videos(tmp_path: Path) -> None:
    root = clips(tmp_path, "real/a/001.mp4", "real/b/001.mp4", "real/c/001.mp4", "real/c/001.avi")
    images, _ = listed(VideoSource(frames=1), root)
    assert [image.video for image in images] == ["real/a/001", "real/b/001", "real/c/001.avi", "real/c/001.mp4"]


def test_the_yaml_says_what_folders_paths_and_people_mean(tmp_path: Path) -> None:
    root = clips(tmp_path / "root", "swaps/train/012_345.mp4", "youtube/012.mp4", "other/1.mp4")
    source = mapped(
        tmp_path,
        {
            "generators": {
                "swaps": {"name": "our_swap", "family": "gan", "forgery_type": "fs", "domain": "yt"},
                "youtube": "real",
            },
            "ignore": ["other"],
            "licence": "CC-BY",
            "identity": r"/(\d{3})(?:_(\d{3}))?\.",
            "source_split": "/(train|val|test)/",
        },
        frames=1,
    )
    (swap, real), _ = listed(source, root)
    assert (swap.generator, swap.identities, swap.source_split, swap.domain) == (
        "our_swap",
        ("012", "345"),
        "train",
        "yt",
    )
    assert (real.generator, real.identities, real.source_split, real.licence) == ("real", ("012",), None, "CC-BY")
    assert [generator.name for generator in source.generators(root)] == ["our_swap"]
    check_source(source, root)


def test_an_empty_folder_and_an_empty_clip_are_told_and_the_clip_stays_in_the_ledger(tmp_path: Path) -> None:
    root = clips(tmp_path, "real/1.mp4", "stylegan3/notes.txt")
    write(root / "simswap/0.mp4", b"")
    images, defects = listed(VideoSource(frames=2), root)
    assert {(defect.kind, defect.detail) for defect in defects} == {
        ("empty_clip", "simswap/0.mp4 hold no byte"),
        ("empty_folder", "stylegan3 holds no video"),
    }
    assert [getattr(item, "reason", None) for _, item in open_images(images)] == ["not_a_video"] * 2 + [
        "empty_file"
    ] * 2


def test_frames_come_out_of_the_pipelines_reader_with_their_numbers(tmp_path: Path) -> None:
    clip(tmp_path / "real" / "1.mp4", 9)
    clip(tmp_path / "simswap" / "1.mp4", 30)
    images, _ = listed(VideoSource(frames=3), tmp_path)
    assert [getattr(item, "frame", None) for _, item in open_images(images)] == [1, 4, 7, 5, 15, 25]


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        ([], {}, "no sub-folder"),
        (["real/a.jpg"], {}, "No folder of .* holds a video"),
        (["unheard_of/a.mp4"], {}, "unheard_of"),
        (["real/a.mp4"], {"frame": r"(\d+)"}, "'frame' has no meaning for videos"),
        (["real/a.mp4"], {"generators": {"fake": "simswap"}}, "does not hold"),
    ],
)
def test_a_root_or_yaml_that_does_not_fit_is_one_line(
    tmp_path: Path, names: list[str], content: Any, message: str
) -> None:
    (tmp_path / "root").mkdir()
    root = clips(tmp_path / "root", *names)
    with pytest.raises(UsageError, match=message):
        listed(mapped(tmp_path, content), root)


def test_no_frames_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="frames"):
        build_source("video", ["frames=0"])


def test_clips_become_faces_and_what_is_lost_of_them_stands_in_the_ledger(tmp_path: Path) -> None:
    root = tmp_path / "root"
    clip(root / "real" / "1.mp4", 9)
    clip(root / "real" / "2.mp4", 2)
    broken = clip(root / "simswap" / "1.mp4", 48, gop=12)
    break_packet(broken, 12)
    clips(root, "simswap/2.mp4")
    run(job(root, tmp_path / "data", "video", settings=["frames=4"], engine=LocalEngine(2)))
    faces = {row["id"]: row for row in rows(tmp_path / "data" / "faces")}
    lost = {row["id"]: row["reason"] for row in rows(tmp_path / "data" / "faces", "skipped.parquet")}
    assert {(row["video"], row["frame"], row["original_format"]) for row in faces.values()} == {
        *(("faces/real/real/1", frame, "H264") for frame in (1, 3, 5, 7)),
        *(("faces/real/real/2", frame, "H264") for frame in (0, 1)),
        *(("faces/simswap/simswap/1", frame, "H264") for frame in (6, 30, 42)),
    }
    assert lost == {
        "faces/real/real/2.mp4#002": "no_such_frame",
        "faces/real/real/2.mp4#003": "no_such_frame",
        "faces/simswap/simswap/1.mp4#001": "broken_frame",
        **{f"faces/simswap/simswap/2.mp4#{position:03d}": "not_a_video" for position in range(4)},
    }
