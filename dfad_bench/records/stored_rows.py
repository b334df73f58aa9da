"""Keeps tables that are told part after part: few rows in memory, many in files that are mapped into it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

_ROWS_PER_CHUNK = 65_536


class StoredRows:
    """Rows that will be one table.

    path: a file to write them to, which may be deleted as soon as ``table`` was called; None: they stay in memory.
    """

    def __init__(self, schema: pa.Schema, path: Path | None) -> None:
        self._schema, self._path = schema, path
        self._waiting: list[pa.RecordBatch] = []
        self._chunks: list[pa.RecordBatch] = []
        self._writer = None if path is None else pa.ipc.new_file(str(path), schema)

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows of the schema. Raises OSError where the file's disk is full."""
        self._waiting.append(rows)
        if sum(each.num_rows for each in self._waiting) >= _ROWS_PER_CHUNK:
            self._flush()

    def table(self) -> pa.Table:
        """Return all rows; of those in a file, none is in memory before it is looked at."""
        self._flush()
        if self._writer is None:
            return pa.Table.from_batches(self._chunks, schema=self._schema)
        self._writer.close()
        return pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()

    def _flush(self) -> None:
        if not self._waiting:
            return
        (chunk,) = pa.Table.from_batches(self._waiting).combine_chunks().to_batches()
        self._waiting = []
        if self._writer is None:
            self._chunks.append(chunk)
        else:
            self._writer.write_batch(chunk)
