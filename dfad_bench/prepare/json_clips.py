"""Turns the clips of dataset JSON files into folders of frames below a root, each of them in one split."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from dfad_bench.errors import UsageError, did_you_mean, shorten
from dfad_bench.prepare.dataset_json import SPLITS, JsonClip, evenly_spaced, normalise_path, read_dataset_json
from dfad_bench.prepare.listing import folders_in
from dfad_bench.types import Defect, OnDefect

_BELOW_ROOT = ("", "datasets/rgb", "rgb", "datasets", "deepfakes_detection_datasets")
"""Where the paths of a JSON may begin below the root: a JSON's own paths often leave these out."""
_CLIPS_TRIED, _LOOKS = 16, 4000
"""How many clips are looked for, and how often the disk is asked at most: a hostile file may hold any number of beginnings."""
Class = TypeVar("Class", bound=Hashable)


@dataclass
class PathFinder:
    """Says where below the root a path of a JSON lies, having looked at a few of them.

    What is to be stripped from a path, or put before it, is found out once for all paths that begin alike (up to the
    first folder whose name is a dataset's). ``path_map`` is ``old=new``, several joined by commas: a path that begins
    with ``old`` begins with ``new`` instead, relative to the root, and is taken as it then stands.
    """

    root: Path
    datasets: Collection[str]
    path_map: str | None = None
    _maps: list[tuple[str, str]] = field(init=False)
    _used: set[str] = field(default_factory=set)
    _placings: dict[str, tuple[int, str]] = field(default_factory=dict)
    _looks: int = 0

    def __post_init__(self) -> None:
        self._maps = [self._parsed(pair) for pair in (self.path_map or "").split(",") if pair]

    def learn(self, paths: Sequence[str]) -> bool:
        """Find out where such paths lie, and return whether any of those looked for exists."""
        by_head: defaultdict[str, list[str]] = defaultdict(list)
        mapped_paths = []
        for path in paths:
            mapped = self._mapped(path)
            if mapped is None:
                by_head[self._head(path)].append(path)
            else:
                mapped_paths.append(mapped)
        exists = any(self._exists(path) for path in evenly_spaced(mapped_paths, _CLIPS_TRIED))
        for head, alike in by_head.items():
            tries = evenly_spaced(alike, _CLIPS_TRIED)
            found = next((placing for path in tries if (placing := self._look(path))), None)
            found = found or self._look_for_folders(head, alike)
            exists |= found is not None
            if found or head not in self._placings:
                self._placings[head] = found or self._by_name(head)
        return exists

    def check_maps(self, paths: Sequence[str]) -> None:
        """Raise UsageError where a part of ``path_map`` fits none of the paths that were learnt."""
        unused = [old for old, _ in self._maps if old not in self._used]
        if unused and paths:
            raise UsageError(f"path_map: no path begins with {shorten(unused)}; the first one is {paths[0]!r}.")

    def place(self, path: str) -> str:
        """Return a path relative to the root; one that cannot be placed stays absolute or with ``..``, to be refused."""
        if (mapped := self._mapped(path)) is not None:
            return mapped
        head = self._head(path)
        if head not in self._placings:
            self._placings[head] = self._by_name(head)
        strip, below = self._placings[head]
        return posixpath.join(below, *path.split("/")[strip:]) if strip or below else path

    def _parsed(self, pair: str) -> tuple[str, str]:
        old, equals, new = pair.partition("=")
        if not equals or not old:
            raise UsageError(f"path_map {pair!r}: expected old=new, the beginnings of paths.")
        new = normalise_path(new) if new else ""
        if new.startswith("/"):
            try:
                new = Path(new).resolve().relative_to(self.root.resolve()).as_posix()
            except ValueError:
                raise UsageError(f"path_map {pair!r}: {new} does not lie below the root {self.root}.") from None
        return normalise_path(old), "" if new == "." else new

    def _mapped(self, path: str) -> str | None:
        for old, new in self._maps:
            if path == old or path.startswith(f"{old.rstrip('/')}/"):
                self._used.add(old)
                return posixpath.join(new, path[len(old) :].lstrip("/"))
        return None

    def _head(self, path: str) -> str:
        folders = path.split("/")[:-1]
        known = next((number for number, name in enumerate(folders) if name in self.datasets), None)
        return "/".join(folders[: (2 if path.startswith("/") else 1) if known is None else known + 1])

    def _by_name(self, head: str) -> tuple[int, str]:
        """Return what to strip where no file was found: everything before the dataset's folder."""
        folders = head.split("/")
        if folders[-1] not in self.datasets:
            return 0, ""
        is_root = self.root.resolve().name == folders[-1] and not (self.root / folders[-1]).is_dir()
        return len(folders) - (not is_root), ""

    def _look(self, path: str) -> tuple[int, str] | None:
        parts = path.split("/")
        if ".." in parts:
            return None
        for below in _BELOW_ROOT:
            for strip in range(1 if path.startswith("/") else 0, len(parts) - 1):
                self._looks += 1
                if self._looks > _LOOKS:
                    return None
                if self._exists(posixpath.join(below, *parts[strip:])):
                    return strip, below
        return None

    def _look_for_folders(self, head: str, paths: Iterable[str]) -> tuple[int, str] | None:
        """Look for the folders that the clips lie in: the user may have a few clips of a dataset's thousands."""
        if head.split("/")[-1] not in self.datasets:
            return None
        strip, _ = self._by_name(head)
        for folder in dict.fromkeys(posixpath.dirname(posixpath.dirname(path)) for path in paths):
            for below in _BELOW_ROOT:
                self._looks += 1
                if self._looks > _LOOKS:
                    return None
                if self._exists(posixpath.join(below, *folder.split("/")[strip:]), Path.is_dir):
                    return strip, below
        return None

    def _exists(self, relative: str, is_kind: Callable[[Path], bool] = Path.is_file) -> bool:
        try:
            return ".." not in relative.split("/") and is_kind(self.root / relative)
        except OSError:  # a name too long, a folder we may not enter
            return False

    def complaint(self, paths: Sequence[str], listing: str) -> str:
        """Return one line that says that nothing of ``listing`` is below the root, with the nearest folder that fits."""
        looked = self.place(paths[0])
        wanted = next((name for name in looked.split("/") if name), "")
        above = [str(up) for up in list(self.root.resolve().parents)[:3] if (up / wanted).is_dir()]
        children = folders_in(self.root)
        inside = [str(self.root / child) for child in children[:100] if (self.root / child / wanted).is_dir()]
        if above or inside:
            hint = f" Did you mean --root {(inside or above)[0]}?"
        elif near := did_you_mean(wanted, [child for child in children if child != wanted]):
            hint = f"{near} Then say path_map={wanted}=NAME."
        else:
            hint = " Give --root the folder that holds it, or say with path_map=old=new where the paths begin."
        return f"{self.root} holds none of the frames that {listing} lists, such as {looked!r}.{hint}"


