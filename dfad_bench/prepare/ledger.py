"""The parts of a preparation on disk, and how they become one manifest.

A part is up to PART inputs of one generator. Its faces are written to a folder under a temporary name, the folder is
renamed, and last its Parquet file appears: a part is either there whole or not at all, whenever the run is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfad_bench.errors import DataError
from dfad_bench.prepare.faces import PreparedFace, Skip
from dfad_bench.records.features import FeaturesWriter
from dfad_bench.records.manifest import (
    COLUMNS,
    FEATURES,
    METADATA,
    SKIPPED,
    SKIPPED_COLUMNS,
    Footer,
    with_footer,
    without_split_words,
)
from dfad_bench.records.tombstones import DECISIVE, Tombstone, Tombstones, read_tombstones
from dfad_bench.types import Annotation, RawImage

PART = 64
MOST_IN_PART = 4 * PART
"""A part ends where a clip ends, so that no clip is opened twice, but is never larger than this."""

_FEATURES = pa.field("gaze_features", pa.list_(pa.float32()))
_PART_COLUMNS = COLUMNS.append(_FEATURES)
_KEY = b"dfad_bench_part"
_ROWS_PER_GROUP = 16_384
TAKEN_DOWN = "taken_down"
"""Why a face that was prepared, or would have been, is not there: the tombstone list names it."""


@dataclass(frozen=True, slots=True)
class PartName:
    """The address of a part: its generator and its number among that generator's parts."""

    generator: str
    index: int

    @property
    def folder(self) -> str:
        """The part's folder below ``faces/`` and ``gaze/``."""
        return f"{without_split_words(self.generator)}/{self.index:05d}"


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What a finished part says of itself: a digest of its inputs, kept faces, those enlarged, those with a gaze map,
    faces without a gaze by the estimator's reason, skips."""

    inputs: str
    kept: int
    enlarged: int
    with_gaze: int
    flags: dict[str, int]
    skips: tuple[Skip, ...]


def _taken_down(row: Mapping[str, Any], stones: Sequence[Tombstone]) -> Skip:
    return Skip(row["id"], row["generator"], TAKEN_DOWN, stones[0].told)


_decisive = attrgetter(*sorted(set(RawImage.__dataclass_fields__) - {"payload", "annotation", "mask"}))


def digest_inputs(images: Sequence[RawImage], stamps: Sequence[str]) -> str:
    """Return the sha256 of everything that decides a part's output, the recipe apart; stamps are the payloads' own."""
    described = [
        (_decisive(image), stamp, image.mask and image.mask.stamp(), image.annotation and _noted(image.annotation))
        for image, stamp in zip(images, stamps, strict=True)
    ]
    return hashlib.sha256(json.dumps(described, default=float).encode()).hexdigest()


def _noted(note: Annotation) -> tuple[object, ...]:
    landmarks = None if note.landmarks is None else np.asarray(note.landmarks).tolist()
    return note.box, landmarks, note.gaze


