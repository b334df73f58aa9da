"""Source → Manifest: plan, prepare part by part (in this process or in workers), resume, assemble."""

from __future__ import annotations

import dataclasses
import errno
import heapq
import importlib.metadata
import json
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from dfad_bench import registry
from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, DfadError, UsageError, shorten
from dfad_bench.interfaces import Source
from dfad_bench.prepare.card import dataset_card
from dfad_bench.prepare.faces import UNREADABLE, CropRecipe
from dfad_bench.prepare.ledger import PART, Ledger, PartName, PartSummary, count_reasons, digest_inputs
from dfad_bench.prepare.payloads import MISSING
from dfad_bench.prepare.workers import PartTask, run_parts
from dfad_bench.records.manifest import METADATA, SCHEMA_VERSION, SKIPPED, Footer, PrepareRecipe, read_footer
from dfad_bench.records.results import write_text
from dfad_bench.records.sampling import order_key
from dfad_bench.types import RawImage

Progress = Callable[[int, int | None], None]
"""Called with inputs done and inputs in all, None while that is unknown."""


@dataclass(frozen=True, slots=True)
class Job:
    """One preparation: a source (registered as ``plugin``, here called ``name``), its root, and where to write."""

    name: str
    plugin: str
    source: Source
    root: Path | None
    data: Path
    recipe: CropRecipe
    limit: int | None = None
    workers: int = 1

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


@dataclass
class Plan:
    """What a source lists: parts, and per generator the images declared and those found missing."""

    parts: list[PlannedPart] = field(default_factory=list)
    declared: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    first_missing: str | None = None
    chosen: frozenset[str] | None = None
    """With a limit: the ids that are kept."""


@dataclass(frozen=True, slots=True)
class GeneratorCount:
    """What became of one generator's images."""

    generator: str
    declared: int
    kept: int
    enlarged: int
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a preparation."""

    root: Path
    generators: tuple[GeneratorCount, ...]
    parts: int
    resumed: int
    """Parts that an earlier run had finished."""

    @property
    def skipped(self) -> int:
        """The number of inputs that did not become faces."""
        return sum(sum(count.skipped.values()) for count in self.generators)


def plan(job: Job, on_progress: Progress | None = None) -> Plan:
    """Go once through the source's listing, decoding nothing.

    Raises UsageError for what is wrong with the root or the labels, a repeated id, or an empty listing.
    """
    planned = Plan(chosen=_limited(job) if job.limit is not None else None)
    seen = array("Q")
    for name, images in _chunks(job, planned.chosen):
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
    names = (f"{image.generator}/{image.key}" for image in job.source.images(job.root))
    return shorten(sorted({name for name in names if int(order_key(0, name)[:16], 16) in hashes}))


def _limited(job: Job) -> frozenset[str]:
    """Return the ids of the first ``limit`` images of each generator in hash order."""
    heaps: dict[str, list[tuple[int, str]]] = {}
    assert job.limit is not None
    for image in job.source.images(job.root):
        name = f"{image.generator}/{image.key}"
        heap = heaps.setdefault(image.generator, [])
        item = (-int(order_key(0, name), 16), name)
        if len(heap) < job.limit:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)
    return frozenset(name for heap in heaps.values() for _, name in heap)


def _chunks(job: Job, chosen: frozenset[str] | None) -> Iterator[tuple[PartName, list[RawImage]]]:
    """Yield the source's images in parts of one generator each, holding one open part per generator."""
    opened: dict[str, list[RawImage]] = {}
    made: Counter[str] = Counter()
    for image in job.source.images(job.root):
        if chosen is not None and f"{image.generator}/{image.key}" not in chosen:
            continue
        part = opened.setdefault(image.generator, [])
        part.append(image)
        if len(part) == PART:
            yield PartName(image.generator, made[image.generator]), opened.pop(image.generator)
            made[image.generator] += 1
    for generator, part in opened.items():
        yield PartName(generator, made[generator]), part


def prepare(job: Job, planned: Plan, *, overwrite: bool = False, on_progress: Progress | None = None) -> Report:
    """Carry out a plan; parts that an earlier run finished from the same inputs are kept as they are.

    Raises UsageError where the folder holds something else or was prepared by another recipe, DataError where the disk
    is full or the root has gone; a second call then goes on where this one stopped.
    """
    ledger = Ledger(job.out)
    recipe = _recipe(job)
    _refuse_foreign_folder(job.out)
    try:
        ledger.state.mkdir(parents=True, exist_ok=True)
        with FileLock(ledger.state / "lock", timeout=0):
            _check_recipe(job, ledger, recipe, overwrite)
            return _prepare_locked(job, planned, ledger, recipe, on_progress)
    except Timeout:
        raise UsageError(f"Another dfad-bench is writing to {job.out}. Wait for it, or use another --name.") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(
                f"The disk of {job.out} is full. Free some space and run the same command to go on."
            ) from None
        if isinstance(error, PermissionError):
            raise DataError(f"{error.filename or job.out} cannot be written: {error.strerror}.") from None
        raise


