"""Audits a dataset JSON of DeepfakeBench or DF40 as it stands, without needing any image: do its splits leak?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dfad_bench.analysis.audit import SCHEMA_VERSION
from dfad_bench.analysis.balance import LOPSIDED
from dfad_bench.analysis.peer_splits import Shared, find_shared, plural, shared_problems
from dfad_bench.analysis.shortcut import Table
from dfad_bench.config import Strict
from dfad_bench.errors import UsageError, shorten
from dfad_bench.prepare.dataset_json import SPLITS, JsonClip, frame_number, read_dataset_json
from dfad_bench.prepare.json_clips import PathFinder
from dfad_bench.types import Defect

_EXAMPLES = 3
_CONSECUTIVE_SHARE = 0.9
"""Frames count as the first of their video where so many clips list consecutive numbers that begin at 0 or 1."""
_FEWEST_FRAMES = 8
"""Clips of fewer frames say nothing of how frames were chosen."""


class LabelCount(Strict):
    """Clips and frames of one label in one split. ``empty``: clips without frames."""

    label: str
    fake: bool
    split: str
    clips: int
    frames: int
    empty: int


class VideoNames(Strict):
    """What becomes of grouping frames by the bare name of their video's folder, as peers do for video-level scores.

    ``videos``: those that there are in the test split, or in all splits where there is none; ``groups``: those that the
    names tell apart; ``mixed``: names that stand for reals and fakes at once.
    """

    videos: int
    groups: int
    mixed: int
    examples: list[str]


class FrameChoice(Strict):
    """How the frames of clips were chosen, as their numbers tell.

    ``clips``: those of enough numbered frames; ``consecutive``: those that list only numbers that follow each other, from 0
    or 1 on: the beginning of a video instead of all of it.
    """

    clips: int
    consecutive: int
    examples: list[str]


class MissingFiles(Strict):
    """Frames and masks that are not below the root, of those listed."""

    checked: int
    missing: int
    examples: list[str]


class PeerReport(Strict):
    """Everything the audit of a dataset JSON found; ``problems`` and ``warnings`` as in ``audit.AuditReport``."""

    schema_version: int = SCHEMA_VERSION
    source: str
    clips: int
    frames: int
    splits: list[str]
    shared: list[Shared]
    labels: list[LabelCount]
    video_names: VideoNames
    frame_choice: FrameChoice
    files: MissingFiles | None
    defects: dict[str, list[str]]
    problems: list[str]
    warnings: list[str]
    verdict: str


def audit_json(
    path: Path, root: Path | None = None, path_map: str | None = None, fakes: Mapping[str, bool] | None = None
) -> PeerReport:
    """Audit one file; root: the folder of the dataset, where its files shall be looked for as well.

    ``path_map`` is ``old=new`` where files have moved, as of ``prepare.json_clips.PathFinder``; ``fakes`` says of labels
    whether they are fake where they do not tell. Raises UsageError and DataError as
    ``prepare.dataset_json.read_dataset_json`` does, and UsageError for a root that is no folder.
    """
    if root is not None and not root.is_dir():
        raise UsageError(f"There is no folder {root}. Give the folder that the paths of {path.name} are relative to.")
    defects: dict[str, list[str]] = defaultdict(list)

    def note(defect: Defect) -> None:
        defects[defect.kind].append(defect.detail.removeprefix(f"{path.name}: "))

    clips = list(read_dataset_json(path, note, fakes))
    splits = [split for split in SPLITS if any(clip.split == split for clip in clips)]
    shared = find_shared(clips)
    labels = count_labels(clips)
    names = group_by_name(clips)
    choice = judge_frames(clips)
    files = None if root is None else find_missing(clips, root, path_map)
    problems = [*shared_problems(shared), *_file_problems(files)]
    return PeerReport(
        source=path.name,
        clips=len(clips),
        frames=sum(len(clip.frames) for clip in clips),
        splits=splits,
        shared=shared,
        labels=labels,
        video_names=names,
        frame_choice=choice,
        files=files,
        defects=dict(sorted(defects.items())),
        problems=problems,
        warnings=[*_label_warnings(labels, splits), *_name_warnings(names), *_choice_warnings(choice), *_told(defects)],
        verdict=_verdict(problems, splits),
    )


# --- what does it hold? --------------------------------------------------------------------------------------------


def count_labels(clips: Iterable[JsonClip]) -> list[LabelCount]:
    """Count clips and frames by label and split, in the order of splits."""
    counts: dict[tuple[str, str, bool], list[int]] = defaultdict(lambda: [0, 0, 0])
    for clip in clips:
        each = counts[clip.label, clip.split, clip.is_fake]
        each[0] += 1
        each[1] += len(clip.frames)
        each[2] += not clip.frames
    ordered = sorted(counts, key=lambda key: (SPLITS.index(key[1]), key[2], key[0]))
    return [
        LabelCount(
            label=label, fake=fake, split=split, clips=(n := counts[label, split, fake])[0], frames=n[1], empty=n[2]
        )
        for label, split, fake in ordered
    ]


def _label_warnings(labels: Sequence[LabelCount], splits: Collection[str]) -> list[str]:
    found = []
    absent = [f"no {name}" for name in SPLITS if name not in splits]
    lopsided = []
    for split in splits:
        counts = {
            fake: sum(each.frames for each in labels if each.split == split and each.fake == fake)
            for fake in (False, True)
        }
        absent += [f"no {'fake' if fake else 'real'} in {split}" for fake, count in counts.items() if not count]
        least, most = sorted(counts.values())
        if least and most >= LOPSIDED * least:
            lopsided.append(f"{split} ({counts[False]} real, {counts[True]} fake frames)")
    for name in sorted({each.label for each in labels}):
        held = {each.split for each in labels if each.label == name and each.frames}
        absent += [f"no {name} in {split}" for split in splits if held and split not in held]
    if absent:
        found.append(f"What is absent: {shorten(dict.fromkeys(absent), most=8)}.")
    if lopsided:
        found.append(f"Splits of very unequal numbers of reals and fakes: {shorten(lopsided)}.")
    return found


def group_by_name(clips: Sequence[JsonClip]) -> VideoNames:
    """Compare the videos of the test split with the groups that their bare names form."""
    tested = [clip for clip in clips if clip.split == "test" and clip.frames] or [clip for clip in clips if clip.frames]
    owners: dict[str, set[tuple[str, str | None, bool]]] = defaultdict(set)
    for clip in tested:
        owners[clip.video].add((clip.label, clip.compression, clip.is_fake))
    collided = [name for name, them in sorted(owners.items()) if len(them) > 1]
    return VideoNames(
        videos=sum(len(them) for them in owners.values()),
        groups=len(owners),
        mixed=sum(len({fake for *_, fake in them}) > 1 for them in owners.values()),
        examples=[
            f"{name} ({', '.join(sorted({label for label, *_ in owners[name]}))})" for name in collided[:_EXAMPLES]
        ],
    )


def _name_warnings(names: VideoNames) -> list[str]:
    if names.groups == names.videos:
        return []
    return [
        f"Bare video names stand for several videos: grouped by them, as DeepfakeBench does, {names.videos} videos form "
        f"{names.groups} groups, {names.mixed} of them of reals and fakes at once, such as {'; '.join(names.examples)}. Video "
        "scores made so are wrong."
    ]


def judge_frames(clips: Iterable[JsonClip]) -> FrameChoice:
    """Count the clips whose frames are the first of their video."""
    judged, consecutive = 0, 0
    examples: list[str] = []
    for clip in clips:
        numbers = sorted(number for frame in clip.frames if (number := frame_number(frame)) is not None)
        if len(numbers) < _FEWEST_FRAMES:
            continue
        judged += 1
        if numbers[0] <= 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
            consecutive += 1
            if len(examples) < _EXAMPLES:
                examples.append(f"{clip.label}/{clip.video} ({numbers[0]}…{numbers[-1]})")
    return FrameChoice(clips=judged, consecutive=consecutive, examples=examples)


def _choice_warnings(choice: FrameChoice) -> list[str]:
    if not choice.clips or choice.consecutive < _CONSECUTIVE_SHARE * choice.clips:
        return []
    return [
        f"{choice.consecutive} of {choice.clips} clips list consecutive frames only, from the first on, such as "
        f"{', '.join(choice.examples)}: the beginning of a video, or frames that were numbered anew, not an even choice."
    ]


def _told(defects: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the reader's own complaints, leaving out what is a problem here already."""
    return [
        f"{kind.replace('_', ' ').capitalize()}: {shorten(details, most=_EXAMPLES)}."
        for kind, details in sorted(defects.items())
        if kind != "in_two_splits"
    ]


