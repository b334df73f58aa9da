"""Reads the image that a manifest's row names: a file of its own, or a place inside a shard of a packed manifest.

A name is a path relative to the manifest's folder, or ``shards/00000.parquet@<offset>+<length>``: a PNG's bytes as they lie
in that Parquet file, uncompressed and in one piece, so that any face is one read, whatever row group it is in.
"""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

from dfad_bench.records.manifest import is_inside

SHARDS = "shards"
"""The folder of a packed manifest that holds its images."""
_PLACE = re.compile(rf"({SHARDS}/[0-9]{{5,9}}\.parquet)@([0-9]{{1,18}})\+([0-9]{{1,18}})")


def shard_name(number: int) -> str:
    """Return the path of a shard, relative to its manifest's folder."""
    return f"{SHARDS}/{number:05}.parquet"


def place_name(shard: str, offset: int, length: int) -> str:
    """Return how a row names so many bytes of a shard."""
    return f"{shard}@{offset}+{length}"


def is_packed(name: str) -> bool:
    """Return whether a name is a place in a shard, not a file of its own."""
    return _PLACE.fullmatch(name) is not None


def read_file(root: Path, name: str) -> bytes:
    """Return the bytes of the image that a row names.

    Raises FileNotFoundError where there is none, and other OSErrors where it cannot be read: not a regular file, a shard
    that ends before it, or a name or link that leads out of ``root``.
    """
    place = _PLACE.fullmatch(name)
    if place is None:
        return _read_whole(_own_path(root, name))
    shard, offset, length = place[1], int(place[2]), int(place[3])
    path = _own_path(root, shard)
    status = os.stat(path)  # noqa: PTH116  # no Path for each of a million
    opened = _opened(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    if offset + length > opened.size:
        raise OSError(errno.EINVAL, "its shard ends before it", path)
    return opened.read(offset, length)


def file_size(root: Path, name: str) -> int | None:
    """Return the bytes of the image that a row names, without opening it; None where ``read_file`` would find none."""
    place = _PLACE.fullmatch(name)
    try:
        status = os.stat(_own_path(root, name if place is None else place[1]))  # noqa: PTH116
    except OSError:
        return None
    if not S_ISREG(status.st_mode):
        return None
    if place is None:
        return status.st_size
    offset, length = int(place[2]), int(place[3])
    return length if offset + length <= status.st_size else None


# --- paths ---------------------------------------------------------------------------------------------------------


def _own_path(root: Path, name: str) -> str:
    """Return the path of a file below ``root``; raise OSError where its name or a link on the way leads out of there."""
    path = f"{root}/{name}"
    stays = is_inside(name) and _stays(str(root), name.rpartition("/")[0])
    if not stays or (os.path.islink(path) and not _stays(str(root), name)):  # noqa: PTH114
        raise OSError(errno.EACCES, "it leads out of the manifest's folder, by its name or by a link", path)
    return path


@lru_cache(maxsize=65_536)  # a manifest has a hundred faces to a folder: links are followed once for all of them
def _stays(root: str, relative: str) -> bool:
    """Return whether a path, its links followed, is ``root`` or below it."""
    real = os.path.realpath(root)
    return os.path.commonpath([real, os.path.realpath(f"{root}/{relative}")]) == real


# --- bytes ---------------------------------------------------------------------------------------------------------


def _read_whole(path: str) -> bytes:
    # Not blocking: a pipe would otherwise be waited for, for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        return _read(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """Return so many bytes, fewer only where the file ends before."""
    data = os.pread(descriptor, length, offset)
    if len(data) == length:
        return data
    parts = [data]
    while parts[-1]:
        read = sum(map(len, parts))
        parts.append(os.pread(descriptor, length - read, offset + read))
    return b"".join(parts)


class _Shard:
    """A shard that is open; ``pread`` has no position, so that threads and forked processes may share it."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        if not S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        self.size = status.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes."""
        return _read(self._descriptor, offset, length)

    def __del__(self) -> None:
        # Closed when nobody reads from it any more, which may be after the cache has let it go.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@lru_cache(maxsize=128)
def _opened(path: str, identity: tuple[int, int, int, int]) -> _Shard:
    """Return a shard, opened once for as long as it is the same file (device, inode, size, time of change)."""
    return _Shard(path)
