"""FaceForensics++ as its download script lays it out, with its official splits, and Google's DeepFakeDetection beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import PositiveInt, TypeAdapter, ValidationError

from dfad_bench.config import one_line
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.prepare.clip_listing import Clip, check_tree, clip_images, list_clips, missing_clip
from dfad_bench.prepare.listing import folders_in
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.prepare.video import VideoFrame
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, Defect, OnDefect, Payload, RawImage

ORIGINALS = {"youtube": "ff++", "actors": "dfd"}
"""Folder of real clips → domain."""
METHODS = {
    "Deepfakes": "deepfakes",
    "Face2Face": "face2face",
    "FaceSwap": "faceswap_kowalski",  # not the faceswap of DF40, which is deepfakes/faceswap
    "FaceShifter": "faceshifter",
    "NeuralTextures": "neuraltextures",
    "DeepFakeDetection": "dfd",
}
"""Folder of manipulated clips → generator."""
SPLITS = ("train", "val", "test")
_FRAMES = ("frames", "images")
"""What the folder of extracted frames is called by those who came after, and by the dataset's own script."""
_FFPP_CLIP = re.compile(r"(\d{3})(?:_(\d{3}))?")
_DFD_CLIP = re.compile(r"(\d{2})(?:_(\d{2}))?__.+")


@dataclass(frozen=True, slots=True)
class _Folder:
    """One folder of clips: ``place`` is what stands before the compression, such as ``manipulated_sequences/FaceSwap``."""

    place: str
    generator: str
    domain: str

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]


