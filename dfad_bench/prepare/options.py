"""Builds a source from what the user typed after ``--set``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dfad_bench import registry
from dfad_bench.config import one_line
from dfad_bench.errors import UsageError, did_you_mean
from dfad_bench.interfaces import Source


def build_source(name: str, settings: Sequence[str]) -> Source:
    """Return the source of that name with its options set from texts ``option=value``.

    Raises UnknownName for the source, UsageError for an option it does not have or a value that does not fit.
    """
    kind = registry.get("sources", name)
    options = [field.name for field in dataclasses.fields(kind) if field.init]
    chosen: dict[str, str] = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected option=value.")
        if option not in options:
            hint = did_you_mean(option, options)
            raise UsageError(
                f"--set {setting}: source {name} has no option {option!r}.{hint} It has: {', '.join(options)}."
            )
        chosen[option] = value
    try:
        source: Source = TypeAdapter(kind).validate_python(chosen)
    except ValidationError as error:
        raise UsageError(f"--set: {one_line(error)}") from None
    return source


def check_root(source: Source, root: Path | None) -> None:
    """Raise UsageError, with the source's own instructions, where its root is missing."""
    if source.needs_root and root is None:
        raise UsageError(f"This source needs --root. {source.instructions}")
    if root is not None and not root.is_dir():
        raise UsageError(f"There is no folder {root}. {source.instructions}")


_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def check_source_name(name: str) -> str:
    """Return the name unchanged; raise UsageError where it could not name a folder and begin an id."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: use lower-case letters, digits, '_' and '-' only.")
    return name
