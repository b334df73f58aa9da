"""From one predictions file to every number: which faces enter each, and which metrics are computed on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import UsageError
from dfad_bench.records.categorical import Rows, concatenated
from dfad_bench.records.predictions import VAL, Predictions
from dfad_bench.records.results import Details, Score, ScoringRecord, Unit
from dfad_bench.scoring import attribution, detection, joint, open_set
from dfad_bench.scoring.attribution import LevelAnswer, level_answers
from dfad_bench.scoring.details import DetailsSeen
from dfad_bench.scoring.detection import Detector
from dfad_bench.scoring.discovery import discover
from dfad_bench.scoring.faces import Faces, frames, videos
from dfad_bench.scoring.questions import Asked, OnProgress, answer
from dfad_bench.scoring.statistics.resampling import Resampler
from dfad_bench.scoring.views import Metric

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """How to score: resamples (0: no intervals), what is resampled, and how frames are pooled where not as recorded.

    Raises UsageError where ``resamples`` or ``seed`` is negative.
    """

    resamples: int = RESAMPLES
    cluster_by: str = "auto"
    pooling: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 0 or self.seed < 0:
            raise UsageError(
                f"Scores cannot be computed with {self.resamples} resamples and seed {self.seed}: "
                "both are 0 or more, and 0 resamples give no intervals."
            )


@dataclass(frozen=True, slots=True)
class Report:
    """Every number of a predictions file, how they were computed, and what numbers cannot say."""

    scores: list[Score]
    details: Details
    scoring: ScoringRecord


def score(predictions: Predictions, options: Options = Options(), on_progress: OnProgress | None = None) -> Report:
    """Return every number of a predictions file, unit by unit and test subset by test subset.

    Detection sets the fakes of each group (a value of the subset's ``report_by`` column) against the real test faces
    of all subsets, each once, of the fakes' domains where the protocol says so. Attribution asks for the value at each
    level; a face whose value training lacks, and the protocol assumes nothing about, is left out, counted as unknown, and
    asked for in the open-set numbers. ``mean`` is the macro average over groups, ``pooled`` takes a subset's faces
    together. What is undefined is None with a reason. A pure function: the order of rows does not matter.
    """
    ordered = predictions.in_order()
    asking = Asking.of(ordered, options)
    seen = DetailsSeen(asking.detectors)
    answers = answer(asking.asked, asking.resampler, on_progress, seen)
    return Report(
        scores=[each.score for each in answers] + list(discover(ordered)),
        details=seen.details(asking.levels, asking.subsets),
        scoring=asking.record(options),
    )


@dataclass(frozen=True, eq=False)
class Asking:
    """All questions that a predictions file is asked, and what answers them."""

    asked: Sequence[Asked]
    detectors: Sequence[Detector]
    levels: Sequence[LevelAnswer]
    subsets: Mapping[Unit, Mapping[str, Mapping[str, Rows]]]
    resampler: Resampler | None
    clusters: int
    pooling: str

    @classmethod
    def of(cls, predictions: Predictions, options: Options) -> Asking:
        """Return the questions for predictions that are in order."""
        found = registry.entries("metrics")
        metrics: dict[str, Metric] = {name: registry.load("metrics", entry) for name, entry in found.items()}
        pooling = options.pooling or predictions.context.pooling
        single, stratum = _numbered(frames(predictions, options.cluster_by))
        units = [single, videos(single, predictions.video, pooling)]
        asked: list[Asked] = []
        detectors: list[Detector] = []
        levels: list[LevelAnswer] = []
        subsets: dict[Unit, dict[str, dict[str, Rows]]] = {}
        for faces in units:
            detectors.append(Detector.of(faces, predictions.context.reals == "same_domain"))
            subsets[faces.unit] = faces.subsets(predictions.context.subsets)
            answers = list(level_answers(faces, predictions.classes, predictions.context))
            levels += answers
            asked += _questions(detectors[-1], answers, metrics, subsets[faces.unit])
        resampler = Resampler(stratum, options.resamples, options.seed) if options.resamples else None
        return cls(asked, detectors, levels, subsets, resampler, len(stratum), pooling)

    def record(self, options: Options) -> ScoringRecord:
        """Return how these questions are answered, for the result."""
        return ScoringRecord(
            pooling=self.pooling,
            cluster_by=options.cluster_by,
            clusters=self.clusters,
            resamples=options.resamples,
            seed=options.seed,
            thresholds={
                each.faces.unit: None if isinstance(each.threshold, str) else each.threshold for each in self.detectors
            },
        )


def _questions(
    detector: Detector,
    levels: Sequence[LevelAnswer],
    metrics: Mapping[str, Metric],
    subsets: Mapping[str, Mapping[str, Rows]],
) -> Iterator[Asked]:
    for subset, groups in subsets.items():
        everyone = np.sort(concatenated(groups.values()))
        yield from detection.questions(detector, metrics, subset, groups)
        for level in levels:
            yield from attribution.questions(level, metrics, subset, groups, everyone)
        for level in levels:
            yield from joint.questions(detector, level, subset, groups, everyone)
    for level in levels:
        yield from open_set.questions(level)


def _numbered(faces: Faces) -> tuple[Faces, NDArray[np.intp]]:
    """Number the clusters of test faces from 0, and return the stratum of each.

    Clusters of one generator (or of reals alone) are drawn among themselves, so that every resample has as many of them;
    those that hold faces of several generators are drawn among themselves too. Faces of val get cluster −1.
    """
    tested = ~faces.subset.is_(VAL)
    held, local = np.unique(faces.cluster[tested], return_inverse=True)
    cluster = np.full(len(faces), -1, np.int32)
    cluster[tested] = local
    generator = faces.generator.code[tested]
    lowest, highest = np.full(len(held), np.iinfo(np.intp).max), np.full(len(held), -1)
    np.minimum.at(lowest, local, generator)
    np.maximum.at(highest, local, generator)
    mixed = len(faces.generator.values)
    return replace(faces, cluster=cluster), np.where(lowest == highest, lowest, mixed)
