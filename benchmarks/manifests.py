"""Selecting a protocol's faces from manifests of ten thousand to ten million rows, against holding all rows as objects."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measure import record, timed

from dfad_bench.records import selection
from dfad_bench.records.leakage import KINDS
from dfad_bench.records.manifest import (
    COLUMNS,
    METADATA,
    SCHEMA_VERSION,
    Footer,
    PrepareRecipe,
    read_manifest,
    with_footer,
)
from dfad_bench.records.protocol import Protocol
from dfad_bench.records.sampling import order_key

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
MOST_AS_OBJECTS = 1_000_000
"""Of more rows, Python objects need more memory than a laptop has."""
PER_GENERATOR = {"10,000 of each generator": 10_000, "all faces": None, "all faces, own split": None}
"""The protocols: how many faces each split takes of a generator; the last shares faces out by people and videos."""
GENERATORS = 40
FAMILIES = ("gan", "diffusion", "flow", "autoencoder")
FRAMES = 8
"""Faces of one clip."""
CLIPS = 2
"""Clips of one person in each generator."""
ROWS_PER_GROUP = 16_384
"""As ``prepare`` writes."""


def batches(faces: int) -> Iterator[pa.RecordBatch]:
    """Yield a manifest's rows: every generator's clips one after the other, a swap showing two people of one split."""
    each = faces // GENERATORS
    for number in range(GENERATORS):
        for start in range(0, each, ROWS_PER_GROUP):
            yield _rows(number, np.arange(start, min(start + ROWS_PER_GROUP, each)))


def _rows(number: int, face: np.ndarray) -> pa.RecordBatch:
    rng = np.random.default_rng((number, int(face[0])))
    count = len(face)
    generator = "real" if number == 0 else f"gen{number:02}"
    family = "real" if number == 0 else FAMILIES[number % len(FAMILIES)]
    forgery_type = "real" if number == 0 else ("fs", "efs", "fr")[number % 3]
    clip, person = face // FRAMES, face // (FRAMES * CLIPS)
    # two people of one tenth, and so of one split, are swapped for each other
    lenders = [person, person + 10 * (1 - 2 * (person // 10 % 2))] if forgery_type == "fs" else [person]
    names = [_text("ff++/", each) for each in lenders]
    has_people = forgery_type != "efs"
    lengths = np.full(count, len(names) if has_people else 0)
    people = pa.ListArray.from_arrays(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        _interleaved(names) if has_people else pa.array([], pa.string()),
    )
    clips = _text(f"bench/{generator}/", clip)
    key = pc.binary_join_element_wise(clips, _text("", face % FRAMES), "/")
    parts = np.asarray(["train"] * 7 + ["val"] + ["test"] * 2, dtype=object)
    stems = pc.binary_join_element_wise(pc.replace_substring(key, "/", "-"), _text("", face), "-")
    known = rng.random(count) > 0.05
    columns: dict[str, Any] = {field.name: pa.nulls(count, field.type) for field in COLUMNS}
    columns |= {
        "id": key,
        "file_name": pc.binary_join_element_wise("faces/", generator, "/", stems, ".png", ""),
        "gaze_file_name": pc.if_else(
            pa.array(known), pc.binary_join_element_wise("gaze/", generator, "/", stems, ".png", ""), None
        ),
        "source_split": pa.array(parts[person % 10]),
        "video": clips if has_people else pa.nulls(count, pa.string()),
        "frame": pa.array(face % FRAMES, pa.int32()),
        "identities": people,
        "gaze_pitch": pa.array(rng.normal(0, 0.2, count), pa.float32(), mask=~known),
        "gaze_yaw": pa.array(rng.normal(0, 0.3, count), pa.float32(), mask=~known),
        "jpeg_quality": pa.array(rng.integers(70, 100, count), pa.int16()),
        "jpeg_chroma_quality": pa.array(rng.integers(70, 100, count), pa.int16()),
        "sha256": _hexadecimal(rng, count, 32),
        "perceptual_hash": _hexadecimal(rng, count, 8),
    }
    same = {
        "source": "bench",
        "generator": generator,
        "family": family,
        "forgery_type": forgery_type,
        "domain": "ff++",
        "original_format": "JPEG",
        "jpeg_subsampling": "4:2:0",
        "licence": "CC0-1.0",
        "faces_found": 1,
        "cut_off": 0.0,
        "sharpness": 100.0,
        "crop_scale": 1.0,
        "crop_roll": 0.0,
        "decode_reduction": 1,
        "original_width": 1024,
        "original_height": 768,
        "box": [8.0, 8.0, 248.0, 248.0],
        "original_mean_color": [120.0, 100.0, 90.0],
    }
    columns |= {name: pa.repeat(pa.scalar(value, COLUMNS.field(name).type), count) for name, value in same.items()}
    return pa.RecordBatch.from_arrays([columns[field.name].cast(field.type) for field in COLUMNS], schema=COLUMNS)


def _text(before: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(before, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0"), "")


def _interleaved(columns: list[pa.Array]) -> pa.Array:
    order = np.arange(sum(map(len, columns))).reshape(len(columns), -1).T.ravel()
    return pa.concat_arrays(columns).take(pa.array(order))


def _hexadecimal(rng: np.random.Generator, count: int, size: int) -> pa.Array:
    digits = rng.bytes(size * count).hex().encode()
    offsets = np.arange(count + 1, dtype=np.int32) * (2 * size)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits))


def write(root: Path, faces: int) -> None:
    """Write a manifest of so many rows."""
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
        source="bench",
        plugin="benchmark",
        homepage="",
        recipe=recipe,
        limit=None,
        declared=faces,
        kept=faces,
        skipped={},
        feature_dim=0,
        defects={},
    )
    root.mkdir(parents=True)
    with pq.ParquetWriter(root / METADATA, with_footer(COLUMNS, footer), compression="zstd") as writer:
        for batch in batches(faces):
            writer.write_batch(batch)


def protocol(name: str) -> Protocol:
    """Return one of the protocols of PER_GENERATOR."""
    column = "partition" if "own split" in name else "source_split"
    splits = {
        split: {"where": {column: split}, "per_generator": PER_GENERATOR[name]} for split in ("train", "val", "test")
    }
    rule = {"by": ["identities", "video"], "fractions": {"train": 0.7, "val": 0.1, "test": 0.2}}
    return Protocol.model_validate(
        {
            "name": "benchmark",
            "version": 1,
            "origin": "ours",
            "reference": "none",
            "description": "A benchmark.",
            "sources": ["bench"],
            "partition": rule if column == "partition" else None,
            "train": splits["train"],
            "val": splits["val"],
            "test": {"all": splits["test"]},
            "attribution": {"levels": ["generator"]},
        }
    )


def as_objects(data: Path, most: int | None) -> tuple[int, str]:
    """Select the faces as lists of Python objects, as was done before; return their number and the fingerprint."""
    table = read_manifest(data / "bench", selection.FACE_COLUMNS).table
    chosen, values = {}, {}
    for name, split in (("train", "train"), ("val", "val"), ("all", "test")):
        found = table.filter(pc.equal(table["source_split"], split))
        if most is not None:
            generators, ids = found["generator"].to_pylist(), found["id"].to_pylist()
            by_generator: dict[str, list[int]] = {}
            for row, generator in enumerate(generators):
                by_generator.setdefault(generator, []).append(row)
            kept = [sorted(rows, key=lambda row: order_key(0, ids[row]))[:most] for rows in by_generator.values()]
            found = found.take(pa.array(sorted(row for rows in kept for row in rows)))
        chosen[name] = found
    for column in KINDS:
        for name, faces in chosen.items():
            cells = faces[column].combine_chunks()
            cells = cells.flatten() if pa.types.is_list(cells.type) else cells
            values[name] = set(cells.unique().to_pylist()) - {None}
        assert not any(values[first] & values[second] for first, second in combinations(values, 2))
    lines = [
        json.dumps([name, *map(str, row.values())])
        for name, faces in chosen.items()
        for row in faces.select(list(selection._FINGERPRINTED)).to_pylist()
    ]
    mark = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return len(lines), f"sha256:{mark}"


def measured(way: str, name: str, faces: int, data: Path) -> dict[str, Any]:
    """Select faces in this process; its peak of memory is what loading the code took, and what this took."""
    before = peak_mib()
    row: dict[str, Any] = {"way": way, "protocol": name, "faces": faces}
    if way == "objects":
        row["seconds"], (row["chosen"], row["fingerprint"]) = timed(as_objects, data, PER_GENERATOR[name])
        return row | {"cpu_seconds": time.process_time(), "mib_before": before, "peak_mib": peak_mib()}
    chosen = protocol(name)
    stages: dict[str, float] = {}
    for stage in ("partitioned", "choose", "overlaps_between"):
        setattr(selection, stage, watched(stage, getattr(selection, stage), stages))
    opening, manifests = timed(selection.open_manifests, chosen, data)
    after_opening = peak_mib()
    resolving, found = timed(selection.resolve, chosen, manifests)
    return row | {
        "seconds": opening + resolving,
        "cpu_seconds": time.process_time(),
        "seconds_checking_rows": opening,
        "seconds_own_split": stages["partitioned"],
        "seconds_choosing": stages["choose"],
        "seconds_leakage": stages["overlaps_between"],
        "seconds_fingerprint_and_tables": resolving - sum(stages.values()),
        "chosen": found.train.num_rows + found.val.num_rows + found.test_faces,
        "fingerprint": found.fingerprint,
        "mib_before": before,
        "mib_after_checking_rows": after_opening,
        "peak_mib": peak_mib(),
    }


def watched(name: str, function: Callable[..., Any], stages: dict[str, float]) -> Callable[..., Any]:
    """Return a function that also notes the seconds it takes."""

    def call(*arguments: Any) -> Any:
        stages[name], answer = timed(function, *arguments)
        return answer

    return call


def peak_mib() -> float:
    """Return the most memory that this process had in RAM, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Write each manifest, select from it in processes of their own, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, help="where the manifests are written, up to 1 GB, and deleted again")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        way, name, faces, data = given.one
        print(json.dumps(measured(way, name, int(faces), Path(data))))
        return
    rows: list[dict[str, Any]] = []
    for faces in SIZES:
        with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
            write(Path(folder) / "bench", faces)
            for name in PER_GENERATOR:
                ways = ["streamed"] + ["objects"] * (faces <= MOST_AS_OBJECTS and "own split" not in name)
                found = [one(way, name, faces, folder) for way in ways]
                if len(found) > 1:
                    assert found[0]["fingerprint"] == found[1]["fingerprint"], "both ways must choose the same faces"
                    assert found[0]["chosen"] == found[1]["chosen"]
                    found[0] |= {ratio: found[1][key] / found[0][key] for ratio, key in RATIOS.items()}
                rows += found
    record("manifests", rows)


RATIOS = {"times_faster": "seconds", "times_less_memory": "peak_mib"}


def one(way: str, name: str, faces: int, folder: str) -> dict[str, Any]:
    """Measure one selection in a process of its own, with temporary files where the manifests are."""
    command = [sys.executable, __file__, "--one", way, name, str(faces), folder]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TMPDIR": folder})
    row: dict[str, Any] = json.loads(answer.stdout)
    print(way, name, faces, f"{row['seconds']:.1f} s, {row['peak_mib']:.0f} MiB", file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    main()
