"""The commands ``prepare`` and ``audit``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import (
    DataOption,
    EngineOption,
    FormatOption,
    GpusOption,
    WorkersOption,
    data_folder,
    manifest_at,
)
from dfad_bench.console import Format
from dfad_bench.engines import EngineName
from dfad_bench.errors import FAILED, INCOMPLETE, UsageError

if TYPE_CHECKING:
    from dfad_bench.analysis.audit import AuditReport
    from dfad_bench.analysis.peer_json import PeerReport
    from dfad_bench.analysis.shortcut import Table
    from dfad_bench.interfaces import Engine
    from dfad_bench.prepare.add_gaze import GazeReport
    from dfad_bench.prepare.pipeline import Report
    from dfad_bench.prepare.plan import Job, Plan


PathMapOption = Annotated[
    str | None, typer.Option("--path-map", help="Where a dataset's JSON lists paths: old=new, where files have moved.")
]


def prepare(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Option("--source", help="A registered source, hf:org/name@revision, or the path of a .py file."),
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Where the source's files lie.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call the result.", show_default="the source")
    ] = None,
    data: DataOption = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A source's option, as option=value.")] = None,
    face_detector: Annotated[
        str | None, typer.Option("--face-detector", help="How faces are found.", show_default="the source's own")
    ] = None,
    gaze_estimator: Annotated[
        str | None, typer.Option("--gaze-estimator", help="How gaze is estimated.", show_default="the source's own")
    ] = None,
    only_gaze: Annotated[
        bool,
        typer.Option("--only-gaze", help="Add this --gaze-estimator's gaze to a prepared manifest; needs no --root."),
    ] = False,
    path_map: PathMapOption = None,
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="Accept the dataset's terms of use.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never download anything.")] = False,
    size: Annotated[int, typer.Option("--size", min=16, max=2048, help="Side of the crop in pixels.")] = 256,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            min=0.5,
            max=4.0,
            help="Side of the crop over the box's longer side.",
            show_default="the detector's own, 1.3 for faces found in an image",
        ),
    ] = None,
    align: Annotated[bool, typer.Option("--align", help="Turn faces upright by their five landmarks.")] = False,
    full_decode: Annotated[
        bool, typer.Option("--full-decode", help="Never decode a large JPEG at reduced scale.")
    ] = False,
    min_face: Annotated[float, typer.Option("--min-face", min=1, help="Pixels of a face's longer side.")] = 20.0,
    max_cut_off: Annotated[
        float, typer.Option("--max-cut-off", min=0, max=1, help="Share of a face that may lie outside the image.")
    ] = 0.3,
    min_sharpness: Annotated[
        float,
        typer.Option("--min-sharpness", min=0, help="Variance of the crop's Laplacian; blurred generators suffer."),
    ] = 0.0,
    max_faces: Annotated[
        int | None, typer.Option("--max-faces", min=1, help="Skip images with more faces.", show_default="any")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many images per generator.")] = None,
    engine: EngineOption = EngineName.local,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and check the listing; write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Prepare anew what was prepared before.")] = False,
    format: FormatOption = Format.human,
) -> None:
    """Cut faces out of a source and write its manifest. Run again to go on after a stop."""
    from dfad_bench import weights
    from dfad_bench.engines import build_engine
    from dfad_bench.prepare import pipeline
    from dfad_bench.prepare.options import build_job
    from dfad_bench.prepare.plan import plan

    if offline:
        weights.forbid_downloads()
    weights.report_downloads(console.progress)
    chosen = build_engine(engine, workers, gpus_per_worker)
    if only_gaze:
        _refuse_for_gaze(context)
        _add_gaze(data_folder(data), source, name, gaze_estimator, chosen, overwrite, format)
        return
    if source is None:
        raise UsageError("Say what to prepare with --source. See 'dfad-bench list sources'.")
    job = build_job(
        source,
        data_folder(data),
        root=root,
        name=name,
        settings=[*(settings or ()), *([f"path_map={path_map}"] if path_map else [])],
        face_detector=face_detector,
        gaze_estimator=gaze_estimator,
        size=size,
        margin=margin,
        thresholds={
            "align": align,
            "full_decode": full_decode,
            "min_face": min_face,
            "max_cut_off": max_cut_off,
            "min_sharpness": min_sharpness,
            "max_faces": max_faces,
        },
        limit=limit,
        engine=chosen,
    )
    _settle_terms(job, accept_terms)
    with console.progress("listing") as listing:
        planned = plan(job, listing)
    _show_plan(planned, format)
    if dry_run:
        if format is Format.json:
            console.show_json(
                {"declared": planned.declared, "missing": planned.missing, "defects": planned.defects.counts}
            )
        return
    with console.progress(f"preparing {job.name}") as bar:
        report = pipeline.prepare(job, planned, overwrite=overwrite, on_progress=bar)
    _show_report(report, format)
    if report.skipped:
        raise typer.Exit(INCOMPLETE)


_FOR_GAZE = frozenset(
    (
        *("source", "name", "data", "gaze_estimator", "only_gaze", "offline", "overwrite", "format"),
        *("engine", "workers", "gpus_per_worker"),
    )
)


def _refuse_for_gaze(context: typer.Context) -> None:
    """Refuse options that say how faces are cut: with --only-gaze they were cut already, whatever the options say."""
    given = [
        f"--{name.replace('_', '-')}" if name != "settings" else "--set"
        for name in context.params
        if name not in _FOR_GAZE
        and (where := context.get_parameter_source(name)) is not None
        and where.name == "COMMANDLINE"
    ]
    if given:
        raise UsageError(f"--only-gaze leaves the manifest's faces as they are: leave away {', '.join(given)}.")


def _add_gaze(
    data: Path,
    source: str | None,
    name: str | None,
    estimator: str | None,
    engine: Engine,
    overwrite: bool,
    format: Format,
) -> None:
    from dfad_bench.prepare.add_gaze import add_gaze
    from dfad_bench.prepare.options import manifest_folder

    if estimator is None:
        raise UsageError("--only-gaze needs --gaze-estimator. See 'dfad-bench list gaze-estimators'.")
    folder = manifest_folder(data, source, name)
    with console.progress(f"adding gaze to {folder.name}") as bar:
        report = add_gaze(folder, estimator, engine=engine, overwrite=overwrite, on_progress=bar)
    _show_gaze(report, format)
    for example in report.examples:
        console.warn(example)
    if report.unseen:
        console.warn(
            f"{report.unseen} faces have no sound crop, so no gaze. Prepare them again, then run this command again."
        )
        raise typer.Exit(INCOMPLETE)


def _show_gaze(report: GazeReport, format: Format) -> None:
    if format is Format.json:
        console.show_json(dataclasses.asdict(report))
        return
    if report.already:
        notes = [f"The gaze of {report.estimator} is in {report.path} already; nothing to do."]
    else:
        notes = [f"Gaze in {report.path}; {report.resumed} of {report.parts} parts were finished before."]
    if report.seconds:
        notes.append(_stages(report.seconds))
    rows = [(c.generator, c.faces, c.with_gaze, _counted(c.without_gaze)) for c in report.generators]
    console.show_table(f"gaze by {report.estimator}", ("generator", "faces", "with gaze", "without"), rows, notes)


def _stages(seconds: Mapping[str, float]) -> str:
    taken = ", ".join(f"{stage} {took:.1f}" for stage, took in seconds.items())
    return f"seconds in each stage, all workers together: {taken}"


def _settle_terms(job: Job, accept_terms: bool) -> None:
    """Show terms that were not accepted yet, and go on only if they are now."""
    from dfad_bench.prepare import terms

    found = terms.terms_of(job.source, job.plugin)
    if found is None or terms.is_accepted(found):
        return
    console.note(found.text)
    if not accept_terms:
        raise terms.refusal(found)
    terms.accept(found)


def _show_plan(planned: Plan, format: Format) -> None:
    if format is Format.human:
        rows = [(g, planned.declared[g], planned.declared[g] - planned.missing[g]) for g in sorted(planned.declared)]
        console.show_table("source", ("generator", "expected", "found"), rows)
    for kind, count in sorted(planned.defects.counts.items()):
        console.warn(f"{kind} ({count}): {'; '.join(planned.defects.examples[kind])}")
    if missing := planned.missing.total():
        console.warn(
            f"{missing} listed images are missing, such as {planned.first_missing}. They will be in skipped.parquet."
        )


def _show_report(report: Report, format: Format) -> None:
    if format is Format.json:
        console.show_json(dataclasses.asdict(report))
        return
    rows = [
        (c.generator, c.declared, c.kept, c.enlarged, c.with_gaze, _counted(c.without_gaze), _counted(c.skipped))
        for c in report.generators
    ]
    kept = sum(count.kept for count in report.generators)
    notes = [f"{kept} faces in {report.root}; {report.resumed} of {report.parts} parts were finished before."]
    if any(count.enlarged for count in report.generators):
        notes.append("enlarged: the face was smaller than the crop, so its pixels are interpolated (crop_scale > 1).")
    if report.seconds:
        notes.append(_stages(report.seconds))
    columns = ("generator", "expected", "kept", "enlarged", "with gaze", "gaze not guessed", "skipped")
    console.show_table("prepared", columns, rows, notes)


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


def audit(
    target: Annotated[
        str, typer.Argument(help="A prepared source by name, the folder of its manifest, or a peer's dataset .json.")
    ],
    data: DataOption = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="For a .json: where its files lie, to look for them.")
    ] = None,
    path_map: PathMapOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="Also write the report as JSON to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the report as a page to this file.")] = None,
    format: FormatOption = Format.human,
) -> None:
    """Ask of a manifest or a dataset JSON whether it can be trusted: what is missing, what leaks, what the files give away."""
    from dfad_bench.publish.audit_page import audit_page
    from dfad_bench.records.json_files import write_text

    with console.progress("auditing"):
        report, tables = _audited(target, data, root, path_map)
    if output is not None:
        write_text(output, report.model_dump_json(indent=1) + "\n")
    if html is not None:
        write_text(html, audit_page(report))
    if format is Format.json:
        console.show_json(report.model_dump())
    else:
        for title, columns, rows in tables:
            console.show_table(title, columns, rows)
        for warning in report.warnings:
            console.warn(warning)
        for problem in report.problems:
            console.fail(problem)
        console.show_verdict(report.verdict)
    if report.problems:
        raise typer.Exit(FAILED)


def _audited(
    target: str, data: Path | None, root: Path | None, path_map: str | None
) -> tuple[AuditReport | PeerReport, list[Table]]:
    from dfad_bench.analysis import audit as audits
    from dfad_bench.analysis import peer_json
    from dfad_bench.records.manifest import read_manifest

    if target.endswith(".json"):
        peer = peer_json.audit_json(Path(target), root, path_map)
        return peer, peer_json.peer_tables(peer)
    if root is not None or path_map is not None:
        raise UsageError("--root and --path-map are for a dataset's .json; a manifest knows where its files are.")
    report = audits.audit(read_manifest(manifest_at(target, data_folder(data))))
    return report, audits.tables(report)
