"""The record of a run's robustness: how its headline numbers change with the severity of what is done to the faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from dfad_bench.config import Strict
from dfad_bench.records.json_files import as_json, read_record, write_text
from dfad_bench.records.results import Level, PerturbationRecord, ProtocolRecord, Task, Unit

SCHEMA_VERSION = 1

BySeverity = Annotated[list[float | None], Field(min_length=6, max_length=6)]
"""One number per severity, 0 to 5; severity 0 are the faces as they are."""


class LevelRecord(Strict):
    """A perturbation at a severity: what it is, the folder of its result beside this file, and its predictions."""

    perturbation: PerturbationRecord
    folder: str
    predictions_sha256: str


class _Numbers(Strict):
    """One number of a result, at every severity. All are fractions in 0..1.

    ``area`` is that under the curve over the severities 0 to 5 by the trapezoid rule, divided by 5: the curve's mean
    height, in the sense of the metric (of an EER, lower is better). It is None, and ``reason`` then says why, where one of
    the six values is.
    """

    # JSON has no NaN: it would come back as a None that gives no reason
    model_config = ConfigDict(allow_inf_nan=False)

    task: Task
    metric: str
    level: Level
    unit: Unit
    subset: str
    group: str
    value: BySeverity
    area: float | None = None
    reason: str | None = None


class SeverityCurve(_Numbers):
    """One number under one perturbation, named as in PerturbationRecord, with its 95 % intervals where there are any.

    ``undefined``: severity → why there is no value.
    """

    perturbation: str
    low: BySeverity
    high: BySeverity
    undefined: dict[int, str] = Field(default_factory=dict)


class MeanCurve(_Numbers):
    """The mean of the curves of one number, over the perturbations whose curve is complete: ``over`` names them."""

    over: list[str]


class RobustnessRecord(Strict):
    """The contents of ``robustness.json``: of one run, its weights, and every perturbed level that was found of it."""

    schema_version: int = SCHEMA_VERSION
    seed: int
    model: str
    weights_sha256: str | None
    protocol: ProtocolRecord
    clean_predictions_sha256: str
    """Of the predictions on faces as they are, severity 0."""
    levels: list[LevelRecord]
    curves: list[SeverityCurve]
    means: list[MeanCurve]


def read_robustness(path: Path) -> RobustnessRecord:
    """Read a robustness record; raise UsageError where it is missing, DataError where it does not fit the schema."""
    missing = f"There is no robustness record {path}. 'dfad-bench run --perturb …' writes one."
    return read_record(path, RobustnessRecord, SCHEMA_VERSION, missing)


def write_robustness(path: Path, record: RobustnessRecord) -> None:
    """Write a robustness record, replacing the file at once or not at all.

    A file that says the same already is left alone.
    """
    text = as_json(record, "levels", "curves", "means", exclude_none=False)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
