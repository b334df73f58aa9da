"""Plan → Manifest: prepare part by part, wherever the engine does that, resume, assemble."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dfad_bench import registry
from dfad_bench.config import file_sha256
from dfad_bench.errors import DfadError, UsageError, shorten
from dfad_bench.interfaces import Source
from dfad_bench.prepare.card import dataset_card
from dfad_bench.prepare.counts import GeneratorCount, count_generators, count_reasons, kept_report
from dfad_bench.prepare.faces import FaceMaker
from dfad_bench.prepare.ledger import Ledger, PartName, PartSummary
from dfad_bench.prepare.part_maker import Made, PartMaker, PartTask, build_part_maker
from dfad_bench.prepare.plan import Job, Plan, PlannedPart, Progress, chunks, unheard
from dfad_bench.prepare.reading import UNREADABLE
from dfad_bench.prepare.software import software
from dfad_bench.prepare.sole_writer import sole_writer
from dfad_bench.prepare.take_down import honour_tombstones
from dfad_bench.records.face_files import SHARDS
from dfad_bench.records.json_files import write_text
from dfad_bench.records.manifest import (
    FEATURES,
    METADATA,
    REPORT,
    SCHEMA_VERSION,
    SKIPPED,
    Footer,
    PrepareRecipe,
    read_footer,
)
from dfad_bench.records.tombstones import FILE as TOMBSTONES


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a preparation."""

    root: Path
    generators: tuple[GeneratorCount, ...]
    defects: dict[str, list[str]]
    """Examples of what is wrong with the dataset, by kind."""
    parts: int
    resumed: int
    """Parts that an earlier run had finished."""
    seconds: dict[str, float]
    """What each stage took in this run, all workers together."""

    @property
    def skipped(self) -> int:
        """The number of inputs that did not become faces."""
        return sum(sum(count.skipped.values()) for count in self.generators)


def prepare(job: Job, planned: Plan, *, overwrite: bool = False, on_progress: Progress | None = None) -> Report:
    """Carry out a plan; parts that an earlier run finished from the same inputs are kept as they are.

    Raises UsageError where the folder holds something else or was prepared by another recipe, DataError where the disk
    is full or the root has gone; a second call then goes on where this one stopped.
    """
    ledger = Ledger(job.out)
    maker = FaceMaker(job.name, job.recipe)  # fetches the weights, so that workers find them
    recipe = _recipe(job, maker)
    _refuse_foreign_folder(job.out)
    with sole_writer(job.out, ledger.state / "lock"):
        _check_recipe(job, ledger, recipe, overwrite)
        return _prepare_locked(job, planned, ledger, recipe, maker, on_progress)


def _prepare_locked(
    job: Job,
    planned: Plan,
    ledger: Ledger,
    recipe: PrepareRecipe,
    maker: FaceMaker,
    on_progress: Progress | None,
) -> Report:
    honour_tombstones(ledger)
    done = {part.name: s for part in planned.parts if (s := ledger.summary(part.name)) and _is_done(ledger, s, part)}
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
    for folder in stale:
        ledger.discard(folder)
    seconds: dict[str, float] = {}
    if wanted:
        for made in _make(job, planned, wanted, maker):
            done[made.name] = made.summary
            for stage, took in made.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + took
            finished += wanted[made.name].size
            if on_progress:
                on_progress(finished, total)
    footer = _footer(job, planned, recipe, done, maker.estimator.feature_dim)
    report = _report(job, planned, done, resumed, seconds)
    if _written_footer(job.out) != footer or not _has_features(job.out, footer):
        write_text(job.out / "README.md", dataset_card(footer, job.source))
        write_text(job.out / REPORT, kept_report(report.generators, report.defects))
        ledger.assemble([part.name for part in planned.parts], footer)
    return report


def _make(job: Job, planned: Plan, wanted: Mapping[PartName, PlannedPart], maker: FaceMaker) -> Iterator[Made]:
    tasks = partial(_tasks, job, planned.chosen, {name: part.inputs for name, part in wanted.items()})
    if job.engine.is_here:
        return job.engine.map(tasks, lambda: PartMaker(maker, job.out))
    return job.engine.map(tasks, partial(build_part_maker, job.name, job.recipe, job.out))


def _tasks(job: Job, chosen: frozenset[str] | None, inputs: Mapping[PartName, str]) -> Iterator[PartTask]:
    """List the source again, since images are not held, and yield the parts whose inputs are given."""
    for name, images in chunks(job, chosen, unheard):
        if name in inputs:
            yield PartTask(name, inputs[name], tuple(images))


def _is_done(ledger: Ledger, summary: PartSummary, part: PlannedPart) -> bool:
    """Return whether a part needs no second try: what could not be read may be readable now, though it looks the same."""
    unreadable = any(skip.reason == UNREADABLE for skip in summary.skips)
    return summary.inputs == part.inputs and not unreadable and ledger.holds_files(part.name, summary)


def _has_features(out: Path, footer: Footer) -> bool:
    return footer.feature_dim == 0 or (out / FEATURES).is_file()


def _written_footer(out: Path) -> Footer | None:
    """Return the footer of the manifest on disk, or None where it is absent or unreadable."""
    try:
        return read_footer(out)
    except DfadError:
        return None


def _report(
    job: Job, planned: Plan, done: dict[PartName, PartSummary], resumed: int, seconds: dict[str, float]
) -> Report:
    defects = {kind: planned.defects.examples[kind] for kind in sorted(planned.defects.counts)}
    return Report(job.out, count_generators(done), defects, len(planned.parts), resumed, seconds)


def _footer(
    job: Job, planned: Plan, recipe: PrepareRecipe, done: dict[PartName, PartSummary], feature_dim: int
) -> Footer:
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
        feature_dim=feature_dim,
        defects=dict(sorted(planned.defects.counts.items())),
    )


def _recipe(job: Job, maker: FaceMaker) -> PrepareRecipe:
    chosen = job.recipe
    return PrepareRecipe(
        face_detector=registry.find("face_detectors", chosen.detector).described,
        face_detector_sha256=maker.detector.weights_sha256,
        gaze_estimator=registry.find("gaze_estimators", chosen.estimator).described,
        gaze_estimator_sha256=maker.estimator.weights_sha256,
        size=chosen.size,
        margin=chosen.margin,
        align=chosen.align,
        full_decode=chosen.full_decode,
        min_face=chosen.min_face,
        max_cut_off=chosen.max_cut_off,
        min_sharpness=chosen.min_sharpness,
        max_faces=chosen.max_faces,
        source_options={name: _recorded(value) for name, value in _options(job.source).items()},
        software=software("numpy", "openvino", "pyarrow", "av"),
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
        # rows go before the files they name, in case we are killed
        for file in (METADATA, SKIPPED, FEATURES, REPORT, "README.md"):
            (job.out / file).unlink(missing_ok=True)
        for folder in (".prepare/parts", "faces", "gaze"):
            shutil.rmtree(job.out / folder, ignore_errors=True)
    write_text(path, json.dumps(comparable, indent=1) + "\n")


def _refuse_foreign_folder(out: Path) -> None:
    if (out / SHARDS).is_dir():
        raise UsageError(f"{out} is a packed manifest. Prepare into another --data, then run 'dfad-bench pack'.")
    if out.is_dir() and not (out / ".prepare").is_dir() and any(path.name != TOMBSTONES for path in out.iterdir()):
        raise UsageError(f"{out} holds files that dfad-bench did not write. Choose another --data or --name.")
