"""Builds results without a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dfad_bench.publish.tables import Table
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import (
    CodeRecord,
    Counts,
    ModelRecord,
    PredictionsRecord,
    ProtocolRecord,
    Result,
    Score,
    ScoringRecord,
)
from dfad_bench.scoring.score import Options, score
from tests.scoring.builders import Face, predictions

FACES = [
    Face("real", fake_score=0.1),
    Face("real", "unseen", fake_score=0.2),
    Face("ddpm", fake_score=0.9, says="ddpm"),
    Face("stylegan3", fake_score=0.4, says="simswap"),
    Face("sd15", "unseen", fake_score=0.15, says="ddpm"),
    Face("sd15", "unseen", fake_score=0.8, says="stylegan3"),
    Face("flux", "unseen", fake_score=0.7, says="ddpm"),
]

SCORING = ScoringRecord(pooling="mean", cluster_by="auto", clusters=7, resamples=0, seed=0, thresholds={"frame": 0.5})


def a_protocol(name: str = "demo", *, version: int = 1, faces: str = "sha256:a", warning: str | None = None) -> Any:
    return ProtocolRecord(name=name, version=version, origin="ours", fingerprint=faces, warning=warning)


def a_result(
    model: str = "xception",
    *,
    protocol: ProtocolRecord | None = None,
    scored: Predictions | Sequence[Score] | None = None,
    ineligible: Sequence[str] = (),
    skipped: dict[str, int] | None = None,
    resamples: int = 0,
    **fields: Any,
) -> Result:
    """Return a result whose scores are those of seven faces, without intervals, unless others are given."""
    scored = predictions(FACES) if scored is None else scored
    left_out = skipped or {}
    if isinstance(scored, Predictions):
        report = score(scored, Options(resamples))
        fields = {"scores": report.scores, "scoring": report.scoring, "details": report.details} | fields
    else:
        fields = {"scores": list(scored), "scoring": SCORING} | fields
    return Result(
        seed=0,
        model=ModelRecord(
            name=model,
            origin="built-in",
            reference="A reference",
            licence="Apache-2.0",
            parameters=1_234_567,
            weights_sha256="0" * 64,
            backbone_weights=None,
            selected_on="val",
            trained_on=[],
            inputs=["image"],
        ),
        protocol=protocol or a_protocol(),
        code=CodeRecord(version="0.1.0", commit="c" * 40, dirty=False),
        environment={"python": "3.11"},
        config={},
        data={},
        predictions=PredictionsRecord(sha256="1" * 64, rows=7),
        counts=Counts(declared=7 + sum(left_out.values()), evaluated=7, skipped=left_out),
        ineligible=list(ineligible),
        **fields,
    )


def row_of(table: Table, *first: str) -> dict[str, str]:
    """Return the one row that begins so, by column."""
    found = [row for row in table.rows if row[: len(first)] == first]
    assert len(found) == 1
    return dict(zip(table.columns, found[0], strict=True))


def note_of(table: Table, cell: str) -> str:
    """Return the reason that a cell's last number points at."""
    number = re.fullmatch(r".* (\(\d+\))", cell)
    assert number is not None
    found = [note for note in table.notes if note.startswith(number[1])]
    assert len(found) == 1
    return found[0]
