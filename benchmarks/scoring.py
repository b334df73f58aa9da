"""Scoring a million faces, against asking scikit-learn for each number by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from measure import record, timed
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from dfad_bench.records.predictions import SCHEMA_VERSION, Context, LeafRecord, Predictions
from dfad_bench.scoring.score import score

GENERATORS = 20
LEAVES = [LeafRecord(name="real", family="real", forgery_type="real")] + [
    LeafRecord(name=f"g{i:02d}", family=("gan", "diffusion", "flow")[i % 3], forgery_type=("efs", "fs")[i % 2])
    for i in range(GENERATORS - 1)
]


def predictions(faces: int) -> Predictions:
    """Return random predictions on one test subset of all classes."""
    rng = np.random.default_rng(0)
    leaf = rng.integers(0, GENERATORS, faces)
    logits = rng.normal(size=(faces, GENERATORS))
    logits[np.arange(faces), leaf] += 1
    columns = {
        column: np.asarray([getattr(each, column) for each in LEAVES], dtype=object)[leaf]
        for column in ("name", "family", "forgery_type")
    }
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    context = Context(
        schema_version=SCHEMA_VERSION,
        model="random",
        seed=0,
        protocol="benchmark",
        protocol_version=1,
        protocol_fingerprint="sha256:" + "0" * 64,
        classes=LEAVES,
        levels=["forgery_type", "family", "generator"],
        assume={},
        reals="same_domain",
        subsets={"test": "generator"},
        declared=faces,
        skipped={},
    )
    return Predictions(
        context=context,
        id=np.asarray([f"s/g/{i}" for i in range(faces)], dtype=object),
        subset=np.full(faces, "test", dtype=object),
        generator=columns["name"],
        family=columns["family"],
        forgery_type=columns["forgery_type"],
        domain=np.full(faces, "d", dtype=object),
        video=np.full(faces, None, dtype=object),
        identities=[[]] * faces,
        fake_score=1 - probabilities[:, 0],
        logits=logits,
    )


def one_by_one(given: Predictions) -> list[float]:
    """Compute the same numbers as a script would: a mask, and a call of scikit-learn, for each."""
    values: list[float] = []
    assert given.logits is not None
    real = given.generator == "real"
    names = np.asarray([leaf.name for leaf in LEAVES], dtype=object)
    predicted: Any = names[given.logits.argmax(axis=1)]
    for leaf in LEAVES:
        mine = given.generator == leaf.name
        for column in ("name", "family", "forgery_type"):
            table = {each.name: getattr(each, column) for each in LEAVES}
            told = [table[name] for name in predicted[mine]]
            values.append(float(accuracy_score([table[name] for name in given.generator[mine]], told)))
        if leaf.name == "real":
            continue
        both = real | mine
        values += [float(m(~real[both], given.fake_score[both])) for m in (roc_auc_score, average_precision_score)]
    return values


def main() -> None:
    """Measure and record."""
    rows: list[dict[str, object]] = []
    for faces in (100_000, 1_000_000):
        given = predictions(faces)
        ours, scores = timed(score, given)
        theirs, values = timed(one_by_one, given)
        rows.append(
            {
                "faces": faces,
                "ours_seconds": ours,
                "ours_numbers": len(scores),
                "one_by_one_seconds": theirs,
                "one_by_one_numbers": len(values),
                "speed_per_number": (theirs / len(values)) / (ours / len(scores)),
            }
        )
    record("scoring", rows)


if __name__ == "__main__":
    main()
