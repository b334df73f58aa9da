"""A model sees the same numbers whether faces are loose or packed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import UNREADABLE_FACE, Batches, FaceDataset, LoadedBatch, Request, require_readable
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.prepare.pack import pack
from dfad_bench.records.manifest import read_manifest
from dfad_bench.records.selection import FACE_COLUMNS
from tests.modelling.builders import SHADE
from tests.prepare.builders import images, job, json_lines, run

FACES = 11
SPEC = replace(SHADE, inputs=("image", "gaze_map", "gaze", "header"), preprocess=Preprocess(size=24, crop=20))


@pytest.fixture
def manifests(tmp_path: Path) -> tuple[Path, Path]:
    """The same faces, loose and packed; some have no gaze."""
    looks = {"gaze_pitch": 0.1, "gaze_yaw": -0.2}
    names = images(tmp_path / "root", FACES)
    listing = [{"path": name, "generator": "real", **(looks if at % 3 else {})} for at, name in enumerate(names)]
    json_lines(tmp_path / "root" / "a.jsonl", listing)
    loose = run(job(tmp_path / "root", tmp_path / "data", "table")).root
    return loose, pack(loose, tmp_path / "packed" / "faces", shard_bytes=15_000).root


def _dataset(root: Path) -> FaceDataset:
    table = read_manifest(root, FACE_COLUMNS).table
    roots = pa.array([str(root)] * table.num_rows, pa.string()).dictionary_encode()
    return FaceDataset(SPEC, table.append_column("root", roots), flip=True)


def _batches(root: Path, seed: int | None, workers: int) -> list[LoadedBatch]:
    batches = Batches(_dataset(root), 4, seed=seed, workers=workers, device=torch.device("cpu"))
    return [*batches.epoch(0), *batches.epoch(1)]


@pytest.mark.parametrize(("seed", "workers"), [(None, 0), (3, 0), (3, 2)])
def test_batches_are_bit_identical(manifests: tuple[Path, Path], seed: int | None, workers: int) -> None:
    loose, packed = manifests
    assert len(list((packed / "shards").iterdir())) > 1
    for one, other in zip(_batches(loose, seed, 0), _batches(packed, seed, workers), strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert not one.unreadable and not other.unreadable
        for name in ("image", "gaze_map", "gaze", "header"):
            first, second = getattr(one.batch, name), getattr(other.batch, name)
            assert first.numpy().tobytes() == second.numpy().tobytes()


def test_a_face_of_a_shard_that_was_cut_off_is_named_and_left_out(manifests: tuple[Path, Path]) -> None:
    _, packed = manifests
    last = sorted((packed / "shards").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:60])
    names = read_manifest(packed, ["file_name"]).table["file_name"].to_pylist()
    gone = [row for row, name in enumerate(names) if name.startswith(f"shards/{last.name}@")]
    loaded = _dataset(packed)[Request(np.arange(FACES))]
    assert loaded.rows.tolist() == [row for row in range(FACES) if row not in gone]
    assert [(each.row, each.reason) for each in loaded.unreadable] == [(row, UNREADABLE_FACE) for row in gone]
    with pytest.raises(
        DataError, match=rf"{last.name}@\d+\+\d+: unreadable face. Run 'dfad-bench check manifest {packed}'"
    ):
        require_readable(loaded)


def test_bytes_that_are_no_face_are_unreadable(manifests: tuple[Path, Path]) -> None:
    _, packed = manifests
    table = read_manifest(packed, FACE_COLUMNS).table
    places = [
        "shards/00000.parquet@0+40",
        "shards/00000.parquet@5+400",
        "shards/../../x@0+4",
        "shards/00000.parquet@-1+4",
    ]
    wrong = table.slice(0, 4).set_column(table.schema.get_field_index("file_name"), "file_name", pa.array(places))
    wrong = wrong.append_column("root", pa.array([str(packed)] * 4).dictionary_encode())
    loaded = FaceDataset(SPEC, wrong)[Request(np.arange(4))]
    assert [each.reason for each in loaded.unreadable] == [UNREADABLE_FACE] * 4
