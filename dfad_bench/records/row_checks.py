"""What every row of a manifest must keep to, looked at part after part, and told as one error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dfad_bench.errors import DataError, shorten
from dfad_bench.records.distinct import Repeats, among, hashes
from dfad_bench.taxonomy import FAMILIES, FORGERY_TYPES
from dfad_bench.types import REAL

_LABELS = ("generator", "family", "forgery_type")
_MAYBE_OUTSIDE = r"^/|\.\.|\\|\x00|^[./]*$"
"""Matches every path that ``is_inside`` refuses, and few others."""


class Labels:
    """Which family and forgery type each generator carries, over any number of tables."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, str]] = set()

    def add(self, rows: pa.RecordBatch) -> None:
        """Take in rows with the columns generator, family and forgery_type."""
        table = pa.Table.from_batches([rows.select(list(_LABELS))]).group_by(list(_LABELS)).aggregate([])
        self._seen.update(tuple(row.values()) for row in table.to_pylist())

    def of_generators(self, where: str) -> dict[str, tuple[str, str]]:
        """Return {generator: (family, forgery type)}; raise DataError where a generator carries two labels.

        The class head sums leaves into families and forgery types, so a leaf must belong to exactly one of each; and
        ``real`` must be real at every level. where: what has these labels, for the message.
        """
        labels: dict[str, tuple[str, str]] = {}
        for generator, *rest in sorted(self._seen):
            label = (rest[0], rest[1])
            if labels.setdefault(generator, label) != label:
                raise DataError(
                    f"{where}: generator {generator!r} is labelled both {labels[generator]} and {label}. "
                    "Give one of them a name of its own."
                )
            if len({generator == REAL, label[0] == REAL, label[1] == REAL}) > 1:
                raise DataError(f"{where}: {generator!r} is labelled {label}; 'real' must be real at every level.")
        return labels


class RowChecks:
    """The rows of one manifest file against the promises of the format.

    schema: of the columns that are read, as the format has them; source: whose rows they must be; reserved: what no
    generator may be called; is_inside: whether a path stays in the manifest's folder. Rows are told with ``add``; then
    ``refuse`` raises DataError for the first promise, in a fixed order, that one of them broke.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, source: str, reserved: frozenset[str], is_inside: Callable[[str], bool]
    ) -> None:
        self._path, self._schema, self._source = path, schema, source
        self._reserved, self._is_inside = reserved, is_inside
        self._empty: set[str] = set()
        self._values: dict[str, set[str]] = {name: set() for name in ("source", *_LABELS) if name in schema.names}
        self._labels = Labels() if set(_LABELS) <= set(schema.names) else None
        self._ids = Repeats()
        self._broken: dict[str, str] = {}

    def check_types(self, found: pa.Schema) -> None:
        """Raise DataError where a column of the file has another type than the format's."""
        for field in self._schema:
            if (kind := found.field(field.name).type) != field.type:
                raise DataError(f"{self._path}: column {field.name} is {kind}, expected {field.type}.")

    def add(self, rows: pa.RecordBatch) -> None:
        """Look at rows that have the columns of the schema."""
        self._empty |= {each.name for each in self._schema if not each.nullable and rows[each.name].null_count}
        if self._empty:
            return  # which comes first, and leaves nothing to say of the values
        for name, values in self._values.items():
            values.update(pc.unique(rows[name]).to_pylist())
        if self._labels is not None:
            self._labels.add(rows)
        self._look(rows, "id", lambda cells: _all(pc.starts_with(cells, f"{self._source}/")), "")
        for name in ("original_width", "original_height"):
            self._look(rows, name, lambda cells: _all(pc.greater_equal(cells, 1)), "must be at least 1 pixel")
        for name in ("gaze_pitch", "gaze_yaw"):
            self._look(rows, name, lambda cells: _all(pc.is_finite(cells)), "must be a finite angle or empty")
        self._look(rows, "identities", lambda cells: not cells.flatten().null_count, "")
        for name in ("file_name", "gaze_file_name"):
            if name in self._schema.names and name not in self._broken:
                self._look_at_paths(name, rows[name])
        if "id" in self._schema.names:
            self._ids.add(rows["id"])

    def refuse(self, read_ids: Callable[[], Iterable[pa.Array]] | None = None) -> None:
        """Raise DataError for what was found so far; with all rows told and a way to read their ids again, for ids that
        occur twice as well."""
        path = self._path
        for name in (each.name for each in self._schema if each.name in self._empty):
            raise DataError(f"{path}: column {name} has empty cells.")
        if self._values.get("source", set()) - {self._source}:
            raise DataError(f"{path}: column source holds other names than the footer's {self._source!r}.")
        if "id" in self._broken:
            raise DataError(f"{path}: every id must begin with {self._source!r} and a slash.")
        self._refuse_broken("original_width", "original_height", "gaze_pitch", "gaze_yaw")
        if "identities" in self._broken:
            raise DataError(f"{path}: identities holds an empty name.")
        if read_ids is not None and "id" in self._schema.names:
            self._refuse_repeats(read_ids)
        self._refuse_broken("file_name", "gaze_file_name")
        for column, allowed in (("family", FAMILIES), ("forgery_type", FORGERY_TYPES)):
            if unknown := sorted(self._values.get(column, set()) - set(allowed)):
                raise DataError(f"{path}: unknown {column} {shorten(unknown)}. Known: {', '.join(allowed)}.")
        if taken := self._reserved & self._values.get("generator", set()):
            raise DataError(
                f"{path}: a generator is called {shorten(sorted(taken))}, as scores call numbers of several generators. "
                "Prepare the source again, with another name for it."
            )
        if self._labels is not None:
            self._labels.of_generators(str(path))

    def _look(self, rows: pa.RecordBatch, name: str, holds: Callable[[pa.Array], bool], promise: str) -> None:
        if name in self._schema.names and name not in self._broken and not holds(rows[name]):
            self._broken[name] = promise

    def _look_at_paths(self, name: str, paths: pa.Array) -> None:
        doubtful = paths.filter(pc.match_substring_regex(paths, _MAYBE_OUTSIDE)).to_pylist()
        outside = next((path for path in doubtful if not self._is_inside(path)), None)
        if outside is not None:
            self._broken[name] = f"{outside!r} leads out of the manifest's folder"

    def _refuse_broken(self, *names: str) -> None:
        for name in names:
            if name in self._broken:
                raise DataError(f"{self._path}: {name} {self._broken[name]}.")

    def _refuse_repeats(self, read_ids: Callable[[], Iterable[pa.Array]]) -> None:
        suspects = self._ids.suspects()
        if not len(suspects):
            return
        counted: Counter[str] = Counter()
        for ids in read_ids():
            counted.update(ids.filter(pa.array(among(hashes(ids), suspects))).to_pylist())
        if twice := [value for value, count in counted.items() if count > 1]:
            raise DataError(f"{self._path}: an id occurs twice: {shorten(twice)}.")


def _all(holds: pa.Array) -> bool:
    """Return whether a condition holds wherever it is not empty."""
    answer: bool = pc.all(holds, min_count=0).as_py()
    return answer
