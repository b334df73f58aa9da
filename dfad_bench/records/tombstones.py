"""What was asked to be taken out of a prepared source: ``<manifest>/tombstones.csv``, which every preparation heeds.

A line names a face by its ``id``, by the hash of its crop's pixels, or several by a person or a video, as the manifest's own
columns have them.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from dfad_bench.config import Strict, validate
from dfad_bench.errors import DataError
from dfad_bench.records.json_files import write_text

FILE = "tombstones.csv"
Kind = Literal["id", "identity", "video", "sha256"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DECISIVE = ("id", "identities", "video", "sha256")
"""The columns of a manifest that a tombstone is held against."""


class Tombstone(Strict):
    """One line: what is to be taken out, when that was asked for, and why, in words that may be published."""

    kind: Kind
    value: str = Field(pattern=r"^[^\s\x00-\x1f](.*[^\s\x00-\x1f])?$")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    reason: str = Field(pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$", max_length=200)

    @field_validator("date")
    @classmethod
    def _a_day(cls, date: str) -> str:
        datetime.date.fromisoformat(date)
        return date

    @property
    def told(self) -> str:
        """Why a face is missing: without the value, which may name a person."""
        return f"asked for on {self.date}: {self.reason}"


class Tombstones:
    """A list of tombstones, held against a manifest's rows."""

    def __init__(self, listed: Sequence[Tombstone] = ()) -> None:
        self.listed = tuple(listed)
        self._found: dict[tuple[str, str], Tombstone] = {}
        for each in self.listed:
            self._found.setdefault((each.kind, each.value), each)

    def __bool__(self) -> bool:
        return bool(self.listed)

    def hits(self, row: Mapping[str, Any]) -> list[Tombstone]:
        """Return the tombstones of a row that has the columns DECISIVE: none, where nobody asked for it."""
        named = [("id", row["id"]), *(("identity", who) for who in row["identities"])]
        named += [("video", row["video"]), ("sha256", row["sha256"])]
        return [self._found[each] for each in named if each in self._found]


def read_tombstones(root: Path) -> Tombstones:
    """Read the list in a manifest's folder, whose name is the source's; an absent one is empty.

    Raises DataError with the line that is wrong: a list of which half is heeded would be worse than none.
    """
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Tombstones()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = list(Tombstone.model_fields)
    try:
        if next(reader, None) != columns:
            raise DataError(f"{path} must begin with the line {','.join(columns)}.")
        listed = [_tombstone(row, root, f"{path}, line {reader.line_num}") for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None
    return Tombstones(listed)


def _tombstone(row: Sequence[str], root: Path, where: str) -> Tombstone:
    columns = list(Tombstone.model_fields)
    if len(row) != len(columns):
        raise DataError(f"{where}: {len(row)} cells, expected {','.join(columns)}.")
    found = validate(dict(zip(columns, row, strict=True)), Tombstone, where)
    _check_value(found, root, where)
    return found


def _check_value(stone: Tombstone, root: Path, where: str) -> None:
    """Refuse what no row of this manifest can hold: it would take nothing out, and nobody would notice."""
    source, value = root.absolute().name, stone.value
    expected = {
        "id": (value.startswith(f"{source}/") and value.count("/") >= 2, f"{source}/<generator>/<key>"),
        "video": (value.startswith(f"{source}/") and value.count("/") >= 2, f"{source}/<generator>/<clip>"),
        "identity": ("/" in value, "<domain>/<person>"),
        "sha256": (len(value) == 64 and set(value) <= set("0123456789abcdef"), "64 of 0-9a-f"),
    }
    is_sound, form = expected[stone.kind]
    if not is_sound:
        raise DataError(f"{where}: {stone.kind} {value!r} is not of the form {form}. Copy it from metadata.parquet.")


def add_tombstones(root: Path, asked: Iterable[tuple[str, str]], date: str, reason: str) -> list[Tombstone]:
    """Append kinds and values to the list of a manifest's folder, and return those that did not stand on it before.

    Raises DataError for what is wrong with the list or with one of them; then nothing is written.
    """
    listed = list(read_tombstones(root).listed)
    there = {(each.kind, each.value) for each in listed}
    new = []
    for kind, value in dict.fromkeys(asked):
        stone = validate({"kind": kind, "value": value, "date": date, "reason": reason}, Tombstone, "a tombstone")
        _check_value(stone, root, "a tombstone")
        if (kind, value) not in there:
            new.append(stone)
    if new:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Tombstone.model_fields)
        writer.writerows(each.model_dump().values() for each in [*listed, *new])
        write_text(root / FILE, text.getvalue())
    return new
