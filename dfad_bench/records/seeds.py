"""The record of models that were run with several seeds: what they scored each time, and how firm their order is."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field

from dfad_bench.config import Strict
from dfad_bench.records.json_files import as_json, read_record, write_text
from dfad_bench.records.results import Level, ProtocolRecord, Task

SCHEMA_VERSION = 1


class SeededModel(Strict):
    """A model, and per seed which predictions its scores come from."""

    name: str
    seeds: list[int] = Field(min_length=1)
    predictions_sha256: list[str]
    ineligible: list[str]
    """Why some of these results may not stand on the leaderboard; empty when they may."""


class SeededScore(Strict):
    """One number of one model over its seeds, face by face. Coordinates and units are those of ``results.Score``.

    ``mean`` is over the seeds, None where a seed's value is undefined; ``deviation`` the standard deviation between seeds
    (n − 1), None for a single one; ``low`` and ``high`` a 95 % interval for the mean over all seeds and faces of this kind.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    model: str
    task: Task
    metric: str
    level: Level
    subset: str
    group: str
    values: list[float | None]
    """By seed, in the order of the model's seeds."""
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    """Why there is no mean, or no interval."""


class RankStability(Strict):
    """How far seeds agree on the order of the models that have all of them, by one mean over groups.

    ``ranks``: per model its rank by seed, 1 the best, equal models sharing one. ``concordance``: Kendall's W, corrected for
    ties: 1 where every seed gives the same order, near 0 where they agree as chance would; None where it is undefined.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    task: Task
    metric: str
    level: Level
    subset: str
    seeds: list[int]
    ranks: dict[str, list[int]]
    concordance: float | None = None


class SeedsRecord(Strict):
    """Models on the same faces of one protocol, each run with one seed or several."""

    schema_version: int = SCHEMA_VERSION
    protocol: ProtocolRecord
    models: list[SeededModel]
    stability: list[RankStability]
    scores: list[SeededScore]


def read_seeds(path: Path) -> SeedsRecord:
    """Read a record; raise UsageError where it is missing, DataError where it does not fit the schema."""
    missing = f"There is no record {path}. 'dfad-bench leaderboard seeds' writes one."
    return read_record(path, SeedsRecord, SCHEMA_VERSION, missing)


def write_seeds(path: Path, record: SeedsRecord) -> None:
    """Write a record, replacing the file at once or not at all."""
    write_text(path, as_json(record, "stability", "scores"))
