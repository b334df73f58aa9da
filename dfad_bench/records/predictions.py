"""One row per tested face: class logits and a fake score, with the labels that scoring needs, so that a score is a pure
function of this one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dfad_bench.config import Strict, validate
from dfad_bench.errors import DataError, UsageError
from dfad_bench.types import Leaf

SCHEMA_VERSION = 1
VAL = "val"
_FOOTER_KEY = b"dfad_bench"

_LABELS = ("generator", "family", "forgery_type", "domain", "video")
COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("forgery_type", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("video", pa.string()),
        pa.field("identities", pa.list_(pa.string()), nullable=False),
        pa.field("fake_score", pa.float32(), nullable=False),
        pa.field("logits", pa.list_(pa.float32())),
    ]
)
"""``subset`` is ``val`` or a test subset's name; ``logits`` has one value per leaf class, or is null for a pure detector."""


class LeafRecord(Strict):
    """A leaf class as stored."""

    name: str
    family: str
    forgery_type: str


class Context(Strict):
    """What scoring must know beside the rows: the classes, and the protocol's rules."""

    schema_version: int
    model: str
    seed: int
    protocol: str
    protocol_version: int
    protocol_fingerprint: str
    protocol_warning: str | None = None
    classes: list[LeafRecord]
    levels: list[Literal["forgery_type", "family", "generator"]]
    assume: dict[Literal["forgery_type", "family"], dict[str, str]]
    reals: Literal["same_domain", "all"]
    subsets: dict[str, Literal["generator", "family", "forgery_type"]]
    """Test subset → the column its scores are reported by."""
    declared: int
    """Faces the protocol selects for testing, evaluated or not."""
    skipped: dict[str, int]
    """Faces selected but not evaluated, by reason."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's answers to N faces, column by column.

    fake_score [N] float64; logits [N, C] float64 or None; labels and ids [N] object arrays; identities: N lists.
    """

    context: Context
    id: NDArray[np.object_]
    subset: NDArray[np.object_]
    generator: NDArray[np.object_]
    family: NDArray[np.object_]
    forgery_type: NDArray[np.object_]
    domain: NDArray[np.object_]
    video: NDArray[np.object_]
    identities: Sequence[Sequence[str]]
    fake_score: NDArray[np.float64]
    logits: NDArray[np.float64] | None

    @property
    def classes(self) -> tuple[Leaf, ...]:
        """The leaf classes, in the order of the logits."""
        return tuple(Leaf(leaf.name, leaf.family, leaf.forgery_type) for leaf in self.context.classes)

    def labels(self, column: str) -> NDArray[np.object_]:
        """Return the labels [N] at ``generator``, ``family`` or ``forgery_type``."""
        columns = {"generator": self.generator, "family": self.family, "forgery_type": self.forgery_type}
        return columns[column]


