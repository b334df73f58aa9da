"""Loose PNGs against packed shards: opening, random reads, a pass over all faces, and what both take on disk.

50,000 faces of 256 px: 720 demo faces, shifted and mirrored, each with other pixels and about the same bytes. The page cache
holds what is read, unless a row says otherwise: there, the files' own pages were dropped before (directories were not).
Decoding is measured on the first DECODED faces: it costs the same for each.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measure import record, run, timed

from dfad_bench.modelling.data import Batches, FaceDataset
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.prepare.faces import pixel_sha256
from dfad_bench.prepare.ledger import AtomicParquet, file_stem
from dfad_bench.records.face_files import read_file
from dfad_bench.records.manifest import COLUMNS, METADATA, SKIPPED, read_footer, read_manifest, with_footer
from dfad_bench.records.selection import FACE_COLUMNS
from dfad_bench.types import ModelSpec

BIN = Path(sys.executable).parent
FACES, BASES, PER_FOLDER = 50_000, 720, 100
READS = 5_000
"""Random reads in a measurement; a tenth where a reader decodes an image or a group of rows for each."""
DECODED = 2_000
BATCH = 64
REPEATS = 3
SPEC = ModelSpec(
    build=lambda classes: torch.nn.Identity(),
    inputs=("image",),
    preprocess=Preprocess(size=None),
    reference="none",
    licence="Apache-2.0",
)


# --- faces ---------------------------------------------------------------------------------------------------------


@cache
def base_faces(base: Path) -> list[tuple[dict[str, Any], np.ndarray, bytes]]:
    """Return the rows of the demo faces, their pixels and their gaze maps' files."""
    rows = read_manifest(base).table.to_pylist()
    return [
        (row, cv2.imread(str(base / row["file_name"]), cv2.IMREAD_COLOR), (base / row["gaze_file_name"]).read_bytes())
        for row in rows
    ]


