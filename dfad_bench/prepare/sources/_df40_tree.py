"""Walks the folders of DF40 as they are unpacked, in each of the layouts that its methods come in."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Literal

from dfad_bench.errors import UsageError, did_you_mean, shorten
from dfad_bench.prepare.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_below, folders_in
from dfad_bench.prepare.sources._df40_methods import METHODS, Method, find_method
from dfad_bench.types import Defect, OnDefect

DOMAINS = {"ff": "ff++", "cdf": "celeb-df"}
TOPS = ("", "deepfakes_detection_datasets/")
"""Where DF40, DF40_train, FaceForensics++ and Celeb-DF-v2 lie below the root."""
_REALS = {
    "ff++": ("FaceForensics++/original_sequences/youtube/c23/frames",),
    "celeb-df": ("Celeb-DF-v2/Celeb-real/frames", "Celeb-DF-v2/YouTube-real/frames"),
}
COLLECTIONS = frozenset(("ff", "cdf", "frames", "fake", "real", "inversions", "Celeb-real", "YouTube-real"))
"""Folders that hold pictures which have nothing to do with each other, where they hold any; others are videos."""
_NOT_FACES = frozenset(("landmarks", "masks"))
_NO_METHODS = frozenset(("dataset_json", "FaceForensics++", "Celeb-DF-v2", "landmarks"))
_PROMISED_REALS = frozenset(("e4e",))
"""Methods that DF40's README promises reals of their own for, though their fakes are of FF++ and Celeb-DF."""

_UNIFACE = next(method for method in METHODS if method.folder == "uniface")
_LOOSE = "frames"
"""What uniface's archive of the train pack leaves there, having no folder of its own."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A folder of methods, relative to the root, and the split that its clips are in."""

    folder: str
    split: Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Clip:
    """Pictures that belong together: a video's frames, or one picture of a collection.

    method: None for a real one of FF++ or Celeb-DF; name: of the video, or of the picture without its suffix; folder:
    relative to the root; place: what to call it in a report.
    """

    method: Method | None
    is_real: bool
    domain: str
    folder: str
    name: str
    is_collection: bool
    frames: tuple[str, ...]
    split: str | None
    place: str


def find_packs(root: Path, instructions: str) -> list[Pack]:
    """Return the test and train packs below the root, or the root itself as one; raise UsageError with what is near."""
    splits: dict[str, Literal["train", "test"]] = {"DF40": "test", "DF40_train": "train"}
    packs = [Pack(top + name, split) for top in TOPS for name, split in splits.items() if (root / top / name).is_dir()]
    if packs:
        return packs
    children = folders_in(root)
    if any(find_method(child) for child in children):
        return [Pack("", "train" if "train" in root.resolve().name.lower() else "test")]
    nested = [child for child in children[:100] if {"DF40", "DF40_train"} & set(folders_in(root / child))]
    above = [up for up in list(root.resolve().parents)[:4] if up.name in splits]
    if nested or above:
        raise UsageError(f"{root} is not DF40. Did you mean --root {root / nested[0] if nested else above[0].parent}?")
    hint = did_you_mean("DF40", children)
    raise UsageError(f"{root} holds neither DF40, DF40_train nor a folder of a DF40 method.{hint} {instructions}")


def clips_in_packs(
    root: Path, packs: Sequence[Pack], wanted: Collection[Method], on_defect: OnDefect
) -> Iterator[Clip]:
    """Yield the clips of the wanted methods, pack by pack, method by method in the order of their folders' names."""
    if not any(method in wanted for pack in packs for _, method in _methods(root, pack)):
        present = {method.folder for pack in packs for _, method in _methods(root, pack)}
        raise UsageError(
            f"{root} has no folder of the methods asked for. It has: {shorten(sorted(present)) or 'none'}."
        )
    for pack in packs:
        _tell_folders(root, pack, on_defect)
        for folder, method in _methods(root, pack):
            if method in wanted:
                yield from _clips(root, pack, folder, method, on_defect)


