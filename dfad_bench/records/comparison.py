"""The record of one comparison: two models on the same faces, every difference with how far chance could explain it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict

from dfad_bench.config import Strict, file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.json_files import as_json, read_record, write_text
from dfad_bench.records.results import (
    Level,
    PerturbationRecord,
    PredictionsRecord,
    Task,
    Unit,
    read_result,
)

SCHEMA_VERSION = 1
PREDICTIONS = "predictions.parquet"
FEW_CLUSTERS = 20
"""Below so many clusters an interval is too narrow, and a p-value by resampling too small, to be believed:
see benchmarks/coverage.py."""

Test = Literal["delong", "mcnemar", "bootstrap"]


class _Finite(Strict):
    """JSON has no NaN: it would come back as a None that gives no reason."""

    model_config = ConfigDict(allow_inf_nan=False)


class BootstrapTest(_Finite):
    """Two-sided p-value from the differences in all resamples; None where it is undefined, and ``reason`` says why."""

    p: float | None = None
    reason: str | None = None


class DeLongTest(_Finite):
    """DeLong's paired test of two AUCs, with clusters Obuchowski's: z, p and the difference's 95 % interval."""

    p: float | None = None
    z: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class McNemarTest(_Finite):
    """McNemar's test: faces (or videos) that only A and that only B gets right.

    method: ``exact`` where each stands by itself; with clusters ``chi-square``, ``sign flips`` where few are discordant.
    """

    p: float
    only_a: int
    only_b: int
    statistic: float
    method: Literal["exact", "sign flips", "chi-square"]


class Difference(_Finite):
    """One number of both models. Coordinates as in a ``Score``; values are fractions in 0..1, ``difference`` is a − b.

    What is undefined is None: ``reason`` says why there is no difference, ``no_interval`` and ``no_p`` why it has no
    interval and no p-value.
    """

    task: Task
    metric: str
    level: Level
    unit: Unit
    subset: str
    group: str
    higher_is_better: bool
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    """The difference's 95 % interval by resampling clusters of faces, the same ones for both models."""
    interval: Literal["bca", "percentile"] | None = None
    no_interval: str | None = None
    test: Test
    """Which test ``p`` is of, fixed by the metric: DeLong for ``auc``, McNemar for accuracy, else the paired bootstrap."""
    p: float | None = None
    no_p: str | None = None
    p_holm: float | None = None
    """``p`` adjusted for all groups of this task, metric, level, unit and subset; None for ``mean`` and ``pooled``."""
    holm_of: int | None = None
    """How many groups ``p_holm`` is adjusted for: those with a difference. One without a p-value counts as one of 1."""
    bootstrap: BootstrapTest | None = None
    delong: DeLongTest | None = None
    mcnemar: McNemarTest | None = None
    n_a: int
    n_b: int
    """Faces or videos that enter each value (for a mean: groups); they differ where a model's answers choose them."""
    clusters: int | None = None
    few_clusters: bool = False
    """Whether there are fewer than 20 clusters: the interval is then too narrow."""
    unknown: int = 0
    """Faces or videos left out because training has no such class at this level."""
    reason: str | None = None


class SideRecord(Strict):
    """One of the two models.

    predictions: the file compared. left_out: faces that only this file has, by subset. thresholds: the one chosen on val
    for each unit, on the val faces that both have; None where val cannot tell.
    """

    model: str
    seed: int
    predictions: PredictionsRecord
    left_out: dict[str, int]
    thresholds: dict[Unit, float | None]


class ComparedProtocol(Strict):
    """The protocol that both models were tested on."""

    name: str
    version: int
    fingerprint: str
    warning: str | None


class ResamplingRecord(Strict):
    """What was resampled, and how frames were pooled; clusters are those of all test faces."""

    pooling: str
    cluster_by: str
    clusters: int
    resamples: int
    seed: int


class Comparison(Strict):
    """The contents of a comparison file. It holds no clock: the same two files give the same bytes."""

    schema_version: int = SCHEMA_VERSION
    a: SideRecord
    b: SideRecord
    protocol: ComparedProtocol
    perturbation: PerturbationRecord | None
    faces: dict[str, int]
    """Faces compared, by subset, ``val`` among them."""
    detection_only: bool
    """Whether a model gives no class logits, so that only detection is compared."""
    resampling: ResamplingRecord
    differences: list[Difference]


def find_predictions(given: Path) -> Path:
    """Return the predictions file that a path means: itself, the one in a run's folder, or the one beside a result.

    Raises UsageError where there is none, DataError where a result was computed from another file.
    """
    if given.is_dir():
        found = given / PREDICTIONS
    elif given.suffix == ".json":
        found = given.with_name(PREDICTIONS)
        recorded = read_result(given).predictions.sha256
        if found.is_file() and file_sha256(found) != recorded:
            raise DataError(
                f"{given} was not computed from {found}: the sha256 differs. Give the predictions file itself."
            )
    else:
        found = given
    if not found.is_file():
        raise UsageError(f"There is no predictions file {found}. Give one, the folder of a run, or its result.json.")
    return found


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write a comparison, replacing the file at once or not at all."""
    write_text(path, as_json(comparison, "differences"))


def read_comparison(path: Path) -> Comparison:
    """Read a comparison; raise UsageError where it is missing, DataError where it does not fit the schema."""
    missing = f"There is no comparison {path}. 'dfad-bench compare A B --output {path}' writes one."
    return read_record(path, Comparison, SCHEMA_VERSION, missing)
