"""Where runs are kept: a folder of this machine or of several, or a prefix of an object store with a mirror on this machine."""

from __future__ import annotations

import functools
import hashlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from dfad_bench.config import home_dir
from dfad_bench.errors import DataError, DfadError, UsageError

_EXTRAS = {"s3fs": "s3", "huggingface_hub": "hub"}


@dataclass(frozen=True, slots=True)
class Store:
    """A place for runs, by its path or URL (``s3://bucket/prefix``, ``hf://datasets/org/name/prefix``, ``file:///folder``).

    Runs work in ``folder`` and know of nothing else. Of a folder that is simply there nothing is brought or sent. Paths are
    relative to it, with slashes. What fails outside this machine is a DataError.
    """

    url: str

    @property
    def is_here(self) -> bool:
        """Whether the folder is the place itself, and no mirror."""
        return not _is_remote(self.url)

    @property
    def folder(self) -> Path:
        """The folder on this machine; of an object store its mirror, below the cache, which may be deleted at any time."""
        if self.is_here:
            return Path(self.url.removeprefix("file://"))
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.url).strip("-")
        return home_dir() / "runs" / f"{slug}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"

    @property
    def fs(self) -> AbstractFileSystem:
        """The file system, on which ``path`` says where something lies."""
        return _opened(self.url)[0]

    def path(self, relative: str) -> str:
        """Return where something lies on the file system."""
        return f"{_opened(self.url)[1].rstrip('/')}/{relative}"

    def relative(self, path: Path) -> str:
        """Return what a path on this machine is called in the store."""
        return path.relative_to(self.folder).as_posix()

    def check(self) -> None:
        """Raise UsageError for a URL that nothing can open, DataError where the store does not answer."""
        if not self.is_here:
            self.files("")

    def files(self, relative: str) -> list[str]:
        """Return the files below a folder of the store, relative to it, sorted; none where there is no such folder.

        Hidden ones are left out, and so is a name that would lead out of the folder.
        """
        top = self.path(relative).rstrip("/")
        with self._explained("read"):
            self.fs.invalidate_cache()  # others write too
            names = self.fs.find(top)
        inside = (str(name).removeprefix(top + "/") for name in names if str(name).startswith(top + "/"))
        return sorted(name for name in inside if _is_plain(name))

    def bring(self, relative: str) -> Path:
        """Copy a file from the store into the mirror, whole or not at all, and return its path there."""
        here = self.folder / relative
        here.parent.mkdir(parents=True, exist_ok=True)
        part = here.with_name(f".{here.name}.{uuid.uuid4().hex}.part")  # several workers may bring one file
        try:
            with self._explained("read"):
                self.fs.get_file(self.path(relative), str(part))
            part.replace(here)
        finally:
            part.unlink(missing_ok=True)
        return here

    def send(self, relative: str, source: Path | None = None) -> None:
        """Copy a file of the mirror, or ``source``, to its place in the store."""
        with self._explained("written"):
            self.fs.put_file(str(source or self.folder / relative), self.path(relative))

    def remove(self, relative: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
        with self._explained("written"):
            if self.fs.exists(self.path(relative)):
                self.fs.rm(self.path(relative), recursive=True)

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except DfadError:
            raise
        except Exception as error:  # botocore's, huggingface_hub's, …: they have no common ancestor
            if isinstance(error, AssertionError | TypeError | AttributeError):
                raise
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise DataError(
                f"{self.url} cannot be {doing} ({told}). Check the address, the credentials and the network, "
                "and run the same command to go on."
            ) from None


def _is_remote(url: str) -> bool:
    return "://" in url and not url.startswith("file://")


@functools.cache
def _opened(url: str) -> tuple[AbstractFileSystem, str]:
    if not _is_remote(url):
        local = fsspec.filesystem("file", auto_mkdir=True)
        return local, Path(url.removeprefix("file://")).absolute().as_posix()
    if "::" in url:
        raise UsageError(f"{url} is a chain of stores. Give one: s3://bucket/prefix.")
    try:
        opened: tuple[Any, Any] = fsspec.url_to_fs(url)
    except ImportError as error:
        brings = next((extra for package, extra in _EXTRAS.items() if package in str(error)), None)
        how = "the package of fsspec that it names" if brings is None else f"pip install 'dfad-bench[{brings}]'"
        raise UsageError(f"{url} cannot be opened ({' '.join(str(error).split())}). Install {how}.") from None
    except ValueError as error:
        raise UsageError(
            f"{url} cannot be opened ({error}). Give a path, or a URL such as s3://bucket/prefix."
        ) from None
    return opened


def _is_plain(name: str) -> bool:
    """Return whether a relative name stays where it is put, and is not hidden."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "\\" not in name and not name.startswith("/") and not any(p.startswith(".") for p in parts)
