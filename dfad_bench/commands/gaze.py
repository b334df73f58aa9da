"""The command ``gaze-fid``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dfad_bench import console
from dfad_bench.commands.options import DataOption, FormatOption, data_folder, show
from dfad_bench.console import Format
from dfad_bench.errors import FAILED


def gaze_fid(
    generator: Annotated[
        list[str] | None,
        typer.Option("--generator", help="By name or alias; repeat it for several.", show_default="all"),
    ] = None,
    data: DataOption = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Prepared sources to look at.", show_default="all with gaze")
    ] = None,
    gaze_estimator: Annotated[
        str | None,
        typer.Option(
            "--gaze-estimator",
            help="Whose gaze: one added by 'prepare --only-gaze'.",
            show_default="the manifests' own",
        ),
    ] = None,
    space: Annotated[
        Literal["angles", "direction", "features"],
        typer.Option("--space", help="Pitch and yaw in degrees, unit vectors, or the estimator's features."),
    ] = "angles",
    most: Annotated[int, typer.Option("--faces", min=2, help="At most so many faces of each side, by hash.")] = 10_000,
    reals: Annotated[
        Literal["same_domain", "all"], typer.Option("--reals", help="Reals of the fakes' domains, or all.")
    ] = "same_domain",
    resamples: Annotated[
        int, typer.Option("--resamples", min=99, max=100_000, help="For null, p and intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which faces, and which resamples.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", help="Also write the report as JSON to this file.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the numbers as CSV to this file.")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Also draw the figures into this folder, as SVG and PNG.")
    ] = None,
    include_real: Annotated[
        bool, typer.Option("--include-real", help="Show real faces in the figures too: mind their licences.")
    ] = False,
    format: FormatOption = Format.human,
) -> None:
    """Measure how far the gaze of generators is from real gaze: value, null, interval, test, picture."""
    from dfad_bench.analysis.gaze_fid import GazeFidOptions
    from dfad_bench.analysis.gaze_fid import gaze_fid as measure
    from dfad_bench.analysis.gaze_samples import find_generators, read_gaze_faces
    from dfad_bench.publish.gaze_tables import gaze_csv, gaze_tables
    from dfad_bench.records.gaze_fid import write_report
    from dfad_bench.records.json_files import write_text

    with console.progress("reading gaze"):
        faces = read_gaze_faces(data_folder(data), source, gaze_estimator, with_features=space == "features")
    generators = find_generators(faces, generator or [])
    options = GazeFidOptions(space, most, reals == "all", resamples, seed)
    with console.progress("measuring") as bar:
        report, sides = measure(faces, generators, options, bar)
    if output is not None:
        write_report(output, report)
    if csv is not None:
        write_text(csv, gaze_csv(report))
    if figures is not None:
        from dfad_bench.publish.gaze_figures import draw

        if include_real:
            console.warn("The figures show real faces: publish them only where the licence of each allows it.")
        with console.progress("drawing") as bar:
            drawn = draw(report, faces, sides, figures, include_real=include_real, on_progress=bar)
        console.note(f"Drew {len(drawn)} files in {figures}.")
    if format is Format.json:
        console.show_json(report.model_dump())
    else:
        for table in gaze_tables(report):
            show(table)
    if all(row.distance is None for row in report.generators):
        raise typer.Exit(FAILED)
