"""Where a source's bytes come from: a file below the root, never outside it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dfad_bench.errors import DataError
from dfad_bench.prepare.decode import SkippedInput

MISSING = "missing"
_BAD_PATH = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
"""What no second try will mend, unlike a disk that fails or a permission that is lacking."""


@dataclass(frozen=True, slots=True)
class FilePayload:
    """An image file named relative to its source's root."""

    root: Path
    relative: str

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises FileNotFoundError where the file is absent, SkippedInput where a link leads out of the root or in circles, and
        DataError where the root itself has gone: then the run stops instead of calling every file missing.
        """
        path = self.resolve()
        with self._explained():
            return path.read_bytes()

    def open(self) -> BinaryIO:
        """Return the file opened for reading its bytes; raises as ``read`` does."""
        path = self.resolve()
        with self._explained():
            return path.open("rb")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        path = self.resolve()
        if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
            raise SkippedInput("not_a_file", f"{self.relative} is no regular file")
        try:
            yield
        except FileNotFoundError:
            if not self.root.is_dir():
                raise DataError(
                    f"The root {self.root} has disappeared. Bring it back and run the same command."
                ) from None
            raise FileNotFoundError(f"{self.relative} is not in {self.root}") from None
        except OSError as error:
            if error.errno in _BAD_PATH:
                raise SkippedInput("bad_path", f"{self.relative}: {error.strerror}") from None
            raise

    def stamp(self) -> str:
        """Return the file's size and modification time, or ``missing``."""
        try:
            status = os.stat(f"{self.root}/{self.relative}")  # noqa: PTH116  # no Path for each of a million
        except (OSError, ValueError):
            return MISSING
        return f"{status.st_size}:{status.st_mtime_ns}"

    def resolve(self) -> Path:
        """Return the file's real path, present or not; raise SkippedInput where it is no path or leads out of the root."""
        try:
            path = (self.root / self.relative).resolve()
        except (RuntimeError, ValueError) as error:  # a loop of links (until Python 3.13), a zero byte
            raise SkippedInput("bad_path", f"{self.relative!r} is no usable path: {error}") from None
        if not path.is_relative_to(self.root.resolve()):
            raise SkippedInput(
                "outside_root", f"{self.relative} leads out of {self.root}; give the folder that holds it"
            )
        return path
