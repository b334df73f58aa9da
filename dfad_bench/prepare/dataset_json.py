"""Reads the dataset JSON of DeepfakeBench and DF40, and tells what is wrong with it.

Its shape is ``{dataset: {label: {split: {video: {label, frames, masks?}}}}}``, with one more level ``c23``, ``c40`` or
``raw`` below the split for the FaceForensics++ family. Nothing is looked up on disk: a path is text here.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dfad_bench.errors import DataError, UsageError, did_you_mean, shorten
from dfad_bench.types import Defect, OnDefect

SPLITS = ("train", "val", "test")
"""From the least to the most strict: what stands in two is never trained on."""
COMPRESSIONS = ("raw", "c0", "c23", "c40")
SHAPE = "{dataset: {label: {train|val|test: {video: {label, frames}}}}}"
_REAL_OR_FAKE = re.compile(r"(?:^|[_-])(?:((?i:real))|(?i:fake)[A-Z]?)$")
_FAKES_WITHOUT_SUFFIX = frozenset(("FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FF-FH", "FF-SH"))
_NUMBER = re.compile(r"\d+", re.ASCII)
_UNREADABLE = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
"""Control characters, line ends and halves of a character: one of them would break reports and tables."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class JsonClip:
    """One video of a dataset JSON in one split.

    dataset: the file's outermost key; label: as written inside the clip; compression: ``c23``, ``c40``, ``raw`` or None
    where the file has no such level. frames and masks: paths with forward slashes, without ``.``, ``..`` inside and
    repetitions, in the order listed; they may be absolute or begin with ``..``, so they are not yet safe to open. An
    empty clip has no frames.
    """

    dataset: str
    label: str
    is_fake: bool
    split: str
    compression: str | None
    video: str
    frames: tuple[str, ...]
    masks: tuple[str, ...]


def read_dataset_json(path: Path, on_defect: OnDefect, fakes: Mapping[str, bool] | None = None) -> Iterator[JsonClip]:
    """Return the clips of one file in its order; the whole file is checked, and its defects told, before the first.

    ``fakes`` says of labels that do not tell it themselves whether they are fake. Defects: ``backslash_path``,
    ``empty_clip``, ``empty_split``, ``wrong_label``, ``in_two_splits``, ``duplicate_frame``, ``repeated_key``,
    ``nameless_clip``. Raises UsageError where the file is missing or a label says neither real nor fake, DataError
    (file and place) where it is not JSON or not of that shape.
    """
    reading = _Reading(path, dict(fakes or {}))
    clips = list(reading.clips())
    reading.tell(on_defect)
    _tell_overlaps(path.name, clips, on_defect)
    return iter(clips)


def normalise_path(path: str) -> str:
    """Return a path with forward slashes, without ``.`` and without ``..`` that can be resolved in the text."""
    path = path.replace("\\", "/")
    return posixpath.normpath(path[1:] if path.startswith("//") else path)  # POSIX leaves two leading slashes alone


def frame_number(path: str) -> int | None:
    """Return the last number in a file's name, or None where there is none that a manifest can hold (31 bits)."""
    numbers = _NUMBER.findall(posixpath.splitext(posixpath.basename(path))[0])
    if not numbers or len(numbers[-1]) > 10:
        return None
    return int(numbers[-1]) if int(numbers[-1]) < 2**31 else None


def in_numeric_order(paths: Sequence[str]) -> list[str]:
    """Return paths by frame number, those without one last; ``10.png`` comes after ``9.png``."""
    numbered = [(frame_number(path), path) for path in paths]
    return [path for _, path in sorted(numbered, key=lambda each: (each[0] is None, each[0] or 0, each[1]))]


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return ``count`` items spread evenly over the whole sequence: the middles of as many equal parts."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]


