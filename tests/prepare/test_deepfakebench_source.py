"""DeepfakeBench's JSON is read with its defects named: its leaks, its folder names, its first frames, its paths."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.sources.deepfakebench import LABELS, DeepfakeBenchSource
from dfad_bench.taxonomy import known
from dfad_bench.testing import check_source
from dfad_bench.types import REAL, Defect, RawImage
from tests.prepare.builders import write

FF, CDF = "FaceForensics++", "Celeb-DF-v2"
Sections = dict[str, Any]


def frames(folder: str, count: int = 3, separator: str = "/") -> list[str]:
    return [f"{folder}/{number:03d}.png".replace("/", separator) for number in range(count)]


def clip(label: str, folder: str, count: int = 3, **more: Any) -> Sections:
    return {"label": label, "frames": frames(folder, count), **more}


def on_disk(root: Path, *folders: str, count: int = 3) -> Path:
    for folder in folders:
        for name in frames(folder, count):
            write(root / name, b"x")
    return root


def listing(root: Path, name: str, content: Sections) -> Path:
    return write(root / "dataset_json" / f"{name}.json", json.dumps({name: content}).encode())


def listed(root: Path, **options: Any) -> tuple[list[RawImage], list[Defect]]:
    defects: list[Defect] = []
    return list(DeepfakeBenchSource(**options).images(root, defects.append)), defects


def details(defects: list[Defect], kind: str) -> list[str]:
    return [defect.detail for defect in defects if defect.kind == kind]


FAKE, PRISTINE = (
    f"{FF}/manipulated_sequences/Deepfakes/c23/frames/000_003",
    f"{FF}/original_sequences/youtube/c23/frames/000",
)
FAKE_40 = FAKE.replace("c23", "c40")
MASKS = f"{FF}/manipulated_sequences/Deepfakes/c23/masks/000_003"


@pytest.fixture
def ff(tmp_path: Path) -> Path:
    """One fake at two compressions with masks, and one real."""
    on_disk(tmp_path, FAKE, FAKE_40, PRISTINE, MASKS)
    masked = {"masks": frames(MASKS, 2)}
    listing(
        tmp_path,
        "FF-DF",
        {
            "FF-real": {"train": {"c23": {"000": clip("FF-real", PRISTINE)}}},
            "FF-DF": {
                "train": {
                    "c23": {"000_003": clip("FF-DF", FAKE, **masked)},
                    "c40": {"000_003": clip("FF-DF", FAKE_40, **masked)},
                }
            },
        },
    )
    return tmp_path


@pytest.fixture
def celeb(tmp_path: Path) -> Path:
    """Celeb-DF-v2 as the rearranging step writes it: test clips in train and val, Celeb-real lost from train."""
    real = {"00000": clip("CelebDFv2_real", f"{CDF}/YouTube-real/frames/00000")}
    test_real = {"id0_0000": clip("CelebDFv2_real", f"{CDF}/Celeb-real/frames/id0_0000"), **real}
    fakes = {v: clip("CelebDFv2_fake", f"{CDF}/Celeb-synthesis/frames/{v}") for v in ("id0_id1_0000", "id2_id3_0004")}
    test_fakes = {"id0_id1_0000": fakes["id0_id1_0000"]}
    youtube_train = real | {"00001": clip("CelebDFv2_real", f"{CDF}/YouTube-real/frames/00001")}
    listing(
        tmp_path,
        CDF,
        {
            "CelebDFv2_real": {"train": youtube_train, "val": test_real, "test": test_real},
            "CelebDFv2_fake": {"train": fakes, "val": test_fakes, "test": test_fakes},
        },
    )
    clips = (*youtube_train.values(), *test_real.values(), *fakes.values())
    return on_disk(tmp_path, *{entry["frames"][0].rsplit("/", 1)[0] for entry in clips})


def test_labels_people_videos_and_masks_of_ff(ff: Path) -> None:
    images, defects = listed(ff, compression="c23")
    assert defects == []
    fake, real = images[0], images[-1]
    assert (fake.generator, fake.family, fake.forgery_type, fake.domain) == ("deepfakes", "autoencoder", "fs", "ff++")
    assert (fake.key, fake.video, fake.frame, fake.source_split) == (f"{FAKE}/000.png", FAKE, 0, "train")
    assert (fake.identities, real.identities) == (("000", "003"), ("000",))
    assert (real.generator, real.domain, real.mask) == (REAL, "ff++", None)
    assert [i.mask.read() if i.mask else None for i in images[:3]] == [b"x", b"x", None]  # the third frame has no mask
    assert fake.payload.read() == b"x"


def test_compressions_are_videos_of_their_own_and_one_can_be_asked_for(ff: Path) -> None:
    assert Counter(i.video for i in listed(ff)[0]) == {FAKE: 3, FAKE_40: 3, PRISTINE: 3}
    assert {i.video for i in listed(ff, compression="c40")[0]} == {FAKE_40}
    with pytest.raises(UsageError, match=r"compression='c99': expected one of raw, c0, c23, c40"):
        listed(ff, compression="c99")
    with pytest.raises(UsageError, match="no frame of what is wanted"):
        listed(ff, compression="raw")


def test_videos_of_one_name_in_two_folders_stay_two_videos(tmp_path: Path) -> None:
    """DeepfakeBench groups frames by the bare folder name: 000_003 of five methods becomes one video."""
    for method, label in (("Deepfakes", "FF-DF"), ("Face2Face", "FF-F2F"), ("NeuralTextures", "FF-NT")):
        folder = f"{FF}/manipulated_sequences/{method}/c23/frames/000_003"
        on_disk(tmp_path, folder)
        listing(tmp_path, label, {label: {"test": {"c23": {"000_003": clip(label, folder)}}}})
    images, _ = listed(tmp_path)
    assert len({i.video for i in images}) == 3
    assert Counter(i.generator for i in images) == {"deepfakes": 3, "face2face": 3, "neuraltextures": 3}


def test_frames_are_spread_over_the_whole_video_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """DeepfakeBench takes the first ones: 32 of 270 end at frame 31."""
    folder = "UADFV/fake/frames/0000_fake"
    names = [f"{folder}/{number}.png" for number in range(270)]
    for name in names:
        write(tmp_path / name, b"x")
    content = {"UADFV_Fake": {"test": {"0000_fake": {"label": "UADFV_Fake", "frames": sorted(names)}}}}
    listing(tmp_path, "UADFV", content)
    numbers = [i.frame or 0 for i in listed(tmp_path)[0]]
    gaps = {after - before for before, after in pairwise(numbers)}
    assert len(numbers) == 32 and gaps <= {8, 9} and numbers[0] < 9 and numbers[-1] > 260
    assert len(listed(tmp_path, frames=5)[0]) == 5
    assert listed(tmp_path, frames=5)[0][0].identities == ("0000",)


def test_no_test_clip_of_celeb_df_is_left_in_train(celeb: Path) -> None:
    images, defects = listed(celeb)
    splits = {i.video: i.source_split for i in images if i.video}
    assert {video.rsplit("/", 1)[-1]: split for video, split in splits.items()} == {
        "id0_id1_0000": "test",
        "id2_id3_0004": "train",
        "id0_0000": "test",
        "00000": "test",
        "00001": "train",
    }
    assert len({i.key for i in images}) == len(images) == 15
    told = details(defects, "in_two_splits")
    assert "Celeb-DF-v2.json: train and test share 2 videos, such as 00000, and 6 frames" in told
    assert "2 clips stand in train and val and test; each is kept once, in test" in told
    assert {i.identities for i in images if i.generator == "celebdf"} == {("id0", "id1"), ("id2", "id3")}
    assert {i.identities for i in images if i.generator == REAL} == {("id0",), ("00000",), ("00001",)}


def test_the_class_that_train_lost_is_named(celeb: Path) -> None:
    assert details(listed(celeb)[1], "missing_class") == [
        "Celeb-DF-v2: train has no clip of CelebDFv2_real from Celeb-DF-v2/Celeb-real"
    ]


def test_uadfv_whose_splits_are_all_the_same_is_all_test(tmp_path: Path) -> None:
    folders = {"UADFV_Real": "UADFV/real/frames/0000", "UADFV_Fake": "UADFV/fake/frames/0000_fake"}
    on_disk(tmp_path, *folders.values())
    videos = {label: {f.rsplit("/", 1)[-1]: clip(label, f)} for label, f in folders.items()}
    listing(tmp_path, "UADFV", {label: dict.fromkeys(("train", "val", "test"), videos[label]) for label in folders})
    images, defects = listed(tmp_path)
    assert {i.source_split for i in images} == {"test"} and len(images) == 6
    assert {i.generator for i in images} == {REAL, "fakeapp"} and {i.identities for i in images} == {("0000",)}
    assert "2 clips stand in train and val and test; each is kept once, in test" in details(defects, "in_two_splits")
    assert details(defects, "missing_class") == []


def test_one_clip_listed_in_two_files_is_one_clip(ff: Path) -> None:
    shutil.copy(ff / "dataset_json/FF-DF.json", ff / "dataset_json/FaceForensics++.json")
    assert len(listed(ff)[0]) == 9


def test_frames_that_are_real_in_one_file_and_fake_in_another_are_left_out(ff: Path) -> None:
    listing(ff, "Wrong", {"FF-F2F": {"train": {"000_003": clip("FF-F2F", FAKE)}}})
    images, defects = listed(ff)
    assert {i.video for i in images} == {FAKE_40, PRISTINE}
    assert details(defects, "two_labels") == [
        f"3 frames are listed under two labels and left out, first {FAKE}/000.png"
    ]


@pytest.mark.parametrize(
    ("prefix", "moved"),
    [
        ("", "."),
        ("./datasets/rgb/", "."),
        ("/home/someone/data/rgb/", "."),
        ("D:\\faces\\rgb\\", "."),
        ("", "datasets/rgb"),
        (".\\datasets\\rgb\\", "datasets/rgb"),
    ],
)
def test_paths_of_another_machine_are_found_below_the_root(prefix: str, moved: str, ff: Path) -> None:
    separator = "\\" if "\\" in prefix else "/"
    text = (ff / "dataset_json/FF-DF.json").read_text().replace(FF, prefix.replace("\\", "/") + FF)
    text = text.replace("/", "\\\\") if separator == "\\" else text
    write(ff / "dataset_json/FF-DF.json", text.encode())
    if moved != ".":
        (ff / moved).mkdir(parents=True)
        (ff / FF).rename(ff / moved / FF)
    images, defects = listed(ff)
    assert len(images) == 9 and all(i.payload.read() == b"x" for i in images)
    assert all(i.key.startswith(f"{moved}/{FF}" if moved != "." else FF) for i in images)
    assert bool(details(defects, "backslash_path")) is (separator == "\\")


def test_the_root_may_be_the_dataset_folder_itself(ff: Path) -> None:
    images, _ = listed(ff / FF, json=str(ff / "dataset_json/FF-DF.json"))
    assert len(images) == 9 and all(i.payload.read() for i in images)


def test_a_path_map_puts_one_beginning_in_the_place_of_another(ff: Path) -> None:
    (ff / FF).rename(ff / "my ff")
    assert len(listed(ff, path_map=f"{FF}=my ff")[0]) == 9
    assert len(listed(ff, path_map=f"{FF}={ff / 'my ff'}")[0]) == 9
    with pytest.raises(UsageError, match=rf"no path begins with elsewhere; the first one is '{FF}".replace("+", r"\+")):
        listed(ff, path_map=f"elsewhere=there,{FF}=my ff")
    with pytest.raises(UsageError, match="does not lie below the root"):
        listed(ff, path_map=f"{FF}=/somewhere")
    with pytest.raises(UsageError, match="expected old=new"):
        listed(ff, path_map="old")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", f"{FF}/../../secret.png", "..\\..\\secret.png"])
def test_a_path_that_leads_out_of_the_root_is_listed_and_refused_when_read(path: str, ff: Path) -> None:
    write(ff.parent / "secret.png", b"secret")
    content = {"FF-F2F": {"test": {"v": {"label": "FF-F2F", "frames": [path]}, "000": clip("FF-F2F", PRISTINE)}}}
    file = listing(ff, "F2F", content)
    bad = next(i for i in listed(ff, json=str(file))[0] if "frames/000/" not in i.key)
    with pytest.raises(SkippedInput, match="outside_root"):
        bad.payload.read()


def test_a_missing_frame_is_listed_so_that_the_ledger_can_count_it(ff: Path) -> None:
    (ff / FAKE / "001.png").unlink()
    images, _ = listed(ff)
    assert [i.payload.stamp() for i in images].count("missing") == 1


def test_a_wrong_root_is_refused_with_what_is_near(ff: Path, tmp_path: Path) -> None:
    json_file = str(ff / "dataset_json/FF-DF.json")
    with pytest.raises(UsageError, match=r"none of the frames that FF-DF\.json lists.*Did you mean --root"):
        listed(ff / "dataset_json", json=json_file)
    above = write(tmp_path / "up/side/note.txt", b"").parent.parent
    shutil.move(ff / FF, above / "side" / FF)
    with pytest.raises(UsageError, match=f"Did you mean --root {above / 'side'}?"):
        listed(above, json=json_file)
    (above / "side" / FF).rename(above / "FaceForensics")
    with pytest.raises(UsageError, match=r"Did you mean 'FaceForensics'\? Then say path_map"):
        listed(above, json=json_file)


def test_a_small_part_of_a_dataset_is_enough(tmp_path: Path) -> None:
    videos = {f"{v:05d}": clip("DFDC_Fake", f"DFDC/test/frames/{v:05d}", 1) for v in range(3000)}
    listing(tmp_path, "DFDC", {"DFDC_Fake": {"test": videos}})
    on_disk(tmp_path, *(f"DFDC/test/frames/{v:05d}" for v in range(1200, 1215)), count=1)
    images, _ = listed(tmp_path)
    assert len(images) == 3000 and sum(i.payload.stamp() != "missing" for i in images) == 15


def test_a_root_without_json_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no dataset JSON.*--set json=FILE"):
        listed(tmp_path)
    for name in "ab":
        write(tmp_path / f"{name}.json", b"{}")
    with pytest.raises(UsageError, match=r"several JSON files \(a.json, b.json\)"):
        listed(tmp_path)
    with pytest.raises(UsageError, match="There is no file"):
        listed(tmp_path, json="c.json")


def test_only_the_datasets_that_are_on_disk_are_read_unless_one_is_named(ff: Path) -> None:
    file = listing(ff, "UADFV", {"UADFV_Fake": {"test": {"0": clip("UADFV_Fake", "UADFV/fake/frames/0")}}})
    images, defects = listed(ff)
    assert {i.domain for i in images} == {"ff++"}
    assert "UADFV.json" in details(defects, "absent_dataset")[0]
    with pytest.raises(UsageError, match=r"none of the frames that UADFV\.json lists"):
        listed(ff, json=f"dataset_json/FF-DF.json,{file}")


def test_a_label_of_another_benchmark_is_refused_until_it_is_mapped(ff: Path) -> None:
    listing(ff, "Other", {"simswap_Fake": {"test": {"1_2": clip("simswap_Fake", PRISTINE.replace("youtube", "sim"))}}})
    on_disk(ff, PRISTINE.replace("youtube", "sim"))
    with pytest.raises(UsageError, match=r"'simswap_Fake' is no label of DeepfakeBench.*--set labels=.*--source df40"):
        listed(ff)
    source = build_source("deepfakebench", ["labels=simswap_Fake=SimSwap"])
    assert {i.generator for i in source.images(ff, lambda defect: None)} == {REAL, "deepfakes", "simswap"}
    assert "simswap" in {g.name for g in source.generators(ff)}
    for wrong, part in (("x", "expected label=GENERATOR"), ("a=simswop", "Did you mean 'simswap'")):
        with pytest.raises(UsageError, match=part):
            listed(ff, labels=wrong)


def test_every_label_has_a_generator_that_can_be_declared() -> None:
    declared = {generator.name: generator for generator in DeepfakeBenchSource().generators(None)}
    assert {meaning.generator for meaning in LABELS.values()} == {REAL, *declared}
    for generator in declared.values():
        entry = known().find(generator.name)
        assert entry == generator if entry else generator.family == "undisclosed"
    assert {LABELS["FF-FH"].generator, LABELS["FF-SH"].generator} == {"faceshifter"}
    fakes = {label for label, meaning in LABELS.items() if meaning.generator != REAL}
    assert fakes == {label for label in LABELS if not label.lower().endswith("_real") and label != "FF-real"}


@pytest.mark.parametrize(
    ("label", "video", "people"),
    [
        ("FF-NT", "012_345", ("012", "345")),
        ("DF_fake", "012_M004", ("012", "M004")),
        ("DFD_fake", "01_02__exit_phone_room__YVGY8LOK", ("01", "02")),
        ("DFD_real", "01__exit_phone_room", ("01",)),
        ("CelebDFv1_fake", "id4_id4_0001", ("id4",)),
        ("UADFV_Fake", "0007_fake", ("0007",)),
        ("DFDC_Fake", "aaqaifqrwn", ("aaqaifqrwn",)),
        ("DFDCP_FakeB", "1224068_A_000", ("1224068_A_000",)),
    ],
)
def test_people_are_read_from_the_names_that_tell_them(label: str, video: str, people: Any, tmp_path: Path) -> None:
    folder = f"DFDC/x/frames/{video}"
    on_disk(tmp_path, folder)
    listing(tmp_path, "DFDC", {label: {"test": {video: clip(label, folder)}}})
    assert {i.identities for i in listed(tmp_path)[0]} == {people}


def test_a_broken_file_is_one_line(ff: Path) -> None:
    write(ff / "dataset_json/b.json", b"[1, 2")
    with pytest.raises(DataError, match=r"b\.json is not valid JSON"):
        listed(ff)
    with pytest.raises(UsageError, match="frames=0"):
        listed(ff, frames=0)


def test_the_source_keeps_its_contract(celeb: Path, ff: Path) -> None:
    check_source(DeepfakeBenchSource(), ff)
