"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import FormatOption
from dfad_bench.console import Format
from dfad_bench.errors import UsageError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of prepared sources, for gaze and the gallery.", show_default="neither"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="The page of a single run.", show_default="report.html in the run's")
    ] = None,
    include_real: Annotated[
        bool, typer.Option("--include-real", help="Show photographs of people in the gallery too.")
    ] = False,
    gallery: Annotated[int, typer.Option("--gallery", min=0, help="Faces in it.")] = 12,
    format: FormatOption = Format.human,
) -> None:
    """Write a run as one HTML page: curves, groups, confusions, calibration, robustness, gaze, embedding, hardest fakes."""
    from dfad_bench.publish.report import PAGE
    from dfad_bench.publish.report import report as page
    from dfad_bench.records.json_files import write_text

    if output is not None and len(runs) > 1:
        raise UsageError("--output is one page, and there are several runs. Leave it away.")
    written = []
    for run in runs:
        with console.progress(f"reporting {run}") as bar:
            text = page(run, faces=data, include_real=include_real, gallery=gallery, on_progress=bar)
        path = output or run / PAGE
        write_text(path, text)
        written.append(path)
    if format is Format.json:
        console.show_json([str(path) for path in written])
        return
    for path in written:
        console.note(f"Wrote {path}.")
