"""The record of one run: what was scored, with which data, weights and code, so that anyone may recompute it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from dfad_bench.config import Strict, validate
from dfad_bench.errors import DataError, UsageError

SCHEMA_VERSION = 1


class Score(Strict):
    """One number. ``value`` is None where it is undefined, and ``reason`` then says why.

    ``subset``: a test subset's name; ``group``: a value of its ``report_by`` column, ``mean`` (macro average over
    the groups; ``real`` is one in attribution and the other side in detection) or ``pooled`` (all faces together).
    Values are fractions in 0..1.
    """

    # JSON has no NaN: it would come back as a None that gives no reason
    model_config = ConfigDict(allow_inf_nan=False)

    task: Literal["detection", "attribution"]
    metric: str
    level: Literal["authenticity", "forgery_type", "family", "generator"]
    subset: str
    group: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    """Faces that entered the value (for a mean: groups)."""
    unknown: int = 0
    """Faces left out because training has no such class at this level."""
    reason: str | None = None


class ModelRecord(Strict):
    """The model: its weights' hash, size, and how its checkpoint was chosen."""

    name: str
    origin: str
    reference: str
    licence: str
    parameters: int
    weights_sha256: str | None
    backbone_weights: str | None
    selected_on: Literal["val", "given"]
    """``val``: trained here, checkpoint chosen on val; ``given``: the user's own weights."""
    trained_on: list[str]
    inputs: list[str]


class ProtocolRecord(Strict):
    """The protocol, and the fingerprint of the faces it selected."""

    name: str
    version: int
    origin: Literal["paper", "ours"]
    fingerprint: str
    warning: str | None


class CodeRecord(Strict):
    """The code: package version, and git commit where it ran from a checkout."""

    version: str
    commit: str | None
    dirty: bool | None


class Counts(Strict):
    """Faces the protocol declares for testing, those evaluated, those not, by reason."""

    declared: int
    evaluated: int
    skipped: dict[str, int]


class PredictionsRecord(Strict):
    """The predictions file this result was computed from."""

    sha256: str
    rows: int


class Result(Strict):
    """The contents of ``result.json``. It holds no clock: the same run gives the same bytes."""

    schema_version: int = SCHEMA_VERSION
    origin: Literal["measured", "reported"] = "measured"
    seed: int
    model: ModelRecord
    protocol: ProtocolRecord
    code: CodeRecord
    environment: dict[str, str]
    config: dict[str, Any]
    data: dict[str, dict[str, Any]]
    """Per source: its crop recipe."""
    predictions: PredictionsRecord
    counts: Counts
    scores: list[Score]
    ineligible: list[str] = Field(default_factory=list)
    """Why this result may not stand on the leaderboard; empty when it may."""


def read_result(path: Path) -> Result:
    """Read a result; raise UsageError where it is missing, DataError where it does not fit the schema."""
    if not path.is_file():
        raise UsageError(f"There is no result {path}. 'dfad-bench run' writes one.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None
    if isinstance(stored, dict) and stored.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {stored.get('schema_version')}, this dfad-bench reads {SCHEMA_VERSION}."
        )
    return validate(stored, Result, str(path))


def write_result(path: Path, result: Result) -> None:
    """Write a result, replacing the file at once or not at all."""
    write_text(path, result.model_dump_json(indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it; where that fails, nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
