"""Builds predictions without a file, face by face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.predictions import SCHEMA_VERSION, Context, Predictions, class_records
from dfad_bench.records.results import Score
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


@dataclass(frozen=True)
class Face:
    """One tested face. ``says`` names the leaf class it is taken for."""

    generator: str
    subset: str = "seen"
    says: str = REAL
    fake_score: float = 0.5
    domain: str = "ffhq"
    id: str | None = None


def column(values: Sequence[Any]) -> NDArray[np.object_]:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def predictions(faces: Sequence[Face], *, detector: bool = False, **context: Any) -> Predictions:
    """Return the predictions for faces, whose logits put 0.9 or so on what they are taken for; none for a detector."""
    given: dict[str, Any] = {
        "levels": ["forgery_type", "family", "generator"],
        "assume": {},
        "reals": "same_domain",
        "subsets": {"seen": "generator", "unseen": "generator"},
    } | context
    names = [leaf.name for leaf in CLASSES]
    logits = np.zeros((len(faces), len(CLASSES)))
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
        id=column([face.id or f"face/{row}" for row, face in enumerate(faces)]),
        subset=column([face.subset for face in faces]),
        generator=column([face.generator for face in faces]),
        family=column([KNOWN[face.generator].family for face in faces]),
        forgery_type=column([KNOWN[face.generator].forgery_type for face in faces]),
        domain=column([face.domain for face in faces]),
        video=column([None] * len(faces)),
        identities=[[] for _ in faces],
        fake_score=np.asarray([face.fake_score for face in faces], dtype=np.float64),
        logits=None if detector else logits,
    )


def reordered(given: Predictions, order: NDArray[np.intp]) -> Predictions:
    """Return the same predictions with their rows in another order."""
    columns = ("id", "subset", "generator", "family", "forgery_type", "domain", "video", "fake_score")
    return replace(
        given,
        **{name: getattr(given, name)[order] for name in columns},
        identities=[given.identities[row] for row in order],
        logits=None if given.logits is None else given.logits[order],
    )


def pick(
    scores: Sequence[Score],
    metric: str,
    group: str,
    *,
    subset: str = "seen",
    level: str = "authenticity",
) -> Score:
    """Return the one score with these coordinates."""
    found = [
        each for each in scores if (each.metric, each.group, each.subset, each.level) == (metric, group, subset, level)
    ]
    assert len(found) == 1, f"{len(found)} scores for {metric}, {group}, {subset}, {level}"
    return found[0]
