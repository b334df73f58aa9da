"""DF40: faces of 40 methods, from the folders as they are unpacked or from its dataset JSON."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from dfad_bench.errors import DataError, UsageError, did_you_mean, shorten
from dfad_bench.prepare.dataset_json import SPLITS, JsonClip, evenly_spaced, frame_number, in_numeric_order
from dfad_bench.prepare.json_clips import Footage, PathFinder, gather, read_clips
from dfad_bench.prepare.labels import Labeller
from dfad_bench.prepare.listing import folders_in
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.prepare.sources._df40_methods import METHODS, Method, find_method, method_of_dataset
from dfad_bench.prepare.sources._df40_tree import COLLECTIONS, DOMAINS, TOPS, Clip, clips_in_packs, find_packs, reals
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, Defect, OnDefect, RawImage

_DATASETS = frozenset(("DF40", "DF40_train", "FaceForensics++", "Celeb-DF-v2"))
_LEAKING = "df40_all"
_LICENCES = {"ff++": "FaceForensics++ terms of use", "celeb-df": "Celeb-DF terms of use"}
"""Of reals that DF40 does not hand out itself."""
_FF_LISTS = tuple(f"{split}.json" for split in SPLITS)
Kind = tuple[Method | None, bool, str]
"""Method, whether it is real, and domain."""


@dataclass(frozen=True)
class DF40Source:
    """Options: ``json``, ``methods``, ``frames``, ``splits``, ``path_map``.

    json: a dataset JSON, or a folder of them, absolute or relative to the root; without it the folders are read.
    methods: names joined by commas; without it all. frames: how many of a video, spread evenly. splits: the folder of
    FF++'s train.json, val.json and test.json (found by itself in FaceForensics++): a clip then gets the split that all
    its people are in. path_map: ``old=new`` beginnings of the JSON's paths, joined by commas.
    """

    json: Path | None = None
    methods: str | None = None
    frames: int = 32
    splits: Path | None = None
    path_map: str | None = None

    title: ClassVar[str] = "DF40"
    homepage: ClassVar[str] = "https://github.com/YZY-stack/DF40"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (DF40)"
    instructions: ClassVar[str] = (
        "Ask for the data with the form on https://github.com/YZY-stack/DF40 and unpack it: --root FOLDER holds "
        "DF40/<method>/ff/frames/<video>/<frame>.png and …/cdf/…, DF40_train/<method>/frames/<pair>/…, and the reals "
        "FaceForensics++/original_sequences/youtube/c23/frames/ and Celeb-DF-v2/{Celeb-real,YouTube-real}/frames/."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "whole_image"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators of the 40 methods, or of those asked for."""
        return tuple(known().get(method.generator) for method in self._wanted())

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the chosen frames of every clip, fakes before reals, or by folder where a JSON lists them."""
        assert root is not None
        if self.frames < 1:
            raise UsageError(f"frames={self.frames}: expected 1 or more frames of each video.")
        lists = _FFSplits.read(self._split_folder(root))
        clips = self._in_tree(root, on_defect) if self.json is None else self._in_json(root, on_defect)
        labeller = Labeller()
        for clip in clips:
            yield from _images(root, lists.applied(clip), labeller, self.frames)
        lists.tell(on_defect)

    def _wanted(self) -> tuple[Method, ...]:
        if self.methods is None:
            return METHODS
        wanted = []
        for name in filter(None, map(str.strip, self.methods.split(","))):
            method = find_method(name)
            if method is None:
                hint = did_you_mean(name, [each.folder for each in METHODS])
                raise UsageError(f"methods: {name!r} is no method of DF40.{hint}")
            wanted.append(method)
        return tuple(dict.fromkeys(wanted))

    def _split_folder(self, root: Path) -> Path | None:
        if self.splits is not None:
            return root / self.splits
        found = [root / top / "FaceForensics++" for top in TOPS]
        return next((folder for folder in found if all((folder / name).is_file() for name in _FF_LISTS)), None)

    def _in_tree(self, root: Path, on_defect: OnDefect) -> Iterator[Clip]:
        packs = find_packs(root, self.instructions)
        domains = set()
        for clip in clips_in_packs(root, packs, self._wanted(), on_defect):
            domains.add(clip.domain)
            yield clip
        yield from reals(root, domains, on_defect)

    def _in_json(self, root: Path, on_defect: OnDefect) -> Iterator[Clip]:
        assert self.json is not None
        finder = PathFinder(root, _DATASETS, self.path_map)
        wanted = frozenset(self._wanted())
        named = (root / self.json).is_file()
        listed = read_clips(
            _json_files(root / self.json, on_defect),
            finder,
            on_defect,
            were_named=named,
            keep=lambda clip: _refuse_leaking(clip.dataset) and _may_be_wanted(clip, wanted),
        )
        names: Counter[str] = Counter()
        footage = gather(
            listed, finder.place, lambda c, folder: _kind(c, folder, wanted, names), COLLECTIONS, on_defect
        )
        for told, count in names.items():
            on_defect(Defect("wrong_label", f"{count} clips: {told}"))
        _tell_mismatches(root, footage, on_defect)
        pristine = {each.kind[2] for each in footage if each.kind[1]}
        for domain in sorted({each.kind[2] for each in footage} - pristine):
            on_defect(Defect("missing_real", f"the fakes of {domain} have no reals in the JSON"))
        for each in footage:
            method, is_real, domain = each.kind
            place = each.clip.dataset
            frames = each.frames
            yield Clip(method, is_real, domain, each.folder, each.video, each.is_collection, frames, each.split, place)


def _json_files(path: Path, on_defect: OnDefect) -> list[Path]:
    if path.is_file():
        _refuse_leaking(path.stem)
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise UsageError(f"There is no JSON file {path}, and no folder of that name that holds some.")
    for file in files:
        if file.stem.lower() == _LEAKING:
            on_defect(Defect("leaking_json", f"{file.name} is left out: it has test people of FF++ in train"))
    return [file for file in files if file.stem.lower() != _LEAKING]


def _refuse_leaking(dataset: str) -> bool:
    if dataset.lower() == _LEAKING:
        raise UsageError(
            "DF40_all is not read: it has test people of FF++ in its train split. "
            "Give the JSON of one method (dataset_json/<method>_ff.json) or their folder, without it."
        )
    return True


def _may_be_wanted(clip: JsonClip, wanted: frozenset[Method]) -> bool:
    method = method_of_dataset(clip.dataset)
    return method is None or method in wanted


def _kind(clip: JsonClip, folder: str, wanted: frozenset[Method], names: Counter[str]) -> Kind | None:
    """Return what a folder of a JSON clip holds: of which method by its folder, else by the dataset; None if not wanted.

    Counts in ``names`` what folder, dataset and label do not agree on.
    """
    parts = folder.split("/")
    by_dataset, by_label = method_of_dataset(clip.dataset), method_of_dataset(clip.label)
    by_folder = next((method for part in parts if (method := find_method(part))), None)
    if by_dataset and by_label and by_label != by_dataset:
        names[f"{clip.dataset} calls them {clip.label}"] += 1
    if not clip.is_fake:
        for name, origin in (("FaceForensics++", "ff++"), ("Celeb-DF-v2", "celeb-df")):
            if name in parts:
                return None, True, origin
    if by_dataset and by_folder and by_folder != by_dataset:
        names[f"{clip.dataset} lists frames of {by_folder.folder}, which they count as"] += 1
    method = by_folder or by_dataset
    if method is None:
        raise UsageError(
            f"{clip.dataset}: neither the dataset (as in simswap_ff) nor the folder {folder!r} (as in DF40/simswap/ff) is "
            "named after a method of DF40. For DeepfakeBench's own files say --source deepfakebench."
        )
    by_part = next((domain for part, domain in DOMAINS.items() if part in parts), None)
    domain = method.own_domain or by_part or ("celeb-df" if clip.dataset.endswith("_cdf") else "ff++")
    if not clip.is_fake and method.own_domain is None:
        return None, True, domain
    return (method, not clip.is_fake, domain) if method in wanted else None


def _tell_mismatches(root: Path, footage: Iterable[Footage[Kind]], on_defect: OnDefect) -> None:
    """Tell for each parent folder which clips the JSON names that it lacks, while it has others that are not named."""
    named: defaultdict[str, set[str]] = defaultdict(set)
    for each in footage:
        if not (each.is_collection or each.kind[1]) and ".." not in each.folder.split("/"):
            named[posixpath.dirname(each.folder)].add(posixpath.basename(each.folder))
    for parent, clips in sorted(named.items()):
        try:
            present = set(folders_in(root / parent))
        except OSError:  # a name too long; the ledger will say so of each frame
            continue
        absent, others = sorted(clips - present), sorted(present - clips)
        if absent and others:
            on_defect(
                Defect(
                    "name_mismatch",
                    f"{parent} lacks {len(absent)} of {len(clips)} clips that the JSON names ({shorten(absent, 2)}) and has "
                    f"{len(others)} others ({shorten(others, 2)})",
                )
            )


@dataclass
class _FFSplits:
    """FF++'s split of each person's video, and what applying it to DF40's clips brought to light."""

    of: Mapping[str, str]
    torn: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[str, str | None, str]] = field(default_factory=Counter)
    unlisted_reals: int = 0

    @classmethod
    def read(cls, folder: Path | None) -> _FFSplits:
        """Read train.json, val.json and test.json: lists of ids, or of pairs of ids."""
        of: dict[str, str] = {}
        for split in SPLITS if folder else ():
            assert folder is not None
            for person in _people(folder / f"{split}.json"):
                if of.setdefault(person, split) != split:
                    raise DataError(f"{folder}: {person!r} stands in both {of[person]}.json and {split}.json.")
        return cls(of)

    def applied(self, clip: Clip) -> Clip:
        """Return the clip in the split that the lists give all its people; none where they are in several."""
        if clip.domain != "ff++":
            return clip
        splits = {self.of.get(person) for person in identities(clip)}
        if splits == {None}:
            self.unlisted_reals += clip.is_real and clip.split is None
            return clip
        if len(splits) > 1:
            self.torn[clip.place] += 1
            return replace(clip, split=None)
        (split,) = splits
        assert split is not None
        if clip.split not in (None, split):
            self.moved[clip.place, clip.split, split] += 1
        return replace(clip, split=split)

    def tell(self, on_defect: OnDefect) -> None:
        """Tell what was found, once per place."""
        for place, count in self.torn.items():
            on_defect(Defect("straddles_splits", f"{place}: {count} clips show people of two splits; they are in none"))
        for (place, had, split), count in self.moved.items():
            on_defect(Defect("wrong_split", f"{place}: {count} clips in {had} show people of {split}; that is used"))
        if self.unlisted_reals:
            detail = (
                f"{self.unlisted_reals} clips of FF++ reals are in no split; give FF++'s lists with --set splits=FOLDER"
            )
            on_defect(Defect("no_split", detail))


