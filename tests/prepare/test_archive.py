"""Images are read out of zip archives without trusting a name, a size or a checksum in them."""

from __future__ import annotations

import pickle
import stat
import struct
import time
import zipfile
from pathlib import Path

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare import archive
from dfad_bench.prepare.archive import ZipMember, zip_images
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.listing import IMAGE_SUFFIXES
from dfad_bench.types import Defect
from tests.prepare.builders import encoded, pixels, write

PICTURE = encoded(pixels(1), "JPEG")


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo("x", (2020, 1, 1, 0, 0, 0))
            info.filename, info.compress_type = name, method
            file.writestr(info, data)
    return path


def listed(root: Path, name: str = "a.zip") -> tuple[list[str], list[Defect]]:
    defects: list[Defect] = []
    return zip_images(root, name, IMAGE_SUFFIXES, defects.append), defects


def skipped(root: Path, member: str, name: str = "a.zip") -> SkippedInput:
    with pytest.raises(SkippedInput) as caught:
        ZipMember(root, name, member).read()
    (streamed,) = ZipMember.stream([ZipMember(root, name, member)])
    assert isinstance(streamed, SkippedInput), "a stream yields what read raises"
    assert streamed.reason == caught.value.reason
    return caught.value


def patch_directory(path: Path, offset: int, value: bytes) -> None:
    """Overwrite bytes of the only entry of an archive's central directory."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + offset
    data[start : start + len(value)] = value
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_listed_in_order_and_read_without_touching_the_disk(tmp_path: Path, method: int) -> None:
    zipped(tmp_path / "a.zip", {"b/2.jpg": b"two", "b/": b"", "a/1.JPG": PICTURE, "readme.txt": b"no"}, method)
    assert listed(tmp_path) == (["a/1.JPG", "b/2.jpg"], [])
    members = [ZipMember(tmp_path, "a.zip", name) for name in ("a/1.JPG", "b/2.jpg")]
    assert list(ZipMember.stream(members)) == [PICTURE, b"two"]
    assert [member.read() for member in members] == [PICTURE, b"two"]
    assert pickle.loads(pickle.dumps(members)) == members
    assert {member.container for member in members} == {"a.zip"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_hidden_members_are_left_out_as_hidden_files_are(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"a/1.jpg": b"1", "a/._1.jpg": b"1", "__MACOSX/a/2.jpg": b"1", ".trash/3.jpg": b"1"})
    assert listed(tmp_path) == (["a/1.jpg"], [])


@pytest.mark.parametrize(
    "name",
    [
        "../up.jpg",
        "a/../../up.jpg",
        "/etc/up.jpg",
        "a\\..\\up.jpg",
        "C:/up.jpg",
        "c:up.jpg",
        "a\nb.jpg",
        "a\0/../b.jpg",
    ],
)
def test_a_hostile_name_is_told_and_never_listed_or_read(tmp_path: Path, name: str) -> None:
    zipped(tmp_path / "a.zip", {"good.jpg": PICTURE, name: b"evil"})
    names, (defect,) = listed(tmp_path)
    assert names == ["good.jpg"]
    assert defect.kind == "hostile_path"
    assert repr(name) in defect.detail
    assert skipped(tmp_path, name.split("\0")[0]).reason == "bad_path"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_is_told_and_never_listed_or_read(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("link.jpg")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    names, (defect,) = listed(tmp_path)
    assert (names, defect.kind) == ([], "hostile_path")
    assert skipped(tmp_path, "link.jpg").reason == "bad_path"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_told_and_listed_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for data in (b"first", b"second"):
            file.writestr("1.jpg", data)
    names, (defect,) = listed(tmp_path)
    assert (names, defect.kind) == (["1.jpg"], "repeated_member")
    assert ZipMember(tmp_path, "a.zip", "1.jpg").read() == b"second"


def test_an_encrypted_member_is_skipped(tmp_path: Path) -> None:
    patch_directory(zipped(tmp_path / "a.zip", {"1.jpg": PICTURE}), 8, struct.pack("<H", 1))
    assert skipped(tmp_path, "1.jpg").reason == "encrypted"


def test_a_member_whose_checksum_is_wrong_is_skipped(tmp_path: Path) -> None:
    patch_directory(zipped(tmp_path / "a.zip", {"1.jpg": PICTURE}), 16, struct.pack("<I", 12345))
    assert skipped(tmp_path, "1.jpg").reason == "bad_member"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_without_bound_is_not_used(tmp_path: Path, method: int) -> None:
    zipped(tmp_path / "a.zip", {"1.jpg": PICTURE}, method)
    assert skipped(tmp_path, "1.jpg").reason == "bad_member"


def test_an_entry_that_points_nowhere_is_skipped(tmp_path: Path) -> None:
    patch_directory(zipped(tmp_path / "a.zip", {"1.jpg": PICTURE}), 42, struct.pack("<I", 1 << 30))
    assert skipped(tmp_path, "1.jpg").reason == "bad_member"


def test_an_honest_bomb_is_refused_before_a_byte_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER", 1 << 20)
    zipped(tmp_path / "a.zip", {"1.jpg": bytes(2 << 20), "2.jpg": PICTURE})
    opened: list[str] = []
    unpack = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda f, info, *a: opened.append(info.filename) or unpack(f, info, *a)
    )
    assert skipped(tmp_path, "1.jpg").reason == "too_large"
    assert ZipMember(tmp_path, "a.zip", "2.jpg").read() == PICTURE
    assert opened == ["2.jpg"]


def test_a_bomb_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"1.jpg": bytes(64 << 20)})
    patch_directory(path, 24, struct.pack("<I", 1000))
    import tracemalloc

    tracemalloc.start()
    assert skipped(tmp_path, "1.jpg").reason == "bad_member"
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("broken", ["text", "empty", "cut", "no end", "LFS pointer"])
def test_what_is_no_whole_zip_is_one_line(tmp_path: Path, broken: str) -> None:
    whole = zipped(tmp_path / "whole.zip", {f"{n}.jpg": PICTURE for n in range(9)}).read_bytes()
    data = {
        "text": b"<html>Please log in</html>" * 9,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "no end": whole[:-30],
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    }[broken]
    write(tmp_path / "a.zip", data)
    with pytest.raises(DataError, match=r"a\.zip is no zip archive, or was cut short.*Download it again") as caught:
        listed(tmp_path)
    assert "\n" not in str(caught.value)
    assert skipped(tmp_path, "1.jpg").reason == "bad_archive"


def test_an_archive_that_is_absent_or_outside_is_one_line(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    zipped(tmp_path / "secret.zip", {"1.jpg": PICTURE})
    (root / "link.zip").symlink_to(tmp_path / "secret.zip")
    with pytest.raises(UsageError, match="no archive absent"):
        listed(root, "absent.zip")
    for name in ("link.zip", "../secret.zip"):
        with pytest.raises(DataError, match="leads out of"):
            listed(root, name)
        assert skipped(root, "1.jpg", name).reason == "outside_root"


def test_what_has_gone_is_missing_and_a_root_that_has_gone_stops_the_run(tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = zipped(root / "a.zip", {"1.jpg": PICTURE})
    gone, there = ZipMember(root, "a.zip", "2.jpg"), ZipMember(root, "a.zip", "1.jpg")
    assert gone.stamp() == "missing"
    items = list(ZipMember.stream([there, gone, there]))
    assert items[::2] == [PICTURE, PICTURE]
    assert isinstance(items[1], SkippedInput)
    assert items[1].reason == "missing_file"
    path.unlink()
    assert there.stamp() == "missing"
    with pytest.raises(FileNotFoundError):
        there.read()
    root.rmdir()
    with pytest.raises(DataError, match="has disappeared"):
        list(ZipMember.stream([there]))


def test_a_stamp_follows_the_bytes_and_not_the_archive(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"1.jpg": b"one", "2.jpg": b"two"})
    before = [ZipMember(tmp_path, "a.zip", name).stamp() for name in ("1.jpg", "2.jpg")]
    zipped(tmp_path / "a.zip", {"1.jpg": b"one", "2.jpg": b"changed", "3.jpg": b"new"})
    after = [ZipMember(tmp_path, "a.zip", name).stamp() for name in ("1.jpg", "2.jpg")]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_many_stamps_open_the_archive_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(tmp_path / "a.zip", {f"{n}.jpg": b"x" for n in range(2000)}, zipfile.ZIP_STORED)
    opens: list[Path] = []
    real = zipfile.ZipFile
    monkeypatch.setattr(archive.zipfile, "ZipFile", lambda path: opens.append(path) or real(path))
    started = time.perf_counter()
    names, _ = listed(tmp_path)
    assert len({ZipMember(tmp_path, "a.zip", name).stamp() for name in names}) == 1
    assert len(opens) == 1
    assert time.perf_counter() - started < 5
