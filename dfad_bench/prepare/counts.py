"""What became of each generator's images, counted from the parts of a preparation; ``report.json`` keeps it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from dfad_bench.prepare.ledger import PartName, PartSummary


@dataclass(frozen=True, slots=True)
class GeneratorCount:
    """What became of one generator's images."""

    generator: str
    declared: int
    kept: int
    enlarged: int
    with_gaze: int
    without_gaze: dict[str, int]
    """Faces whose gaze the estimator would not guess, by its reason."""
    skipped: dict[str, int]


def count_generators(done: Mapping[PartName, PartSummary]) -> tuple[GeneratorCount, ...]:
    """Count the faces and skips of parts by generator, sorted by name."""
    by_generator: dict[str, list[PartSummary]] = {}
    for name, summary in sorted(done.items(), key=lambda each: each[0].generator):
        by_generator.setdefault(name.generator, []).append(summary)
    return tuple(
        GeneratorCount(
            generator=generator,
            declared=sum(summary.kept + len(summary.skips) for summary in summaries),
            kept=sum(summary.kept for summary in summaries),
            enlarged=sum(summary.enlarged for summary in summaries),
            with_gaze=sum(summary.with_gaze for summary in summaries),
            without_gaze=_flags(summaries),
            skipped=count_reasons(summaries),
        )
        for generator, summaries in by_generator.items()
    )


def count_reasons(summaries: Iterable[PartSummary]) -> dict[str, int]:
    """Return the number of skips by reason, sorted."""
    return dict(sorted(Counter(skip.reason for summary in summaries for skip in summary.skips).items()))


def _flags(summaries: Iterable[PartSummary]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary.flags)
    return dict(sorted(total.items()))


def kept_report(generators: Sequence[GeneratorCount], defects: Mapping[str, Sequence[str]]) -> str:
    """Return what is kept of a preparation's report: the same for the same faces, however many runs it took to make them."""
    kept = {"generators": [asdict(each) for each in generators], "defects": defects}
    return json.dumps(kept, indent=1) + "\n"