def _people(path: Path) -> list[str]:
    try:
        listed: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no {path}. splits needs a folder with {', '.join(_FF_LISTS)}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {' '.join(str(error).split())}") from None
    entries: list[Any] = listed if isinstance(listed, list) else [None]
    people: list[Any] = [person for entry in entries for person in (entry if isinstance(entry, list) else [entry])]
    if not all(isinstance(person, str) for person in people):
        raise DataError(f"{path}: expected a list of ids, or of pairs of ids, as text.")
    return people


def identities(clip: Clip) -> tuple[str, ...]:
    """Return who is in a clip, judged by its name: of a swap or reenactment the target, then the source."""
    if clip.domain == "ff++":
        most = 2 if clip.method and clip.method.is_made_of_two else 1
        match = re.match(r"(\d{3})(?:_(\d{3}))?(?!\d)", clip.name)
        found = [who for who in match.groups() if who][:most] if match else []
    elif clip.domain == "celeb-df":
        found = re.findall(r"id\d+", clip.name) or re.findall(r"^\d{5}", clip.name)
    elif clip.is_collection:
        return ()  # nobody says who is in them
    else:
        found = [clip.name.removesuffix("_fake") if clip.domain == "uadfv" else f"{clip.domain}/{clip.name}"]
    return tuple(dict.fromkeys(found)) or (clip.name,)


def _images(root: Path, clip: Clip, labeller: Labeller, count: int) -> Iterator[RawImage]:
    if clip.is_real or clip.method is None:
        label = labeller.label(REAL, None, None, clip.place)
    else:
        label = labeller.label(clip.method.generator, None, clip.method.forgery_type, clip.place)
    people = identities(clip)
    for frame in evenly_spaced(in_numeric_order(clip.frames), count):
        yield RawImage(
            key=frame,
            generator=label.generator,
            family=label.family,
            forgery_type=label.forgery_type,
            domain=clip.domain,
            licence=DF40Source.licence if clip.method else _LICENCES[clip.domain],
            payload=FilePayload(root, frame),
            source_split=clip.split,
            video=None if clip.is_collection else clip.folder,
            frame=None if clip.is_collection else frame_number(frame),
            identities=people,
        )


SOURCE = DF40Source
