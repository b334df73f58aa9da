"""Records as JSON: read strictly, with one-line errors, and written so that each item of a long list is a line."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from dfad_bench.config import Model, validate
from dfad_bench.errors import DataError, UsageError


def read_record(path: Path, model: type[Model], version: int, missing: str) -> Model:
    """Return the record in a JSON file.

    Raises UsageError, saying ``missing``, where there is no file; DataError where it is no JSON, of another
    ``schema_version``, or does not fit the model.
    """
    if not path.is_file():
        raise UsageError(missing)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None
    if isinstance(stored, dict) and stored.get("schema_version") != version:
        raise DataError(f"{path} has schema version {stored.get('schema_version')}, this dfad-bench reads {version}.")
    return validate(stored, model, str(path))


def as_json(record: BaseModel, *long: str, exclude_none: bool = True) -> str:
    """Return a record as JSON text; the long fields named come last, a record as a line, of a list each item as a line.

    exclude_none: items leave out what is None, which their models must have as a default.
    """
    text = record.model_dump_json(indent=1, exclude=set(long)).removesuffix("\n}")
    for name in long:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            text += f',\n "{name}": {value.model_dump_json(exclude_none=exclude_none)}'
        else:
            items = ",\n  ".join(item.model_dump_json(exclude_none=exclude_none) for item in value)
            text += f',\n "{name}": [\n  {items}\n ]'
    return text + "\n}\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it; where that fails, nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
