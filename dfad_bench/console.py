"""What the user sees: tables and JSON on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import logging
import os
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

_AROUND = 3
"""Characters that a column takes beside its cells."""
_LONGEST_WORD = 24


class Format(StrEnum):
    """How data is printed."""

    human = "human"
    json = "json"


_PIPED_WIDTH = 160
# Where it is no terminal, Rich would take 80 columns, or what the environment variable COLUMNS says.
out = Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPED_WIDTH)
err = Console(stderr=True)


def silence() -> None:
    """Show nothing more: this is one of several processes that do one thing, and another speaks for all."""
    out.quiet = err.quiet = True


def log_to_stderr(debug: bool) -> None:
    """Show the package's log messages: warnings and notes, with ``debug`` everything."""
    handler = RichHandler(console=err, show_time=False, show_path=debug, show_level=debug)
    logger = logging.getLogger("dfad_bench")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False


def show_json(data: Any) -> None:
    """Print data as JSON, and nothing else, on stdout."""
    if not out.quiet:
        print(json.dumps(data, indent=1, ensure_ascii=False, default=str))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> None:
    """Print a table and its notes; columns of numbers are right-aligned, nothing in a cell is read as markup.

    One that is too wide for the terminal is continued below: each part begins with the columns that say what a row is.
    """
    listed = [[str(cell) for cell in row] for row in rows]
    out.print(title, markup=False, highlight=False, style="bold")
    for part in _parts(columns, listed, out.width):
        out.print(_drawn([columns[index] for index in part], [[row[index] for index in part] for row in listed]))
    for each in notes:
        out.print(each, markup=False, highlight=False, style="dim")


def _parts(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the columns of each part of a table, by their indices."""
    least = [max(map(_least_width, cells)) + _AROUND for cells in zip(columns, *rows, strict=True)]
    names = next((i for i in range(len(columns)) if not all(_is_number(row[i]) for row in rows)), 0) + 1
    key = list(range(names))
    parts: list[list[int]] = [[*key]]
    for index in range(names, len(columns)):
        if len(parts[-1]) > names and 1 + sum(least[each] for each in (*parts[-1], index)) > width:
            parts.append([*key])
        parts[-1].append(index)
    return parts


def _least_width(cell: str) -> int:
    """Return how narrow a cell can be without a word broken, as far as words are no longer than a few numbers."""
    return min(max(map(len, cell.split()), default=0), _LONGEST_WORD)


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    cells = list(zip(columns, *rows, strict=True))
    natural = [max(map(len, each)) for each in cells]
    fits = 1 + sum(natural) + _AROUND * len(columns) <= out.width
    table = Table()
    for index, width in enumerate(natural if fits else _narrowed(natural, cells)):
        numbers = bool(rows) and all(_is_number(row[index]) for row in rows)
        # A word a line, where the table is too wide for its headers.
        header = columns[index] if fits else "\n".join(columns[index].split())
        table.add_column(escape(header), justify="right" if numbers else "left", overflow="fold", width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _narrowed(natural: Sequence[int], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return widths that break no word where there is room for that; what is over goes where most is folded.

    Rich would rather break words than leave another column wide.
    """
    widths = [max(map(_least_width, each)) for each in cells]
    for _ in range(out.width - 1 - sum(widths) - _AROUND * len(widths)):
        missing = [full - width for full, width in zip(natural, widths, strict=True)]
        widths[missing.index(max(missing))] += max(missing) > 0
    return widths


def _is_number(cell: str) -> bool:
    return cell.strip("–±%[]0123456789.,+- ()") == ""


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
