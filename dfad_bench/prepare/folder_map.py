"""What the folders of a dataset without a layout of its own stand for, told by a YAML file."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from dfad_bench.config import Strict, read_yaml
from dfad_bench.errors import UsageError, did_you_mean, shorten
from dfad_bench.prepare.labels import Label, Labeller, check_frame
from dfad_bench.prepare.listing import IMAGE_SUFFIXES, folders_in
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.records.manifest import is_inside
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, RawImage


def _compiled(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if not groups:
        raise ValueError(f"{pattern!r} needs a group in parentheses around the part to keep")
    return pattern


def _relative(folder: str) -> str:
    if not is_inside(folder) or PurePosixPath(folder).as_posix() != folder:
        raise ValueError(f"{folder!r} must be a folder's path relative to the root, like EFS/DDPM")
    return folder


Pattern = Annotated[str, AfterValidator(_compiled)]
"""A regular expression searched in the path relative to the root; its groups are what is kept."""
Folder = Annotated[str, AfterValidator(_relative)]
"""A folder's name, or its path relative to the root with ``/`` between the parts."""


class Meaning(Strict):
    """What a name in a dataset stands for, where it does not say so itself: a generator and, if new, its labels."""

    name: str
    family: str | None = None
    forgery_type: str | None = None
    domain: str | None = None
    licence: str | None = None
    version: str | None = None


class FolderMap(Strict):
    """The contents of the YAML file."""

    generators: dict[Folder, str | Meaning] = Field(default_factory=dict)
    ignore: list[Folder] = Field(default_factory=list)
    domain: str | None = None
    licence: str = "unspecified"
    identity: Pattern | None = None
    video: Pattern | None = None
    source_split: Pattern | None = None
    frame: Pattern | None = None


def declared(meanings: Sequence[str | Meaning], where: str) -> tuple[Generator, ...]:
    """Return the generators that a map declares with both labels and the taxonomy does not know."""
    new = {m.name: m for m in meanings if isinstance(m, Meaning) and m.name != REAL and known().find(m.name) is None}
    return tuple(
        Generator(m.name, m.name, m.family, m.forgery_type, 2026, f"declared in {where}")
        for m in new.values()
        if m.family and m.forgery_type
    )


def read_folder_map(path: Path | None, root: Path | None) -> FolderMap:
    """Return the contents of a YAML file, or of an empty one; where it names no domain, that is the root's name."""
    read = FolderMap() if path is None else read_yaml(path, FolderMap)
    return read if read.domain or root is None else read.model_copy(update={"domain": root.resolve().name})


def labelled_folders(
    root: Path, folder_map: FolderMap, path: Path | None
) -> tuple[list[tuple[str, Meaning, Label]], list[str]]:
    """Return each folder with its meaning, and the folders that hold loose images, before the first image is touched.

    path: of the YAML, for messages. Raises UsageError for a folder that is absent, unknown, or described twice.
    """
    described = [*folder_map.generators, *folder_map.ignore]
    absent = sorted(folder for folder in folder_map.generators if not (root / folder).is_dir())
    if absent:
        hint = did_you_mean(absent[0], _neighbours(root, absent[0]))
        raise UsageError(f"{path} describes {shorten(absent)}, which {root} does not hold.{hint}")
    for folder in folder_map.generators:
        below = [other for other in described if other.startswith(f"{folder}/")]
        if below:
            raise UsageError(f"{path} describes {folder} and, below it, {shorten(below)}. Name one of the two.")
    leaves, loose = _leaves(root, "", described)
    labeller = Labeller()
    folders = []
    for folder in leaves:
        if folder in folder_map.ignore:
            continue
        given = folder_map.generators.get(folder, folder.rpartition("/")[2])
        meaning = given if isinstance(given, Meaning) else Meaning(name=given)
        label = labeller.label(meaning.name, meaning.family, meaning.forgery_type, f"folder {folder!r}")
        folders.append((folder, meaning, label))
    if not folders:
        raise UsageError(
            f"{root} has no sub-folder. Give --root FOLDER with one sub-folder per generator and one called 'real'."
        )
    return folders, loose


def _leaves(root: Path, parent: str, described: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the folders that stand for something, in order, and those entered that hold images of their own."""
    leaves: list[str] = []
    loose: list[str] = []
    for name in folders_in(root / parent):
        folder = f"{parent}/{name}" if parent else name
        if folder in described or not any(other.startswith(f"{folder}/") for other in described):
            leaves.append(folder)
            continue
        if any(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in (root / folder).iterdir()):
            loose.append(folder)
        below = _leaves(root, folder, described)
        leaves += below[0]
        loose += below[1]
    return leaves, loose


def _neighbours(root: Path, folder: str) -> list[str]:
    """Return the folders that stand where ``folder`` is looked for."""
    parent = folder.rpartition("/")[0]
    return [f"{parent}/{name}" if parent else name for name in folders_in(root / parent)]


def image_below(root: Path, relative: str, folder_map: FolderMap, meaning: Meaning, label: Label) -> RawImage:
    """Return the image of a path below the root, labelled by its folder and by what the map reads out of the path."""
    domain = meaning.domain or folder_map.domain
    assert domain is not None  # read_folder_map sees to it
    split = next(iter(_groups(folder_map.source_split, relative)), None)
    if split not in (None, "train", "val", "test"):
        raise UsageError(f"{relative}: source_split matches {split!r}, expected train, val or test.")
    frame = next(iter(_groups(folder_map.frame, relative)), None)
    if frame is not None and not frame.isdigit():
        raise UsageError(f"{relative}: frame matches {frame!r}, which is no number.")
    return RawImage(
        key=relative,
        generator=label.generator,
        family=label.family,
        forgery_type=label.forgery_type,
        domain=domain,
        licence=meaning.licence or folder_map.licence,
        payload=FilePayload(root, relative),
        generator_version=meaning.version,
        source_split=split,
        video="/".join(_groups(folder_map.video, relative)) or None,
        frame=None if frame is None else check_frame(int(frame), relative),
        identities=tuple(dict.fromkeys(_groups(folder_map.identity, relative))),
    )


def _groups(pattern: str | None, relative: str) -> tuple[str, ...]:
    if pattern is None:
        return ()
    match = re.search(pattern, relative)
    return tuple(group for group in match.groups() if group is not None) if match else ()
