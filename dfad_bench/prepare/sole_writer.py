"""Lets one process at a time write to a manifest's folder, and tells a full or read-only disk in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dfad_bench.errors import DataError, UsageError


@contextmanager
def sole_writer(folder: Path, lock: Path) -> Iterator[None]:
    """Hold the lock file while the folder is written to.

    Raises UsageError where another process holds it, DataError where the disk is full or may not be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise UsageError(f"Another dfad-bench is writing to {folder}. Wait for it, or use another --name.") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(
                f"The disk of {folder} is full. Free some space and run the same command to go on."
            ) from None
        if isinstance(error, PermissionError):
            raise DataError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
        raise