# --- are the files there? ------------------------------------------------------------------------------------------


def find_missing(clips: Iterable[JsonClip], root: Path, path_map: str | None = None) -> MissingFiles:
    """Look for every frame and mask below the root, opening none; what leads out of the root is missing.

    What a path leaves out, or holds before the dataset's own folder, is found out as ``prepare`` does.
    """
    listed = list(clips)
    names = sorted({path for clip in listed for path in (*clip.frames, *clip.masks)})
    finder = PathFinder(root, {clip.dataset for clip in listed}, path_map)
    finder.learn(names)
    finder.check_maps(names)
    base, missing = root.resolve(), 0
    examples: list[str] = []
    for name in names:
        if not _is_there(base, finder.place(name)):
            missing += 1
            if len(examples) < _EXAMPLES:
                examples.append(name)
    return MissingFiles(checked=len(names), missing=missing, examples=examples)


def _is_there(base: Path, name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return False
    try:
        found = (base / path).resolve()
        return found.is_relative_to(base) and found.is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def _file_problems(files: MissingFiles | None) -> list[str]:
    if files is None or not files.missing:
        return []
    return [
        f"{files.missing} of {files.checked} files are missing below the root, such as {', '.join(files.examples)}."
    ]


# --- what it comes to ----------------------------------------------------------------------------------------------


def _verdict(problems: Sequence[str], splits: Sequence[str]) -> str:
    if problems:
        told = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return f"BROKEN: {told}. Scores made with these splits do not say what they claim to."
    if len(splits) < 2:
        return "There is one split only, so whether splits leak cannot be said."
    return "No leakage found between the splits, as far as paths and names of videos tell."


def peer_tables(report: PeerReport) -> list[Table]:
    """Return the report as tables of text and numbers, to be printed in this order."""
    looked = f"{report.clips} clips, {report.frames} frames"
    rows: list[tuple[object, ...]] = []
    for what in ("video", "frame", "identity"):
        found = [
            f"{each.count} of {each.of} by {each.first} and {each.second}"
            for each in report.shared
            if each.what == what
        ]
        rows.append((f"shared {plural(what)}", looked, ", ".join(found) or "none"))
    names, choice = report.video_names, report.frame_choice
    rows.append(
        ("videos told apart by bare name", f"{names.videos} videos", f"{names.groups} groups, {names.mixed} mixed")
    )
    rows.append(("consecutive frames only", f"{choice.clips} clips", choice.consecutive or "none"))
    if report.files is not None:
        rows.append(("missing files", f"{report.files.checked} files", report.files.missing or "none"))
    kinds = Counter({kind: len(details) for kind, details in report.defects.items()})
    rows.append(
        ("defects of the file", looked, ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none")
    )
    counts: list[tuple[object, ...]] = [
        (each.label, "fake" if each.fake else "real", each.split, each.clips, each.frames, each.empty)
        for each in report.labels
    ]
    return [
        ("checks", ("check", "looked at", "found"), rows),
        ("labels", ("label", "is", "split", "clips", "frames", "empty clips"), counts),
    ]
