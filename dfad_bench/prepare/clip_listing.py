"""Lists clips that lie as videos or as folders of frames, and spreads a number of images evenly over each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfad_bench.errors import UsageError, shorten
from dfad_bench.prepare.dataset_json import evenly_spaced, frame_number, in_numeric_order
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, folders_in
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.prepare.video import VideoFrame
from dfad_bench.types import Defect, OnDefect, Payload


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as it lies on disk: a video, or a folder with the names of its frames in order of their numbers.

    path: relative to the root; of a folder, ``frames`` lists the files in it and is None for a video.
    """

    name: str
    path: str
    frames: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ClipImage:
    """One image of a clip. ``place`` is unique in the clip and stable; ``frame`` is its number where that is known."""

    place: str
    payload: Payload
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class EmptyClip:
    """Stands in the ledger for a clip whose folder holds no frame."""

    root: Path
    relative: str

    def read(self) -> bytes:
        """Raise SkippedInput with reason ``empty_clip``."""
        raise SkippedInput("empty_clip", f"{self.relative} holds no frame")

    def stamp(self) -> str:
        """Return a constant: when a frame appears, the clip is listed by its frames."""
        return "empty"


def list_clips(root: Path, videos: Sequence[str], frames: Sequence[str], on_defect: OnDefect) -> dict[str, Clip]:
    """Return the clips in folders of videos and in folders of folders of frames, by name, sorted.

    Where there are both of one clip, the video is read. Tells of ``videos_and_frames``, ``clip_twice`` and ``empty_clip``.
    """
    clips: dict[str, Clip] = {}
    twice, both = [], []
    for folder in videos:
        for file in files_in(root, folder, VIDEO_SUFFIXES):
            name = Path(file).stem
            if name in clips:
                twice.append(f"{folder}/{file}")
            clips.setdefault(name, Clip(name, f"{folder}/{file}"))
    for folder in frames:
        for name in folders_in(root / folder):
            if name not in clips:
                clips[name] = Clip(
                    name,
                    f"{folder}/{name}",
                    tuple(in_numeric_order(files_in(root, f"{folder}/{name}", IMAGE_SUFFIXES))),
                )
            elif clips[name].frames is None:
                both.append(f"{folder}/{name}")
            else:
                twice.append(f"{folder}/{name}")
    empty = [clip.path for clip in clips.values() if is_empty(root, clip)]
    for kind, paths, what in (
        ("clip_twice", twice, "are left out, since another file is a clip of that name"),
        ("videos_and_frames", both, "are left out, since the clips lie there as videos too"),
        ("empty_clip", empty, "hold nothing"),
    ):
        if paths:
            on_defect(Defect(kind, f"{shorten(paths)} {what}"))
    return dict(sorted(clips.items()))


def files_in(root: Path, folder: str, suffixes: Collection[str]) -> list[str]:
    """Return the names of the files directly in ``root/folder`` with one of the suffixes, sorted; none where it is no folder.

    Raises UsageError for a name that is not UTF-8.
    """
    if not (root / folder).is_dir():
        return []
    names = sorted(
        path.name
        for path in (root / folder).iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{root / folder} holds {name!r}, a name that is not UTF-8. Rename it.") from None
    return names


def is_empty(root: Path, clip: Clip) -> bool:
    """Return whether a clip is a file of no bytes or a folder without frames."""
    if clip.frames is not None:
        return not clip.frames
    try:
        return (root / clip.path).stat().st_size == 0
    except OSError:  # a link that leads nowhere: its frames are skipped as missing
        return False


def clip_images(root: Path, clip: Clip, of: int) -> Iterator[ClipImage]:
    """Yield ``of`` images evenly spaced over a clip; of a folder with fewer frames all, of an empty one an EmptyClip."""
    if clip.frames is None:
        for position in range(of):
            yield ClipImage(f"{position:03d}", VideoFrame(root, clip.path, position, of))
        return
    if not clip.frames:
        yield ClipImage("none", EmptyClip(root, clip.path))
    for file in evenly_spaced(clip.frames, of):
        yield ClipImage(file, FilePayload(root, f"{clip.path}/{file}"), frame_number(file))


def missing_clip(name: str, videos: str, frames: str, like: Collection[Clip]) -> Clip:
    """Return where a clip that is not there would lie, if it lay like the others, so that its images count as missing."""
    if like and all(clip.frames is not None for clip in like):
        return Clip(name, frames, (name,))
    return Clip(name, f"{videos}/{name}.mp4")


def check_tree(root: Path, expected: Sequence[str], instructions: str) -> None:
    """Raise UsageError where root holds none of the expected folders, naming the folder that was probably meant."""
    if _holds(root, expected):
        return
    near = [root / name for name in folders_in(root) if _holds(root / name, expected)]
    above = [parent for parent in root.resolve().parents[:4] if _holds(parent, expected)]
    hint = f" Did you mean {(near or above)[0]}?" if near or above else ""
    raise UsageError(f"{root} holds none of {', '.join(expected)}.{hint} {instructions}")


def _holds(folder: Path, expected: Sequence[str]) -> bool:
    return any((folder / name).is_dir() for name in expected)
