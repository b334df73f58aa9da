"""What two splits of a peer's dataset JSON share: clips, frames, and people as the names of videos tell them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations

from dfad_bench.analysis.audit import SAME_SHARE
from dfad_bench.config import Strict
from dfad_bench.prepare.dataset_json import SPLITS, JsonClip

_EXAMPLES = 3


class Shared(Strict):
    """What two splits share: ``count`` of the ``of`` things of the smaller one, with a few names.

    ``smaller``: which of the two that is, None where they have equally many.
    """

    what: str
    first: str
    second: str
    smaller: str | None
    count: int
    of: int
    examples: list[str]


def find_shared(clips: Sequence[JsonClip]) -> list[Shared]:
    """Return what stands in two splits: clips, frames, and people as the names of videos tell them."""
    found = []
    for what, of in (("video", _video), ("frame", _frames), ("identity", _identities)):
        holders: dict[str, set[str]] = {split: set() for split in SPLITS}
        for clip in clips:
            holders[clip.split].update(of(clip))
        for first, second in combinations(SPLITS, 2):
            both = holders[first] & holders[second]
            if both:
                sizes = {name: len(holders[name]) for name in (first, second)}
                found.append(
                    Shared(
                        what=what,
                        first=first,
                        second=second,
                        smaller=None if len(set(sizes.values())) == 1 else min(sizes, key=sizes.__getitem__),
                        count=len(both),
                        of=min(sizes.values()),
                        examples=sorted(both)[:_EXAMPLES],
                    )
                )
    return found


def _video(clip: JsonClip) -> Iterable[str]:
    return ("/".join(filter(None, (clip.label, clip.compression, clip.video))),)


def _frames(clip: JsonClip) -> Iterable[str]:
    return clip.frames


_CELEB_DF = re.compile(r"id(\d+)(?:_id(\d+))?_\d+")
_SWAP_OF_NUMBERS = re.compile(r"(\d{3})(?:_(\d{3}))?")
_FACE_FORENSICS = ("FaceForensics", "FF-", "FF_", "_ff", "DeepFakeDetection", "FaceShifter")


def _identities(clip: JsonClip) -> set[str]:
    """Return the people whom a video's name tells: of a swap both.

    Celeb-DF: ``id3_id16_0002``, of reals ``id3_0002``; FaceForensics++ and what was made from it: ``033_097``, of reals
    ``033``.
    """
    match = _CELEB_DF.fullmatch(clip.video)
    if match:
        return {f"id{number}" for number in match.groups() if number}
    of_face_forensics = any(part in text for part in _FACE_FORENSICS for text in (clip.dataset, clip.label))
    match = _SWAP_OF_NUMBERS.fullmatch(clip.video)
    if match and (of_face_forensics or match[2]):
        return {number for number in match.groups() if number}
    return set()


def is_same(shared: Shared) -> bool:
    """Return whether two splits are one, or one a part of the other, and not two that leak."""
    return shared.what in ("video", "frame") and shared.of >= _EXAMPLES and shared.count >= SAME_SHARE * shared.of


def shared_problems(shared: Sequence[Shared]) -> list[str]:
    """Return a line for every two splits that are the same faces, one a part of the other, or leak into each other."""
    found, told = [], set()
    for each in shared:
        pair = (each.first, each.second)
        if is_same(each) and pair not in told:
            told.add(pair)
            told_as = f"{each.first} and {each.second} are the same"
            if each.smaller is not None:
                other = each.second if each.smaller == each.first else each.first
                told_as = f"{each.smaller} is a part of {other}"
            found.append(
                f"{told_as}: {each.count} of {each.of} {plural(each.what)} stand in both. What is chosen on one is not "
                "tested by the other."
            )
    return found + [
        f"Leakage: {each.first} and {each.second} share {each.count} of {each.of} {plural(each.what)}, such as "
        f"{', '.join(each.examples)}."
        for each in shared
        if (each.first, each.second) not in told or each.what == "identity"
    ]


def plural(what: str) -> str:
    """Return what is shared, of several."""
    return "identities" if what == "identity" else f"{what}s"