def write_folder(base: Path, root: Path, first: int) -> list[dict[str, Any]]:
    """Write the faces of one folder and their gaze maps, and return their rows."""
    folder = f"{first // PER_FOLDER:05}"
    for kind in ("faces", "gaze"):
        (root / kind / folder).mkdir(parents=True)
    made = []
    for number in range(first, min(first + PER_FOLDER, FACES)):
        row, face, gaze_map = base_faces(base)[number % BASES]
        shift = number // BASES
        face = np.roll(face, (shift // 16, 3 * (shift % 16)), (0, 1))
        face = np.ascontiguousarray(face[:, ::-1] if shift % 2 else face)
        identifier = f"{row['id']}-{shift}"
        name = f"{folder}/{file_stem(identifier)}.png"
        (root / "faces" / name).write_bytes(cv2.imencode(".png", face)[1].tobytes())
        (root / "gaze" / name).write_bytes(gaze_map)
        files = {"file_name": f"faces/{name}", "gaze_file_name": f"gaze/{name}"}
        made.append(row | files | {"id": identifier, "sha256": pixel_sha256(face[..., ::-1])})
    return made


def write_faces(base: Path, root: Path) -> None:
    """Write a loose manifest of FACES faces."""
    footer = read_footer(base).model_copy(update={"declared": FACES, "kept": FACES})
    firsts = range(0, FACES, PER_FOLDER)
    with (
        ProcessPoolExecutor(os.cpu_count()) as pool,
        AtomicParquet(root / METADATA, with_footer(COLUMNS, footer)) as metadata,
    ):
        for rows in pool.map(write_folder, [base] * len(firsts), [root] * len(firsts), firsts):
            metadata.add(pa.Table.from_pylist(rows, COLUMNS))
    (root / SKIPPED).write_bytes((base / SKIPPED).read_bytes())


def on_disk(folder: Path) -> dict[str, Any]:
    """Return the files of a folder and the bytes of the blocks that they take."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file() and ".pack" not in path.parts]
    return {"files": len(files), "gib": sum(status.st_blocks for status in files) * 512 / 2**30}


# --- readers -------------------------------------------------------------------------------------------------------


def decoded(data: bytes) -> np.ndarray:
    """Return the pixels of an image as a model's reader decodes them."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


class AsRunsRead:
    """A manifest, loose or packed, through ``FaceDataset`` and what it reads with."""

    def __init__(self, root: Path) -> None:
        table = read_manifest(root, FACE_COLUMNS).table
        self.root, self.names = root, table["file_name"].to_pylist()
        roots = pa.array([str(root)] * table.num_rows).dictionary_encode()
        self._few = table.slice(0, DECODED).append_column("root", roots.slice(0, DECODED))

    def read(self, row: int) -> bytes:
        """Return a face's bytes."""
        return read_file(self.root, self.names[row])

    def image(self, row: int) -> np.ndarray:
        """Return a face's pixels."""
        return decoded(self.read(row))

    def all(self) -> Iterator[bytes]:
        """Yield every face's bytes."""
        return (read_file(self.root, name) for name in self.names)

    def images(self) -> Iterator[np.ndarray]:
        """Yield every face's pixels."""
        return map(decoded, self.all())

    def batches(self) -> Iterator[object]:
        """Yield the batches of DECODED faces, as a model gets them."""
        dataset = FaceDataset(SPEC, self._few)
        for loaded in Batches(dataset, BATCH, seed=None, workers=0, device=torch.device("cpu")).epoch():
            assert not loaded.unreadable
            yield loaded

    def drop_pages(self, rows: Sequence[int]) -> None:
        """Drop the cached pages of what holds those faces, as far as the system does."""
        for name in {self.names[row].partition("@")[0] for row in rows}:
            descriptor = os.open(self.root / name, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class RowGroups:
    """The shards as any reader of Parquet sees them: for one image, its group of rows is read."""

    def __init__(self, root: Path) -> None:
        self._groups = [
            (file, group, file.metadata.row_group(group).num_rows)
            for file in map(pq.ParquetFile, sorted((root / "shards").iterdir()))
            for group in range(file.num_row_groups)
        ]
        self._ends = np.cumsum([size for *_, size in self._groups])

    def read(self, row: int) -> bytes:
        """Return a face's bytes."""
        at = int(np.searchsorted(self._ends, row, side="right"))
        data: bytes = self._cells(at)[row - int(self._ends[at])].as_py()  # counted from the group's end
        return data

    def image(self, row: int) -> np.ndarray:
        """Return a face's pixels."""
        return decoded(self.read(row))

    def all(self) -> Iterator[bytes]:
        """Yield every face's bytes."""
        return (cell.as_py() for at in range(len(self._groups)) for cell in self._cells(at))

    def images(self) -> Iterator[np.ndarray]:
        """Yield every face's pixels."""
        return map(decoded, self.all())

    def _cells(self, at: int) -> pa.Array:
        file, group, _ = self._groups[at]
        return file.read_row_group(group, columns=["image.bytes"])["image"].combine_chunks().field("bytes")


class LoadDataset:
    """The packed folder as ``datasets`` reads it, out of the copy that it made when it was first opened."""

    def __init__(self, root: Path, cache: Path) -> None:
        faces = datasets.load_dataset(str(root), split="train", cache_dir=str(cache)).select_columns("image")
        self._faces, self._stored = faces, faces.cast_column("image", datasets.Image(decode=False))

    def read(self, row: int) -> bytes:
        """Return a face's bytes."""
        data: bytes = self._stored[row]["image"]["bytes"]
        return data

    def image(self, row: int) -> np.ndarray:
        """Return a face's pixels, decoded by Pillow."""
        return np.asarray(self._faces[row]["image"])

    def all(self) -> Iterator[bytes]:
        """Yield every face's bytes."""
        return (row["image"]["bytes"] for row in self._stored)

    def images(self) -> Iterator[np.ndarray]:
        """Yield every face's pixels."""
        return (np.asarray(row["image"]) for row in self._faces)


# --- measuring -----------------------------------------------------------------------------------------------------


def take_all(items: Iterable[object]) -> None:
    """Take every item and keep none, so that no reader pays for memory that it would not hold."""
    for _ in items:
        pass


def speeds(readers: Mapping[str, Any], items: Callable[[Any], Iterable[object]], number: int) -> dict[str, float]:
    """Return items a second by reader, the fastest of REPEATS; readers take turns, so that noise falls on all of them."""
    seconds = dict.fromkeys(readers, float("inf"))
    for _ in range(REPEATS):
        for name, reader in readers.items():
            seconds[name] = min(seconds[name], timed(take_all, items(reader))[0])
    return {name: number / took for name, took in seconds.items()}


def cold_speeds(readers: Mapping[str, Any], rows: Sequence[int]) -> dict[str, float]:
    """Return random reads a second when no page of what is read is cached."""
    seconds = dict.fromkeys(readers, float("inf"))
    os.sync()  # pages that wait to be written cannot be dropped
    for _ in range(REPEATS):
        for name, reader in readers.items():
            reader.drop_pages(rows)
            seconds[name] = min(seconds[name], timed(take_all, map(reader.read, rows))[0])
    return {name: len(rows) / took for name, took in seconds.items()}


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each measurement, with a column for each reader, and how many times as fast packed is as it."""
    loose, packed = folder / "data" / "demo", folder / "data-packed" / "demo"
    opening: dict[str, Callable[[], Any]] = {
        "loose": lambda: AsRunsRead(loose),
        "packed": lambda: AsRunsRead(packed),
        "row_groups": lambda: RowGroups(packed),
        "load_dataset": lambda: LoadDataset(packed, folder / "cache"),
    }
    first = timed(opening["load_dataset"])[0]
    opened = {name: [timed(open_) for _ in range(REPEATS)] for name, open_ in opening.items()}
    readers = {name: tries[-1][1] for name, tries in opened.items()}
    manifests = {name: readers[name] for name in ("loose", "packed")}
    random = [int(row) for row in np.random.default_rng(0).permutation(FACES)[:READS]]
    few = random[: READS // 10]
    found = {
        "random reads of bytes": speeds(readers, lambda reader: map(reader.read, few), len(few)),
        "random reads of bytes, many": speeds(manifests, lambda reader: map(reader.read, random), len(random)),
        "random reads, decoded": speeds(readers, lambda reader: map(reader.image, few), len(few)),
        "pass over all bytes": speeds(readers, lambda reader: reader.all(), FACES),
        "pass, decoded": speeds(readers, lambda reader: islice(reader.images(), DECODED), DECODED),
        "pass, batches of FaceDataset": speeds(manifests, lambda reader: reader.batches(), DECODED),
        "random reads of bytes, pages dropped": cold_speeds(manifests, random),
    }
    rows: list[dict[str, Any]] = [
        {"what": "seconds to open", **{name: min(took for took, _ in tries) for name, tries in opened.items()}},
        {"what": "seconds to open for the first time", "load_dataset": first},
    ]
    for what, by_reader in found.items():
        ratios = {f"packed_over_{name}": by_reader["packed"] / speed for name, speed in by_reader.items()}
        del ratios["packed_over_packed"]
        rows.append({"what": f"faces a second: {what}", **by_reader, **ratios})
    return rows


def main() -> None:
    """Make the faces, pack them, measure and record."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tool, base = str(BIN / "dfad-bench"), folder / "base" / "demo"
        options = ["--source", "demo", "--set", f"faces={BASES}", "--workers", "2", "--data", str(base.parent)]
        run([tool, "prepare", *options])
        (folder / "data" / "demo").mkdir(parents=True)
        write_faces(base, folder / "data" / "demo")
        packing = run([tool, "pack", "demo", "--data", str(folder / "data"), "--workers", "2"])
        again = run([tool, "pack", "demo", "--data", str(folder / "data")])
        found = measured(folder)
        places = {"loose": "data/demo", "packed": "data-packed/demo", "load_dataset's copy": "cache"}
        disk = [{"what": f"on disk: {name}", **on_disk(folder / place)} for name, place in places.items()]
    speed = {"faces_per_second": FACES / packing.seconds}
    packed = {"what": f"packing {FACES:,} faces, 2 workers", "seconds": packing.seconds, **speed}
    nothing = {"what": "the same again, nothing to do", "seconds": again.seconds, "peak_mib": again.peak_mib}
    record("packed", [packed | {"peak_mib": packing.peak_mib}, nothing, *disk, *found])


if __name__ == "__main__":
    main()
