"""Builds results without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import (
    CodeRecord,
    Counts,
    ModelRecord,
    PredictionsRecord,
    ProtocolRecord,
    Result,
    Score,
)
from dfad_bench.scoring.score import score
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


def a_protocol(name: str = "demo", *, version: int = 1, faces: str = "sha256:a", warning: str | None = None) -> Any:
    return ProtocolRecord(name=name, version=version, origin="ours", fingerprint=faces, warning=warning)


def a_result(
    model: str = "xception",
    *,
    protocol: ProtocolRecord | None = None,
    scored: Predictions | Sequence[Score] | None = None,
    ineligible: Sequence[str] = (),
    skipped: dict[str, int] | None = None,
    **fields: Any,
) -> Result:
    """Return a result whose scores are those of seven faces, unless others are given."""
    scored = predictions(FACES) if scored is None else scored
    left_out = skipped or {}
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
        scores=score(scored) if isinstance(scored, Predictions) else list(scored),
        ineligible=list(ineligible),
        **fields,
    )
