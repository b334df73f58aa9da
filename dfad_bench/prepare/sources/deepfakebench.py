"""DeepfakeBench: frames cut to 256 px, listed in the JSON files of its ``rearrange`` step."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from dfad_bench.errors import UsageError, did_you_mean, shorten
from dfad_bench.prepare.dataset_json import (
    COMPRESSIONS,
    SPLITS,
    JsonClip,
    evenly_spaced,
    frame_number,
    in_numeric_order,
)
from dfad_bench.prepare.json_clips import Footage, PathFinder, gather, read_clips
from dfad_bench.prepare.labels import Label, Labeller
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, Defect, OnDefect, RawImage

DATASETS = frozenset(
    (
        *("FaceForensics++", "Celeb-DF-v1", "Celeb-DF-v2", "DFDC", "DFDCP", "DeeperForensics-1.0"),
        *("UADFV", "DeepFakeDetection", "FaceShifter", "roop"),
    )
)
"""Folders of DeepfakeBench's ``rgb`` directory: what stands before them in a path is another machine's business."""
_FOLDERS_OF_JSON = ("dataset_json", "preprocessing/dataset_json")
_FF_TERMS, _CELEB_TERMS, _DFDC_TERMS = "FaceForensics++ terms of use", "Celeb-DF terms of use", "DFDC terms of use"
_WITHOUT_NAMES: tuple[Generator, ...] = (
    Generator("dfdcp_a", "DFDC preview, method A", "undisclosed", "fs", 2019, "Dolhansky et al., arXiv:1910.08854"),
    Generator("dfdcp_b", "DFDC preview, method B", "undisclosed", "fs", 2019, "Dolhansky et al., arXiv:1910.08854"),
    Generator(
        "dfdc",
        "DFDC, its methods mixed and unlabelled",
        "undisclosed",
        "fs",
        2020,
        "Dolhansky et al., arXiv:2006.07397",
    ),
)
"""Fakes whose generator the dataset does not tell, so that the taxonomy has no entry for them."""

Naming = Literal["pair", "celeb", "dfd", "uadfv", "video"]
"""How a clip's name tells who is in it."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a label of the JSON stands for: a generator or ``real``, and the real data behind the face."""

    generator: str
    domain: str
    licence: str
    naming: Naming


LABELS: Mapping[str, Meaning] = {
    "FF-real": Meaning(REAL, "ff++", _FF_TERMS, "pair"),
    "FF-DF": Meaning("deepfakes", "ff++", _FF_TERMS, "pair"),
    "FF-F2F": Meaning("face2face", "ff++", _FF_TERMS, "pair"),
    "FF-FS": Meaning("faceswap_kowalski", "ff++", _FF_TERMS, "pair"),
    "FF-NT": Meaning("neuraltextures", "ff++", _FF_TERMS, "pair"),
    "FF-FH": Meaning("faceshifter", "ff++", _FF_TERMS, "pair"),
    # written by no script of DeepfakeBench, but its label table has it where it speaks of FaceShifter
    "FF-SH": Meaning("faceshifter", "ff++", _FF_TERMS, "pair"),
    "DFD_real": Meaning(REAL, "dfd", _FF_TERMS, "dfd"),
    "DFD_fake": Meaning("dfd", "dfd", _FF_TERMS, "dfd"),
    "CelebDFv1_real": Meaning(REAL, "celeb-df", _CELEB_TERMS, "celeb"),
    "CelebDFv1_fake": Meaning("celebdf", "celeb-df", _CELEB_TERMS, "celeb"),
    "CelebDFv2_real": Meaning(REAL, "celeb-df", _CELEB_TERMS, "celeb"),
    "CelebDFv2_fake": Meaning("celebdf", "celeb-df", _CELEB_TERMS, "celeb"),
    "DFDCP_Real": Meaning(REAL, "dfdcp", _DFDC_TERMS, "video"),
    "DFDCP_FakeA": Meaning("dfdcp_a", "dfdcp", _DFDC_TERMS, "video"),
    "DFDCP_FakeB": Meaning("dfdcp_b", "dfdcp", _DFDC_TERMS, "video"),
    "DFDC_Real": Meaning(REAL, "dfdc", _DFDC_TERMS, "video"),
    "DFDC_Fake": Meaning("dfdc", "dfdc", _DFDC_TERMS, "video"),
    "DF_real": Meaning(REAL, "deeperforensics", "DeeperForensics-1.0 terms of use", "video"),
    "DF_fake": Meaning("df_vae", "deeperforensics", "DeeperForensics-1.0 terms of use", "pair"),
    "UADFV_Real": Meaning(REAL, "uadfv", "UADFV terms of use", "uadfv"),
    "UADFV_Fake": Meaning("fakeapp", "uadfv", "UADFV terms of use", "uadfv"),
    # roop swaps faces of Celeb-DF-v2, whose test reals stand beside it
    "roop_Real": Meaning(REAL, "celeb-df", _CELEB_TERMS, "celeb"),
    "roop_Fake": Meaning("inswapper", "celeb-df", _CELEB_TERMS, "celeb"),
}


