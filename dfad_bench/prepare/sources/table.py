"""A CSV, TSV, JSONL or Parquet table with a path column and the manifest's vocabulary."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfad_bench.errors import DataError, UsageError, did_you_mean, shorten
from dfad_bench.prepare.cells import identities, numbers, text
from dfad_bench.prepare.labels import Labeller, check_frame
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.records.manifest import is_inside
from dfad_bench.taxonomy import Generator
from dfad_bench.types import Annotation, OnDefect, RawImage

log = logging.getLogger(__name__)

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_ALIASES = {"identity": "identities", "split": "source_split", "license": "licence"}
_LABELS = (
    "generator",
    "family",
    "forgery_type",
    "generator_version",
    "domain",
    "source_split",
    "video",
    "frame",
    "licence",
)
_COLUMNS = (*_LABELS, "identities", "mask", "box", "landmarks", "gaze_pitch", "gaze_yaw")
_SPLITS = {"train", "val", "test"}


@dataclass(frozen=True)
class TableSource:
    """Options: ``file`` (the table, relative to the root; found by itself when it is the only one), ``path_column``,
    and ``domain`` and ``default_licence`` for tables without those columns.

    Columns: the path and ``generator`` are needed; ``family`` and ``forgery_type`` too where the taxonomy does not know
    the generator. Optional: ``generator_version domain source_split video frame identities licence mask box
    landmarks gaze_pitch gaze_yaw``; ``mask`` is the path of a grey picture in which the manipulated face is bright. Lists
    are JSON lists, or text separated by ``|``. Other columns are ignored, and said so.
    """

    file: str | None = None
    path_column: str = "path"
    domain: str | None = None
    default_licence: str = "unspecified"

    title: ClassVar[str] = "Images listed in a table"
    homepage: ClassVar[str] = "files of the user's own"
    licence: ClassVar[str] = "as the table says, row by row"
    instructions: ClassVar[str] = (
        "Give --root FOLDER that holds one .csv, .tsv, .jsonl or .parquet table with the columns path and generator, "
        "paths being relative to the folder."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return nothing: a table's generators stand in its rows."""
        return ()

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield one image per row, in the table's order."""
        assert root is not None
        table = self._table(root)
        labeller, domain = Labeller(), self.domain or root.resolve().name
        for number, row in enumerate(_rows(table, self.path_column), start=1):
            yield self._image(root, row, f"{table.name} row {number}", labeller, domain)

    def _table(self, root: Path) -> Path:
        if self.file is not None:
            if not is_inside(self.file):
                raise UsageError(f"The table {self.file!r} must lie below the root {root}.")
            if not (root / self.file).is_file() or not self.file.endswith(_SUFFIXES):
                raise UsageError(f"There is no table {self.file} in {root}; expected a {', '.join(_SUFFIXES)} file.")
            return root / self.file
        found = sorted(path for path in root.iterdir() if path.suffix in _SUFFIXES)
        if len(found) != 1:
            many = f"several tables ({shorten(path.name for path in found)})" if found else "no table"
            raise UsageError(f"{root} holds {many}. Name the one to read with --set file=NAME. {self.instructions}")
        return found[0]

    def _image(self, root: Path, row: dict[str, Any], where: str, labeller: Labeller, domain: str) -> RawImage:
        path, generator = text(row, self.path_column), text(row, "generator")
        if path is None or generator is None:
            raise UsageError(f"{where}: {self.path_column if path is None else 'generator'} is empty.")
        label = labeller.label(generator, text(row, "family"), text(row, "forgery_type"), where)
        split = text(row, "source_split")
        if split is not None and split not in _SPLITS:
            raise UsageError(f"{where}: source_split is {split!r}, expected one of {', '.join(sorted(_SPLITS))}.")
        frame, mask = numbers(row, "frame", 1, where), text(row, "mask")
        return RawImage(
            key=path.replace("\\", "/"),
            generator=label.generator,
            family=label.family,
            forgery_type=label.forgery_type,
            domain=text(row, "domain") or domain,
            licence=text(row, "licence") or self.default_licence,
            payload=FilePayload(root, path.replace("\\", "/")),
            annotation=_annotation(row, where),
            generator_version=text(row, "generator_version"),
            source_split=split,
            video=text(row, "video"),
            frame=None if frame is None else check_frame(frame[0], where),
            identities=identities(row, "identities", where),
            mask=None if mask is None else FilePayload(root, mask.replace("\\", "/")),
        )


def _rows(table: Path, path_column: str) -> Iterator[dict[str, Any]]:
    """Yield the rows with column names brought to the manifest's; complain about missing columns at the first."""
    names: dict[str, str] | None = None
    for row in _read(table):
        if names is None or not names.keys() >= row.keys():
            names = _names(list(row), path_column, table)
        yield {names[column]: value for column, value in row.items() if column in names}


def _names(columns: list[Any], path_column: str, table: Path) -> dict[str, str]:
    if None in columns:  # where csv puts the cells that have no header
        raise UsageError(f"{table.name} has a row with more cells than the header. Quote the cells that hold commas.")
    names = {column: _ALIASES.get(column, column) for column in columns}
    for needed in (path_column, "generator"):
        if needed not in names.values():
            hint = did_you_mean(needed, columns)
            raise UsageError(f"{table.name} has no column {needed!r}.{hint} It has: {', '.join(map(str, columns))}.")
    _note_ignored(table, tuple(column for column, name in names.items() if name not in (path_column, *_COLUMNS)))
    return names


@cache
def _note_ignored(table: Path, columns: tuple[str, ...]) -> None:
    """Say once which columns are not used: a misspelt one would otherwise go unnoticed."""
    if columns:
        log.info("%s: columns not used: %s", table.name, ", ".join(columns))


def _read(table: Path) -> Iterator[dict[str, Any]]:
    try:
        if table.suffix == ".parquet":
            with pq.ParquetFile(table) as file:
                for batch in file.iter_batches(4096):
                    yield from batch.to_pylist()
            return
        with table.open(encoding="utf-8-sig", newline="") as lines:
            if table.suffix == ".jsonl":
                yield from _json_lines(lines)
            else:
                yield from csv.DictReader(lines, delimiter="\t" if table.suffix == ".tsv" else ",", strict=True)
    except (pa.ArrowException, csv.Error, ValueError, OSError) as error:
        raise DataError(f"{table} cannot be read as {table.suffix[1:]}: {error}.") from None


def _json_lines(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not a JSON object")
            yield row


def _annotation(row: dict[str, Any], where: str) -> Annotation | None:
    box = numbers(row, "box", 4, where)
    landmarks = numbers(row, "landmarks", 10, where)
    pitch, yaw = numbers(row, "gaze_pitch", 1, where), numbers(row, "gaze_yaw", 1, where)
    if (pitch is None) != (yaw is None):
        raise UsageError(f"{where}: gaze_pitch and gaze_yaw go together.")
    if box is None and landmarks is None and pitch is None:
        return None
    return Annotation(
        box=None if box is None else (box[0], box[1], box[2], box[3]),
        landmarks=None if landmarks is None else np.asarray(landmarks, np.float32).reshape(5, 2),
        gaze=None if pitch is None or yaw is None else (pitch[0], yaw[0]),
    )


SOURCE = TableSource