class PredictionsWriter:
    """Writes predictions batch by batch to a temporary file that takes its name only when complete.

    Its bytes depend on the rows and the context alone. A face whose score is not finite raises DataError.
    """

    def __init__(self, path: Path, rows_per_group: int = 65_536) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._rows_per_group = rows_per_group
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._temporary, COLUMNS, compression="zstd")
        return self

    def write(
        self,
        subset: str,
        faces: pa.Table,
        fake_score: NDArray[np.floating[Any]],
        logits: NDArray[np.floating[Any]] | None,
    ) -> None:
        """Append B faces (rows of a selection's table) with fake_score [B] and logits [B, C]."""
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            fake_score = fake_score.astype(np.float32)
            logits = None if logits is None else logits.astype(np.float32)
        finite = np.isfinite(fake_score) & (np.isfinite(logits).all(axis=1) if logits is not None else True)
        if not finite.all():
            culprit = faces["id"][int(np.flatnonzero(~finite)[0])].as_py()
            raise DataError(f"The model's score for {culprit} is not finite. Nothing was recorded; check its training.")
        columns = [faces[name].combine_chunks() for name in ("id",)]
        columns.append(pa.array([subset] * faces.num_rows, pa.string()))
        columns += [faces[name].combine_chunks() for name in (*_LABELS, "identities")]
        columns.append(pa.array(fake_score))
        columns.append(
            pa.nulls(faces.num_rows, COLUMNS.field("logits").type)
            if logits is None
            else pa.array(list(logits), COLUMNS.field("logits").type)
        )
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=COLUMNS))
        if sum(batch.num_rows for batch in self._pending) >= self._rows_per_group:
            self._flush(self._rows_per_group)

    def _flush(self, least: int) -> None:
        """Write row groups of equal size, whatever the batches' sizes, while at least ``least`` rows wait."""
        assert self._writer is not None
        waiting = pa.Table.from_batches(self._pending, COLUMNS).combine_chunks()
        while waiting.num_rows >= least:
            self._writer.write_table(waiting.slice(0, self._rows_per_group))
            waiting = waiting.slice(self._rows_per_group)
        self._pending = waiting.to_batches()

    def finish(self, context: Context) -> None:
        """Store the context in the footer and give the file its name."""
        assert self._writer is not None
        self._flush(1)
        self._writer.add_key_value_metadata({_FOOTER_KEY: context.model_dump_json().encode()})
        self._writer.close()
        self._writer = None
        self._temporary.replace(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._temporary.unlink(missing_ok=True)


def read_predictions(path: Path) -> Predictions:
    """Read and check a predictions file; raise UsageError where it is missing, DataError where it cannot be trusted."""
    if not path.is_file():
        raise UsageError(f"There is no predictions file {path}. 'dfad-bench run' writes one.")
    try:
        table = pq.read_table(path)
        table.validate(full=True)
        stored = json.loads((pq.read_metadata(path).metadata or {})[_FOOTER_KEY])
    except KeyError:
        raise DataError(f"{path} was not written by dfad-bench: its footer is missing.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}.") from None
    if isinstance(stored, dict) and stored.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {stored.get('schema_version')}, this dfad-bench reads {SCHEMA_VERSION}."
        )
    context = validate(stored, Context, str(path))
    if not table.schema.equals(COLUMNS, check_metadata=False):
        raise DataError(f"{path}: its columns are not those of a predictions file.")
    return _checked(table, context, path)


def _checked(table: pa.Table, context: Context, path: Path) -> Predictions:
    def text(name: str) -> NDArray[np.object_]:
        return np.asarray(table[name].to_pylist(), dtype=object)

    keys = set(zip(table["subset"].to_pylist(), table["id"].to_pylist(), strict=True))
    if len(keys) != table.num_rows:
        raise DataError(f"{path}: a face stands twice in one subset.")
    strangers = set(table["subset"].unique().to_pylist()) - {VAL, *context.subsets}
    if strangers:
        raise DataError(f"{path}: unknown subset {sorted(strangers)[0]!r}.")
    fake_score = table["fake_score"].to_numpy().astype(np.float64)
    logits = _logits(table, len(context.classes), path)
    if not np.isfinite(fake_score).all() or (logits is not None and not np.isfinite(logits).all()):
        raise DataError(f"{path}: a score is not finite.")
    return Predictions(
        context=context,
        id=text("id"),
        subset=text("subset"),
        generator=text("generator"),
        family=text("family"),
        forgery_type=text("forgery_type"),
        domain=text("domain"),
        video=text("video"),
        identities=table["identities"].to_pylist(),
        fake_score=fake_score,
        logits=logits,
    )


def _logits(table: pa.Table, classes: int, path: Path) -> NDArray[np.float64] | None:
    column = table["logits"].combine_chunks()
    if column.null_count == len(column):
        return None
    values = column.flatten().to_numpy(zero_copy_only=False)  # a null becomes NaN, which is refused
    if set(pc.unique(pc.list_value_length(column)).to_pylist()) != {classes}:
        raise DataError(f"{path}: every face needs {classes} logits, one per class.")
    reshaped: NDArray[np.float64] = values.astype(np.float64).reshape(table.num_rows, classes)
    return reshaped


def class_records(classes: Sequence[Leaf]) -> list[LeafRecord]:
    """Return leaf classes in the form that is stored."""
    return [LeafRecord(name=leaf.name, family=leaf.family, forgery_type=leaf.forgery_type) for leaf in classes]


def add_counts(*counts: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of several counts by reason, sorted by reason."""
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return dict(sorted(total.items()))