@dataclass
class _Reading:
    """One file on its way into clips, and what was found wrong with it."""

    path: Path
    fakes: dict[str, bool]
    backslashes: int = 0
    repeated_keys: Counter[str] = field(default_factory=Counter)
    empty_splits: list[str] = field(default_factory=list)
    empty_clips: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    wrong_labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    duplicates: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    nameless_clips: list[str] = field(default_factory=list)

    def clips(self) -> Iterator[JsonClip]:
        for dataset, labels in self._object(self._load(), "top level").items():
            for outer, splits in self._object(labels, dataset).items():
                for split, videos in self._object(splits, f"{dataset}/{outer}").items():
                    if split not in SPLITS:
                        hint = did_you_mean(split, SPLITS)
                        self._fail(f"{dataset}/{outer}", f"has a split {split!r}, expected train, val or test.{hint}")
                    yield from self._split(dataset, outer, split, videos)

    def tell(self, on_defect: OnDefect) -> None:
        """Tell what was found, each kind of thing once per place with its count."""
        name = self.path.name
        if self.backslashes:
            on_defect(Defect("backslash_path", f"{name}: {self.backslashes} paths hold backslashes, read as '/'"))
        for key, count in self.repeated_keys.items():
            on_defect(
                Defect("repeated_key", f"{name}: {key!r} is given {count + 1} times in one place; the last counts")
            )
        for place in self.nameless_clips:
            on_defect(
                Defect("nameless_clip", f"{name}: {place} holds a clip without a video's name, which is left out")
            )
        for place in self.empty_splits:
            on_defect(Defect("empty_split", f"{name}: {place} holds no clip"))
        for place, videos in self.empty_clips.items():
            on_defect(Defect("empty_clip", f"{name}: {place}: {len(videos)} clips without frames: {shorten(videos)}"))
        for (place, label), count in self.wrong_labels.items():
            on_defect(
                Defect("wrong_label", f"{name}: {place}: {count} clips are labelled {label} inside; that is used")
            )
        if self.duplicates:
            count, first = sum(self.duplicates.values()), next(iter(self.duplicates))
            on_defect(
                Defect("duplicate_frame", f"{name}: {count} frames listed again in their own clip, first {first}")
            )

    def _load(self) -> Any:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise UsageError(f"There is no file {self.path}. Give the dataset JSON that lists the frames.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path} cannot be read as text: {error}.") from None
        try:
            return json.loads(text, object_pairs_hook=self._without_repetition, parse_constant=_refuse_constant)
        except RecursionError:
            raise DataError(f"{self.path} is nested too deeply for a dataset JSON; expected {SHAPE}.") from None
        except ValueError as error:  # of the syntax, a NaN, or a number of thousands of digits
            raise DataError(f"{self.path} is not valid JSON: {' '.join(str(error).split())}") from None

    def _without_repetition(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        for key in made:
            if _UNREADABLE.search(key):
                raise ValueError(f"the key {key!r} holds line breaks or other characters that no text has")
        if len(made) < len(pairs):
            self.repeated_keys.update(Counter(key for key, _ in pairs) - Counter(made.keys()))
        return made

    def _split(self, dataset: str, outer: str, split: str, videos: Any) -> Iterator[JsonClip]:
        place = f"{dataset}/{outer}/{split}"
        if not self._object(videos, place):
            self.empty_splits.append(place)
        if isinstance(videos.get("label"), str) and isinstance(videos.get("frames"), list):
            self.nameless_clips.append(place)  # DFDC's val, as DeepfakeBench writes it
            videos = {name: entry for name, entry in videos.items() if name not in ("label", "frames", "masks")}
        for name, entry in videos.items():
            if name in COMPRESSIONS and isinstance(entry, dict) and not entry.keys() & {"label", "frames"}:
                if not entry:
                    self.empty_splits.append(f"{place}/{name}")
                for video, clip in entry.items():
                    yield self._clip(dataset, outer, split, name, video, clip)
            else:
                yield self._clip(dataset, outer, split, None, name, entry)

    def _clip(self, dataset: str, outer: str, split: str, compression: str | None, video: str, entry: Any) -> JsonClip:
        place = "/".join(filter(None, (dataset, outer, split, compression)))
        where = f"{place}/{video}"
        inner = self._object(entry, where).get("label", outer)
        label = self._text(inner, f"{where}: label")
        if label != outer:
            self.wrong_labels[place, label] += 1
        frames = self._paths(entry, "frames", where)
        if not frames:
            self.empty_clips[place].append(video)
        unique = tuple(dict.fromkeys(frames))
        if len(unique) < len(frames):
            self.duplicates[where] += len(frames) - len(unique)
        masks = tuple(dict.fromkeys(self._paths(entry, "masks", where))) if "masks" in entry else ()
        return JsonClip(dataset, label, self._is_fake(label, where), split, compression, video, unique, masks)

    def _is_fake(self, label: str, where: str) -> bool:
        if label not in self.fakes:
            match = _REAL_OR_FAKE.search(label)
            if match is None and label not in _FAKES_WITHOUT_SUFFIX:
                raise UsageError(
                    f"{self.path.name}: {where}: the label {label!r} says neither real nor fake; expected a name that "
                    f"ends in real or fake. Map it with --set labels={label}=real (or =GENERATOR), or correct the file."
                )
            self.fakes[label] = match is None or match[1] is None
        return self.fakes[label]

    def _paths(self, entry: dict[str, Any], key: str, where: str) -> list[str]:
        listed = entry.get(key)
        if not isinstance(listed, list):
            self._fail(f"{where}: {key}", f"is {_kind(listed)}, expected a list of paths.")
        paths = []
        for number, path in enumerate(listed):
            if not isinstance(path, str) or not path.isprintable() or not path:
                self._text(path, f"{where}: {key}[{number}]")
            if "\\" in path:
                self.backslashes += 1
            paths.append(normalise_path(path))
        return paths

    def _object(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(place, f"is {_kind(value)}, expected an object as in {SHAPE}.")
        return value

    def _text(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or not value:
            self._fail(place, f"is {_kind(value)}, expected text.")
        if _UNREADABLE.search(value):
            self._fail(place, f"is {value[:80]!r}, with line breaks or other characters that no text has.")
        return value

    def _fail(self, place: str, complaint: str) -> NoReturn:
        raise DataError(" ".join(f"{self.path}: {place} {complaint}".split()))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    """Say what a value is without printing a gigantic one."""
    if isinstance(value, (dict, list, str)):
        kind = {dict: "an object", list: "a list", str: "a text"}[type(value)]
        return kind if value else f"{kind} without content"
    return {type(None): "missing or null", bool: "true or false"}.get(type(value), "a number")


def _tell_overlaps(name: str, clips: Sequence[JsonClip], on_defect: OnDefect) -> None:
    """Tell which videos and which frames stand in two splits: names can differ where the pictures do not."""
    videos: dict[str, set[tuple[str, str, str | None, str]]] = {split: set() for split in SPLITS}
    frames: dict[str, set[str]] = {split: set() for split in SPLITS}
    for clip in clips:
        videos[clip.split].add((clip.dataset, clip.label, clip.compression, clip.video))
        frames[clip.split].update(clip.frames)
    for one, other in combinations(SPLITS, 2):
        shared, pictures = videos[one] & videos[other], len(frames[one] & frames[other])
        if shared or pictures:
            example = f", such as {min(video for *_, video in shared)}" if shared else ""
            detail = f"{name}: {one} and {other} share {len(shared)} videos{example}, and {pictures} frames"
            on_defect(Defect("in_two_splits", detail))
