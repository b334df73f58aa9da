"""Builds predictions without a file, face by face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dfad_bench.records.categorical import Categorical
from dfad_bench.records.predictions import SCHEMA_VERSION, Context, Predictions, class_records
from dfad_bench.records.results import Score
from dfad_bench.scoring.score import Options, score
from dfad_bench.types import REAL, Leaf

REAL_LEAF = Leaf(REAL, REAL, REAL)
CLASSES = (
    REAL_LEAF,
    Leaf("ddpm", "diffusion", "efs"),
    Leaf("simswap", "gan", "fs"),
    Leaf("stylegan3", "gan", "efs"),
)
KNOWN = {
    **{leaf.name: leaf for leaf in CLASSES},
    "sd15": Leaf("sd15", "diffusion", "efs"),
    "flux": Leaf("flux", "flow", "efs"),
}


NO_INTERVALS = Options(resamples=0)


@dataclass(frozen=True)
class Face:
    """One tested face. ``says`` names the leaf class it is taken for."""

    generator: str
    subset: str = "seen"
    says: str = REAL
    fake_score: float = 0.5
    domain: str = "ffhq"
    id: str | None = None
    video: str | None = None
    identity: str | None = None


def predictions(faces: Sequence[Face], *, detector: bool = False, **context: Any) -> Predictions:
    """Return the predictions for faces, whose logits put 0.9 or so on what they are taken for; none for a detector."""
    given: dict[str, Any] = {
        "levels": ["forgery_type", "family", "generator"],
        "assume": {},
        "reals": "same_domain",
        "pooling": "mean",
        "subsets": {"seen": "generator", "unseen": "generator"},
    } | context
    names = [leaf.name for leaf in CLASSES]
    logits = np.zeros((len(faces), len(CLASSES)), np.float32)
    for row, face in enumerate(faces):
        logits[row, names.index(face.says)] = 4.0
    return Predictions(
        context=Context(
            schema_version=SCHEMA_VERSION,
            model="a_model",
            seed=0,
            protocol="a_protocol",
            protocol_version=1,
            protocol_fingerprint="sha256:0",
            classes=class_records(CLASSES),
            declared=len(faces),
            skipped={},
            **given,
        ),
        id=pa.array([face.id or f"face/{row}" for row, face in enumerate(faces)], pa.string()),
        subset=Categorical.of([face.subset for face in faces]),
        generator=Categorical.of([face.generator for face in faces]),
        family=Categorical.of([KNOWN[face.generator].family for face in faces]),
        forgery_type=Categorical.of([KNOWN[face.generator].forgery_type for face in faces]),
        domain=Categorical.of([face.domain for face in faces]),
        video=Categorical.of([face.video for face in faces]),
        identity=Categorical.of([face.identity for face in faces]),
        fake_score=np.asarray([face.fake_score for face in faces], dtype=np.float64),
        logits=None if detector else logits,
    )


def scores_of(faces: Sequence[Face], *, options: Options = NO_INTERVALS, **given: Any) -> list[Score]:
    """Return every number of the predictions for faces, without intervals unless ``options`` ask for them."""
    return score(predictions(faces, **given), options).scores


def pick(
    scores: Sequence[Score],
    metric: str,
    group: str,
    *,
    subset: str = "seen",
    level: str = "authenticity",
    unit: str = "frame",
    task: str | None = None,
) -> Score:
    """Return the one score with these coordinates."""
    found = [
        each
        for each in scores
        if (each.metric, each.group, each.subset, each.level, each.unit) == (metric, group, subset, level, unit)
        and task in (None, each.task)
    ]
    assert len(found) == 1, f"{len(found)} scores for {metric}, {group}, {subset}, {level}"
    return found[0]
