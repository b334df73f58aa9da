"""A folder per generator is read in one order, with a YAML that says what its names mean."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.prepare.options import build_source, check_root, check_source_name
from dfad_bench.prepare.sources.folder import FolderSource
from dfad_bench.taxonomy import known
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import folder_tree, job, no_defect, rows, run, write


def touch(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, b"x")
    return root


def mapped(folder: Path, content: Any) -> FolderSource:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    return FolderSource(write(folder / "map.yaml", text.encode()))


def listed(root: Path, source: FolderSource | None = None) -> list[RawImage]:
    return list((source or FolderSource()).images(root, no_defect))


def listed_with_defects(root: Path, source: FolderSource) -> tuple[list[RawImage], list[Defect]]:
    defects: list[Defect] = []
    return list(source.images(root, defects.append)), defects


def test_known_names_need_no_yaml(tmp_path: Path) -> None:
    touch(tmp_path / "ffhq", "real/a.jpg", "StyleGAN3/b.png")
    fake, real = listed(tmp_path / "ffhq")
    assert (fake.generator, fake.family, fake.forgery_type, fake.key) == ("stylegan3", "gan", "efs", "StyleGAN3/b.png")
    assert (real.generator, real.domain, real.licence) == ("real", "ffhq", "unspecified")


def test_the_yaml_names_labels_people_videos_splits_and_frames(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "swapped/train/012_345/f0007.png", "youtube/test/012/f0000.png", "masks/m.png")
    source = mapped(
        tmp_path,
        {
            "generators": {
                "swapped": {"name": "our_swap", "family": "gan", "forgery_type": "fs", "version": "2", "domain": "yt"},
                "youtube": "real",
            },
            "ignore": ["masks"],
            "domain": "elsewhere",
            "licence": "CC-BY",
            "identity": r"/(\d{3})(?:_(\d{3}))?/",
            "video": r"/([\d_]+)/f",
            "source_split": "/(train|val|test)/",
            "frame": r"f(\d+)\.",
        },
    )
    swap, real = listed(root, source)
    assert (swap.generator, swap.family, swap.forgery_type, swap.generator_version) == ("our_swap", "gan", "fs", "2")
    assert (swap.identities, swap.video, swap.frame) == (("012", "345"), "012_345", 7)
    assert (swap.source_split, swap.domain, swap.licence) == ("train", "yt", "CC-BY")
    assert (real.generator, real.identities, real.video, real.frame) == ("real", ("012",), "012", 0)
    assert (real.source_split, real.domain) == ("test", "elsewhere")
    assert [g.name for g in source.generators(root)] == ["our_swap"]


def test_one_person_named_twice_is_one_person(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "real/7_7.png")
    (image,) = listed(root, mapped(tmp_path, {"identity": r"(\d)_(\d)"}))
    assert image.identities == ("7",)


@pytest.mark.parametrize(
    ("content", "error", "part"),
    [
        ({"identity": "id"}, DataError, "needs a group"),
        ({"video": "(["}, DataError, "no regular expression"),
        ({"identitty": "(x)"}, DataError, "identitty"),
        ({"generators": {"fake": {"name": "x", "famly": "gan"}}}, DataError, "famly"),
        ("generators: {a: real, a: real}", DataError, "repeated key"),
        ("generators: [", DataError, "not valid YAML"),
        ("", DataError, "map.yaml"),
        ({"generators": {"gone": "real"}}, UsageError, "describes gone"),
        ({"source_split": "/(.*)\\.png"}, UsageError, "source_split matches"),
        ({"frame": "/(.*)\\.png"}, UsageError, "is no number"),
        ({"ignore": ["real", "stylegan3"]}, UsageError, "has no sub-folder"),
        ({"generators": {"stylegan33": "real"}}, UsageError, r"Did you mean 'stylegan3'\?"),
        ({"generators": {"../real": "real"}}, DataError, "must be a folder's path relative to the root"),
        ({"generators": {"/real": "real"}}, DataError, "must be a folder's path relative to the root"),
        ({"generators": {"real/": "real"}}, DataError, "must be a folder's path relative to the root"),
        ({"ignore": ["./real"]}, DataError, "must be a folder's path relative to the root"),
    ],
)
def test_a_wrong_yaml_is_one_line(tmp_path: Path, content: Any, error: type[DfadError], part: str) -> None:
    root = touch(tmp_path / "root", "real/a.png", "stylegan3/b.png")
    with pytest.raises(error, match=part) as caught:
        listed(root, mapped(tmp_path, content))
    assert "\n" not in str(caught.value)


GENFACE = """
generators:
  EFS/DDPM: {name: ddpm, domain: celeba-hq}
  EFS/LatDiff: {name: latdiff, domain: celeba-hq}
  EFS/CollDiff: {name: colldiff, domain: celeba-hq}
  EFS/StyleGAN3: {name: stylegan3, domain: ffhq}
  AM/Diffae: {name: diffae, domain: celeba-hq}
  AM/LatTrans: {name: lattrans, domain: celeba-hq}
  AM/IA-FaceS: {name: ia_faces, domain: celeba-hq}
  FS/DiffFace: {name: diffface, domain: celeba-hq}
  FS/FSLSD: {name: fslsd, domain: celeba-hq}
  FS/FaceSwapper: {name: faceswapper, domain: celeba-hq}
  Real/FFHQ: {name: real, domain: ffhq, licence: CC-BY-NC-SA-4.0}
  Real/CelebA-HQ: {name: real, domain: celeba-hq}
