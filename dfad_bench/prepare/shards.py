"""One shard of a packed manifest: its faces' images as they are, in one Parquet file, and where in it each of them lies.

The images' column is neither compressed nor encoded, so that every PNG lies in the file in one piece and can be read by
whoever knows its place, without Parquet. The shard's rows, in which ``file_name`` is that place, are written last to a file
of their own: a shard is either whole or not there, whenever the run is killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from dfad_bench.errors import DataError
from dfad_bench.prepare.crop_files import Unsound, read_sound
from dfad_bench.prepare.ledger import file_stem, write_table
from dfad_bench.records.face_files import file_size, place_name, shard_name
from dfad_bench.records.image_columns import IMAGE, IMAGES, ROWS_PER_GROUP, with_images
from dfad_bench.records.manifest import COLUMNS, read_batches

STATE = ".pack"
"""The folder of what a packing knows about itself."""
MOST_FACES = 65_536
"""In one shard, however small they are: the rows of a shard are held in memory, its images are not."""
_LABELS = [field.with_nullable(True) for field in COLUMNS if field.name not in IMAGES.values()]
"""Every one may be empty, as ``datasets`` has it."""
_SCHEMA = with_images(_LABELS)
_AS_THEY_ARE = frozenset(f"{name}.bytes" for name in IMAGES)
_KEY = b"dfad_bench_shard"


@dataclass(frozen=True, slots=True)
class Shard:
    """Faces to be packed into one file: its number, a digest of what decides its bytes, and the manifest's rows."""

    number: int
    digest: str
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class Packed:
    """A shard that was packed just now."""

    number: int
    faces: int


def rows_path(out: Path, number: int) -> Path:
    """Return the file of a shard's rows."""
    return out / STATE / Path(shard_name(number)).name


def is_packed_already(out: Path, number: int, digest: str) -> bool:
    """Return whether an earlier run has finished a shard of that digest."""
    try:
        stored = json.loads(pq.read_schema(rows_path(out, number)).metadata[_KEY])
        return bool(stored == {"digest": digest, "bytes": (out / shard_name(number)).stat().st_size})
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return False


# --- which faces ---------------------------------------------------------------------------------------------------


def cut_into_shards(root: Path, shard_bytes: int) -> Iterator[Shard]:
    """Yield a manifest's faces in its order, in shards of at most so many bytes of images, or of one face.

    Raises DataError naming the first image that is missing.
    """
    held: list[pa.Table] = []
    number, faces, size = 0, 0, 0
    for batch in read_batches(root, COLUMNS.names):
        start = 0
        names = zip(batch["id"].to_pylist(), *(batch[name].to_pylist() for name in IMAGES.values()), strict=True)
        for at, (identifier, *files) in enumerate(names):
            its_size = sum(_size(root, identifier, name) for name in files if name is not None)
            if faces and (size + its_size > shard_bytes or faces == MOST_FACES):
                yield _shard(number, [*held, batch.slice(start, at - start)], shard_bytes)
                held, start, number, faces, size = [], at, number + 1, 0, 0
            faces, size = faces + 1, size + its_size
        held.append(batch.slice(start))
    if faces:
        yield _shard(number, held, shard_bytes)


def _size(root: Path, identifier: str, name: str) -> int:
    size = file_size(root, name)
    if size is None:
        raise _unsound(root, identifier, f"{name} is missing")
    return size


def _shard(number: int, tables: Sequence[pa.Table], shard_bytes: int) -> Shard:
    rows = pa.concat_tables(tables).combine_chunks()
    digest = hashlib.sha256(f"{shard_bytes}\n".encode())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    digest.update(sink.getvalue())
    return Shard(number, digest.hexdigest(), rows)


def _unsound(root: Path, identifier: str, detail: str) -> DataError:
    return DataError(
        f"{identifier}: {detail}. Prepare {root} again, or see all with 'dfad-bench check manifest {root}'."
    )


# --- packing -------------------------------------------------------------------------------------------------------