@dataclass(frozen=True)
class DeepfakeBenchSource:
    """Options: ``json``, ``path_map``, ``compression``, ``frames``, ``labels``.

    json: JSON files, absolute or relative to the root, joined by commas; without it the only one in the root, or all of
    ``dataset_json/`` or ``preprocessing/dataset_json/``. path_map: ``old=new`` beginnings of paths, joined by commas.
    compression: ``c23``, ``c40`` or ``raw`` alone, where there are several. frames: how many of a video, spread evenly.
    labels: ``label=generator`` (or ``=real``), joined by commas, for labels that DeepfakeBench does not have.
    """

    json: str | None = None
    path_map: str | None = None
    compression: str | None = None
    frames: int = 32
    labels: str | None = None

    title: ClassVar[str] = "DeepfakeBench's frames and dataset JSON"
    homepage: ClassVar[str] = "https://github.com/SCLBD/DeepfakeBench"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (DeepfakeBench), and the terms of each dataset"
    instructions: ClassVar[str] = (
        "Get frames and JSON as https://github.com/SCLBD/DeepfakeBench describes, the datasets from their owners. Give "
        "--root FOLDER that holds FaceForensics++/, Celeb-DF-v2/, … and dataset_json/*.json (or say --set json=FILE)."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "whole_image"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators that DeepfakeBench's labels stand for, and those given by ``labels``."""
        own = {generator.name: generator for generator in _WITHOUT_NAMES}
        names = dict.fromkeys(m.generator for m in self._meanings().values() if m.generator != REAL)
        return tuple(own.get(name) or known().get(name) for name in names)

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the chosen frames of every clip, folder by folder, each picture once, in the strictest of its splits."""
        assert root is not None
        self._check()
        meanings = self._meanings()
        finder = PathFinder(root, DATASETS, self.path_map)
        clips = read_clips(
            self._files(root),
            finder,
            on_defect,
            were_named=self.json is not None,
            keep=lambda clip: bool(_meaning(clip, meanings)) and self._is_wanted(clip),
            fakes={label: meaning.generator != REAL for label, meaning in meanings.items()},
        )
        footage = gather(clips, finder.place, lambda clip, _: _meaning(clip, meanings), (), on_defect)
        _tell_missing_classes(footage, on_defect)
        labeller = Labeller(known().extended(_WITHOUT_NAMES))
        for each in footage:
            label = labeller.label(each.kind.generator, None, None, each.clip.label)
            yield from _images(root, each, label, self.frames)

    def _is_wanted(self, clip: JsonClip) -> bool:
        return self.compression is None or clip.compression in (None, self.compression)

    def _check(self) -> None:
        if self.frames < 1:
            raise UsageError(f"frames={self.frames}: expected 1 or more frames of each video.")
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise UsageError(f"compression={self.compression!r}: expected one of {', '.join(COMPRESSIONS)}.")

    def _meanings(self) -> dict[str, Meaning]:
        meanings = dict(LABELS)
        for pair in (self.labels or "").split(","):
            label, equals, name = pair.strip().partition("=")
            if pair.strip() and not (equals and label and name):
                raise UsageError(f"labels={pair!r}: expected label=GENERATOR or label=real.")
            if equals:
                generator = REAL if name == REAL else known().extended(_WITHOUT_NAMES).get(name).name
                meanings[label] = Meaning(generator, label.rpartition("_")[0].lower() or label, "unspecified", "video")
        return meanings

    def _files(self, root: Path) -> list[Path]:
        if self.json is not None:
            return [root / name.strip() for name in self.json.split(",") if name.strip()]
        return find_json_files(root, self.instructions)


def find_json_files(root: Path, instructions: str) -> list[Path]:
    """Return the only JSON file in the root, or all in its folder of dataset JSON; raise UsageError where none is."""
    here = sorted(root.glob("*.json"))
    below = [path for folder in _FOLDERS_OF_JSON for path in sorted((root / folder).glob("*.json"))]
    if len(here) == 1 or below:
        return below or here
    many = f"several JSON files ({shorten(path.name for path in here)})" if here else "no dataset JSON"
    raise UsageError(f"{root} holds {many}. Name the one to read with --set json=FILE. {instructions}")


def identities(video: str, naming: Naming) -> tuple[str, ...]:
    """Return who is in a clip, judged by its name: of a swap the target, then the source; else the clip's own name."""
    match = re.fullmatch(_NAMES[naming], video) if naming in _NAMES else None
    return tuple(dict.fromkeys(who for who in match.groups() if who)) if match else (video,)


_NAMES: Mapping[Naming, str] = {
    "pair": r"([A-Za-z0-9]+)(?:_([A-Za-z0-9]+))?",
    "celeb": r"(id\d+)(?:_(id\d+))?_\d+",
    "dfd": r"(\d+)(?:_(\d+))?__.*",
    "uadfv": r"(.+?)(?:_fake)?",
}


def _meaning(clip: JsonClip, meanings: Mapping[str, Meaning]) -> Meaning:
    if clip.label not in meanings:
        raise UsageError(
            f"{clip.dataset}: {clip.label!r} is no label of DeepfakeBench.{did_you_mean(clip.label, meanings)} "
            f"Map it with --set labels={clip.label}=GENERATOR, or read DF40's files with --source df40."
        )
    return meanings[clip.label]


def _images(root: Path, footage: Footage[Meaning], label: Label, count: int) -> Iterator[RawImage]:
    for frame in evenly_spaced(in_numeric_order(footage.frames), count):
        mask = footage.masks.get(posixpath.splitext(posixpath.basename(frame))[0])
        yield RawImage(
            key=frame,
            generator=label.generator,
            family=label.family,
            forgery_type=label.forgery_type,
            domain=footage.kind.domain,
            licence=footage.kind.licence,
            payload=FilePayload(root, frame),
            source_split=footage.split,
            video=None if footage.is_collection else footage.folder,
            frame=frame_number(frame),
            identities=identities(footage.video, footage.kind.naming),
            mask=None if mask is None else FilePayload(root, mask),
        )


def _tell_missing_classes(footage: Sequence[Footage[Meaning]], on_defect: OnDefect) -> None:
    """Tell which label, or which folder of a label, a split lacks that the same dataset has in another one."""
    counts: defaultdict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
    for each in footage:
        counts[each.clip.dataset][each.clip.label, _class_folder(each.folder), each.split] += 1
    for dataset, classes in counts.items():
        present = [split for split in SPLITS if any(split == has for _, _, has in classes)]
        for label in dict.fromkeys(label for label, _, _ in classes):
            folders = {folder for has, folder, _ in classes if has == label}
            for split in present:
                lacking = sorted(folder for folder in folders if not classes[label, folder, split])
                if len(lacking) == len(folders):
                    on_defect(Defect("missing_class", f"{dataset}: {split} has no clip of {label}"))
                elif lacking:
                    on_defect(
                        Defect("missing_class", f"{dataset}: {split} has no clip of {label} from {shorten(lacking)}")
                    )


def _class_folder(folder: str) -> str:
    """Return the folder of a clip's class: without the clip, ``frames`` and compression, or anything below a split."""
    parts = posixpath.dirname(folder).split("/")
    while parts and parts[-1] in ("frames", *COMPRESSIONS):
        parts.pop()
    below_split = next((number for number, part in enumerate(parts) if part in SPLITS), len(parts))
    return "/".join(parts[:below_split])


SOURCE = DeepfakeBenchSource
