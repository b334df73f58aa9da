"""Celeb-DF (v2): celebrities' interviews, swaps between them, and a list of test clips that stay out of training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt

from dfad_bench.errors import DataError, shorten
from dfad_bench.prepare.clip_listing import Clip, check_tree, clip_images, list_clips, missing_clip
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, Defect, OnDefect, RawImage

FOLDERS = {"Celeb-real": REAL, "YouTube-real": REAL, "Celeb-synthesis": "celebdf"}
TEST_LIST = "List_of_testing_videos.txt"
DOMAIN = "celeb-df"
_CLIP = {
    "Celeb-real": re.compile(r"(id\d+)_\d+"),
    "YouTube-real": re.compile(r"\d+"),
    "Celeb-synthesis": re.compile(r"(id\d+)_(id\d+)_\d+"),
}
_LINE = re.compile(r"([01])\s+([^/\s]+)/([^/\s]+)\.\w+")

Clips = dict[str, dict[str, Clip]]
"""Folder → name → clip."""


@dataclass(frozen=True)
class CelebDfSource:
    """Option: ``frames`` taken from each clip, evenly spaced over it.

    The clips of the official test list are ``test``, all others ``train``; without the list no face has a split. A clip
    ``idA_idB_0000`` of Celeb-synthesis is taken to be the clip ``idA_0000`` with the face of ``idB``: ``identities`` are
    (A, B). Neither paper nor readme says so; code written for the DFGC competition, which some of its authors held on
    Celeb-DF, does. Nobody in YouTube-real is named. Clips are read as videos (``<folder>/*.mp4`` or
    ``<folder>/videos/*.mp4``), else as frames (``<folder>/frames/<clip>/``).
    """

    frames: PositiveInt = 32

    title: ClassVar[str] = "Celeb-DF v2 (Li et al., CVPR 2020, arXiv:1909.12962)"
    homepage: ClassVar[str] = "https://github.com/yuezunli/celeb-deepfakeforensics"
    licence: ClassVar[str] = "Celeb-DF ToU"
    instructions: ClassVar[str] = (
        "Ask for Celeb-DF (v2) with the form linked at https://github.com/yuezunli/celeb-deepfakeforensics. Then give "
        f"--root FOLDER, which holds {', '.join(FOLDERS)} (each with .mp4 files, or frames/<clip>/) and {TEST_LIST}."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the taxonomy's entry of the one synthesis."""
        return (known().get("celebdf"),)

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images clip by clip; the clips that the test list names and the disk lacks count as missing.

        Tells of ``missing_folder``, ``no_split_file``, ``bad_line``, ``wrong_label``, ``listed_twice``, ``missing_clips``,
        ``identity_in_two_splits``, ``empty_clip``, ``clip_twice``, ``videos_and_frames`` and ``odd_name``.
        """
        assert root is not None
        check_tree(root, tuple(FOLDERS), self.instructions)
        clips: Clips = {}
        for folder in FOLDERS:
            if not (root / folder).is_dir():
                on_defect(Defect("missing_folder", f"{root} holds no {folder}"))
            clips[folder] = list_clips(root, [folder, f"{folder}/videos"], [f"{folder}/frames"], on_defect)
        test = _test_list(root, on_defect)
        if test is not None:
            _add_missing(clips, test, on_defect)
            _tell_shared(clips, test, on_defect)
        odd = [f"{folder}/{name}" for folder, found in clips.items() for name in found if _people(folder, name) is None]
        if odd:
            on_defect(
                Defect("odd_name", f"{shorten(odd)} are not named as Celeb-DF names clips: nobody in them is known")
            )
        for folder, found in clips.items():
            for name, clip in sorted(found.items()):
                split = None if test is None else "test" if name in test[folder] else "train"
                yield from self._images(root, folder, clip, split)

    def _images(self, root: Path, folder: str, clip: Clip, split: str | None) -> Iterator[RawImage]:
        entry = None if FOLDERS[folder] == REAL else known().get(FOLDERS[folder])
        video = f"{folder}/{clip.name}"  # 00001 may stand in more than one folder
        for image in clip_images(root, clip, self.frames):
            yield RawImage(
                key=f"{video}#{image.place}",
                generator=FOLDERS[folder],
                family=entry.family if entry else REAL,
                forgery_type=entry.forgery_type if entry else REAL,
                domain=DOMAIN,
                licence=self.licence,
                payload=image.payload,
                source_split=split,
                video=video,
                frame=image.frame,
                identities=_people(folder, clip.name) or (),
            )


def _people(folder: str, name: str) -> tuple[str, ...] | None:
    """Return the ids in a clip's name, target first; None where it is not named as its folder demands."""
    match = _CLIP[folder].fullmatch(name)
    return None if match is None else match.groups()


def _test_list(root: Path, on_defect: OnDefect) -> dict[str, set[str]] | None:
    """Return the names of each folder's test clips; None without a list. A line is ``<1 where real> <folder>/<clip>.mp4``."""
    path = root / TEST_LIST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        on_defect(Defect("no_split_file", f"{root} holds no {TEST_LIST}: no face has a split"))
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from None
    test: dict[str, set[str]] = {folder: set() for folder in FOLDERS}
    bad, wrong, twice = [], [], []
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line.strip().replace("\\", "/"))
        if match is None or match[2] not in FOLDERS:
            bad += [f"{number} ({line.strip()[:60]!r})"] if line.strip() else []
            continue
        digit, folder, name = match.groups()
        if (digit == "1") != (FOLDERS[folder] == REAL):
            wrong.append(f"{folder}/{name}")
        if name in test[folder]:
            twice.append(f"{folder}/{name}")
        test[folder].add(name)
    for kind, found, what in (
        ("bad_line", bad, f"of {TEST_LIST} name no clip of {', '.join(FOLDERS)}"),
        ("wrong_label", wrong, f"are labelled other than their folder in {TEST_LIST}; the folder's label is used"),
        ("listed_twice", twice, f"stand twice in {TEST_LIST}"),
    ):
        if found:
            on_defect(Defect(kind, f"{'lines ' if kind == 'bad_line' else ''}{shorten(found)} {what}"))
    return test


def _add_missing(clips: Clips, test: Mapping[str, set[str]], on_defect: OnDefect) -> None:
    """Add the test clips that are not on disk, so that the ledger has them."""
    for folder, names in test.items():
        absent = sorted(names - clips[folder].keys())
        if absent:
            on_defect(Defect("missing_clips", f"{folder} lacks {len(absent)} clips of {TEST_LIST}: {shorten(absent)}"))
        like = tuple(clips[folder].values())
        clips[folder] |= {name: missing_clip(name, folder, f"{folder}/frames", like) for name in absent}


def _tell_shared(clips: Clips, test: Mapping[str, set[str]], on_defect: OnDefect) -> None:
    """Tell of the people who stand in test and in train, as the official split has it."""
    people: dict[bool, set[str]] = {True: set(), False: set()}
    for folder, found in clips.items():
        for name in found:
            people[name in test[folder]].update(_people(folder, name) or ())
    shared = people[True] & people[False]
    if shared:
        what = f"identities stand in test and in train: the official split shares them ({shorten(sorted(shared))})"
        on_defect(Defect("identity_in_two_splits", f"{len(shared)} {what}"))


SOURCE = CelebDfSource
