"""What several commands share: options, folders, tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import config, console
from dfad_bench.console import Format

if TYPE_CHECKING:
    from dfad_bench.publish.tables import Table

FormatOption = Annotated[Format, typer.Option("--format", help="How to print data on stdout.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of prepared sources.", show_default="$DFAD_BENCH_DATA or ./data")
]


def data_folder(given: Path | None) -> Path:
    """Return the folder of prepared sources that was asked for, or the default one."""
    return given or config.data_dir()


def show(table: Table) -> None:
    """Print a table of results."""
    console.show_table(table.title, table.columns, table.rows, table.notes)
