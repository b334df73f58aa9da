"""The record of one run: what was scored, with which data, weights and code, so that anyone may recompute it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from dfad_bench.config import Strict
from dfad_bench.records.json_files import as_json, read_record, write_text

SCHEMA_VERSION = 2


_LAST_BITS = 1e-9
"""How far two machines may be apart that add the same numbers up in another order."""

Level = Literal["authenticity", "forgery_type", "family", "generator"]
Unit = Literal["frame", "video"]
Task = Literal["detection", "attribution", "joint", "open_set", "discovery"]

MEAN, POOLED = "mean", "pooled"
EVERY_SUBSET = "all"
"""The subset of a number that takes the faces of all test subsets together."""


class Score(Strict):
    """One number. ``value`` is None where it is undefined, and ``reason`` then says why.

    ``unit``: whether faces were scored one by one (``frame``) or pooled per video first (``video``; a face that is in
    no video is one of its own). ``subset``: a test subset's name, or ``all``; ``group``: a value of its ``report_by``
    column, ``mean`` (macro average over the groups; ``real`` is one in attribution and the other side in detection) or
    ``pooled`` (all faces together). Values are fractions in 0..1.
    """

    # JSON has no NaN: it would come back as a None that gives no reason
    model_config = ConfigDict(allow_inf_nan=False)

    task: Task
    metric: str
    level: Level
    unit: Unit = "frame"
    subset: str
    group: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """The 95 % interval by resampling clusters of faces."""
    interval: Literal["bca", "percentile"] | None = None
    """How the interval was found."""
    no_interval: str | None = None
    """Why there is no interval, where one was asked for."""
    delong: tuple[float, float] | None = None
    """For AUC: DeLong's 95 % interval for the same clusters, in closed form."""
    n: int
    """Faces or videos that entered the value (for a mean: groups)."""
    clusters: int | None = None
    """Clusters they form; in detection on the side that has fewer; for a mean, in the group that has fewest."""
    unknown: int = 0
    """Faces or videos left out because training has no such class at this level."""
    reason: str | None = None


def same_score(one: Score, other: Score) -> bool:
    """Return whether two scores are the same but for the last bits of their values."""

    def near(a: float | None, b: float | None) -> bool:
        return a == b or (a is not None and b is not None and abs(a - b) <= _LAST_BITS)

    values = [(one.value, other.value), (one.low, other.low), (one.high, other.high)]
    values += zip(one.delong or (None, None), other.delong or (None, None), strict=True)
    blank: dict[str, None] = {"value": None, "low": None, "high": None, "delong": None}
    return one.model_copy(update=blank) == other.model_copy(update=blank) and all(near(*pair) for pair in values)


class ConfusionRecord(Strict):
    """How often faces of each true value were taken for each value of training: rows sum to the faces of a group.

    ``rows`` are the true values in this subset, those that training lacks among them; ``columns`` the values of training.
    """

    level: Level
    unit: Unit
    subset: str
    rows: list[str]
    columns: list[str]
    counts: list[list[int]]


class ReliabilityRecord(Strict):
    """How far a confidence can be believed, in bins of equal width from 0 to 1.

    Per bin: faces, their mean confidence (of being fake, in detection; in their answer, in attribution) and the fraction
    that is so; both None in an empty bin.
    """

    task: Literal["detection", "attribution"]
    level: Level
    unit: Unit
    subset: str
    faces: list[int]
    confidence: list[float | None]
    fraction: list[float | None]


class CurveRecord(Strict):
    """A curve from (0, 0) rightwards, thinned to some hundred points.

    ``roc``: x the false positive rate, y the true positive rate. ``oscr``: x the share of unknown faces that are accepted,
    y the share of known faces that are accepted and answered right (Dhamija et al., 2018, section 5).
    """

    kind: Literal["roc", "oscr"]
    level: Level
    unit: Unit
    subset: str
    group: str
    x: list[float]
    y: list[float]


class Details(Strict):
    """What a single number cannot say."""

    confusion: list[ConfusionRecord] = Field(default_factory=list)
    reliability: list[ReliabilityRecord] = Field(default_factory=list)
    curves: list[CurveRecord] = Field(default_factory=list)


class ScoringRecord(Strict):
    """How the scores were computed, so that they can be computed again."""

    pooling: str
    """How frames become a video's score."""
    cluster_by: str
    """What is resampled: ``auto`` (whom a face shows, and its video), ``identity``, ``video`` or ``face``."""
    clusters: int
    resamples: int
    """0: no intervals were asked for."""
    seed: int
    thresholds: dict[Unit, float | None]
    """The threshold chosen on val for each unit: that of the highest balanced accuracy; None where val cannot tell."""


class PerturbationRecord(Strict):
    """How every tested face was disturbed before the model saw it: the perturbation and its severity, 1 to 5."""

    name: str
    severity: int = Field(ge=1, le=5)
    strength: str
    """The severity in words, such as ``JPEG quality 30``."""


class ModelRecord(Strict):
    """The model: its weights' hash, size, and how its checkpoint was chosen."""

    name: str
    origin: str
    reference: str
    licence: str
    parameters: int
    weights_sha256: str | None
    backbone_weights: str | None
    selected_on: Literal["val", "given", "nothing"]
    """``val``: trained here, checkpoint chosen on val; ``given``: the user's own weights; ``nothing``: published weights
    and no training."""
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
    scoring: ScoringRecord
    scores: list[Score]
    details: Details = Details()
    perturbation: PerturbationRecord | None = None
    ineligible: list[str] = Field(default_factory=list)
    """Why this result may not stand on the leaderboard; empty when it may."""


def read_result(path: Path) -> Result:
    """Read a result; raise UsageError where it is missing, DataError where it does not fit the schema."""
    return read_record(path, Result, SCHEMA_VERSION, f"There is no result {path}. 'dfad-bench run' writes one.")


def write_result(path: Path, result: Result) -> None:
    """Write a result, replacing the file at once or not at all."""
    write_text(path, as_json(result, "details", "scores"))
