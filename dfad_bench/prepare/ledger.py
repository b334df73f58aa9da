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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

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
from dfad_bench.types import Annotation, RawImage

PART = 64
MOST_IN_PART = 4 * PART
"""A part ends where a clip ends, so that no clip is opened twice, but is never larger than this."""

_FEATURES = pa.field("gaze_features", pa.list_(pa.float32()))
_KEY = b"dfad_bench_part"
_ROWS_PER_GROUP = 16_384


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

    def path(self, part: PartName) -> Path:
        """Return the part's Parquet file."""
        return self._file(part.folder)

    def _file(self, folder: str) -> Path:
        return self._parts / f"{folder}.parquet"

    def summary(self, part: PartName) -> PartSummary | None:
        """Return what a finished part says of itself, or None where it is absent or damaged."""
        try:
            stored = json.loads(pq.read_schema(self.path(part)).metadata[_KEY])
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
        rows, skips = [], []
        for prepared, skipped in faces:
            skips += skipped
            for face in prepared:
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
        summary = PartSummary(
            inputs=inputs,
            kept=len(rows),
            enlarged=sum(row["crop_scale"] > 1 for row in rows),
            with_gaze=sum(row["gaze_file_name"] is not None for row in rows),
            flags=dict(sorted(Counter(row["gaze_flag"] for row in rows if row["gaze_flag"]).items())),
            skips=tuple(skips),
        )
        schema = COLUMNS.append(_FEATURES).with_metadata({_KEY: json.dumps(asdict(summary)).encode()})
        path = self.path(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, pa.Table.from_pylist(rows, schema))
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


def count_reasons(summaries: Iterable[PartSummary]) -> dict[str, int]:
    """Return the number of skips by reason, sorted."""
    return dict(sorted(Counter(skip.reason for summary in summaries for skip in summary.skips).items()))


def count_flags(summaries: Iterable[PartSummary]) -> dict[str, int]:
    """Return the number of faces without a gaze by the estimator's reason, sorted."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary.flags)
    return dict(sorted(total.items()))