licence: research only
source_split: "/(train|val|test)/"
"""
GENFACE_LABELS = {
    "ddpm": ("diffusion", "efs"),
    "latdiff": ("diffusion", "efs"),
    "colldiff": ("diffusion", "efs"),
    "stylegan3": ("gan", "efs"),
    "diffae": ("diffusion", "am"),
    "lattrans": ("gan", "am"),
    "ia_faces": ("gan", "am"),
    "diffface": ("diffusion", "fs"),
    "fslsd": ("gan", "fs"),
    "faceswapper": ("gan", "fs"),
    "real": ("real", "real"),
}
"""Family and forgery type as the GenFace paper gives them (arXiv:2402.02003)."""


def genface(root: Path) -> Path:
    folders = yaml.safe_load(GENFACE)["generators"]
    return touch(
        root, *(f"{folder}/{split}/{n}.png" for folder in folders for split in ("train", "test") for n in "12")
    )


def test_a_copy_of_genface_is_read_by_nested_folders(tmp_path: Path) -> None:
    root = genface(tmp_path / "GenFace")
    source = mapped(tmp_path, GENFACE)
    images = listed(root, source)
    assert len(images) == 12 * 4
    assert {i.generator: (i.family, i.forgery_type) for i in images} == GENFACE_LABELS
    assert {i.domain for i in images if i.generator == "real"} == {"ffhq", "celeba-hq"}
    assert {i.licence for i in images if i.domain == "ffhq" and i.generator == "real"} == {"CC-BY-NC-SA-4.0"}
    assert {i.source_split for i in images} == {"train", "test"}
    assert source.generators(root) == (), "the taxonomy knows all of them"
    check_source(source, root)


def test_the_names_of_genface_s_generators_need_no_translation(tmp_path: Path) -> None:
    names = [folder.partition("/")[2] for folder in yaml.safe_load(GENFACE)["generators"] if "Real" not in folder]
    found = [known().get(name) for name in names]
    assert {g.name: (g.family, g.forgery_type) for g in found} | {"real": ("real", "real")} == GENFACE_LABELS


def test_neighbours_of_a_nested_folder_go_by_their_own_names(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "EFS/ours/1.png", "EFS/StyleGAN3/2.png", "EFS/masks/3.png", "real/4.png")
    our = {"name": "our_own", "family": "flow", "forgery_type": "efs"}
    images = listed(root, mapped(tmp_path, {"generators": {"EFS/ours": our}, "ignore": ["EFS/masks"]}))
    assert [(i.generator, i.key) for i in images] == [
        ("stylegan3", "EFS/StyleGAN3/2.png"),
        ("our_own", "EFS/ours/1.png"),
        ("real", "real/4.png"),
    ]
    touch(root, "EFS/zebras/5.png")
    with pytest.raises(UsageError, match="folder 'EFS/zebras': 'zebras' is no known generator"):
        listed(root, mapped(tmp_path, {"generators": {"EFS/ours": our}, "ignore": ["EFS/masks"]}))


def test_images_beside_nested_folders_are_told(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "EFS/DDPM/1.png", "EFS/loose.png", "EFS/notes.txt")
    images, (defect,) = listed_with_defects(root, mapped(tmp_path, {"generators": {"EFS/DDPM": "ddpm"}}))
    assert [i.key for i in images] == ["EFS/DDPM/1.png"]
    assert (defect.kind, defect.detail.split()[0]) == ("loose_images", "EFS")


def test_a_folder_and_one_below_it_cannot_both_be_described(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "EFS/DDPM/1.png")
    with pytest.raises(UsageError, match="describes EFS and, below it, EFS/DDPM"):
        listed(root, mapped(tmp_path, {"generators": {"EFS": "stylegan3", "EFS/DDPM": "ddpm"}}))


def test_an_absent_yaml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        listed(touch(tmp_path / "root", "real/a.png"), FolderSource(tmp_path / "absent.yaml"))


def test_an_unknown_folder_is_named_with_the_nearest_generator(tmp_path: Path) -> None:
    root = touch(tmp_path, "real/a.png", "stylegan33/b.png")
    with pytest.raises(UsageError, match=r"folder 'stylegan33'.*Did you mean 'stylegan3'\?"):
        listed(root)


def test_a_wrong_folder_is_found_before_the_first_image(tmp_path: Path) -> None:
    root = touch(tmp_path, "real/a.png", "zebras/b.png")
    with pytest.raises(UsageError, match="zebras"):
        next(iter(FolderSource().images(root, no_defect)))


def test_two_labels_for_one_generator_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "one/a.png", "stylegan3/b.png")
    source = mapped(tmp_path, {"generators": {"one": {"name": "stylegan3", "family": "diffusion"}}})
    with pytest.raises(UsageError, match="gan/efs here and diffusion/efs before"):
        listed(root, source)


def test_a_folder_without_images_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    root = touch(tmp_path, "real/a.png", "stylegan3/notes.txt")
    images, defects = listed_with_defects(root, FolderSource())
    assert [image.key for image in images] == ["real/a.png"]
    assert defects == [Defect("empty_folder", "stylegan3 holds no image")]


def test_a_root_without_any_image_is_an_error(tmp_path: Path) -> None:
    root = touch(tmp_path, "real/a.txt", "stylegan3/notes.txt")
    with pytest.raises(UsageError, match=r"No folder of .* holds an image \(\.bmp, \.gif"):
        listed_with_defects(root, FolderSource())


def test_a_root_without_folders_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no sub-folder"):
        listed(touch(tmp_path, "a.png"))


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    root = touch(tmp_path, "real/a.PNG", "real/._a.png", "real/.thumbs/b.png", ".git/c.png", "real/Thumbs.db")
    assert [image.key for image in listed(root)] == ["real/a.PNG"]


def test_the_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{folder}/{sub}/{n}.png" for folder in ("real", "stylegan3") for sub in "ba" for n in (10, 9, 1)]
    root = touch(tmp_path, *names)
    expected = [image.key for image in listed(root)]
    assert sorted(expected) == sorted(names)
    scandir, iterdir, shuffled = os.scandir, Path.iterdir, random.Random(3)

    class Shuffled:
        def __init__(self, path: Any) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)
            shuffled.shuffle(self.entries)
            self.iterator = iter(self.entries)

        def __iter__(self) -> Any:
            return self.iterator

        def __next__(self) -> Any:
            return next(self.iterator)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            return

    monkeypatch.setattr(os, "scandir", Shuffled)
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(shuffled.sample(found := list(iterdir(path)), len(found))))
    assert [[image.key for image in listed(root)] for _ in range(5)] == [expected] * 5


def test_a_loop_of_links_does_not_hang(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 2})
    (root / "real" / "again").symlink_to(root / "real")
    (root / "real" / "self.jpg").symlink_to(root / "real" / "self.jpg")
    report = run(job(root, tmp_path / "data"))
    assert len(rows(report.root)) == 2
    assert [row["reason"] for row in rows(report.root, "skipped.parquet")] == ["bad_path"]


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UsageError, match="not UTF-8"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["mapp=x"], "no option 'mapp'. Did you mean 'map'?"),
        (["map"], "expected option=value"),
        (["=x"], "no option ''"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: list[str], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_source("folder", settings)
    assert part in str(caught.value)


def test_settings_take_their_types_from_the_source() -> None:
    assert build_source("folder", ["map=a=b.yaml"]) == FolderSource(Path("a=b.yaml"))


def test_an_unknown_source_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'folder'"):
        build_source("foldr", [])


def test_a_missing_root_prints_the_source_s_instructions(tmp_path: Path) -> None:
    for root in (None, tmp_path / "absent"):
        with pytest.raises(UsageError, match="one sub-folder per generator"):
            check_root(FolderSource(), root)
    check_root(FolderSource(), tmp_path)


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a", "a b", "a\n"])
def test_a_name_that_could_not_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="lower-case"):
        check_source_name(name)
    assert check_source_name("ff-plus_2") == "ff-plus_2"
