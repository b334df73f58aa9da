"""Small manifests, protocols and predictions for tests: each differs from a sound one only where a test says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dfad_bench.records.manifest import (
    COLUMNS,
    METADATA,
    SCHEMA_VERSION,
    Footer,
    Manifest,
    PrepareRecipe,
    read_manifest,
    with_footer,
)
from dfad_bench.records.predictions import SCHEMA_VERSION as SCHEMA
from dfad_bench.records.predictions import Context, LeafRecord, PredictionsWriter
from dfad_bench.records.protocol import Protocol
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
from dfad_bench.records.selection import FACE_COLUMNS, Selection, open_manifests, resolve

Row = dict[str, Any]

LABELS = {
    "real": ("real", "real"),
    "gan_a": ("gan", "efs"),
    "diffusion_a": ("diffusion", "efs"),
    "swap_a": ("gan", "fs"),
    "flow_a": ("flow", "efs"),
}
"""Generator → (family, forgery type) of the toy source."""

SEEN = ["real", "gan_a", "diffusion_a"]
"""What the toy protocol trains on."""


# --- manifests -----------------------------------------------------------------------------------------------------


def face(key: str, generator: str = "real", source: str = "toy", **changes: Any) -> Row:
    """Return one sound manifest row: a person and pixels of its own, no video."""
    family, forgery_type = LABELS.get(generator, ("gan", "efs"))
    name = f"{source}/{generator}/{key}"
    row: Row = {
        "id": name,
        "file_name": f"faces/{generator}/{key}.png",
        "gaze_file_name": f"gaze/{generator}/{key}.png",
        "source": source,
        "generator": generator,
        "family": family,
        "forgery_type": forgery_type,
        "generator_version": None,
        "domain": "toyland",
        "source_split": "train",
        "video": None,
        "frame": None,
        "identities": [f"toyland/{generator}-{key}"],
        "box": [8.0, 8.0, 56.0, 56.0],
        "landmarks": None,
        "detection_score": 0.9,
        "faces_found": 1,
        "cut_off": 0.0,
        "sharpness": 100.0,
        "crop_scale": 1.0,
        "crop_roll": 0.0,
        "decode_reduction": 1,
        "gaze_pitch": 0.1,
        "gaze_yaw": -0.2,
        "gaze_head_pitch": None,
        "gaze_head_yaw": None,
        "gaze_confidence": None,
        "gaze_flag": None,
        "original_width": 64,
        "original_height": 64,
        "original_format": "PNG",
        "jpeg_quality": None,
        "jpeg_chroma_quality": None,
        "jpeg_subsampling": None,
        "jpeg_tables": None,
        "original_mean_color": [120.0, 100.0, 90.0],
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "perceptual_hash": "0" * 16,
        "licence": "CC0-1.0",
    }
    assert set(changes) <= set(row), f"no such column: {set(changes) - set(row)}"
    return row | changes


def toy_faces(
    per_generator: int = 4, generators: Sequence[str] = tuple(LABELS), source: str = "toy", **changes: Any
) -> list[Row]:
    """Return faces of every generator in each of train, val and test; no two share a person, a video or pixels."""
    return [
        face(f"{split}{number}", generator, source, source_split=split, **changes)
        for split in ("train", "val", "test")
        for generator in generators
        for number in range(per_generator)
    ]


def recipe(**changes: Any) -> PrepareRecipe:
    """Return a crop recipe."""
    return PrepareRecipe(
        **{
            "face_detector": "annotated",
            "face_detector_sha256": None,
            "gaze_estimator": "annotated",
            "gaze_estimator_sha256": None,
            "size": 64,
            "margin": 0.3,
            "align": False,
            "full_decode": False,
            "min_face": 20.0,
            "max_cut_off": 0.3,
            "min_sharpness": 0.0,
            "max_faces": None,
            "source_options": {},
            "software": {"dfad-bench": "0"},
            **changes,
        }
    )


def footer(rows: int = 0, name: str = "toy", **changes: Any) -> Footer:
    """Return a manifest's footer."""
    return Footer(
        **{
            "schema_version": SCHEMA_VERSION,
            "source": name,
            "plugin": "folder",
            "homepage": "https://example.org",
            "recipe": recipe(),
            "limit": None,
            "declared": rows,
            "kept": rows,
            "skipped": {},
            "feature_dim": 0,
            "defects": {},
            **changes,
        }
    )


def write_table(root: Path, table: pa.Table) -> Path:
    """Write a table, its schema's metadata included, as the manifest of a folder; return the file."""
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / METADATA)
    return root / METADATA


def write_manifest(data: Path, rows: Iterable[Mapping[str, Any]], name: str = "toy", **changes: Any) -> Path:
    """Write a sound manifest ``<data>/<name>`` of these rows; changes go into its footer. Return its folder."""
    listed = [dict(row) for row in rows]
    schema = with_footer(COLUMNS, footer(len(listed), name, **changes))
    write_table(data / name, pa.Table.from_pylist(listed, schema=schema))
    return data / name


def write_broken_manifest(data: Path, table: pa.Table, name: str = "toy") -> Path:
    """Write a table of any columns, with a sound footer, as manifest ``<data>/<name>``; return its folder."""
    write_table(data / name, table.cast(with_footer(table.schema, footer(table.num_rows, name))))
    return data / name


