"""Builds manifests whose files can be given any header, without preparing a face."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dfad_bench.records.manifest import COLUMNS, SCHEMA_VERSION, Footer, Manifest, PrepareRecipe

FOOTER = Footer(
    schema_version=SCHEMA_VERSION,
    source="toy",
    plugin="table",
    homepage="",
    recipe=PrepareRecipe(
        face_detector="whole_image",
        face_detector_sha256=None,
        gaze_estimator="annotated",
        gaze_estimator_sha256=None,
        size=256,
        margin=1.0,
        align=False,
        full_decode=False,
        min_face=0.0,
        max_cut_off=1.0,
        min_sharpness=0.0,
        max_faces=None,
        source_options={},
        software={},
    ),
    limit=None,
    declared=0,
    kept=0,
    skipped={},
    feature_dim=0,
    defects={},
)


def far_hash(*parts: object) -> str:
    """Return a perceptual hash that is far from every other's, as those of different pictures are."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def face(generator: str, number: int, **changes: Any) -> dict[str, Any]:
    """Return one row: a square PNG of its own person, with its own pixels and a gaze, unless ``changes`` say otherwise."""
    kind = "real" if generator == "real" else None
    return {
        "id": f"toy/{generator}/{number:05}",
        "file_name": f"faces/{generator}-{number:05}.png",
        "gaze_file_name": f"gaze/{generator}-{number:05}.png",
        "source": "toy",
        "generator": generator,
        "family": kind or "gan",
        "forgery_type": kind or "efs",
        "domain": "toy",
        "identities": [f"toy/{generator}-{number}"],
        "box": [0.0, 0.0, 256.0, 256.0],
        "faces_found": 1,
        "cut_off": 0.0,
        "sharpness": 10.0,
        "crop_scale": 1.0,
        "crop_roll": 0.0,
        "decode_reduction": 1,
        "gaze_pitch": 0.1,
        "gaze_yaw": -0.1,
        "original_width": 256,
        "original_height": 256,
        "original_format": "PNG",
        "jpeg_quality": None,
        "original_mean_color": [128.0, 128.0, 128.0],
        "sha256": f"{generator}-{number}",
        "perceptual_hash": far_hash(generator, number),
        "licence": "CC0",
        **changes,
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a manifest's table."""
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def manifest_of(root: Path, rows: Sequence[Mapping[str, Any]]) -> Manifest:
    """Write a file of one byte for every face and gaze map, and return the manifest."""
    for row in rows:
        for name in (row["file_name"], row["gaze_file_name"]):
            if name is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(b"x")
    return Manifest(root, table_of(rows), FOOTER.model_copy(update={"declared": len(rows), "kept": len(rows)}))


def any_header(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a file header from one distribution: half JPEG of several qualities, sizes of several kinds."""
    jpeg = bool(rng.integers(2))
    return {
        "original_format": "JPEG" if jpeg else str(rng.choice(["PNG", "WEBP"])),
        "original_width": int(rng.choice([128, 256, rng.integers(300, 900)])),
        "original_height": int(rng.choice([128, 256, rng.integers(300, 900)])),
        "jpeg_quality": int(rng.choice([75, 85, 95])) if jpeg else None,
    }


def alike(counts: Mapping[str, int], seed: int = 0) -> list[dict[str, Any]]:
    """Return so many faces of each generator, all headers coming from ``any_header``."""
    rng = np.random.default_rng(seed)
    return [face(name, number, **any_header(rng)) for name, count in counts.items() for number in range(count)]