def read_clips(
    files: Sequence[Path],
    finder: PathFinder,
    on_defect: OnDefect,
    *,
    were_named: bool,
    keep: Callable[[JsonClip], bool],
    fakes: Mapping[str, bool] | None = None,
) -> list[JsonClip]:
    """Return the clips of all files that are to be kept, having taught the finder where they lie.

    Files that the user did not name are left out, as the defect ``absent_dataset``, where nothing of them is on disk.
    Raises UsageError for a file without frames, and for a named one of which nothing is on disk.
    """
    clips: list[JsonClip] = []
    learnt: list[str] = []
    absent: list[str] = []
    for file in files:
        listed = [clip for clip in read_dataset_json(file, on_defect, fakes) if keep(clip)]
        paths = [clip.frames[place] for clip in listed for place in {0, len(clip.frames) // 2} if clip.frames]
        learnt.extend(paths)
        if not paths and were_named:
            raise UsageError(f"{file} lists no frame of what is wanted. Check --set json and the other settings.")
        if finder.learn(paths):
            clips.extend(listed)
        elif paths:
            absent.append(finder.complaint(paths, file.name))
    finder.check_maps(learnt)
    if absent and (were_named or not clips):
        raise UsageError(absent[0])
    if not clips:
        raise UsageError(f"{shorten(file.name for file in files)}: no frame of what is wanted is listed.")
    for complaint in absent:
        on_defect(Defect("absent_dataset", complaint))
    return clips


@dataclass(frozen=True, slots=True)
class Footage(Generic[Class]):
    """Frames that belong together: a folder of one video, or one picture of a collection, from any number of JSON clips.

    folder and frames: paths below the root; video: what the JSON calls it; split: the strictest of those it stands in;
    masks: a mask's path by the name, without suffix, of the frame it belongs to; clip: one of the JSON clips.
    """

    kind: Class
    folder: str
    video: str
    is_collection: bool
    split: str
    frames: tuple[str, ...]
    masks: dict[str, str]
    clip: JsonClip


def gather(
    clips: Iterable[JsonClip],
    place: Callable[[str], str],
    classify: Callable[[JsonClip, str], Class | None],
    collections: Collection[str],
    on_defect: OnDefect,
) -> list[Footage[Class]]:
    """Return what the clips show, each frame once, sorted by folder.

    ``classify(clip, folder)`` says what the frames of a folder are, None that they are not wanted. A folder called like
    one of ``collections``, or in which each of several JSON videos has one frame, is a collection of single pictures,
    any other one is a video, all of it in the strictest split that any of its frames stands in (test before val before
    train). Defects: ``in_two_splits`` with what was done, ``two_labels`` for frames of two classes, which are left out.
    """
    gathering = _Gathering(place, classify)
    for clip in clips:
        gathering.add(clip)
    gathering.tell(on_defect)
    footage = [
        each
        for (kind, folder), gathered in gathering.found.items()
        for each in gathering.footage(kind, folder, gathered, collections)
    ]
    return sorted(footage, key=lambda each: (each.folder, each.frames, str(each.kind)))


@dataclass
class _Gathered:
    """The JSON clips that meet in one folder under one class; of each frame the strictest split and the video's name."""

    clips: list[JsonClip] = field(default_factory=list)
    frames: dict[str, tuple[str, str]] = field(default_factory=dict)

    def splits_by_video(self) -> Iterator[set[str]]:
        by_video: defaultdict[str, set[str]] = defaultdict(set)
        for clip in self.clips:
            by_video[clip.video].add(clip.split)
        yield from by_video.values()


@dataclass
class _Gathering(Generic[Class]):
    """Clips on their way into folders. Paths are placed folder by folder, for a file lists a million of them."""

    place: Callable[[str], str]
    classify: Callable[[JsonClip, str], Class | None]
    found: dict[tuple[Class, str], _Gathered] = field(default_factory=dict)
    _placed: dict[str, str] = field(default_factory=dict)
    _owner: dict[str, Class] = field(default_factory=dict)
    _conflicting: set[str] = field(default_factory=set)

    def add(self, clip: JsonClip) -> None:
        by_folder: defaultdict[str, list[str]] = defaultdict(list)
        for listed in clip.frames:
            before, _, name = listed.rpartition("/")
            if before not in self._placed:
                self._placed[before] = posixpath.dirname(self.place(listed))
            by_folder[self._placed[before]].append(name)
        for folder, names in by_folder.items():
            kind = self.classify(clip, folder)
            if kind is not None:
                self._add_frames(clip, kind, folder, names)

    def _add_frames(self, clip: JsonClip, kind: Class, folder: str, names: Sequence[str]) -> None:
        gathered = self.found.setdefault((kind, folder), _Gathered())
        gathered.clips.append(clip)
        for name in names:
            frame = posixpath.join(folder, name)
            if self._owner.setdefault(frame, kind) != kind:
                self._conflicting.add(frame)
            split, video = gathered.frames.get(frame, (clip.split, clip.video))
            gathered.frames[frame] = (split if split == clip.split else _strictest((split, clip.split)), video)

    def tell(self, on_defect: OnDefect) -> None:
        if self._conflicting:
            first = min(self._conflicting)
            detail = f"{len(self._conflicting)} frames are listed under two labels and left out, first {first}"
            on_defect(Defect("two_labels", detail))
        torn: Counter[tuple[str, ...]] = Counter()
        for gathered in self.found.values():
            torn.update(tuple(sorted(splits, key=SPLITS.index)) for splits in gathered.splits_by_video())
        for splits, count in torn.items():
            if len(splits) > 1:
                detail = f"{count} clips stand in {' and '.join(splits)}; each is kept once, in {splits[-1]}"
                on_defect(Defect("in_two_splits", detail))

    def footage(
        self, kind: Class, folder: str, gathered: _Gathered, collections: Collection[str]
    ) -> Iterator[Footage[Class]]:
        clips = gathered.clips
        frames = {frame: told for frame, told in gathered.frames.items() if frame not in self._conflicting}
        masks = {_stem(mask): self.place(mask) for clip in clips for mask in clip.masks}
        several = len({clip.video for clip in clips}) > 1
        if posixpath.basename(folder) in collections or (several and all(len(clip.frames) == 1 for clip in clips)):
            for frame, (split, video) in frames.items():
                name = video if several else _stem(frame)
                yield Footage(kind, folder, name, True, split, (frame,), masks, clips[0])
        elif frames:
            split = _strictest(clip.split for clip in clips)
            yield Footage(kind, folder, clips[0].video, False, split, tuple(frames), masks, clips[0])


def _strictest(splits: Iterable[str]) -> str:
    return max(splits, key=SPLITS.index)


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]
