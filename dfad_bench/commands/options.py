"""What several commands share: options, folders, tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import config, console
from dfad_bench.console import Format
from dfad_bench.engines import EngineName

if TYPE_CHECKING:
    from dfad_bench.publish.tables import Table


EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="local: this machine; ray: the cluster that RAY_ADDRESS names, or one started here."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=65536, help="Processes.", show_default="1; with ray, all there is room for"),
]
GpusOption = Annotated[
    float, typer.Option("--gpus-per-worker", min=0, help="With ray: 0.25 lets four workers share a GPU.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print data on stdout.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of prepared sources.", show_default="$DFAD_BENCH_DATA or ./data")
]


def data_folder(given: Path | None) -> Path:
    """Return the folder of prepared sources that was asked for, or the default one."""
    return given or config.data_dir()


def manifest_at(target: str, data: Path) -> Path:
    """Return the folder of the manifest that a command names: a prepared source, or a folder."""
    return data / target if (data / target).is_dir() else Path(target)


def show(table: Table) -> None:
    """Print a table of results."""
    console.show_table(table.title, table.columns, table.rows, table.notes)
