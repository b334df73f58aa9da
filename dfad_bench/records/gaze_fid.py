"""The record of a gaze-FID: how far each generator's gaze is from real gaze, how sure that is, and what it was measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from dfad_bench.config import Strict
from dfad_bench.records.json_files import as_json, read_record, write_text

SCHEMA_VERSION = 1


class _Finite(Strict):
    model_config = ConfigDict(allow_inf_nan=False)


class MeasuringRecord(Strict):
    """How gaze was measured. Values whose measuring differs are not to be compared."""

    estimator: str
    estimator_sha256: str | None = None
    face_detector: str
    size: int
    margin: float
    align: bool


class DistanceRecord(_Finite):
    """Two samples of gazes, see ``analysis.two_samples.TwoSample`` for each number.

    frechet and all that is in its unit: the report's ``unit``; kid has none, energy is in the space's own unit.
    """

    dimensions: int
    reference_faces: int
    candidate_faces: int
    reference_clusters: int
    candidate_clusters: int
    shared_clusters: int
    frechet: float
    mean_part: float
    bias: float
    corrected: float
    low: float
    high: float
    raw_low: float
    raw_high: float
    p: float
    p_method: str
    null_mean: float
    null_median: float
    null_p95: float
    null_faces: float
    null_scale: float
    kid: float
    kid_p: float
    energy: float
    energy_p: float
    resamples: int
    seed: int
    flags: list[str]


class GeneratorRow(_Finite):
    """One generator against the reals of its domains; ``distance`` is None where there is none, and ``reason`` says why."""

    generator: str
    family: str
    forgery_type: str
    domains: list[str] = Field(default_factory=list)
    measuring: MeasuringRecord | None = None
    fakes_without_gaze: int = 0
    reals_without_gaze: int = 0
    distance: DistanceRecord | None = None
    reason: str | None = None


class DomainRow(_Finite):
    """Reals of one domain against reals of another: what a difference of photographs alone amounts to."""

    domain: str
    other: str
    measuring: MeasuringRecord
    distance: DistanceRecord | None = None
    reason: str | None = None


class PreservationRow(_Finite):
    """The angle in degrees between a fake's gaze and that of the face it was made from, of a generator or a family."""

    name: str
    family: str
    pairs: int
    clusters: int
    unpaired: int
    median: float
    low: float | None = None
    high: float | None = None
    by_chance: float
    no_interval: str | None = None


class FamilyDifferenceRow(_Finite):
    """By how many degrees one family's median deviation exceeds another's."""

    family: str
    other: str
    difference: float
    low: float | None = None
    high: float | None = None
    no_interval: str | None = None


class GazeFidReport(Strict):
    """The contents of a gaze-FID report."""

    schema_version: int = SCHEMA_VERSION
    space: Literal["angles", "direction", "features"]
    unit: str
    """Of the Fréchet distance and of everything that is measured in it."""
    sources: list[str]
    reals: Literal["same_domain", "all"]
    most: int
    resamples: int
    seed: int
    generators: list[GeneratorRow]
    domains: list[DomainRow]
    preserved: list[PreservationRow]
    preserved_by_family: list[PreservationRow]
    family_differences: list[FamilyDifferenceRow]


def write_report(path: Path, report: GazeFidReport) -> None:
    """Write a report, replacing the file at once or not at all."""
    lists = ("generators", "domains", "preserved", "preserved_by_family", "family_differences")
    write_text(path, as_json(report, *lists))


def read_report(path: Path) -> GazeFidReport:
    """Read a report; raise UsageError where it is missing, DataError where it does not fit the schema."""
    missing = f"There is no gaze-FID report {path}. 'dfad-bench gaze-fid --output {path}' writes one."
    return read_record(path, GazeFidReport, SCHEMA_VERSION, missing)