def _prepare_locked(
    job: Job, planned: Plan, ledger: Ledger, recipe: PrepareRecipe, on_progress: Progress | None
) -> Report:
    done = {part.name: s for part in planned.parts if (s := ledger.summary(part.name)) and _is_done(s, part)}
    resumed = len(done)
    wanted = {part.name: part for part in planned.parts if part.name not in done}
    stale = ledger.stale([part.name for part in planned.parts])
    if wanted or stale:
        # The old manifest goes first: killed from here on, the folder has none rather than one of other faces.
        (job.out / METADATA).unlink(missing_ok=True)
    total = sum(part.size for part in planned.parts)
    finished = total - sum(part.size for part in wanted.values())
    if on_progress:
        on_progress(finished, total)
    for name in stale:
        ledger.discard(name)
    if wanted:
        tasks = (
            PartTask(name, wanted[name].inputs, tuple(images))
            for name, images in _chunks(job, planned.chosen)
            if name in wanted
        )
        for name, summary in run_parts(tasks, job.name, job.recipe, job.out, job.workers):
            done[name] = summary
            finished += wanted[name].size
            if on_progress:
                on_progress(finished, total)
    footer = _footer(job, planned, recipe, done)
    if _written_footer(job.out) != footer:
        write_text(job.out / "README.md", dataset_card(footer, job.source))
        ledger.assemble([part.name for part in planned.parts], footer)
    return _report(job, planned, done, resumed)


def _is_done(summary: PartSummary, part: PlannedPart) -> bool:
    """Return whether a part needs no second try: what could not be read may be readable now, though it looks the same."""
    return summary.inputs == part.inputs and not any(skip.reason == UNREADABLE for skip in summary.skips)


def _written_footer(out: Path) -> Footer | None:
    """Return the footer of the manifest on disk, or None where it is absent or unreadable."""
    try:
        return read_footer(out)
    except DfadError:
        return None


def _report(job: Job, planned: Plan, done: dict[PartName, PartSummary], resumed: int) -> Report:
    rows = []
    for generator in sorted(planned.declared):
        summaries = [summary for name, summary in done.items() if name.generator == generator]
        rows.append(
            GeneratorCount(
                generator,
                planned.declared[generator],
                sum(summary.kept for summary in summaries),
                sum(summary.enlarged for summary in summaries),
                count_reasons(summaries),
            )
        )
    return Report(job.out, tuple(rows), len(planned.parts), resumed)


def _footer(job: Job, planned: Plan, recipe: PrepareRecipe, done: dict[PartName, PartSummary]) -> Footer:
    return Footer(
        schema_version=SCHEMA_VERSION,
        source=job.name,
        plugin=job.plugin,
        homepage=job.source.homepage,
        recipe=recipe,
        limit=job.limit,
        declared=sum(planned.declared.values()),
        kept=sum(summary.kept for summary in done.values()),
        skipped=count_reasons(done.values()),
    )


def _recipe(job: Job) -> PrepareRecipe:
    detector = registry.get("face_detectors", job.recipe.detector)()
    estimator = registry.get("gaze_estimators", job.recipe.estimator)()
    return PrepareRecipe(
        face_detector=registry.find("face_detectors", job.recipe.detector).described,
        face_detector_sha256=detector.weights_sha256,
        gaze_estimator=registry.find("gaze_estimators", job.recipe.estimator).described,
        gaze_estimator_sha256=estimator.weights_sha256,
        size=job.recipe.size,
        margin=job.recipe.margin,
        source_options={name: _recorded(value) for name, value in _options(job.source).items()},
        software={"opencv": cv2.__version__}
        | {name: importlib.metadata.version(name) for name in ("dfad-bench", "numpy", "pyarrow")},
    )


def _options(source: Source) -> dict[str, Any]:
    return {f.name: getattr(source, f.name) for f in dataclasses.fields(source) if f.init}  # type: ignore[arg-type]


def _recorded(value: Any) -> Any:
    """Record a file by its hash: its path says nothing on another machine."""
    return f"sha256:{file_sha256(value)}" if isinstance(value, Path) else value


def _check_recipe(job: Job, ledger: Ledger, recipe: PrepareRecipe, overwrite: bool) -> None:
    path = ledger.state / "recipe.json"
    comparable = recipe.model_dump(exclude={"source_options"})
    if path.is_file() and not overwrite:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{key} {earlier.get(key)} → {value}" for key, value in comparable.items() if earlier.get(key) != value
        ]
        if changed:
            raise UsageError(
                f"{job.out} was prepared by another recipe ({shorten(changed)}). "
                "Add --overwrite to prepare it anew, or choose another --name."
            )
    elif overwrite:
        for file in (METADATA, SKIPPED, "README.md"):  # rows go before the files they name, in case we are killed
            (job.out / file).unlink(missing_ok=True)
        for folder in (".prepare/parts", "faces", "gaze"):
            shutil.rmtree(job.out / folder, ignore_errors=True)
    write_text(path, json.dumps(comparable, indent=1) + "\n")


def _refuse_foreign_folder(out: Path) -> None:
    if out.is_dir() and not (out / ".prepare").is_dir() and any(islice(out.iterdir(), 1)):
        raise UsageError(f"{out} holds files that dfad-bench did not write. Choose another --data or --name.")
