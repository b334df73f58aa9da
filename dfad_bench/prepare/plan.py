"""What a source lists: its images in parts, found missing or present, and what is wrong with the dataset itself."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import UsageError, shorten
from dfad_bench.interfaces import Engine, Source
from dfad_bench.prepare.faces import CropRecipe
from dfad_bench.prepare.ledger import MOST_IN_PART, PART, PartName, digest_inputs
from dfad_bench.prepare.payloads import MISSING
from dfad_bench.records.sampling import order_key
from dfad_bench.types import Defect, OnDefect, RawImage

Progress = Callable[[int, int | None], None]
"""Called with inputs done and inputs in all, None while that is unknown."""


@dataclass(frozen=True, slots=True)
class Job:
    """One preparation: a source (registered as ``plugin``, here called ``name``), its root, where to write, and where the
    parts are made: with an engine of several machines, all of them must see root and data under these paths."""

    name: str
    plugin: str
    source: Source
    root: Path | None
    data: Path
    recipe: CropRecipe
    limit: int | None = None
    engine: Engine = field(default_factory=LocalEngine)

    @property
    def out(self) -> Path:
        """The manifest's folder."""
        return self.data / self.name


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part before it is made: its address, the digest of its inputs, and their number."""

    name: PartName
    inputs: str
    size: int


_EXAMPLES = 5


@dataclass
class Defects:
    """What a source said of itself: how often each kind, and the first few details of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, defect: Defect) -> None:
        """Count a defect, and remember it if it is among the first of its kind."""
        self.counts[defect.kind] += 1
        shown = self.examples.setdefault(defect.kind, [])
        if len(shown) < _EXAMPLES:
            shown.append(defect.detail)


def unheard(defect: Defect) -> None:
    """Ignore a defect that an earlier pass over the same listing has counted."""


@dataclass
class Plan:
    """What a source lists: parts, per generator the images declared and those found missing, and what is wrong with it."""

    parts: list[PlannedPart] = field(default_factory=list)
    declared: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    first_missing: str | None = None
    defects: Defects = field(default_factory=Defects)
    chosen: frozenset[str] | None = None
    """With a limit: the ids that are kept."""


def plan(job: Job, on_progress: Progress | None = None) -> Plan:
    """Go once through the source's listing, decoding nothing.

    Raises UsageError for what is wrong with the root or the labels, a repeated id, or an empty listing.
    """
    planned = Plan(chosen=_limited(job) if job.limit is not None else None)
    seen = array("Q")
    for name, images in chunks(job, planned.chosen, planned.defects.add):
        stamps = [image.payload.stamp() for image in images]
        planned.parts.append(PlannedPart(name, digest_inputs(images, stamps), len(images)))
        planned.declared[name.generator] += len(images)
        for image, stamp in zip(images, stamps, strict=True):
            seen.append(int(order_key(0, f"{image.generator}/{image.key}")[:16], 16))
            if stamp == MISSING:
                planned.missing[name.generator] += 1
                planned.first_missing = planned.first_missing or f"{image.generator}/{image.key}"
        if on_progress:
            on_progress(planned.declared.total(), None)
    if not planned.parts:
        raise UsageError(
            f"Source {job.name} lists no image{f' in {job.root}' if job.root else ''}. {job.source.instructions}"
        )
    values, counts = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
    if (counts > 1).any():
        raise UsageError(
            f"Source {job.name} lists the same image twice: {_repeated(job, set(values[counts > 1].tolist()))}."
        )
    planned.parts.sort(key=lambda part: (part.name.generator, part.name.index))
    return planned


def _repeated(job: Job, hashes: set[int]) -> str:
    names = (f"{image.generator}/{image.key}" for image in job.source.images(job.root, unheard))
    return shorten(sorted({name for name in names if int(order_key(0, name)[:16], 16) in hashes}))


def _limited(job: Job) -> frozenset[str]:
    """Return the ids of the first ``limit`` images of each generator in hash order."""
    heaps: dict[str, list[tuple[int, str]]] = {}
    assert job.limit is not None
    for image in job.source.images(job.root, unheard):
        name = f"{image.generator}/{image.key}"
        heap = heaps.setdefault(image.generator, [])
        item = (-int(order_key(0, name), 16), name)
        if len(heap) < job.limit:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)
    return frozenset(name for heap in heaps.values() for _, name in heap)


def chunks(job: Job, chosen: frozenset[str] | None, on_defect: OnDefect) -> Iterator[tuple[PartName, list[RawImage]]]:
    """Yield the source's images in parts of one generator each, holding one open part per generator."""
    opened: dict[str, list[RawImage]] = {}
    made: Counter[str] = Counter()
    for image in job.source.images(job.root, on_defect):
        if chosen is not None and f"{image.generator}/{image.key}" not in chosen:
            continue
        part = opened.get(image.generator, [])
        if len(part) >= PART and not _continues(part, image):
            yield PartName(image.generator, made[image.generator]), part
            made[image.generator] += 1
            part = []
        part.append(image)
        opened[image.generator] = part
    for generator, part in opened.items():
        yield PartName(generator, made[generator]), part


def _continues(part: list[RawImage], image: RawImage) -> bool:
    """Return whether an image belongs to the clip that a full part ends with, and may still join it."""
    return image.video is not None and image.video == part[-1].video and len(part) < MOST_IN_PART
