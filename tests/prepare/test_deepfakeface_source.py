"""DeepFakeFace is read alike from its zips and from folders, and what is wrong with a copy is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.sources import deepfakeface
from dfad_bench.prepare.sources.deepfakeface import PARTS, DeepFakeFaceSource
from dfad_bench.taxonomy import known
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import contents, encoded, job, pixels, rows, run, write
from tests.prepare.test_archive import zipped

NAMES = ("00/10000400_1966-12-01_2011.jpg", "00/23300_1962-06-19_2011.jpg", "17/10000217_1981-05-05_2009.jpg")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepfakeface, "IMAGES", len(NAMES))


def copy(root: Path, form: str = "zips", without: tuple[str, ...] = ()) -> Path:
    """A whole copy: four zips, four folders, or folders within folders, as some programs unpack."""
    for seed, part in enumerate(PARTS):
        if part in without:
            continue
        members = {f"{part}/{name}": encoded(pixels(seed), "JPEG") for name in NAMES}
        if form == "zips":
            zipped(root / f"{part}.zip", {f"{part}/": b"", **members})
        for name, data in members.items() if form != "zips" else ():
            write(root / (f"{part}/{name}" if form == "nested" else name), data)
    return root


def listed(root: Path) -> tuple[list[RawImage], dict[str, list[str]]]:
    defects: list[Defect] = []
    images = list(DeepFakeFaceSource().images(root, defects.append))
    told: dict[str, list[str]] = {}
    for defect in defects:
        told.setdefault(defect.kind, []).append(defect.detail)
    return images, told


def test_zips_and_folders_give_the_same_images(tmp_path: Path) -> None:
    described = []
    for form in ("zips", "folders", "nested"):
        images, told = listed(copy(tmp_path / form, form))
        assert told == {}
        described.append([(i.generator, i.key, i.identities, i.domain, i.payload.read()) for i in images])
    assert described[0] == described[1] == described[2]


def test_every_part_is_labelled_and_the_person_is_shared(tmp_path: Path) -> None:
    images, _ = listed(copy(tmp_path))
    assert len(images) == 4 * len(NAMES)
    assert {(i.generator, i.family, i.forgery_type) for i in images} == {
        ("real", "real", "real"),
        ("sd15", "diffusion", "efs"),
        ("sd15_inpaint", "diffusion", "am"),
        ("inswapper", "gan", "fs"),
    }
    assert {i.domain for i in images} == {"imdb-wiki"}
    people = {i.key: set() for i in images}
    for image in images:
        people[image.key].add(image.identities)
    assert people[NAMES[0]] == {("10000400",)}
    assert all(len(each) == 1 for each in people.values())
    declared = DeepFakeFaceSource().generators(None)
    assert [g.name for g in declared] == ["sd15", "sd15_inpaint", "inswapper"]
    assert all(known().find(g.name) is g for g in declared)


def test_it_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    check_source(DeepFakeFaceSource(), copy(tmp_path / "zips"))
    check_source(DeepFakeFaceSource(), copy(tmp_path / "folders", "folders"))


def test_a_missing_part_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    images, told = listed(copy(tmp_path, without=("insight",)))
    assert {i.generator for i in images} == {"real", "sd15", "sd15_inpaint"}
    assert told == {"missing_part": ["there is no image of insight, neither in insight.zip nor in insight/"]}


def test_a_part_that_lacks_images_of_the_others_is_named_with_them(tmp_path: Path) -> None:
    root = copy(tmp_path, "folders")
    (root / "text2img" / NAMES[1]).unlink()
    _, told = listed(root)
    assert list(told) == ["part_incomplete"]
    (detail,) = told["part_incomplete"]
    assert detail.startswith("text2img holds 2 of 3")
    assert NAMES[1] in detail


def test_a_copy_that_is_short_everywhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepfakeface, "IMAGES", 30_000)
    _, told = listed(copy(tmp_path))
    assert len(told["part_incomplete"]) == 4
    assert "wiki holds 3 of 30000 published images" in told["part_incomplete"]


def test_hostile_odd_and_repeated_names_are_told(tmp_path: Path) -> None:
    root = copy(tmp_path, without=("wiki",))
    members = {f"wiki/{name}": b"x" for name in NAMES}
    odd = {"../../etc/evil.jpg": b"x", "wiki/00/nobody.jpg": b"x", f"wiki/wiki/{NAMES[0]}": b"again"}
    zipped(root / "wiki.zip", members | odd)
    images, told = listed(root)
    reals = [i for i in images if i.generator == "real"]
    assert [i.key for i in reals] == sorted([*NAMES, "00/nobody.jpg"])
    assert "'../../etc/evil.jpg'" in told["hostile_path"][0]
    assert "00/nobody.jpg" in told["odd_name"][0]
    assert f"wiki/wiki/{NAMES[0]}" in told["repeated_image"][0]
    assert next(i for i in reals if i.key == "00/nobody.jpg").identities == ()
    assert next(i for i in reals if i.key == NAMES[0]).payload.read() == b"x"


def test_a_broken_zip_is_one_line_that_names_it(tmp_path: Path) -> None:
    root = copy(tmp_path)
    data = (root / "insight.zip").read_bytes()
    write(root / "insight.zip", data[: len(data) // 2])
    with pytest.raises(DataError, match=r"insight\.zip is no zip archive, or was cut short"):
        listed(root)


def test_a_wrong_root_says_how_to_get_the_data(tmp_path: Path) -> None:
    write(tmp_path / "faces" / "1.jpg", b"x")
    with pytest.raises(UsageError, match=r"holds no part of DeepFakeFace.*--revision [0-9a-f]{40} ") as caught:
        listed(tmp_path)
    assert "\n" not in str(caught.value)


def test_prepared_from_zips_by_two_workers_it_is_what_folders_give(tmp_path: Path) -> None:
    whole = run(job(copy(tmp_path / "folders", "folders"), tmp_path / "one", "deepfakeface"))
    zips = run(job(copy(tmp_path / "zips"), tmp_path / "two", "deepfakeface", engine=LocalEngine(2)))
    assert len(rows(zips.root)) == 4 * len(NAMES)
    assert contents(zips.root) == contents(whole.root)


def test_a_broken_member_costs_itself_only(tmp_path: Path) -> None:
    root = copy(tmp_path / "root")
    data = bytearray((root / "wiki.zip").read_bytes())
    at = data.index(NAMES[1].encode()) + len(NAMES[1])  # the first byte of the middle member's deflated picture
    data[at : at + 8] = b"\xff" * 8
    write(root / "wiki.zip", bytes(data))
    report = run(job(root, tmp_path / "data", "deepfakeface"))
    assert len(rows(report.root)) == 4 * len(NAMES) - 1
    (skip,) = rows(report.root, "skipped.parquet")
    assert (skip["id"], skip["reason"]) == (f"faces/real/{NAMES[1]}", "bad_member")
