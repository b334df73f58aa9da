"""A folder per generator: ``<root>/<generator>/…``, with an optional YAML that says what the folders mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from dfad_bench.config import Strict, read_yaml
from dfad_bench.errors import UsageError, shorten
from dfad_bench.prepare.labels import Label, Labeller, check_frame
from dfad_bench.prepare.listing import IMAGE_SUFFIXES, files_below, folders_in
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, OnDefect, RawImage


def _compiled(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if not groups:
        raise ValueError(f"{pattern!r} needs a group in parentheses around the part to keep")
    return pattern


Pattern = Annotated[str, AfterValidator(_compiled)]
"""A regular expression searched in the path relative to the root; its groups are what is kept."""


class Meaning(Strict):
    """What a folder holds, where its name alone does not say: a generator and, if new, its labels."""

    name: str
    family: str | None = None
    forgery_type: str | None = None
    domain: str | None = None
    licence: str | None = None
    version: str | None = None


class FolderMap(Strict):
    """The contents of the YAML file."""

    generators: dict[str, str | Meaning] = Field(default_factory=dict)
    ignore: list[str] = Field(default_factory=list)
    domain: str | None = None
    licence: str = "unspecified"
    identity: Pattern | None = None
    video: Pattern | None = None
    source_split: Pattern | None = None
    frame: Pattern | None = None


@dataclass(frozen=True)
class FolderSource:
    """Option: ``map``, a YAML file; without it every folder must carry a known generator's name or ``real``.

    In the YAML, ``generators`` maps folder names to generators, ``ignore`` lists folders to leave out, and ``identity``,
    ``video``, ``source_split`` and ``frame`` are regular expressions on the path relative to the root. Several groups
    of ``identity`` are several people (a swap has two).
    """

    map: Path | None = None

    title: ClassVar[str] = "A folder per generator"
    homepage: ClassVar[str] = "files of the user's own"
    licence: ClassVar[str] = "as the folder's YAML says"
    instructions: ClassVar[str] = (
        "Give --root FOLDER with one sub-folder per generator (and one called 'real'); "
        "describe other names in a YAML file given by --set map=FILE."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators that the YAML declares and the taxonomy does not know."""
        meanings = [m for m in self._map().generators.values() if isinstance(m, Meaning)]
        return tuple(
            Generator(m.name, m.name, m.family, m.forgery_type, 2026, f"declared in {self.map}")
            for m in meanings
            if m.family and m.forgery_type and m.name != REAL and known().find(m.name) is None
        )

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images of every folder in order of their paths."""
        assert root is not None
        folder_map = self._map()
        for folder, meaning, label in self._folders(root, folder_map):
            files = files_below(root, folder, IMAGE_SUFFIXES)
            empty = True
            for relative in files:
                empty = False
                yield _image(root, relative, folder_map, meaning, label)
            if empty:
                raise UsageError(f"{root / folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")

    def _map(self) -> FolderMap:
        return FolderMap() if self.map is None else read_yaml(self.map, FolderMap)

    def _folders(self, root: Path, folder_map: FolderMap) -> list[tuple[str, Meaning, Label]]:
        """Return each folder with its meaning, having checked all of them before the first image is touched."""
        present = set(folders_in(root))
        absent = sorted(set(folder_map.generators) - present)
        if absent:
            raise UsageError(f"{self.map} describes {shorten(absent)}, which {root} does not hold.")
        labeller = Labeller()
        folders = []
        for folder in sorted(present - set(folder_map.ignore)):
            given = folder_map.generators.get(folder, folder)
            meaning = given if isinstance(given, Meaning) else Meaning(name=given)
            label = labeller.label(meaning.name, meaning.family, meaning.forgery_type, f"folder {folder!r}")
            folders.append((folder, meaning, label))
        if not folders:
            raise UsageError(f"{root} has no sub-folder. {self.instructions}")
        return folders


def _image(root: Path, relative: str, folder_map: FolderMap, meaning: Meaning, label: Label) -> RawImage:
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
        domain=meaning.domain or folder_map.domain or root.resolve().name,
        licence=meaning.licence or folder_map.licence,
        payload=FilePayload(root, relative),
        generator_version=meaning.version,
        source_split=split,
        video="/".join(_groups(folder_map.video, relative)) or None,
        frame=None if frame is None else check_frame(int(frame), relative),
        identities=tuple(dict.fromkeys(_groups(folder_map.identity, relative))),
    )


def _groups(pattern: str | None, relative: str) -> tuple[str, ...]:
    match = re.search(pattern, relative) if pattern else None
    return tuple(group for group in match.groups() if group is not None) if match else ()


SOURCE = FolderSource