def reals(root: Path, domains: Collection[str], on_defect: OnDefect) -> Iterator[Clip]:
    """Yield the reals of FF++ and Celeb-DF where fakes of those domains are; those of Celeb-DF are for testing only."""
    for domain in sorted(domains & _REALS.keys()):
        folders = [top + folder for top in TOPS for folder in _REALS[domain] if (root / top / folder).is_dir()]
        if not folders:
            beside = (root.resolve().parent / _REALS[domain][0]).is_dir()
            hint = f"; they lie beside it: give --root {root.resolve().parent}" if beside else ""
            expected = " or ".join(_REALS[domain])
            on_defect(Defect("missing_real", f"the fakes of {domain} have no reals below the root ({expected}){hint}"))
        for parent in folders:
            filled = set()
            for folder, files in groupby(files_below(root, parent, IMAGE_SUFFIXES), posixpath.dirname):
                filled.add(folder)
                split = "test" if domain == "celeb-df" else None
                name = posixpath.basename(folder)
                yield Clip(None, True, domain, folder, name, False, tuple(files), split, f"reals of {domain}")
            _tell_empty(root, parent, filled, on_defect)


def _methods(root: Path, pack: Pack) -> list[tuple[str, Method]]:
    """Return the folders of a pack that are methods'; uniface's may be a bare ``frames`` in the train pack."""
    found = [
        (posixpath.join(pack.folder, name), method)
        for name in folders_in(root / pack.folder)
        if (method := find_method(name))
    ]
    loose = posixpath.join(pack.folder, _LOOSE)
    if pack.split == "train" and (root / loose).is_dir() and _UNIFACE not in (method for _, method in found):
        found.append((loose, _UNIFACE))
    return found


def _tell_folders(root: Path, pack: Pack, on_defect: OnDefect) -> None:
    methods = dict(_methods(root, pack))
    for name in folders_in(root / pack.folder):
        path = posixpath.join(pack.folder, name)
        if path in methods and name != methods[path].folder:
            why = ", whose archive has no folder of its own" if name == _LOOSE else ""
            on_defect(Defect("alias", f"{path} is read as {methods[path].folder}{why}"))
        elif path not in methods and name not in _NO_METHODS:
            hint = did_you_mean(name, [known.folder for known in METHODS])
            on_defect(Defect("unknown_folder", f"{path} is no method of DF40 and is left out.{hint}"))


def _clips(root: Path, pack: Pack, top: str, method: Method, on_defect: OnDefect) -> Iterator[Clip]:
    """Yield the clips of one method, real ones of its own among them, and tell what its folder lacks."""
    seen = {"fake": 0, "real": 0, "video": 0}
    filled = set()
    for folder, listed in groupby(files_below(root, top, IMAGE_SUFFIXES | VIDEO_SUFFIXES), posixpath.dirname):
        files = list(listed)
        filled.add(folder)
        below = PurePosixPath(folder).relative_to(top).parts
        if _NOT_FACES & set(below):
            continue
        images = tuple(file for file in files if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES)
        seen["video"] += len(files) - len(images)
        is_real = bool(below) and below[0] == "real"
        seen["real" if is_real else "fake"] += len(images)
        yield from _clip(folder, below, images, method, is_real, pack.split, top)
    _tell_empty(root, top, filled, on_defect)
    if seen["video"]:
        kind = "videos_only" if not seen["fake"] else "videos"
        on_defect(Defect(kind, f"{top} holds {seen['video']} videos, which are not read; cut them into frames"))
    if not seen["real"] and (method.own_domain or method.folder in _PROMISED_REALS):
        on_defect(Defect("missing_real", f"{top} holds no real face, though DF40 says that it does"))


def _clip(
    folder: str, below: Sequence[str], images: tuple[str, ...], method: Method, is_real: bool, split: str, top: str
) -> Iterator[Clip]:
    kind = below[0] if below else ""
    # the train pack knows FF++ only and does not say so; e4e may come in the layout that the README gives it
    elsewhere = "celeba" if kind in ("fake", "real") else DOMAINS.get(kind, "ff++")
    domain = method.own_domain or elsewhere
    name = posixpath.basename(folder)
    if not below or name in COLLECTIONS or name.startswith("Fake_from_"):
        for image in images:
            yield Clip(method, is_real, domain, folder, PurePosixPath(image).stem, True, (image,), split, top)
    elif images:
        yield Clip(method, is_real, domain, folder, name, False, images, split, top)


def _tell_empty(root: Path, top: str, filled: Collection[str], on_defect: OnDefect) -> None:
    """Tell which folders below hold nothing at all; clips that are known to be filled are not listed again."""
    empty = []
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        if folder in filled and posixpath.basename(folder) not in COLLECTIONS:
            continue
        children = [posixpath.join(folder, name) for name in folders_in(root / folder)]
        waiting.extend(child for child in children if not (root / child).is_symlink())
        if not children and not any((root / folder).iterdir()):
            empty.append(folder)
    if empty:
        on_defect(Defect("empty_folder", f"{top}: {len(empty)} folders are empty: {shorten(sorted(empty))}"))