def nullable_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table whose columns may all hold nulls, as another tool than ours would write them."""
    schema = pa.schema([field.with_nullable(True) for field in COLUMNS])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def manifest_in_memory(rows: Iterable[Mapping[str, Any]], root: str = "data/toy", **changes: Any) -> Manifest:
    """Return a manifest as a protocol reads it, without touching the disk."""
    listed = [dict(row) for row in rows]
    table = pa.Table.from_pylist(listed, schema=COLUMNS).select(list(FACE_COLUMNS))
    return Manifest(Path(root), table, footer(len(listed), **changes))


def read_toy(data: Path, name: str = "toy") -> Manifest:
    """Read a manifest with all its columns."""
    return read_manifest(data / name)


# --- protocols -----------------------------------------------------------------------------------------------------


def protocol_data(**changes: Any) -> dict[str, Any]:
    """Return the contents of a sound protocol file over the toy source; a change of None removes the key."""
    data: dict[str, Any] = {
        "name": "toy",
        "version": 1,
        "origin": "ours",
        "reference": "none",
        "description": "A toy.",
        "sources": ["toy"],
        "train": {"where": {"generator": SEEN, "source_split": "train"}},
        "val": {"where": {"generator": SEEN, "source_split": "val"}},
        "test": {
            "seen": {"where": {"generator": SEEN, "source_split": "test"}},
            "unseen": {"where": {"generator": ["flow_a"], "source_split": "test"}},
        },
        "attribution": {"levels": ["forgery_type", "family", "generator"]},
        **changes,
    }
    return {key: value for key, value in data.items() if value is not None}


def protocol(**changes: Any) -> Protocol:
    """Return a sound protocol over the toy source, with changes."""
    return Protocol.model_validate(protocol_data(**changes))


def write_protocol(folder: Path, **changes: Any) -> Path:
    """Write a protocol as ``<folder>/<name>.yaml`` and return the file."""
    data = protocol_data(**changes)
    path = folder / f"{data['name']}.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def select(data: Path, limit: int | None = None, **changes: Any) -> Selection:
    """Resolve the toy protocol, with changes, against the manifests of a data folder."""
    chosen = protocol(**changes)
    return resolve(chosen, open_manifests(chosen, data), limit)


def select_in_memory(rows: Iterable[Mapping[str, Any]], limit: int | None = None, **changes: Any) -> Selection:
    """Resolve the toy protocol, with changes, against rows that never were on disk."""
    return resolve(protocol(**changes), {"toy": manifest_in_memory(rows)}, limit)


def ids(table: pa.Table) -> list[str]:
    """Return the ids of a table of faces, sorted."""
    return sorted(table["id"].to_pylist())


# --- predictions and results ---------------------------------------------------------------------------------------


def context(classes: Sequence[str] = tuple(SEEN), **changes: Any) -> Context:
    """Return the footer of a predictions file."""
    return Context(
        **{
            "schema_version": SCHEMA,
            "model": "guess",
            "seed": 0,
            "protocol": "toy",
            "protocol_version": 1,
            "protocol_fingerprint": "sha256:" + "0" * 64,
            "classes": [
                LeafRecord(name=name, family=LABELS[name][0], forgery_type=LABELS[name][1]) for name in classes
            ],
            "levels": ["family", "generator"],
            "assume": {},
            "reals": "same_domain",
            "pooling": "mean",
            "subsets": {"seen": "generator", "unseen": "generator"},
            "declared": 0,
            "skipped": {},
            **changes,
        }
    )


def faces_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return manifest rows as the table a selection hands to a model."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=COLUMNS)


def write_predictions(
    path: Path,
    answers: Mapping[str, tuple[Sequence[Mapping[str, Any]], Any, Any]],
    batch_size: int | None = None,
    rows_per_group: int = 65_536,
    **changes: Any,
) -> Path:
    """Write a predictions file from ``{subset: (faces, fake_score [B], logits [B, C] or None)}``; return it."""
    with PredictionsWriter(path, rows_per_group) as writer:
        for subset, (rows, fake_score, logits) in answers.items():
            table = faces_table(rows)
            scores = np.asarray(fake_score, dtype=np.float64)
            for start in range(0, table.num_rows, batch_size or max(table.num_rows, 1)):
                part = slice(start, start + (batch_size or table.num_rows))
                writer.write(
                    subset,
                    table.slice(start, part.stop - start),
                    scores[part],
                    None if logits is None else np.asarray(logits, dtype=np.float64)[part],
                )
        writer.finish(context(**changes))
    return path


def score(**changes: Any) -> Score:
    """Return one number of a result."""
    return Score(
        **{
            "task": "detection",
            "metric": "auc",
            "level": "authenticity",
            "subset": "seen",
            "group": "pooled",
            "value": 0.1 + 0.2,
            "n": 12,
            **changes,
        }
    )


def result(**changes: Any) -> Result:
    """Return a whole result."""
    return Result(
        **{
            "seed": 0,
            "model": ModelRecord(
                name="guess",
                origin="built-in",
                reference="none",
                licence="Apache-2.0",
                parameters=0,
                weights_sha256=None,
                backbone_weights=None,
                selected_on="val",
                trained_on=[],
                inputs=["image"],
            ),
            "protocol": ProtocolRecord(
                name="toy", version=1, origin="ours", fingerprint="sha256:" + "0" * 64, warning="Ein Spiel – größer"
            ),
            "code": CodeRecord(version="0", commit=None, dirty=None),
            "environment": {"python": "3.11"},
            "config": {"learning_rate": 1e-3, "nested": {"limit": None}},
            "data": {"toy": recipe().model_dump()},
            "predictions": PredictionsRecord(sha256="0" * 64, rows=12),
            "counts": Counts(declared=12, evaluated=12, skipped={}),
            "scoring": ScoringRecord(
                pooling="mean", cluster_by="auto", clusters=12, resamples=0, seed=0, thresholds={"frame": 0.5}
            ),
            "scores": [score(), score(metric="eer", value=None, reason="one class only")],
            **changes,
        }
    )
