"""An image is read by its row's name, from a file of its own or out of a shard, and never from outside the manifest."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.records import face_files
from dfad_bench.records.face_files import file_size, is_packed, place_name, read_file, shard_name
from dfad_bench.records.manifest import is_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A manifest's folder with a loose file and a shard of ten bytes."""
    folder = tmp_path / "toy"
    (folder / "faces").mkdir(parents=True)
    (folder / "faces" / "a.png").write_bytes(b"loose")
    (folder / "shards").mkdir()
    (folder / shard_name(0)).write_bytes(b"0123456789")
    return folder


def test_a_file_of_its_own_is_read_whole(root: Path) -> None:
    assert read_file(root, "faces/a.png") == b"loose"
    assert file_size(root, "faces/a.png") == 5


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (9, 1), (10, 0)])
def test_a_place_in_a_shard_is_read_as_far_as_it_goes(root: Path, offset: int, length: int) -> None:
    name = place_name(shard_name(0), offset, length)
    assert is_packed(name) and is_inside(name)
    assert read_file(root, name) == b"0123456789"[offset : offset + length]
    assert file_size(root, name) == length


@pytest.mark.parametrize(
    "name", ["shards/00000.parquet@8+3", "shards/00000.parquet@11+0", "shards/00000.parquet@0+" + "9" * 18]
)
def test_a_place_beyond_the_shards_end_is_no_image(root: Path, name: str) -> None:
    with pytest.raises(OSError, match="its shard ends before it"):
        read_file(root, name)
    assert file_size(root, name) is None


@pytest.mark.parametrize(
    "name",
    [
        "shards/../../x@0+4",
        "shards/../../shards/00000.parquet@0+4",
        "../toy/shards/00000.parquet@0+4",
        "/etc/passwd",
        "/shards/00000.parquet@0+4",
        "faces/../../secret",
        "faces\\a.png",
        "faces/a\0.png",
        "",
        ".",
    ],
)
def test_a_name_that_leads_out_is_refused_by_its_text(root: Path, name: str) -> None:
    (root.parent / "secret").write_bytes(b"secret")
    (root.parent / "x@0+4").write_bytes(b"secret")
    assert not is_packed(name)
    with pytest.raises(OSError, match="leads out"):
        read_file(root, name)
    assert file_size(root, name) is None


@given(st.text(alphabet="a./\\\0", max_size=9))
def test_a_name_is_judged_by_its_text_as_pathlib_takes_it_apart(name: str) -> None:
    path = PurePosixPath(name)
    inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    assert is_inside(name) == (inside and "\\" not in name and "\0" not in name)


@pytest.mark.parametrize(
    "place",
    [
        "@-1+4",
        "@0+-4",
        "@0",
        "+4",
        "@+4",
        "@0+",
        "@ 0+4",
        "@0+4 ",
        "@0x0+4",
        "@٣+4",
        "@1e1+4",
        "@0+4@0+4",
        "@" + "9" * 40 + "+4",
        "@0+4\n",
    ],
)
def test_what_is_nearly_a_place_is_the_name_of_a_file_that_is_not_there(root: Path, place: str) -> None:
    name = f"shards/00000.parquet{place}"
    assert not is_packed(name)
    with pytest.raises(FileNotFoundError):
        read_file(root, name)
    assert file_size(root, name) is None


def test_what_is_missing_is_told_as_missing(root: Path) -> None:
    for name in ("faces/b.png", "shards/00001.parquet@0+4", "nowhere/a.png"):
        with pytest.raises(FileNotFoundError):
            read_file(root, name)
        assert file_size(root, name) is None


@pytest.mark.parametrize("linked", ["the file", "its folder", "the shard", "the shards' folder"])
def test_a_link_that_leads_out_is_not_followed(root: Path, tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "00001.parquet").write_bytes(b"secret")
    if linked == "the file":
        name = "faces/link.png"
        (root / name).symlink_to(outside / "00001.parquet")
    elif linked == "its folder":
        name = "more/00001.parquet"
        (root / "more").symlink_to(outside)
    elif linked == "the shard":
        name = "shards/00001.parquet@0+6"
        (root / "shards" / "00001.parquet").symlink_to(outside / "00001.parquet")
    else:
        name = "shards/00001.parquet@0+6"
        (root / shard_name(0)).unlink()
        (root / "shards").rmdir()
        (root / "shards").symlink_to(outside)
    with pytest.raises(OSError, match="by a link"):
        read_file(root, name)
    assert file_size(root, name) is None


def test_links_inside_the_folder_and_a_link_to_the_folder_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "faces" / "b.png").symlink_to(root / "faces" / "a.png")
    (root / "shards" / "00001.parquet").symlink_to("00000.parquet")
    (tmp_path / "elsewhere").symlink_to(root)
    for folder in (root, tmp_path / "elsewhere"):
        assert read_file(folder, "faces/b.png") == b"loose"
        assert read_file(folder, "shards/00001.parquet@2+3") == b"234"


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "faces" / "pipe.png")
    os.mkfifo(root / shard_name(7))
    for name in ("faces/pipe.png", "faces"):
        with pytest.raises(OSError, match="no regular file"):
            read_file(root, name)
        assert file_size(root, name) is None
    with pytest.raises(OSError):
        read_file(root, place_name(shard_name(7), 0, 1))


def test_a_shard_that_was_written_anew_is_read_anew(root: Path) -> None:
    name = place_name(shard_name(0), 0, 4)
    assert read_file(root, name) == b"0123"
    new = root / "shards" / "new"
    new.write_bytes(b"abcdefghij")
    new.replace(root / shard_name(0))
    assert read_file(root, name) == b"abcd"
    (root / shard_name(0)).write_bytes(b"ab")
    with pytest.raises(OSError, match="ends before"):
        read_file(root, name)
    (root / shard_name(0)).unlink()
    with pytest.raises(FileNotFoundError):
        read_file(root, name)


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by Linux's /proc")
def test_few_shards_are_open_however_many_are_read(root: Path) -> None:
    face_files._opened.cache_clear()
    before = _open_files()
    for number in range(300):
        (root / shard_name(number)).write_bytes(b"%09d" % number)
    for _ in range(2):
        for number in range(300):
            assert read_file(root, place_name(shard_name(number), 0, 9)) == b"%09d" % number
    assert before < _open_files() <= before + 128
    face_files._opened.cache_clear()
    assert _open_files() == before


def test_threads_and_forked_processes_share_open_shards(root: Path) -> None:
    (root / shard_name(0)).write_bytes(b"".join(b"%04d" % number for number in range(1000)))

    def read(number: int) -> bool:
        return read_file(root, place_name(shard_name(0), 4 * number, 4)) == b"%04d" % number

    assert read(0)
    child = os.fork()
    if not child:
        os._exit(0 if all(map(read, reversed(range(1000)))) else 1)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(1000)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
