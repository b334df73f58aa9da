"""The stage of a preparation: one part in, its crops, gaze maps and rows on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from dfad_bench.prepare.faces import CropRecipe, FaceMaker
from dfad_bench.prepare.ledger import Ledger, PartName, PartSummary
from dfad_bench.types import RawImage


@dataclass(frozen=True, slots=True)
class PartTask:
    """A part to be made, with the digest of its inputs."""

    name: PartName
    inputs: str
    images: tuple[RawImage, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A part that was made just now, and the seconds that each stage took."""

    name: PartName
    summary: PartSummary
    seconds: dict[str, float]


class PartMaker:
    """Makes parts one after the other. Pixels never leave it: only what a part says of itself is returned."""

    def __init__(self, maker: FaceMaker, out: Path) -> None:
        self._maker = maker
        self._ledger = Ledger(out)

    def __call__(self, task: PartTask) -> Made:
        """Make a part and write it, whole or not at all."""
        start = time.perf_counter()
        self._maker.seconds.clear()
        summary = self._ledger.write(task.name, task.inputs, self._maker.make(task.images))
        seconds = self._maker.seconds.copy()
        seconds["write"] = time.perf_counter() - start - sum(seconds.values())
        return Made(task.name, summary, seconds)


def build_part_maker(source: str, recipe: CropRecipe, out: Path) -> PartMaker:
    """Return a stage with a detector and an estimator of its own, as a worker needs it."""
    return PartMaker(FaceMaker(source, recipe), out)
