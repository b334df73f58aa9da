"""Builds a source and a preparation from what the user typed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dfad_bench import registry
from dfad_bench.config import one_line
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import UsageError, did_you_mean
from dfad_bench.interfaces import Engine, Source
from dfad_bench.prepare.faces import CropRecipe
from dfad_bench.prepare.plan import Job


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


_HUB = "hf:"


def split_hub(source: str) -> tuple[str, list[str]]:
    """Return a source's registered name and settings: ``hf:org/name@revision`` is the source ``hf`` of that repository."""
    if not source.startswith(_HUB):
        return source, []
    repo, _, revision = source[len(_HUB) :].partition("@")
    return "hf", [f"repo={repo}", *([f"revision={revision}"] if revision else [])]


def _default_name(plugin: str, source: str) -> str:
    """Return what a prepared source is called unless the user says otherwise; a hub dataset by its repository's name."""
    if not source.startswith(_HUB):
        return plugin
    repo = source[len(_HUB) :].partition("@")[0]
    return re.sub(r"[^a-z0-9]+", "-", repo.lower()).strip("-") or plugin


def manifest_folder(data: Path, source: str | None, name: str | None) -> Path:
    """Return the folder of the manifest that was prepared under that name, or from that source under its default name.

    Raises UsageError where neither is given, or the source is not a name that was prepared, nor registered.
    """
    if name is None and source is None:
        raise UsageError("--only-gaze needs the manifest's --name, or the --source that it was prepared from.")
    if name is None and source is not None and _NAME.fullmatch(source) and (data / source).is_dir():
        name = source
    if name is None and source is not None:
        name = _default_name(registry.find("sources", split_hub(source)[0]).name, source)
    assert name is not None
    return data / check_source_name(name)


def build_job(
    source: str,
    data: Path,
    *,
    root: Path | None = None,
    name: str | None = None,
    settings: Sequence[str] = (),
    face_detector: str | None = None,
    gaze_estimator: str | None = None,
    size: int = 256,
    margin: float | None = None,
    thresholds: Mapping[str, Any] | None = None,
    limit: int | None = None,
    engine: Engine | None = None,
) -> Job:
    """Return the preparation of a source; what is not given is the source's or its detector's own choice.

    thresholds: the fields of ``CropRecipe`` that differ from its defaults. Raises UsageError for whatever is wrong with
    it, before the first file is looked at.
    """
    registered, hub_settings = split_hub(source)
    made = build_source(registered, [*hub_settings, *settings])
    check_root(made, root)
    detector = face_detector or made.default_face_detector
    estimator = gaze_estimator or made.default_gaze_estimator
    margin = margin or registry.get("face_detectors", detector).default_margin
    registry.get("gaze_estimators", estimator)
    plugin = registry.find("sources", registered)
    return Job(
        name=check_source_name(name or _default_name(plugin.name, source)),
        plugin=plugin.described,
        source=made,
        root=root,
        data=data,
        recipe=CropRecipe(detector, estimator, margin, size, **(thresholds or {})),
        limit=limit,
        engine=engine or LocalEngine(),
    )