class Ledger:
    """The output folder of one preparation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".prepare"
        self._parts = self.state / "parts"

    @cached_property
    def _tombstones(self) -> Tombstones:
        return read_tombstones(self.root)

    def path(self, part: PartName) -> Path:
        """Return the part's Parquet file."""
        return self._file(part.folder)

    def _file(self, folder: str) -> Path:
        return self._parts / f"{folder}.parquet"

    def summary(self, part: PartName) -> PartSummary | None:
        """Return what a finished part says of itself, or None where it is absent or damaged."""
        return self._read_summary(part.folder)

    def _read_summary(self, folder: str) -> PartSummary | None:
        try:
            stored = json.loads(pq.read_schema(self._file(folder)).metadata[_KEY])
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
            return None
        skips = tuple(Skip(**skip) for skip in stored["skips"])
        return PartSummary(**(stored | {"skips": skips}))

    def holds_files(self, part: PartName, summary: PartSummary) -> bool:
        """Return whether a finished part's folders still hold as many files as it wrote."""
        wanted = {"faces": summary.kept, "gaze": summary.with_gaze}
        return all(_count_files(self.root / kind / part.folder) == count for kind, count in wanted.items())

    def write(self, part: PartName, inputs: str, faces: Iterable[tuple[list[PreparedFace], list[Skip]]]) -> PartSummary:
        """Write a part from batches of faces as they come; only rows are held in memory."""
        self.discard(part.folder)
        temporary = {kind: self._temporary(kind, part.folder) for kind in ("faces", "gaze")}
        rows, skips, taken_down = [], [], []
        for prepared, skipped in faces:
            skips += skipped
            for face in prepared:
                if stones := self._tombstones.hits(face.row):
                    taken_down.append(_taken_down(face.row, stones))
                    continue
                name = f"{part.folder}/{file_stem(face.row['id'])}.png"
                _put(temporary["faces"] / Path(name).name, face.png)
                if face.gaze_png is not None:
                    _put(temporary["gaze"] / Path(name).name, face.gaze_png)
                gaze_name = None if face.gaze_png is None else f"gaze/{name}"
                files = {"file_name": f"faces/{name}", "gaze_file_name": gaze_name}
                rows.append(face.row | files | {_FEATURES.name: face.features})
        for kind, folder in temporary.items():
            if folder.is_dir():
                folder.replace(self.root / kind / part.folder)
        return self._put_rows(part.folder, pa.Table.from_pylist(rows, _PART_COLUMNS), inputs, [*skips, *taken_down])

    def _put_rows(self, folder: str, rows: pa.Table, inputs: str, skips: Sequence[Skip]) -> PartSummary:
        flags = Counter(flag for flag in rows["gaze_flag"].to_pylist() if flag)
        # of one order, whenever each was asked for
        taken_down = sorted((skip for skip in skips if skip.reason == TAKEN_DOWN), key=attrgetter("id"))
        summary = PartSummary(
            inputs=inputs,
            kept=rows.num_rows,
            enlarged=sum(scale > 1 for scale in rows["crop_scale"].to_pylist()),
            with_gaze=rows.num_rows - rows["gaze_file_name"].null_count,
            flags=dict(sorted(flags.items())),
            skips=(*(skip for skip in skips if skip.reason != TAKEN_DOWN), *taken_down),
        )
        path = self._file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, rows.replace_schema_metadata({_KEY: json.dumps(asdict(summary)).encode()}))
        return summary

    def discard(self, folder: str) -> None:
        """Remove the part in a folder, its row file first, so that no row ever names a file that has gone."""
        self._file(folder).unlink(missing_ok=True)
        for kind in ("faces", "gaze"):
            for path in (self.root / kind / folder, self._temporary(kind, folder)):
                if path.is_dir():
                    shutil.rmtree(path)
                    if not any(path.parent.iterdir()):
                        path.parent.rmdir()

    def stale(self, wanted: Sequence[PartName]) -> list[str]:
        """Return the folders of parts on disk, finished or not, that are no longer among the source's.

        An earlier version did not call a generator's folder ``without_split_words``: its parts are stale, too.
        """
        keep = {part.folder for part in wanted}
        return [folder for folder in self._on_disk() if folder not in keep]

    def finished(self) -> dict[PartName, PartSummary]:
        """Return what every finished part on disk says of itself, in the order in which parts are assembled."""
        found = {}
        for path in self._parts.glob("*/*.parquet"):
            folder = path.relative_to(self._parts).with_suffix("").as_posix()
            if (summary := self._read_summary(folder)) is not None:
                first = pq.read_table(path, columns=["generator"])["generator"].to_pylist()[:1]
                generator = first[0] if first else summary.skips[0].generator
                found[PartName(generator, int(path.stem))] = summary
        return dict(sorted(found.items(), key=lambda each: (each[0].generator, each[0].index)))

    def drop_rows(self) -> dict[str, list[Tombstone]]:
        """Take out of the finished parts what the tombstone list names, and return the ids of the faces with their lines.

        Each face becomes a skip. Its files stay until ``drop_files``: rows go first, so that none ever names a file that
        has gone, and a call after one that was killed goes on where that stopped.
        """
        dropped: dict[str, list[Tombstone]] = {}
        for part, summary in self.finished().items() if self._tombstones else ():
            among = pq.read_table(self.path(part), columns=[*DECISIVE, "generator"]).to_pylist()
            hits = [self._tombstones.hits(row) for row in among]
            if not any(hits):
                continue
            taken_down = [_taken_down(row, stones) for row, stones in zip(among, hits, strict=True) if stones]
            rows = pq.read_table(self.path(part)).filter(pa.array([not stones for stones in hits]))
            rows = rows.select(_PART_COLUMNS.names).cast(_PART_COLUMNS)
            self._put_rows(part.folder, rows, summary.inputs, [*summary.skips, *taken_down])
            dropped |= {row["id"]: stones for row, stones in zip(among, hits, strict=True) if stones}
        return dropped

    def drop_files(self) -> None:
        """Where there is a tombstone list, remove every crop and gaze map that no finished part's rows name."""
        for folder in list(self._on_disk()) if self._tombstones else ():
            if self._read_summary(folder) is None:
                self.discard(folder)  # what a killed preparation left
                continue
            named = pq.read_table(self._file(folder), columns=["file_name", "gaze_file_name"])
            keep = {*named["file_name"].to_pylist(), *named["gaze_file_name"].to_pylist()}
            for kind in ("faces", "gaze"):
                for path in (self.root / kind / folder).glob("*"):
                    if path.relative_to(self.root).as_posix() not in keep:
                        path.unlink()
                for emptied in ((self.root / kind / folder), (self.root / kind / folder).parent):
                    if emptied.is_dir() and not any(emptied.iterdir()):
                        emptied.rmdir()

    def _on_disk(self) -> Iterator[str]:
        found = {p.relative_to(self._parts).with_suffix("").as_posix() for p in self._parts.glob("*/*.parquet")}
        for kind in ("faces", "gaze"):
            found |= {
                p.relative_to(self.root / kind).as_posix().replace("/.", "/") for p in (self.root / kind).glob("*/*")
            }
        for folder in sorted(found):
            if folder.rpartition("/")[2].isdigit():
                yield folder

    def _temporary(self, kind: str, folder: str) -> Path:
        generator, _, index = folder.rpartition("/")
        return self.root / kind / generator / f".{index}"

    def assemble(self, parts: Sequence[PartName], footer: Footer) -> None:
        """Join finished parts into ``metadata.parquet`` and ``skipped.parquet``, part by part in the given order.

        Raises DataError where faces and skips do not add up to the declared inputs: nothing may vanish.
        """
        if footer.kept + sum(footer.skipped.values()) != footer.declared:
            raise DataError(
                f"{footer.declared} inputs became {footer.kept} faces and {sum(footer.skipped.values())} skips, which do not "
                "add up. This is a bug of dfad-bench: please report it."
            )
        with AtomicParquet(self.root / SKIPPED, SKIPPED_COLUMNS) as skipped:
            for part in parts:
                summary = self._finished(part)
                skipped.add(pa.Table.from_pylist([asdict(skip) for skip in summary.skips], SKIPPED_COLUMNS))
        if footer.feature_dim:
            self._join_features(parts, footer)
        else:
            (self.root / FEATURES).unlink(missing_ok=True)
        with AtomicParquet(self.root / METADATA, with_footer(COLUMNS, footer)) as metadata:
            for part in parts:
                metadata.add(pq.read_table(self.path(part), columns=COLUMNS.names))

    def _join_features(self, parts: Sequence[PartName], footer: Footer) -> None:
        with FeaturesWriter(self.root, footer.kept, footer.feature_dim) as features:
            for part in parts:
                cells = pq.read_table(self.path(part), columns=[_FEATURES.name])[_FEATURES.name]
                if len(cells):
                    flat = cells.combine_chunks().flatten().to_numpy()
                    features.add(flat.astype(np.float32, copy=False).reshape(len(cells), footer.feature_dim))

    def _finished(self, part: PartName) -> PartSummary:
        summary = self.summary(part)
        if summary is None:
            raise DataError(
                f"Part {part.folder} of {self.root} was damaged while preparing. Run the same command again."
            )
        return summary


class AtomicParquet:
    """Writes tables into one Parquet file with steady row groups; the file takes its name only when complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._temporary = path.with_name(f".{path.name}.part")
        self._pending: list[pa.Table] = []

    def __enter__(self) -> AtomicParquet:
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        return self

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table that has the schema's columns."""
        self._pending.append(table.replace_schema_metadata(self._schema.metadata))
        if sum(table.num_rows for table in self._pending) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.concat_tables(self._pending).combine_chunks())
        self._pending = []

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def _count_files(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(1 for _ in entries)
    except FileNotFoundError:
        return 0


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table, its schema's metadata included, to a Parquet file that appears whole or not at all."""
    with AtomicParquet(path, table.schema) as file:
        file.add(table)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def file_stem(identifier: str) -> str:
    """Return a file name for an id: readable, free of anything a file system or load_dataset minds, unique by its hash."""
    key = re.sub(r"[^A-Za-z0-9_-]+", "_", identifier.split("/", 2)[-1]).strip("_")
    stem = f"{key[-80:]}-{hashlib.sha256(identifier.encode()).hexdigest()[:10]}".lower()
    return without_split_words(stem)
