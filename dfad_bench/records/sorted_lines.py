"""Puts more lines of text in order than fit into memory: sorted runs go to files and are merged block by block."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

_MOST = 64 << 20
"""Bytes of text that are sorted at a time, below 2 GiB; three times so much is held in memory meanwhile."""
_BLOCK = 8192
"""Lines of a run that are read at a time."""

_SCHEMA = pa.schema([pa.field("line", pa.string())])


class SortedLines:
    """Lines in the order of their UTF-8 bytes, however many.

    folder: where runs are kept, for as long as ``blocks`` is being read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[pa.Array] = []
        self._held = 0
        self._runs: list[Path] = []

    def add(self, lines: pa.Array) -> None:
        """Take in lines, a string array without nulls. Raises OSError where the folder's disk is full."""
        self._lines.append(lines)
        self._held += lines.nbytes
        if self._held >= _MOST:
            self._runs.append(self._folder / f"run-{len(self._runs)}.arrow")
            _write_run(self._runs[-1], self._taken())

    def blocks(self) -> Iterator[pa.Array]:
        """Yield all lines in order, in arrays of some thousands; none is held any more afterwards."""
        rest = self._taken()
        if not self._runs:
            if len(rest):
                yield rest
            return
        runs = [_Run(_read_run(path)) for path in self._runs]
        yield from _merged([*runs, _Run(iter([rest] if len(rest) else []))])

    def _taken(self) -> pa.Array:
        taken = _sorted(self._lines)
        self._lines, self._held = [], 0
        return taken


class _Run:
    """What is left of a sorted run: the lines that were read and are still to be told, and whence more come."""

    def __init__(self, blocks: Iterator[pa.Array]) -> None:
        self._blocks = blocks
        self._lines = next(blocks, None)

    @property
    def last(self) -> str | None:
        """The last line that was read; None at the end of the run."""
        return None if self._lines is None else self._lines[-1].as_py()

    def up_to(self, limit: str) -> pa.Array | None:
        """Take the lines that were read up to and with ``limit``."""
        if self._lines is None or not (end := bisect_right(self._lines, limit, key=pa.StringScalar.as_py)):
            return None
        taken = self._lines[:end]
        self._lines = self._lines[end:] if end < len(self._lines) else next(self._blocks, None)
        return taken


def _merged(runs: Sequence[_Run]) -> Iterator[pa.Array]:
    """Yield the lines of all runs in order: each time those that no line still to be read can come before."""
    while lasts := [run.last for run in runs if run.last is not None]:
        limit = min(lasts)
        pieces = [piece for run in runs if (piece := run.up_to(limit)) is not None]
        yield pieces[0] if len(pieces) == 1 else _sorted(pieces)


def _sorted(pieces: Sequence[pa.Array]) -> pa.Array:
    lines = pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())
    return lines.take(pc.array_sort_indices(lines))


def _write_run(path: Path, lines: pa.Array) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _SCHEMA, options=options) as writer:
        writer.write_table(pa.table([lines], schema=_SCHEMA), max_chunksize=_BLOCK)


def _read_run(path: Path) -> Iterator[pa.Array]:
    # not memory-mapped: pages that were touched would count as this process's memory
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield batch["line"]
