"""Builds what somebody sends to the leaderboard: a sound result of the demo protocol and the predictions that give it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfad_bench.config import file_sha256
from dfad_bench.publish import submission
from dfad_bench.records.predictions import SCHEMA_VERSION, Context, LeafRecord, PredictionsWriter, read_predictions
from dfad_bench.records.protocol import load_protocol
from dfad_bench.records.results import PredictionsRecord, ProtocolRecord, Result, write_result
from dfad_bench.scoring.score import Options, score
from tests.publish.builders import a_result
from tests.records.builders import face, faces_table

FACES = "sha256:" + "f" * 64
LABELS = {
    "real": ("real", "real"),
    "demo_gan": ("gan", "efs"),
    "demo_diffusion": ("diffusion", "efs"),
    "demo_swap": ("autoencoder", "fs"),
    "demo_flow": ("flow", "efs"),
    "demo_edit": ("autoencoder", "am"),
}
SEEN = list(LABELS)[:4]
SUBSETS = {"val": SEEN, "seen": SEEN, "unseen": ["demo_flow", "demo_edit"]}
PER_GENERATOR = 3
NO_INTERVALS, FEW = Options(resamples=0), Options(resamples=20)
"""How these are scored where a test puts one in the place of ``submission.LEADERBOARD``: seconds sooner for each."""


def demo_faces(subset: str) -> list[dict[str, Any]]:
    """Return the faces of one subset, a person each."""
    return [
        face(f"{subset}{number}", name, "demo", domain="demo", family=LABELS[name][0], forgery_type=LABELS[name][1])
        for name in SUBSETS[subset]
        for number in range(PER_GENERATOR)
    ]


def demo_context(model: str, **changes: Any) -> Context:
    """Return the footer that a run on the demo protocol writes."""
    protocol = load_protocol("demo")
    tested = sum(len(SUBSETS[subset]) for subset in ("seen", "unseen")) * PER_GENERATOR
    return Context(
        **{
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "seed": 0,
            "protocol": "demo",
            "protocol_version": protocol.version,
            "protocol_fingerprint": FACES,
            "protocol_warning": protocol.warning,
            "classes": [LeafRecord(name=name, family=LABELS[name][0], forgery_type=LABELS[name][1]) for name in SEEN],
            "levels": list(protocol.attribution.levels),
            "assume": {},
            "reals": protocol.detection.reals,
            "pooling": protocol.detection.pooling,
            "subsets": {name: subset.report_by for name, subset in protocol.test.items()},
            "declared": tested,
            "skipped": {},
            **changes,
        }
    )


def write_demo_predictions(
    path: Path,
    model: str = "guess",
    *,
    draw: int = 0,
    embeddings: bool = False,
    faces: Callable[[str], Sequence[dict[str, Any]]] = demo_faces,
    **changes: Any,
) -> Path:
    """Write the predictions of a model that guesses; changes go into the footer."""
    rng = np.random.default_rng(draw)
    with PredictionsWriter(path) as writer:
        for subset in SUBSETS:
            table = faces_table(faces(subset))
            size = table.num_rows
            embedding = rng.normal(size=(size, 4)) if embeddings else None
            writer.write(subset, table, rng.random(size), rng.normal(size=(size, len(SEEN))), embedding)
        writer.finish(demo_context(model, **changes))
    return path


def demo_result(predictions: Path, model: str = "guess", **changes: Any) -> Result:
    """Return the result that predictions give, scored as a run scores; changes are its fields."""
    protocol = load_protocol("demo")
    read = read_predictions(predictions)
    report = score(read, submission.LEADERBOARD)
    tested = sum(len(SUBSETS[subset]) for subset in ("seen", "unseen")) * PER_GENERATOR
    made = a_result(
        model,
        protocol=ProtocolRecord(
            name="demo", version=protocol.version, origin=protocol.origin, fingerprint=FACES, warning=protocol.warning
        ),
        scored=report.scores,
        scoring=report.scoring,
        details=report.details,
    )
    return made.model_copy(
        update={
            "predictions": PredictionsRecord(sha256=file_sha256(predictions), rows=len(read)),
            "counts": made.counts.model_copy(update={"declared": tested, "evaluated": tested}),
            **changes,
        }
    )


def a_run(folder: Path, model: str = "guess", *, embeddings: bool = False, draw: int = 0, **changes: Any) -> Path:
    """Write a finished run and return its folder."""
    predictions = write_demo_predictions(folder / "predictions.parquet", model, embeddings=embeddings, draw=draw)
    write_result(folder / "result.json", demo_result(predictions, model, **changes))
    return folder


def sent(results: Path, model: str = "guess", *, draw: int = 0, **changes: Any) -> Path:
    """Write what is sent, sound but for the changes of the result, and return the result's file."""
    predictions = write_demo_predictions(results / "demo" / f"{model}.parquet", model, draw=draw)
    write_result(results / "demo" / f"{model}.json", demo_result(predictions, model, **changes))
    return results / "demo" / f"{model}.json"


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the contents of a JSON file in place."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    change(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")


def change_rows(predictions: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change each row of a predictions file in place, its footer left as it is."""
    table, footer = pq.read_table(predictions), pq.read_metadata(predictions).metadata[b"dfad_bench"]
    rows = table.to_pylist()
    for row in rows:
        change(row)
    write_as_stored(predictions, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()), footer)


def write_as_stored(predictions: Path, table: pa.Table, footer: bytes, **more: str) -> None:
    """Write any table as a predictions file with a footer, and let the result beside it name its hash."""
    with pq.ParquetWriter(predictions, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"dfad_bench": footer, **more})
    beside = predictions.with_suffix(".json")
    change_json(beside, lambda stored: stored["predictions"].update(sha256=file_sha256(predictions)))


def files_of(folder: Path) -> Iterator[str]:
    """Yield every file below a folder, hidden ones too."""
    yield from (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())
