"""Builds a source and a preparation from what the user typed."""

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
from dfad_bench.prepare.faces import CropRecipe
from dfad_bench.prepare.pipeline import Job


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


def build_job(
    source: str,
    data: Path,
    *,
    root: Path | None = None,
    name: str | None = None,
    settings: Sequence[str] = (),
    face_detector: str | None = None,
    gaze_estimator: str = "annotated",
    size: int = 256,
    margin: float | None = None,
    limit: int | None = None,
    workers: int = 1,
) -> Job:
    """Return the preparation of a source; what is not given is the source's or its detector's own choice.

    Raises UsageError for whatever is wrong with it, before the first file is looked at.
    """
    made = build_source(source, settings)
    check_root(made, root)
    detector = face_detector or made.default_face_detector
    margin = margin or registry.get("face_detectors", detector).default_margin
    registry.get("gaze_estimators", gaze_estimator)
    plugin = registry.find("sources", source)
    return Job(
        name=check_source_name(name or plugin.name),
        plugin=plugin.described,
        source=made,
        root=root,
        data=data,
        recipe=CropRecipe(detector, gaze_estimator, margin, size),
        limit=limit,
        workers=workers,
    )
