"""Finding near-duplicates among a million faces and auditing them whole, against comparing all pairs of hashes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import record, timed

from dfad_bench.analysis.audit import audit
from dfad_bench.analysis.near_duplicates import NEAR_BITS, find_near_duplicates
from dfad_bench.analysis.near_pairs import near_pairs
from dfad_bench.records.manifest import COLUMNS, SCHEMA_VERSION, Footer, Manifest, PrepareRecipe

FACES = 1_000_000
SUBSET = 20_000
"""All pairs of so many hashes are compared; the time for FACES follows from the number of pairs."""
COPIES = 0.01
GENERATORS = 20


def hashes(count: int) -> np.ndarray:
    """Return hashes that are as uneven as those of aligned faces, whose bits are set in 15 to 75 of 100; some are copies."""
    rng = np.random.default_rng(0)
    share = rng.permutation(np.r_[np.linspace(0.15, 0.35, 8), np.linspace(0.4, 0.6, 46), np.linspace(0.6, 0.75, 10)])
    made = np.zeros(count, np.uint64)
    for place in range(64):
        made |= (rng.random(count) < share[place]).astype(np.uint64) << np.uint64(place)
    copies = int(count * COPIES)
    flips = np.uint64(1) << rng.integers(0, 64, copies).astype(np.uint64)
    made[:copies] = made[copies : 2 * copies] ^ flips
    return made


def all_pairs(given: np.ndarray) -> int:
    """Count the near pairs of different hashes by comparing each with every other."""
    return sum(
        int(np.count_nonzero(np.bitwise_count(given[row + 1 :] ^ given[row]) <= NEAR_BITS)) for row in range(len(given))
    )


def manifest(count: int, root: Path) -> Manifest:
    """Return a manifest of so many faces, none of which is on disk; four make a video."""
    rng = np.random.default_rng(1)
    number = np.arange(count)
    generator = np.asarray(["real", *(f"g{each:02}" for each in range(1, GENERATORS))], dtype=object)[
        number % GENERATORS
    ]
    fake = generator != "real"
    names = [f"benchmark/{each:07}" for each in number]
    columns = {field.name: pa.nulls(count, field.type) for field in COLUMNS}
    columns |= {
        "id": pa.array(names),
        "file_name": pa.array([f"faces/{each}.png" for each in number]),
        "generator": pa.array(generator),
        "family": pa.array(np.where(fake, "gan", "real")),
        "forgery_type": pa.array(np.where(fake, "efs", "real")),
        "source_split": pa.array(np.asarray(["train", "val", "test"], dtype=object)[rng.integers(0, 3, count)]),
        "video": pa.array([f"v{each // (4 * GENERATORS)}g{each % GENERATORS}" for each in number]),
        "identities": pa.array([[] for _ in number], pa.list_(pa.string())),
        "original_mean_color": pa.FixedSizeListArray.from_arrays(
            rng.uniform(0, 255, 3 * count).astype(np.float32), 3
        ).cast(pa.list_(pa.float32())),
        "sha256": pa.array([f"{each:064x}" for each in number]),
        "perceptual_hash": pa.array([f"{each:016x}" for each in hashes(count).tolist()]),
        "original_format": pa.array(np.asarray(["JPEG", "PNG"], dtype=object)[rng.integers(0, 2, count)]),
    }
    columns |= {name: pa.array(np.full(count, name, dtype=object)) for name in ("source", "domain", "licence")}
    columns |= {
        name: pa.array(np.full(count, value), COLUMNS.field(name).type)
        for name, value in {
            "original_width": 256,
            "original_height": 256,
            "crop_scale": 1,
            "cut_off": 0,
            "sharpness": 9,
        }.items()
    }
    table = pa.table([columns[field.name] for field in COLUMNS], names=COLUMNS.names)
    recipe = PrepareRecipe(
        face_detector="none",
        face_detector_sha256=None,
        gaze_estimator="none",
        gaze_estimator_sha256=None,
        size=256,
        margin=1.0,
        align=False,
        full_decode=False,
        min_face=0,
        max_cut_off=1,
        min_sharpness=0,
        max_faces=None,
        source_options={},
        software={},
    )
    footer = Footer(
        schema_version=SCHEMA_VERSION,
        source="source",
        plugin="benchmark",
        homepage="",
        recipe=recipe,
        limit=None,
        declared=count,
        kept=count,
        skipped={},
        feature_dim=0,
        defects={},
    )
    return Manifest(root, table, footer)


def measured(what: str) -> dict[str, object]:
    """Measure one thing in this process: its peak of memory is what the process had before, and what this took."""
    row: dict[str, object] = {"what": what, "faces": FACES}
    if what == "near hashes":
        few, many = np.unique(hashes(SUBSET)), np.unique(hashes(FACES))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds, found = timed(lambda: sum(len(first) for first, _ in near_pairs(many, NEAR_BITS)))
        brute, counted = timed(all_pairs, few)
        assert counted == sum(len(first) for first, _ in near_pairs(few, NEAR_BITS))
        scaled = brute * (len(many) / len(few)) ** 2
        row |= {"seconds": seconds, "pairs": found, "all_pairs_seconds": scaled, "speed": scaled / seconds}
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = manifest(FACES, Path(folder))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if what == "near faces":
                row["seconds"], _ = timed(find_near_duplicates, made.table, made.root)
            else:
                row["seconds"], _ = timed(audit, made)
    return row | {"mib_before": before, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Measure each in a process of its own, and record."""
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1])))
        return
    rows = []
    for what in ("near hashes", "near faces", "whole audit"):
        answer = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True, check=True)
        rows.append(json.loads(answer.stdout))
    record("audit", rows)


if __name__ == "__main__":
    main()
