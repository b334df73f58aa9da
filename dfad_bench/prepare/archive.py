"""Reads images out of zip archives below a source's root, in memory: nothing is extracted, no name inside is trusted."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.payloads import MISSING, FilePayload
from dfad_bench.prepare.reading import UNREADABLE
from dfad_bench.records.manifest import is_inside
from dfad_bench.types import Defect, OnDefect

MAX_MEMBER = 256 << 20
"""Bytes of a member beyond which it is refused unread: an archive of kilobytes may promise a memory's worth of zeros."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What image archives use. The other methods unpack without a bound on what one read may yield."""
_ENCRYPTED = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
_NO_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError)
_BROKEN = (*_NO_ZIP, zlib.error, RuntimeError)
"""What zipfile raises for archives, and for members, that are not what they claim to be."""


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip archive, the archive named relative to its source's root."""

    root: Path
    archive: str
    member: str

    @property
    def container(self) -> str:
        """The archive: members of one are read while it is open."""
        return self.archive

    def read(self) -> bytes:
        """Return the member's bytes.

        Raises FileNotFoundError where archive or member is absent, SkippedInput with reason ``bad_archive``, ``bad_path``,
        ``encrypted``, ``bad_member`` or ``too_large``, and what ``FilePayload.read`` raises for the archive.
        """
        return _read_member(_open(self.root, self.archive), self.member)

    def stamp(self) -> str:
        """Return the member's CRC-32 and size as the archive's directory gives them, or ``missing``."""
        try:
            info = _open(self.root, self.archive).NameToInfo.get(self.member)
        except (SkippedInput, OSError):
            return MISSING
        return MISSING if info is None else f"{info.CRC:08x}:{info.file_size}"

    @staticmethod
    def stream(payloads: Sequence[ZipMember]) -> Iterator[bytes | SkippedInput]:
        """Yield each member's bytes in turn, or why they cannot be had; the archive is opened once."""
        for payload in payloads:
            try:
                yield payload.read()
            except SkippedInput as skipped:
                yield skipped
            except FileNotFoundError as error:
                yield SkippedInput("missing_file", str(error))
            except OSError as error:
                yield SkippedInput(UNREADABLE, str(error))


def zip_images(root: Path, archive: str, suffixes: Collection[str], on_defect: OnDefect) -> list[str]:
    """Return the sorted names of an archive's members that end in one of the suffixes (lower case).

    Hidden members are left out as hidden files are. A name that would leave the folder it is unpacked in, a link or a
    device is told as ``hostile_path`` and left out; a name that stands twice is told as ``repeated_member`` and listed
    once, being the later of the two. Raises UsageError where there is no archive, DataError where it is broken.
    """
    try:
        opened = _open(root, archive)
    except FileNotFoundError:
        raise UsageError(f"There is no archive {archive} in {root}.") from None
    except OSError as error:
        raise DataError(f"{root / archive} cannot be read: {error.strerror}.") from None
    except SkippedInput as skipped:
        raise DataError(f"{root / archive}: {skipped.detail}. Download it again.") from None
    hostile = [info for info in opened.infolist() if not _is_safe(info)]
    if hostile:
        names = shorten(repr(info.orig_filename) for info in hostile)
        on_defect(Defect("hostile_path", f"{archive} holds names that are no plain files inside it: {names}"))
    counts = Counter(
        info.filename for info in opened.infolist() if _is_safe(info) and _is_listed(info.filename, suffixes)
    )
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        on_defect(Defect("repeated_member", f"{archive} holds two files of one name: {shorten(repeated)}"))
    return sorted(name for name in counts if _is_safe(opened.NameToInfo[name]))


def _open(root: Path, archive: str) -> zipfile.ZipFile:
    """Return the archive, opened; raise SkippedInput ``bad_archive`` where it is none."""
    path = FilePayload(root, archive).resolve()
    try:
        status = path.stat()
    except FileNotFoundError:
        if not root.is_dir():
            raise DataError(f"The root {root} has disappeared. Bring it back and run the same command.") from None
        raise FileNotFoundError(f"{archive} is not in {root}") from None
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, for ever
        raise SkippedInput("bad_archive", f"{archive} is no regular file")
    try:
        return _directory(path, status.st_mtime_ns, status.st_size)
    except _NO_ZIP as error:
        raise SkippedInput("bad_archive", f"{archive} is no zip archive, or was cut short ({error})") from None


@lru_cache(maxsize=8)
def _directory(path: Path, modified: int, size: int) -> zipfile.ZipFile:
    """Open an archive and keep it: reading the directory of 30,000 members for each of them would take hours.

    ``modified`` (ns) and ``size`` only tell one state of the file from the next.
    """
    return zipfile.ZipFile(path)


def _read_member(opened: zipfile.ZipFile, member: str) -> bytes:
    info = opened.NameToInfo.get(member)
    if info is None:
        raise FileNotFoundError(f"{member} is not in {opened.filename}")
    if not _is_safe(info):
        raise SkippedInput("bad_path", f"{member!r} is no plain file inside its archive")
    if info.flag_bits & _ENCRYPTED:
        raise SkippedInput("encrypted", f"{member} is encrypted")
    if info.compress_type not in _METHODS:
        raise SkippedInput("bad_member", f"{member} is packed by method {info.compress_type}; re-pack it with deflate")
    if info.file_size > MAX_MEMBER:
        raise SkippedInput("too_large", f"{member} promises {info.file_size} bytes, more than {MAX_MEMBER}")
    try:
        with opened.open(info) as file:
            return file.read(info.file_size)  # not read(), which unpacks whatever a lying entry holds
    except _BROKEN as error:
        raise SkippedInput("bad_member", f"{member} cannot be unpacked: {error or type(error).__name__}") from None


def _is_safe(info: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a plain file or folder whose name stays below the folder it would be unpacked in."""
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)  # of archives made on Unix; 0 elsewhere
    return kind in (0, stat.S_IFREG, stat.S_IFDIR) and is_inside(name) and name.isprintable() and not _DRIVE.match(name)


def _is_listed(name: str, suffixes: Collection[str]) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not name.endswith("/") and path.suffix.lower() in suffixes and not hidden
