"""DF40 is read in every layout its methods come in, and each of its known defects is named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.sources._df40_methods import METHODS, find_method, method_of_dataset
from dfad_bench.prepare.sources.df40 import DF40Source
from dfad_bench.taxonomy import known
from dfad_bench.testing import check_source
from dfad_bench.types import REAL, Defect, RawImage
from tests.prepare.builders import write

FF_REALS, CDF = "FaceForensics++/original_sequences/youtube/c23/frames", "Celeb-DF-v2"
SELF_CONTAINED = {
    "deepfacelab": "uadfv",
    "heygen": "vfhq",
    "MidJourney": "ffhq",
    "whichfaceisreal": "ffhq",
} | dict.fromkeys(("CollabDiff", "stargan", "starganv2", "styleclip"), "celeba")


def put(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, b"x")
    return root


def put_reals(root: Path) -> Path:
    names = (f"{FF_REALS}/000/000.png", f"{FF_REALS}/870/000.png", f"{CDF}/Celeb-real/frames/id0_0000/000.png")
    return put(root, *names, f"{CDF}/YouTube-real/frames/00170/000.png")


def listed(root: Path, **options: Any) -> tuple[list[RawImage], list[Defect]]:
    defects: list[Defect] = []
    return list(DF40Source(**options).images(root, defects.append)), defects


def fakes(root: Path, **options: Any) -> list[RawImage]:
    return [image for image in listed(root, **options)[0] if image.generator != REAL]


def details(defects: list[Defect], kind: str) -> list[str]:
    return [defect.detail for defect in defects if defect.kind == kind]


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.folder)
def test_every_method_is_in_the_taxonomy_under_its_own_forgery_type(method: Any) -> None:
    entry = known().find(method.generator)
    assert entry is not None and entry.name == method.generator
    assert entry.forgery_type == method.forgery_type  # DF40 and the taxonomy agree on all 40, FE being am


def test_the_forty_methods_are_ten_swaps_thirteen_reenactments_twelve_syntheses_and_five_edits() -> None:
    assert Counter(m.forgery_type for m in METHODS) == {"fs": 10, "fr": 13, "efs": 12, "am": 5}
    assert len({m.generator for m in METHODS}) == len({m.folder for m in METHODS}) == 40
    assert {m.folder: m.own_domain for m in METHODS if m.own_domain} == SELF_CONTAINED
    families = Counter(g.family for g in DF40Source().generators(None))
    assert families["flow"] == 1 and families["undisclosed"] == 2  # SiT; HeyGen and Midjourney


@pytest.mark.parametrize(
    ("spelling", "generator"),
    [
        *(("PixArt", "pixart_alpha"), ("rddm", "rddm"), ("whichisreal", "whichfaceisreal"), ("mraa", "mraa")),
        *(("Whichisreal", "whichfaceisreal"), ("StarGAN2", "starganv2"), ("Collaborative_Diffusion", "collabdiff")),
        *(("danet", "dagan"), ("DaGAN", "dagan"), ("inswap", "inswapper"), ("ddim", "ddim"), ("sd2.1", "sd21")),
    ],
)
def test_every_spelling_of_a_method_is_known(spelling: str, generator: str) -> None:
    method = find_method(spelling)
    assert method is not None and method.generator == generator
    assert method_of_dataset(f"{spelling}_ff") == method_of_dataset(f"{spelling}_Fake") == method


# --- the trees ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.folder)
def test_every_method_is_read_from_a_folder_of_its_name(method: Any, tmp_path: Path) -> None:
    inside = "fake/frames/v" if method.own_domain else "ff/frames/000_003" if method.is_made_of_two else "ff/000"
    put(tmp_path, f"DF40/{method.folder}/{inside}/000.png")
    (image,) = fakes(tmp_path)
    assert (image.generator, image.forgery_type) == (method.generator, method.forgery_type)
    assert (image.domain, image.source_split) == (method.own_domain or "ff++", "test")
    assert (image.video, image.licence) == (f"DF40/{method.folder}/{inside}", "CC-BY-NC-4.0 (DF40)")


@pytest.mark.parametrize(
    ("path", "generator", "domain", "split", "people", "is_video"),
    [
        ("DF40/simswap/ff/frames/000_003/010.png", "simswap", "ff++", "test", ("000", "003"), True),
        ("DF40/simswap/cdf/frames/id0_id16_0001/010.png", "simswap", "celeb-df", "test", ("id0", "id16"), True),
        ("DF40/fomm/cdf/frames/00170/010.png", "fomm", "celeb-df", "test", ("00170",), True),
        ("DF40_train/fsgan/frames/001_870/010.png", "fsgan", "ff++", "train", ("001", "870"), True),
        ("DF40_train/frames/001_870/010.png", "uniface", "ff++", "train", ("001", "870"), True),
        ("DF40/StyleGAN2/ff/012/010.png", "stylegan2", "ff++", "test", ("012",), True),
        ("DF40/SiT/cdf/Fake_from_Celeb-real/id0_0000/seed0010.png", "sit", "celeb-df", "test", ("id0",), True),
        ("DF40_train/DiT/012_345/seed0010.png", "dit", "ff++", "train", ("012",), True),
        ("DF40/MidJourney/fake/010.png", "midjourney", "ffhq", "test", (), False),
        ("DF40/MidJourney/real/010.png", REAL, "ffhq", "test", (), False),
        ("DF40/styleclip/fake/010.png", "styleclip", "celeba", "test", (), False),
        ("DF40/stargan/fake/fake/010.png", "stargan", "celeba", "test", (), False),
        ("DF40/stargan/real/real/010.png", REAL, "celeba", "test", (), False),
        ("DF40/deepfacelab/fake/frames/0001_fake/010.png", "deepfacelab", "uadfv", "test", ("0001",), True),
        ("DF40/deepfacelab/real/frames/0001/010.png", REAL, "uadfv", "test", ("0001",), True),
        ("DF40/heygen/real/Clip+a/010.png", REAL, "vfhq", "test", ("vfhq/Clip+a",), True),
        ("DF40/CollabDiff/fake/17/010.png", "collabdiff", "celeba", "test", ("celeba/17",), True),
        ("DF40/e4e/ff/inversions/012_0.jpg", "e4e", "ff++", "test", ("012",), False),
        ("DF40/e4e/ff/012/010.jpg", "e4e", "ff++", "test", ("012",), True),
        ("DF40/e4e/cdf/Celeb-real/inversions/id3_0007_2.jpg", "e4e", "celeb-df", "test", ("id3",), False),
        ("DF40/e4e/cdf/YouTube-real/inversions/00170_2.jpg", "e4e", "celeb-df", "test", ("00170",), False),
    ],
)
def test_every_layout_is_read(
    path: str, generator: str, domain: str, split: str, people: tuple[str, ...], is_video: bool, tmp_path: Path
) -> None:
    (image,) = listed(put(tmp_path, path))[0]
    assert (image.key, image.generator, image.domain, image.source_split) == (path, generator, domain, split)
    assert image.identities == people
    assert (image.video, image.frame) == ((path.rsplit("/", 1)[0], 10) if is_video else (None, None))


def test_pictures_of_a_collection_are_all_taken_and_frames_of_a_video_are_spread(tmp_path: Path) -> None:
    put(tmp_path, *(f"DF40/styleclip/fake/{n}.png" for n in range(40)))
    put(tmp_path, *(f"DF40/lia/ff/frames/000_003/{n}.png" for n in range(270)))
    images = fakes(tmp_path)
    numbers = [i.frame or 0 for i in images if i.generator == "lia"]
    assert len(numbers) == 32 and numbers == sorted(numbers) and numbers[0] < 9 and numbers[-1] > 260
    assert sum(i.generator == "styleclip" for i in images) == 40
    assert sum(i.generator == "lia" for i in fakes(tmp_path, frames=4)) == 4


def test_clips_of_one_name_in_two_methods_and_packs_are_clips_of_their_own(tmp_path: Path) -> None:
    for method in ("DF40/simswap/ff", "DF40/simswap/cdf", "DF40/fsgan/ff", "DF40_train/fsgan"):
        put(tmp_path, f"{method}/frames/000_003/0.png")
    assert len({i.video for i in fakes(tmp_path)}) == 4


def test_landmarks_masks_and_hidden_files_are_no_faces(tmp_path: Path) -> None:
    put(tmp_path, *(f"DF40/lia/ff/{kind}/000_003/0.png" for kind in ("frames", "landmarks", "masks", ".cache")))
    assert [i.key for i in fakes(tmp_path)] == ["DF40/lia/ff/frames/000_003/0.png"]


def test_the_root_may_be_the_pack_or_the_folder_above_it(tmp_path: Path) -> None:
    root = put(tmp_path / "a/deepfakes_detection_datasets", "DF40/lia/ff/frames/000_003/0.png").parent
    put(root, "deepfakes_detection_datasets/DF40_train/lia/frames/001_870/0.png")
    for where, count in ((root, 2), (root / "deepfakes_detection_datasets", 2)):
        assert len(fakes(where)) == count
    for pack, split in (("DF40", "test"), ("DF40_train", "train")):
        (image,) = fakes(root / "deepfakes_detection_datasets" / pack)
        assert image.source_split == split and image.key.startswith("lia/")


def test_reals_come_with_the_domains_that_have_fakes(tmp_path: Path) -> None:
    put_reals(put(tmp_path, "DF40/lia/ff/frames/000_003/0.png"))
    reals = [i for i in listed(tmp_path)[0] if i.generator == REAL]
    assert {(i.domain, i.identities, i.licence) for i in reals} == {
        ("ff++", ("000",), "FaceForensics++ terms of use"),
        ("ff++", ("870",), "FaceForensics++ terms of use"),
    }
    put(tmp_path, "DF40/lia/cdf/frames/id0_id1_0000/0.png")
    celeb = [i for i in listed(tmp_path)[0] if i.generator == REAL and i.domain == "celeb-df"]
    assert {(i.identities, i.source_split) for i in celeb} == {(("id0",), "test"), (("00170",), "test")}


def test_only_the_methods_asked_for_are_read(tmp_path: Path) -> None:
    put(tmp_path, "DF40/lia/ff/frames/000_003/0.png", "DF40/pixart/ff/000/0.png", "DF40/SiT/ff/000/0.png")
    source = build_source("df40", ["methods=PixArt, sit"])
    assert {i.generator for i in source.images(tmp_path, lambda d: None)} == {"pixart_alpha", "sit"}
    assert [g.name for g in source.generators(tmp_path)] == ["pixart_alpha", "sit"]
    with pytest.raises(UsageError, match=r"'simswop' is no method of DF40. Did you mean 'simswap'"):
        listed(tmp_path, methods="simswop")
    with pytest.raises(UsageError, match=r"no folder of the methods asked for\. It has: SiT, lia, pixart"):
        listed(tmp_path, methods="e4e")


# --- its defects ----------------------------------------------------------------------------------------------------


def test_what_the_folders_lack_is_named(tmp_path: Path) -> None:
    put(tmp_path, "DF40/CollabDiff/fake/17/0.png", "DF40/e4e/ff/inversions/012.jpg", "DF40/heygen/fake/a.mp4")
    put(tmp_path, "DF40/heygen/real/b/0.png", "DF40/PixArt/ff/000/0.png", "DF40/simswop/ff/frames/0.png")
    (tmp_path / "DF40/PixArt/ff/001").mkdir()
    (tmp_path / "DF40/PixArt/cdf").mkdir()
    images, defects = listed(put_reals(tmp_path))
    assert details(defects, "missing_real") == [
        "DF40/CollabDiff holds no real face, though DF40 says that it does",
        "DF40/e4e holds no real face, though DF40 says that it does",
    ]
    assert details(defects, "videos_only") == ["DF40/heygen holds 1 videos, which are not read; cut them into frames"]
    assert details(defects, "empty_folder") == ["DF40/PixArt: 2 folders are empty: DF40/PixArt/cdf, DF40/PixArt/ff/001"]
    assert details(defects, "alias") == ["DF40/PixArt is read as pixart"]
    assert details(defects, "unknown_folder") == [
        "DF40/simswop is no method of DF40 and is left out. Did you mean 'simswap'?"
    ]
    assert {i.generator for i in images} == {"collabdiff", "e4e", "pixart_alpha", REAL}


def test_uniface_without_its_folder_is_told_and_a_second_one_left_out(tmp_path: Path) -> None:
    put(tmp_path, "DF40_train/frames/001_870/0.png")
    assert "read as uniface" in details(listed(tmp_path)[1], "alias")[0]
    put(tmp_path, "DF40_train/uniface/frames/001_870/0.png")
    images, defects = listed(tmp_path)
    assert [i.key for i in images] == ["DF40_train/uniface/frames/001_870/0.png"]
    assert "DF40_train/frames is no method" in details(defects, "unknown_folder")[0]


def test_reals_that_are_not_below_the_root_are_missed(tmp_path: Path) -> None:
    put(tmp_path, "DF40/lia/ff/frames/000_003/0.png")
    (told,) = details(listed(tmp_path)[1], "missing_real")
    assert FF_REALS in told
    put_reals(tmp_path)
    (told,) = details(listed(tmp_path / "DF40")[1], "missing_real")
    assert f"give --root {tmp_path}" in told


def ff_lists(folder: Path, **pairs: list[list[str]]) -> Path:
    for split in ("train", "val", "test"):
        write(folder / f"{split}.json", json.dumps(pairs.get(split, [])).encode())
    return folder


def test_a_clip_gets_the_split_of_both_its_people(tmp_path: Path) -> None:
    for name in ("001_870", "000_003", "001_003", "999_998"):
        put(tmp_path, f"DF40_train/lia/frames/{name}/0.png")
    put(tmp_path, "DF40/StyleGAN2/ff/001/0.png", "DF40/lia/cdf/frames/id0_id1_0000/0.png")
    put_reals(tmp_path)
    lists = ff_lists(tmp_path / "lists", train=[["001", "870"]], test=[["000", "003"]])
    images, defects = listed(tmp_path, splits=Path("lists"))
    splits = {i.video.rsplit("/", 1)[-1]: i.source_split for i in images if i.video and i.domain == "ff++"}
    assert splits == {
        **{"001_870": "train", "000_003": "test", "001_003": None, "999_998": "train", "001": "train"},
        **{"000": "test", "870": "train"},
    }
    assert details(defects, "straddles_splits") == [
        "DF40_train/lia: 1 clips show people of two splits; they are in none"
    ]
    assert sorted(details(defects, "wrong_split")) == [
        "DF40/StyleGAN2: 1 clips in test show people of train; that is used",
        "DF40_train/lia: 1 clips in train show people of test; that is used",
    ]
    assert {i.source_split for i in images if i.domain == "celeb-df"} == {"test"}
    shutil.copytree(lists, tmp_path / "FaceForensics++", dirs_exist_ok=True)
    assert [i.source_split for i in listed(tmp_path)[0]] == [i.source_split for i in images]


def test_reals_without_lists_are_in_no_split_and_this_is_told(tmp_path: Path) -> None:
    images, defects = listed(put_reals(put(tmp_path, "DF40/lia/ff/frames/000_003/0.png")))
    assert {i.source_split for i in images if i.generator == REAL} == {None}
    assert details(defects, "no_split") == [
        "2 clips of FF++ reals are in no split; give FF++'s lists with --set splits=FOLDER"
    ]


@pytest.mark.parametrize(
    ("content", "error", "part"),
    [
        (b"{", DataError, r"train\.json is not valid JSON"),
        (b'{"a": 1}', DataError, "expected a list of ids"),
        (b"[[1, 2]]", DataError, "expected a list of ids"),
        (b'[["000"]]', DataError, r"'000' stands in both train\.json and test\.json"),
        (b"[" * 100_000, DataError, "is not valid JSON"),
        (None, UsageError, r"splits needs a folder with train\.json, val\.json, test\.json"),
    ],
)
def test_broken_lists_are_one_line(content: bytes | None, error: type[Exception], part: str, tmp_path: Path) -> None:
    put(tmp_path, "DF40/lia/ff/frames/000_003/0.png")
    lists = ff_lists(tmp_path / "lists", test=[["000", "003"]])
    write(lists / "train.json", content) if content is not None else (lists / "train.json").unlink()
    with pytest.raises(error, match=part):
        listed(tmp_path, splits=lists)


def test_a_wrong_root_is_refused_with_what_is_near(tmp_path: Path) -> None:
    root = put(tmp_path / "data", "DF40/lia/ff/frames/000_003/0.png")
    with pytest.raises(UsageError, match=f"Did you mean --root {root}"):
        listed(tmp_path)
    with pytest.raises(UsageError, match=f"Did you mean --root {root}"):
        listed(root / "DF40/lia/ff")
    (root / "DF40").rename(root / "DF-40")
    with pytest.raises(UsageError, match=r"holds neither DF40, DF40_train.*Did you mean 'DF-40'.*Ask for the data"):
        listed(root)
    with pytest.raises(UsageError, match="frames=0"):
        listed(root, frames=0)


def test_linked_folders_that_go_round_in_circles_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "DF40/lia/ff/frames/000_003/0.png")
    (tmp_path / "DF40/lia/ff/again").symlink_to(tmp_path / "DF40/lia", target_is_directory=True)
    assert len(fakes(tmp_path)) == 1


# --- the dataset JSON -----------------------------------------------------------------------------------------------

ELSEWHERE = "/group/someone/deepfakes_detection_datasets"


def entry(label: str, folder: str, count: int = 2) -> dict[str, Any]:
    return {"label": label, "frames": [f"{ELSEWHERE}/{folder}/{number:03d}.png" for number in range(count)]}


def listing(root: Path, name: str, labels: dict[str, Any], file: str | None = None) -> Path:
    return write(root / "dataset_json" / f"{file or name}.json", json.dumps({name: labels}).encode())


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """simswap_ff as published: val is test, its labels are roop's, the paths are another machine's."""
    train, test = "DF40_train/simswap/frames/001_870", "DF40/simswap/ff/frames/000_003"
    for folder in (train, test, f"{FF_REALS}/000", f"{FF_REALS}/001"):
        put(tmp_path, f"{folder}/000.png", f"{folder}/001.png")
    of_test = {"000_003": entry("roop_Fake", test)}
    real_of_test = {"000": entry("roop_Real", f"{FF_REALS}/000")}
    listing(
        tmp_path,
        "simswap_ff",
        {
            "roop_Fake": {"train": {"001_870": entry("roop_Fake", train)}, "val": of_test, "test": of_test},
            "roop_Real": {
                "train": {"001": entry("roop_Real", f"{FF_REALS}/001")},
                "val": real_of_test,
                "test": real_of_test,
            },
        },
    )
    return tmp_path


def test_the_official_json_is_read_with_val_given_up_for_test(official: Path) -> None:
    images, defects = listed(official, json=Path("dataset_json/simswap_ff.json"))
    assert {(i.video, i.generator, i.source_split) for i in images} == {
        ("DF40_train/simswap/frames/001_870", "simswap", "train"),
        ("DF40/simswap/ff/frames/000_003", "simswap", "test"),
        (f"{FF_REALS}/000", REAL, "test"),
        (f"{FF_REALS}/001", REAL, "train"),
    }
    assert len(images) == 8 and all(i.payload.read() == b"x" for i in images)
    assert {i.domain for i in images} == {"ff++"} and details(defects, "missing_real") == []
    told = details(defects, "in_two_splits")
    assert "simswap_ff.json: val and test share 2 videos, such as 000, and 4 frames" in told
    assert "2 clips stand in val and test; each is kept once, in test" in told
    assert sorted(details(defects, "wrong_label")) == [
        "3 clips: simswap_ff calls them roop_Fake",
        "3 clips: simswap_ff calls them roop_Real",
    ]


def test_lists_of_ff_win_over_the_json(official: Path) -> None:
    lists = ff_lists(official / "lists", train=[["000", "003"]], test=[["001", "870"]])
    images, defects = listed(official, json=Path("dataset_json/simswap_ff.json"), splits=lists)
    assert {i.video: i.source_split for i in images if i.generator == "simswap"} == {
        "DF40_train/simswap/frames/001_870": "test",
        "DF40/simswap/ff/frames/000_003": "train",
    }
    assert len(details(defects, "wrong_split")) == 2


def test_the_leaking_aggregate_is_refused_by_any_name(official: Path) -> None:
    content = {"fomm_Fake": {"test": {"0": entry("fomm_Fake", "DF40/simswap/ff/frames/000_003")}}}
    listing(official, "DF40_all", content)
    listing(official, "DF40_all", content, file="harmless")
    for name in ("DF40_all", "harmless"):
        with pytest.raises(UsageError, match=r"DF40_all is not read: it has test people of FF\+\+ in its train split"):
            listed(official, json=Path(f"dataset_json/{name}.json"))
    (official / "dataset_json/harmless.json").unlink()
    images, defects = listed(official, json=official / "dataset_json")
    assert {i.generator for i in images} == {"simswap", REAL}
    assert "DF40_all.json is left out" in details(defects, "leaking_json")[0]


def test_a_folder_of_json_files_is_read_with_every_real_once(official: Path) -> None:
    put(official, "DF40/uniface/ff/frames/000_003/000.png", "DF40/uniface/ff/frames/000_003/001.png")
    labels = {
        "uniface_Fake": {"test": {"000_003": entry("uniface_Fake", "DF40/uniface/ff/frames/000_003")}},
        "uniface_Real": {"test": {"000": entry("uniface_Real", f"{FF_REALS}/000")}},
    }
    listing(official, "uniface_ff", labels)
    listing(official, "lia_ff", {"lia_Fake": {"test": {"0": entry("lia_Fake", "DF40/lia/ff/frames/000_003")}}})
    images, defects = listed(official, json=Path("dataset_json"))
    assert Counter(i.generator for i in images) == {"simswap": 4, "uniface": 2, REAL: 4}
    assert "lia_ff.json" in details(defects, "absent_dataset")[0]
    wanted, _ = listed(official, json=Path("dataset_json"), methods="uniface")
    assert Counter(i.generator for i in wanted) == {"uniface": 2, REAL: 2}


def test_in_an_aggregate_the_folder_tells_the_method(tmp_path: Path) -> None:
    folders = ("DF40/simswap/ff/frames/000_003", "DF40/fsgan/cdf/frames/id0_id1_0000")
    videos = {f"v{number}": entry("FSAll_Fake", folder) for number, folder in enumerate(folders)}
    listing(put(tmp_path, f"{folders[0]}/000.png"), "FSAll_ff", {"FSAll_Fake": {"test": videos}})
    images, _ = listed(tmp_path, json=Path("dataset_json"))
    assert {(i.generator, i.domain) for i in images} == {("simswap", "ff++"), ("fsgan", "celeb-df")}
    assert [i.payload.stamp() for i in images].count("missing") == 3  # listed, so that the ledger counts them
    videos["v2"] = entry("FSAll_Fake", "DF40/nothing/ff/frames/1")
    listing(tmp_path, "FSAll_ff", {"FSAll_Fake": {"test": videos}})
    with pytest.raises(UsageError, match=r"neither the dataset .* nor the folder 'DF40/nothing/ff/frames/1'"):
        listed(tmp_path, json=Path("dataset_json"))


def test_frames_in_another_methods_folder_count_as_that_method(tmp_path: Path) -> None:
    folder = "DF40/fsgan/ff/frames/000_003"
    listing(
        put(tmp_path, f"{folder}/000.png"), "lia_ff", {"lia_Fake": {"test": {"000_003": entry("lia_Fake", folder)}}}
    )
    images, defects = listed(tmp_path, json=Path("dataset_json"))
    assert {i.generator for i in images} == {"fsgan"}
    assert details(defects, "missing_real") == ["the fakes of ff++ have no reals in the JSON"]
    assert details(defects, "wrong_label") == ["1 clips: lia_ff lists frames of fsgan, which they count as"]


def test_ddim_folders_that_are_called_otherwise_on_disk_are_named(tmp_path: Path) -> None:
    put(tmp_path, "DF40/ddim/ff/000/000.png", "DF40/ddim/ff/000/001.png", "DF40/ddim/ff/1/000.png")
    videos = {name: entry("ddim_Fake", f"DF40/ddim/ff/{name}") for name in ("000", "001", "002")}
    listing(tmp_path, "ddim_ff", {"ddim_Fake": {"test": videos}})
    images, defects = listed(tmp_path, json=Path("dataset_json/ddim_ff.json"))
    assert details(defects, "name_mismatch") == [
        "DF40/ddim/ff lacks 2 of 3 clips that the JSON names (001, 002) and has 1 others (1)"
    ]
    assert [i.payload.stamp() for i in images].count("missing") == 4


def test_a_clip_whose_name_is_too_long_for_the_disk_is_missing_and_no_error(official: Path) -> None:
    file = official / "dataset_json/simswap_ff.json"
    write(file, file.read_bytes().replace(b"ff/frames/000_003/001.png", b"ff/" + b"a/" * 3000 + b"v/001.png"))
    images, _ = listed(official, json=file)
    assert [i.payload.stamp() for i in images].count("missing") == 1


def test_pictures_that_a_json_calls_videos_stay_single_pictures(tmp_path: Path) -> None:
    names = [f"{number:03d}_{number}" for number in range(40)]
    put(tmp_path, *(f"DF40/e4e/ff/inversions/{name}.jpg" for name in names))
    videos = {n: {"label": "e4e_Fake", "frames": [f"{ELSEWHERE}/DF40/e4e/ff/inversions/{n}.jpg"]} for n in names}
    listing(tmp_path, "e4e", {"e4e_Fake": {"train": videos, "test": {names[0]: videos[names[0]]}}})
    images, _ = listed(tmp_path, json=Path("dataset_json/e4e.json"))
    assert len(images) == 40 and {i.video for i in images} == {None}
    assert Counter(i.source_split for i in images) == {"train": 39, "test": 1}
    assert images[1].identities == ("001",)


def test_reals_of_a_self_contained_method_are_its_own(tmp_path: Path) -> None:
    put(tmp_path, "DF40/heygen/real/b/000.png", "DF40/heygen/real/b/001.png")
    listing(tmp_path, "heygen", {"heygen_Real": {"test": {"b": entry("heygen_Real", "DF40/heygen/real/b")}}})
    images, _ = listed(tmp_path, json=Path("dataset_json/heygen.json"))
    assert {(i.generator, i.domain, i.licence) for i in images} == {(REAL, "vfhq", "CC-BY-NC-4.0 (DF40)")}


def test_a_json_that_is_not_there_is_a_wrong_call(official: Path) -> None:
    with pytest.raises(UsageError, match="There is no JSON file"):
        listed(official, json=Path("none.json"))
    with pytest.raises(UsageError, match=r"none of the frames that simswap_ff\.json lists"):
        listed(official / "dataset_json", json=official / "dataset_json/simswap_ff.json")
    moved = official / "moved"
    (official / "DF40").rename(moved)
    images, _ = listed(official, json=Path("dataset_json/simswap_ff.json"), path_map=f"{ELSEWHERE}/DF40=moved")
    assert "moved/simswap/ff/frames/000_003" in {i.video for i in images}


@pytest.mark.parametrize("options", [{}, {"json": Path("dataset_json")}], ids=["tree", "json"])
def test_the_source_keeps_its_contract(options: dict[str, Any], official: Path) -> None:
    check_source(DF40Source(**options), official)
