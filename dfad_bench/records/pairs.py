"""The record of every pair of models on one protocol: do they differ on the same faces, and which cannot be told apart?"""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field

from dfad_bench.config import Strict
from dfad_bench.records.json_files import as_json, read_record, write_text
from dfad_bench.records.results import Level, ProtocolRecord, Task

SCHEMA_VERSION = 1


class PairedModel(Strict):
    """A model that was compared, and the predictions that it was compared by."""

    name: str
    predictions_sha256: str


class PairedTest(Strict):
    """One mean over groups of two models on the same faces, in the same resamples of clusters.

    ``difference`` is a − b, a fraction; ``low``, ``high`` its 95 % interval; ``p`` that of the paired bootstrap,
    ``p_adjusted`` one that heeds how many pairs of this mean there are (maxT of the same resamples).
    What is undefined is None, and ``reason`` says why.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    a: str
    b: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    reason: str | None = None


class ComparedMean(Strict):
    """All pairs by one mean over groups, face by face.

    ``groups``: per model the number of its significance group. Models are taken best first; a group's first member leads it,
    and one that is significantly worse than the leader (p_adjusted < 0.05) leads the next. So members of a group are not shown
    to differ from its leader; two neighbours of different groups may still not be shown to differ.
    """

    task: Task
    metric: str
    level: Level
    subset: str
    tests: list[PairedTest]
    groups: dict[str, int]


class PairsRecord(Strict):
    """Every pair of models on the same faces of one protocol."""

    schema_version: int = SCHEMA_VERSION
    protocol: ProtocolRecord
    models: list[PairedModel] = Field(min_length=2)
    cluster_by: str
    """What was resampled: see ``results.ScoringRecord``."""
    clusters: int
    resamples: int
    seed: int
    means: list[ComparedMean]


def read_pairs(path: Path) -> PairsRecord:
    """Read a record; raise UsageError where it is missing, DataError where it does not fit the schema."""
    return read_record(
        path, PairsRecord, SCHEMA_VERSION, f"There is no record {path}. 'dfad-bench leaderboard pairs' writes one."
    )


def write_pairs(path: Path, record: PairsRecord) -> None:
    """Write a record, replacing the file at once or not at all."""
    write_text(path, as_json(record, "means"))