@dataclass(frozen=True)
class FaceForensicsSource:
    """Options: ``compression`` (raw, c23 or c40), ``frames`` taken from each clip, evenly spaced over it, and ``splits``,
    the folder of the official train.json, val.json and test.json, which is looked for in ROOT/splits too.

    A manipulated clip ``<target>_<source>`` shows two people, the target first: the picture is the target's. Its split is
    that of both. The official splits say nothing of DeepFakeDetection and its actors: they have none. Videos are read where
    they are, else frames in ``frames/<clip>`` or ``images/<clip>``. Masks are taken along where they lie as the clips do; a
    mask video is sampled as its clip is, so that its frames fit where the two have as many.
    """

    compression: Literal["raw", "c23", "c40"] = "c23"
    frames: PositiveInt = 32
    splits: Path | None = None

    title: ClassVar[str] = "FaceForensics++ (Rössler et al., ICCV 2019, arXiv:1901.08971) and DeepFakeDetection"
    homepage: ClassVar[str] = "https://github.com/ondyari/FaceForensics"
    licence: ClassVar[str] = "FaceForensics ToU"
    instructions: ClassVar[str] = (
        "Ask for FaceForensics++ with the form linked at https://github.com/ondyari/FaceForensics; its authors answer with "
        "a download script. Then give --root FOLDER, which holds original_sequences/{youtube,actors}/{raw,c23,c40}/videos/ "
        "and manipulated_sequences/{Deepfakes,…}/{raw,c23,c40}/videos/ (or frames/<clip>/), and --set splits=FOLDER "
        "with train.json, val.json and test.json from dataset/splits of that repository."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the taxonomy's entries of the six methods."""
        return tuple(known().get(name) for name in METHODS.values())

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images clip by clip, originals first; the clips that the splits name and the disk lacks count as missing.

        Tells of ``no_split_file``, ``in_two_splits``, ``split_straddle``, ``not_in_splits``, ``missing_clips``,
        ``empty_clip``, ``empty_folder``, ``clip_twice``, ``videos_and_frames``, ``unknown_folder``, ``no_such_compression``
        and ``odd_name``. Raises UsageError where there is nothing of that compression.
        """
        assert root is not None
        check_tree(root, ("original_sequences", "manipulated_sequences"), self.instructions)
        folders = self._folders(root, on_defect)
        splits = self._splits(root, on_defect)
        for folder in folders:
            yield from self._clips(root, folder, splits if folder.domain == "ff++" else None, on_defect)

    def _folders(self, root: Path, on_defect: OnDefect) -> list[_Folder]:
        """Return the folders that hold the compression, having told of the others."""
        expected = [_Folder(f"original_sequences/{name}", REAL, domain) for name, domain in ORIGINALS.items()]
        expected += [
            _Folder(f"manipulated_sequences/{name}", generator, "dfd" if generator == "dfd" else "ff++")
            for name, generator in METHODS.items()
        ]
        places = {folder.place for folder in expected}
        for parent in ("original_sequences", "manipulated_sequences"):
            unknown = [f"{parent}/{name}" for name in folders_in(root / parent) if f"{parent}/{name}" not in places]
            if unknown:
                on_defect(
                    Defect("unknown_folder", f"{shorten(unknown)} are no folders of FaceForensics++, and left out")
                )
        present = [folder for folder in expected if (root / folder.place).is_dir()]
        found = [folder for folder in present if (root / folder.place / self.compression).is_dir()]
        others = {folder.place: folders_in(root / folder.place) for folder in present if folder not in found}
        if not found:
            there = sorted({name for names in others.values() for name in names} & {"raw", "c23", "c40"})
            hint = f" There is {', '.join(there)}: choose it with --set compression={there[0]}." if there else ""
            raise UsageError(f"{root} holds nothing of compression {self.compression}.{hint} {self.instructions}")
        for place, names in others.items():
            on_defect(
                Defect("no_such_compression", f"{place} holds no {self.compression}, but {shorten(names) or 'nothing'}")
            )
        return found

    def _splits(self, root: Path, on_defect: OnDefect) -> _Splits | None:
        folder = self.splits or root / "splits"
        files = {split: folder / f"{split}.json" for split in SPLITS}
        absent = [path.name for path in files.values() if not path.is_file()]
        if absent and (self.splits is not None or len(absent) < len(files)):
            raise UsageError(f"{folder} holds no {shorten(absent)}. Take it from dataset/splits of {self.homepage}.")
        if absent:
            on_defect(
                Defect("no_split_file", f"{folder} holds no train.json, val.json, test.json: no face has a split")
            )
            return None
        splits = _Splits.of({split: _pairs(path) for split, path in files.items()})
        if splits.torn:
            on_defect(
                Defect(
                    "in_two_splits", f"{shorten(splits.torn)} stand in more than one file of {folder} and get no split"
                )
            )
        return splits

    def _clips(self, root: Path, folder: _Folder, splits: _Splits | None, on_defect: OnDefect) -> Iterator[RawImage]:
        base = f"{folder.place}/{self.compression}"
        clips = list_clips(root, [f"{base}/videos"], [f"{base}/{name}" for name in _FRAMES], on_defect)
        if not clips:
            on_defect(Defect("empty_folder", f"{base} holds no clip"))
        people = {name: _people(name, folder) for name in clips}
        if splits is not None:
            splits.tell(base, people, on_defect)
            absent = sorted(splits.listed(folder) - clips.keys())
            if absent:
                on_defect(Defect("missing_clips", f"{base} lacks {len(absent)} clips of the splits: {shorten(absent)}"))
            like = tuple(clips.values())
            clips |= {name: missing_clip(name, f"{base}/videos", f"{base}/{_FRAMES[0]}", like) for name in absent}
            people |= {name: _people(name, folder) for name in absent}
        odd = [name for name, ids in people.items() if not ids]
        if odd:
            on_defect(Defect("odd_name", f"{shorten(odd)} of {base} name no person as FaceForensics++ does"))
        masks = {} if folder.generator == REAL else _masks(root, folder, self.compression)
        for name, clip in sorted(clips.items()):
            split = None if splits is None else splits.split(people[name])
            yield from self._images(root, folder, clip, people[name], split, masks.get(name))

    def _images(
        self, root: Path, folder: _Folder, clip: Clip, ids: tuple[str, ...], split: str | None, mask: Clip | None
    ) -> Iterator[RawImage]:
        entry = None if folder.generator == REAL else known().get(folder.generator)
        video = f"{folder.name}/{self.compression}/{clip.name}"
        for image in clip_images(root, clip, self.frames):
            yield RawImage(
                key=f"{video}#{image.place}",
                generator=folder.generator,
                family=entry.family if entry else REAL,
                forgery_type=entry.forgery_type if entry else REAL,
                domain=folder.domain,
                licence=self.licence,
                payload=image.payload,
                source_split=split,
                video=video,
                frame=image.frame,
                identities=ids,
                mask=None if mask is None else _mask_of(root, image.payload, mask),
            )


@dataclass(frozen=True, slots=True)
class _Splits:
    """The official splits: the split of each id, the ids that have two, and the pairs that were manipulated."""

    split_of: Mapping[str, str]
    torn: Sequence[str]
    pairs: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, pairs: Mapping[str, Sequence[tuple[str, str]]]) -> _Splits:
        found: dict[str, set[str]] = {}
        for split, listed in pairs.items():
            for who in {who for pair in listed for who in pair}:
                found.setdefault(who, set()).add(split)
        split_of = {who: min(splits) for who, splits in found.items() if len(splits) == 1}
        return cls(split_of, sorted(found.keys() - split_of), [pair for listed in pairs.values() for pair in listed])

    def listed(self, folder: _Folder) -> set[str]:
        """Return the clips that the folder should hold."""
        if folder.generator == REAL:
            return {who for pair in self.pairs for who in pair}
        return {f"{one}_{other}" for pair in self.pairs for one, other in (pair, pair[::-1])}

    def split(self, ids: Sequence[str]) -> str | None:
        """Return the split of a clip: that of everyone in it, None where they disagree or have none."""
        splits = {self.split_of.get(who) for who in ids}
        return splits.pop() if len(splits) == 1 else None

    def tell(self, base: str, people: Mapping[str, Sequence[str]], on_defect: OnDefect) -> None:
        """Tell of clips whose people stand in different splits, or in none."""
        straddle = [name for name, ids in people.items() if len({self.split_of.get(who) for who in ids} - {None}) > 1]
        unlisted = [name for name, ids in people.items() if {*ids} - {*self.split_of, *self.torn}]
        if straddle:
            what = "mix people of different splits: they get no split"
            on_defect(Defect("split_straddle", f"{len(straddle)} clips of {base} {what}: {shorten(straddle)}"))
        if unlisted:
            what = "show someone the splits do not name: they get no split"
            on_defect(Defect("not_in_splits", f"{len(unlisted)} clips of {base} {what}: {shorten(unlisted)}"))


def _pairs(path: Path) -> list[tuple[str, str]]:
    try:
        return TypeAdapter(list[tuple[str, str]]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is no list of pairs of ids: {one_line(error)}") from None


def _people(name: str, folder: _Folder) -> tuple[str, ...]:
    """Return the ids in a clip's name, target first; none where it is not named as its folder demands."""
    match = (_DFD_CLIP if folder.domain == "dfd" else _FFPP_CLIP).fullmatch(name)
    if match is None or (match[2] is None) != (folder.generator == REAL):
        return ()
    return tuple(who for who in match.groups() if who is not None)


def _masks(root: Path, folder: _Folder, compression: str) -> dict[str, Clip]:
    """Return the masks of each clip: beside the compressions, as published, or within one, as DeepfakeBench has them."""
    beside, within = f"{folder.place}/masks", f"{folder.place}/{compression}/masks"
    places = [f"{beside}/{name}" for name in _FRAMES] + [within]
    return list_clips(root, [f"{beside}/videos", beside], places, lambda _: None)


def _mask_of(root: Path, image: Payload, mask: Clip) -> Payload | None:
    """Return an image's mask where mask and clip lie alike: both as videos, or both as files with equal names."""
    if isinstance(image, VideoFrame):
        return VideoFrame(root, mask.path, image.position, image.of) if mask.frames is None else None
    if isinstance(image, FilePayload) and mask.frames is not None:
        stem = Path(image.relative).stem
        files = [file for file in mask.frames if Path(file).stem == stem]
        return FilePayload(root, f"{mask.path}/{files[0]}") if files else None
    return None


SOURCE = FaceForensicsSource