class ShardPacker:
    """Packs one shard after the other; in memory are its rows and the images of one group of them."""

    def __init__(self, root: Path, out: Path) -> None:
        cv2.setNumThreads(1)  # workers are processes; threads inside them would only compete
        self._root, self._out = root, out

    def __call__(self, shard: Shard) -> Packed:
        """Write a shard and then its rows. Raises DataError for an image that is missing or not as it was prepared."""
        path, rows = self._out / shard_name(shard.number), rows_path(self._out, shard.number)
        for file in (rows, path):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
        with _whole_or_not(path) as temporary:
            digests = self._write(temporary, shard.rows)
            places = _find(temporary, shard_name(shard.number), digests)
        stored = json.dumps({"digest": shard.digest, "bytes": path.stat().st_size})
        write_table(rows, _placed(shard.rows, places).replace_schema_metadata({_KEY: stored.encode()}))
        return Packed(shard.number, shard.rows.num_rows)

    def _write(self, path: Path, rows: pa.Table) -> dict[str, list[bytes | None]]:
        """Write a shard, and return by column of images the digest of each, None where there is none."""
        digests: dict[str, list[bytes | None]] = {name: [] for name in IMAGES}
        with pq.ParquetWriter(path, _SCHEMA, **_layout()) as writer:
            for start in range(0, rows.num_rows, ROWS_PER_GROUP):
                group = rows.slice(start, ROWS_PER_GROUP)
                images = {name: self._images(group, name) for name in IMAGES}
                for name, cells in images.items():
                    digests[name] += [None if cell is None else _digest(cell["bytes"]) for cell in cells]
                columns = [
                    *(pa.array(cells, IMAGE) for cells in images.values()),
                    *(group[field.name].combine_chunks() for field in _LABELS),
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), row_group_size=ROWS_PER_GROUP)
        return digests

    def _images(self, rows: pa.Table, column: str) -> list[dict[str, Any] | None]:
        file_names = rows[IMAGES[column]].to_pylist()
        cells: list[dict[str, Any] | None] = []
        for identifier, name, sha256 in zip(
            rows["id"].to_pylist(), file_names, rows["sha256"].to_pylist(), strict=True
        ):
            if name is None:
                cells.append(None)
                continue
            data = read_sound(self._root, name, sha256 if column == "image" else None)
            if isinstance(data, Unsound):
                raise _unsound(self._root, identifier, data.detail)
            # not the name of the file, which would differ when packed faces are packed again
            cells.append({"bytes": data, "path": f"{file_stem(identifier)}.png"})
        return cells


def _layout() -> dict[str, Any]:
    """Return the options of a Parquet file whose images lie in it as they are, and whose other columns are compressed."""
    sink = pa.BufferOutputStream()
    pq.write_table(_SCHEMA.empty_table(), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = [leaves.column(place).path for place in range(len(leaves))]
    others = [path for path in paths if path not in _AS_THEY_ARE]
    return {
        "compression": {path: "NONE" if path in _AS_THEY_ARE else "zstd" for path in paths},
        "use_dictionary": others,
        "write_statistics": others,
    }


@contextmanager
def _whole_or_not(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside a path, and give the file its own name if all goes well."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(data: bytes | pa.Buffer) -> bytes:
    return hashlib.sha256(data).digest()


# --- where each image lies -----------------------------------------------------------------------------------------


def _find(path: Path, shard: str, digests: dict[str, list[bytes | None]]) -> dict[str, list[str | None]]:
    """Return by column the place of each image in a shard, after reading it there and holding it against its digest.

    Every image is what Parquet's own reader gives for it, so whoever reads the shard as Parquet sees the same bytes.
    """
    places: dict[str, list[str | None]] = {name: [] for name in IMAGES}
    with path.open("rb") as file, pq.ParquetFile(path) as parquet:
        leaves = {parquet.schema.column(place).path: place for place in range(len(parquet.schema))}
        for group in range(parquet.num_row_groups):
            for name in IMAGES:
                chunk = parquet.metadata.row_group(group).column(leaves[f"{name}.bytes"])
                start, at = chunk.data_page_offset, 0
                file.seek(start)
                stored = file.read(chunk.total_compressed_size)
                cells = parquet.read_row_group(group, columns=[f"{name}.bytes"])[name].combine_chunks().field("bytes")
                for cell in cells:
                    data = cell.as_buffer()
                    if data is None:
                        places[name].append(None)
                        continue
                    at = stored.find(data, at)
                    if at < 0:
                        raise AssertionError(f"pyarrow {pa.__version__} did not write an image of {path} in one piece")
                    places[name].append(place_name(shard, start + at, data.size))
                    at += data.size
                    if _digest(data) != digests[name][len(places[name]) - 1]:
                        raise DataError(f"{path} does not hold what was written to it. Check the disk.")
    return places


def _placed(rows: pa.Table, places: dict[str, list[str | None]]) -> pa.Table:
    for name, column in IMAGES.items():
        field = COLUMNS.field(column)
        rows = rows.set_column(rows.schema.get_field_index(column), field, pa.array(places[name], field.type))
    return rows
