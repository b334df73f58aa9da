"""The rows of all manifests of a protocol as one long table that is read from disk whenever it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dfad_bench.records.manifest import COLUMNS, AnyManifest

ROOT, PARTITION = pa.field("root", pa.dictionary(pa.int32(), pa.string())), pa.field("partition", pa.string())
"""What a face has beside its manifest's columns: the manifest's folder, and the part of the protocol's own split."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class FaceStream:
    """N faces: those of the first manifest in its order, then those of the next.

    part [N]: into which of ``parts`` each face falls; None where the protocol has no split of its own.
    """

    manifests: Sequence[AnyManifest]
    part: NDArray[np.int8] | None = None
    parts: tuple[str, ...] = ()

    def read(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the number of a row, and it and some that follow with these columns, root and partition among them.

        Raises DataError where a manifest was damaged since it was opened.
        """
        stored = [name for name in columns if name in COLUMNS.names]
        schema = schema_of(columns)
        roots = pa.array([str(manifest.root) for manifest in self.manifests], pa.string())
        start = 0
        for number, manifest in enumerate(self.manifests):
            for batch in manifest.batches(stored):
                cells = {name: batch[name] for name in stored}
                if ROOT.name in columns:
                    indices = pa.array(np.full(batch.num_rows, number, np.int32))
                    cells[ROOT.name] = pa.DictionaryArray.from_arrays(indices, roots)
                if PARTITION.name in columns:
                    cells[PARTITION.name] = self._partition(start, batch.num_rows)
                yield start, pa.RecordBatch.from_arrays([cells[name] for name in columns], schema=schema)
                start += batch.num_rows

    def read_rows(self, chosen: Mapping[str, Rows], columns: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield, of each of the named choices of rows (ascending), its name and some of its rows until all were told."""
        for start, batch in self.read(columns):
            for name, rows in chosen.items():
                first, end = np.searchsorted(rows, [start, start + batch.num_rows])
                if end - first == batch.num_rows:
                    yield name, batch
                elif end > first:
                    yield name, batch.take(pa.array(rows[first:end] - start))

    def _partition(self, start: int, count: int) -> pa.Array:
        if self.part is None:
            return pa.nulls(count, pa.string())
        return pa.array(self.parts, pa.string()).take(pa.array(self.part[start : start + count]))


def schema_of(columns: Sequence[str]) -> pa.Schema:
    """Return the schema of these columns of a face."""
    added = {field.name: field for field in (ROOT, PARTITION)}
    return pa.schema([added.get(name) or COLUMNS.field(name) for name in columns])
