"""Reads the cells of tables that people wrote: text, lists and numbers, whatever the file format made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dfad_bench.errors import UsageError

SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "dev": "val", "test": "test"}
"""What datasets call their splits, and what a manifest calls them."""


def text(row: Mapping[str, Any], column: str) -> str | None:
    """Return a cell as text without blanks around it, or None where it is absent, empty or not a number."""
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def identities(row: Mapping[str, Any], column: str, where: str) -> tuple[str, ...]:
    """Return a cell's people, each once: a list, a JSON list, or text separated by ``|``.

    Raises UsageError, beginning with ``where``, for a JSON list that is none.
    """
    try:
        return tuple(dict.fromkeys(_list(row.get(column))))
    except ValueError:
        raise UsageError(f"{where}: {column} {row[column]!r} begins like a JSON list and is none.") from None


def numbers(row: Mapping[str, Any], column: str, count: int, where: str) -> list[float] | None:
    """Return a cell's ``count`` finite numbers, None where it is empty; raise UsageError, beginning with ``where``."""
    try:
        values = [float(each) for each in _list(row.get(column))]
    except ValueError:
        values = [math.nan]
    if not values:
        return None
    if len(values) != count or not all(map(math.isfinite, values)):
        raise UsageError(f"{where}: {column} needs {count} finite numbers, got {row[column]!r}.")
    return values


def _list(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value.split("|")
    return [str(each).strip() for each in (value if isinstance(value, list) else [value]) if str(each).strip()]
