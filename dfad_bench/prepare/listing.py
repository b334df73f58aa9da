"""Walks folders the same way on every machine: sorted, without hidden files, never into a linked folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dfad_bench.errors import UsageError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))


def files_below(root: Path, folder: str, suffixes: Collection[str]) -> Iterator[str]:
    """Yield the files below ``root/folder`` that end in one of the suffixes (lower case), as POSIX paths relative to root.

    Folder by folder in sorted order; linked folders are not entered, so no loop can trap us. Raises UsageError for a name
    that is not UTF-8.
    """
    for directory, names, files in os.walk(root / folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        below = Path(directory).relative_to(root).as_posix()
        for file in sorted(files):
            if file[file.rfind(".") :].lower() in suffixes and not file.startswith("."):
                # text, because a Path for each of a million files takes ten times as long
                relative = file if below == "." else f"{below}/{file}"
                try:
                    relative.encode()
                except UnicodeEncodeError:
                    raise UsageError(f"{root} holds {relative!r}, a name that is not UTF-8. Rename it.") from None
                yield relative


def folders_in(root: Path) -> list[str]:
    """Return the names of the folders directly below ``root``, sorted, hidden ones left out; empty where it is no folder."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
