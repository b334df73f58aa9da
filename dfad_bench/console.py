"""What the user sees: tables and JSON on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Format(StrEnum):
    """How data is printed."""

    human = "human"
    json = "json"


_PIPED_WIDTH = 160
out = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
err = Console(stderr=True)


def log_to_stderr(debug: bool) -> None:
    """Show the package's log messages: warnings and notes, with ``debug`` everything."""
    handler = RichHandler(console=err, show_time=False, show_path=debug, show_level=debug)
    logger = logging.getLogger("dfad_bench")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False


def show_json(data: Any) -> None:
    """Print data as JSON, and nothing else, on stdout."""
    print(json.dumps(data, indent=1, ensure_ascii=False, default=str))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> None:
    """Print a table and its notes; columns of numbers are right-aligned, nothing in a cell is read as markup."""
    listed = [[str(cell) for cell in row] for row in rows]
    natural = sum(max(map(len, cells)) + 3 for cells in zip(columns, *listed, strict=True))
    table = Table()
    for index, column in enumerate(columns):
        numbers = bool(listed) and all(_is_number(row[index]) for row in listed)
        # A word a line, where the table is too wide: Rich would rather break words than make a column narrow.
        header = column if natural < out.width else "\n".join(column.split())
        table.add_column(escape(header), justify="right" if numbers else "left", overflow="fold")
    for row in listed:
        table.add_row(*map(escape, row))
    out.print(title, markup=False, highlight=False, style="bold")
    out.print(table)
    for each in notes:
        out.print(each, markup=False, highlight=False, style="dim")


def _is_number(cell: str) -> bool:
    return cell.strip("–%[]0123456789.,+- ()") == ""


def note(message: str) -> None:
    """Print a message for the user on stderr."""
    err.print(message, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    err.print(message, markup=False, highlight=False, style="yellow", soft_wrap=True)


def show_verdict(message: str) -> None:
    """Print a sentence that nobody should miss, on stdout, below the tables it sums up."""
    out.print(message, markup=False, highlight=False, style="bold")


def fail(message: str) -> None:
    """Print an error on stderr."""
    err.print(f"Error: {message}", markup=False, highlight=False, style="bold red", soft_wrap=True)


_LOG_EVERY = 10.0
"""Seconds between two lines of progress where stderr is no terminal."""


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on stderr, or now and then a line where it is no terminal.

    Call the yielded function with what is done and what there is in all, None where that is unknown.
    """
    if not err.is_terminal:
        yield _line_now_and_then(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(escape(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _line_now_and_then(label: str) -> Callable[[int, int | None], None]:
    last = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_EVERY:
            last = time.monotonic()
            note(f"{label}: {done}{'' if total is None else f' of {total}'}")

    return report
