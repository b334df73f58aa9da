"""One row per tested face: class logits and a fake score, with the labels that scoring needs, so that a score is a pure
function of this one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import field_validator

from dfad_bench.config import Strict, validate
from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.categorical import Categorical, Rows
from dfad_bench.records.results import PerturbationRecord
from dfad_bench.types import REAL, Leaf

SCHEMA_VERSION = 2
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
        pa.field("embedding", pa.list_(pa.float16())),
    ]
)
"""``subset`` is ``val`` or a test subset's name; ``logits`` has one value per leaf class, or is null for a pure detector;
``embedding`` is what a model says of a face before it classifies it, or null where it has none to give."""


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
    pooling: str
    """How the frames of a video become one score: ``mean``, ``median`` or ``top<k>``."""
    perturbation: PerturbationRecord | None = None
    subsets: dict[str, Literal["generator", "family", "forgery_type"]]
    """Test subset → the column its scores are reported by."""
    declared: int
    """Faces the protocol selects for testing, evaluated or not."""
    skipped: dict[str, int]
    """Faces selected but not evaluated, by reason."""

    @field_validator("classes")
    @classmethod
    def _real_and_fakes(cls, classes: list[LeafRecord]) -> list[LeafRecord]:
        names = {leaf.name for leaf in classes}
        if REAL not in names or len(names) < 2 or len(names) < len(classes):
            raise ValueError(f"must be {REAL} and at least one other, each once")
        return classes


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """A model's answers to N faces, column by column.

    id: N strings; identity: whose picture it is (the first of a face's identities), None where unknown; fake_score [N]
    float64; logits [N, C] float32 or None; embedding [N, D] float32 or None.
    """

    context: Context
    id: pa.StringArray
    subset: Categorical
    generator: Categorical
    family: Categorical
    forgery_type: Categorical
    domain: Categorical
    video: Categorical
    identity: Categorical
    fake_score: NDArray[np.float64]
    logits: NDArray[np.float32] | None
    embedding: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.id)

    @property
    def classes(self) -> tuple[Leaf, ...]:
        """The leaf classes, in the order of the logits."""
        return tuple(Leaf(leaf.name, leaf.family, leaf.forgery_type) for leaf in self.context.classes)

    def labels(self, column: str) -> Categorical:
        """Return the labels [N] at ``generator``, ``family`` or ``forgery_type``."""
        return {"generator": self.generator, "family": self.family, "forgery_type": self.forgery_type}[column]

    def in_order(self) -> Predictions:
        """Return the rows sorted by id and subset, so that nothing computed from them depends on their order."""
        return self if _is_ordered(self.id, self.subset) else self.take(_order(self.id, self.subset))

    def take(self, rows: Rows) -> Predictions:
        """Return the given rows."""
        names = ("subset", "generator", "family", "forgery_type", "domain", "video", "identity")
        return replace(
            self,
            **{name: getattr(self, name).take(rows) for name in names},
            id=self.id.take(pa.array(rows)),
            fake_score=self.fake_score[rows],
            logits=None if self.logits is None else self.logits[rows],
            embedding=None if self.embedding is None else self.embedding[rows],
        )


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
        embedding: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Append B faces (rows of a selection's table) with fake_score [B], logits [B, C] and embedding [B, D]."""
        with np.errstate(over="ignore"):  # what a column cannot hold becomes infinite, and is refused as such
            fake_score = fake_score.astype(np.float32)
            logits = None if logits is None else logits.astype(np.float32)
            embedding = None if embedding is None else embedding.astype(np.float16)
        finite = np.isfinite(fake_score)
        for rows in (logits, embedding):
            finite &= True if rows is None else np.isfinite(rows).all(axis=1)
        if not finite.all():
            culprit = faces["id"][int(np.flatnonzero(~finite)[0])].as_py()
            raise DataError(f"The model's score for {culprit} is not finite. Nothing was recorded; check its training.")
        columns = [faces[name].combine_chunks() for name in ("id",)]
        columns.append(pa.array([subset] * faces.num_rows, pa.string()))
        columns += [faces[name].combine_chunks() for name in (*_LABELS, "identities")]
        columns.append(pa.array(fake_score))
        for name, rows in (("logits", logits), ("embedding", embedding)):
            kind = COLUMNS.field(name).type
            columns.append(pa.nulls(faces.num_rows, kind) if rows is None else pa.array(list(rows), kind))
        self._append(pa.RecordBatch.from_arrays(columns, schema=COLUMNS))

    def copy(self, path: Path, subset: str) -> None:
        """Append the rows of one subset of a finished predictions file, as and in which order they are stored there."""
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False)
                chosen = rows.filter(pc.equal(rows["subset"], subset)).combine_chunks()
                for batch in chosen.to_batches():
                    self._append(pa.RecordBatch.from_arrays(batch.columns, schema=COLUMNS))

    def _append(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
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
    """Read and check a predictions file, its rows sorted by id and subset.

    Raises UsageError where it is missing, DataError where it cannot be trusted. Row groups are read one by one, each row
    straight to its place: beside what it returns, no more than one of them is held.
    """
    with _opened(path) as (file, context):
        if not file.schema_arrow.equals(COLUMNS, check_metadata=False):
            raise DataError(f"{path}: its columns are not those of a predictions file.")
        read = _Reading(file, context, path).predictions()
    pa.default_memory_pool().release_unused()
    return read


def read_context(path: Path) -> Context:
    """Read what a predictions file says beside its rows, and none of these; raises as ``read_predictions`` does."""
    with _opened(path) as (_, context):
        return context


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, Context]]:
    if not path.is_file():
        raise UsageError(f"There is no predictions file {path}. 'dfad-bench run' writes one.")
    try:
        with pq.ParquetFile(path) as file:
            stored = json.loads((file.metadata.metadata or {})[_FOOTER_KEY])
            if isinstance(stored, dict) and stored.get("schema_version") != SCHEMA_VERSION:
                raise DataError(
                    f"{path} has schema version {stored.get('schema_version')}, this dfad-bench reads {SCHEMA_VERSION}."
                )
            yield file, validate(stored, Context, str(path))
    except KeyError:
        raise DataError(f"{path} was not written by dfad-bench: its footer is missing.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}.") from None


class _Reading:
    """Reads one open file."""

    def __init__(self, file: pq.ParquetFile, context: Context, path: Path) -> None:
        self._file, self._context, self._path = file, context, path
        names = file.read(["id", "subset"], use_threads=False)
        names.validate(full=True)
        self._subset = Categorical.of(names["subset"])
        strangers = set(self._subset.values) - {VAL, *context.subsets}
        if strangers:
            raise DataError(f"{path}: unknown subset {sorted(strangers)[0]!r}.")
        ids = names["id"].combine_chunks()
        self._order = _order(ids, self._subset)
        self._id: pa.StringArray = ids.take(pa.array(self._order))
        subset = self._subset.code[self._order]
        if (same_as_before(self._id) & np.append(False, subset[1:] == subset[:-1])[: len(subset)]).any():
            raise DataError(f"{path}: a face stands twice in one subset.")
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(self._order))

    def predictions(self) -> Predictions:
        """Return what the file holds."""
        classes = len(self._context.classes)
        labels = {name: self._categorical(name) for name in _LABELS}
        fake_score = np.empty(len(self._order))
        for rows, column in self._parts("fake_score"):
            fake_score[rows] = column.to_numpy()
        logits = self._matrix("logits", classes, f"every face needs {classes} logits, one per class.")
        embedding = self._matrix("embedding", None, "its faces need embeddings of one length, at least 1.")
        finite = np.isfinite(fake_score)
        for matrix in (logits, embedding):
            finite &= True if matrix is None else np.isfinite(matrix).all(axis=1)
        if not finite.all():
            culprit = self._id[int(np.flatnonzero(~finite)[0])].as_py()
            raise DataError(f"{self._path}: a score of {culprit} is not finite.")
        return Predictions(
            context=self._context,
            id=self._id,
            subset=self._subset.take(self._order),
            **labels,
            identity=self._categorical("identities"),
            fake_score=fake_score,
            logits=logits,
            embedding=embedding,
        )

    def _categorical(self, name: str) -> Categorical:
        """Return a column of strings, or of lists of strings of which the first counts, in order."""
        parts = [
            (_first_of_each(column) if name == "identities" else column).dictionary_encode()
            for _, column in self._parts(name)
        ]
        whole = pa.chunked_array(parts, pa.dictionary(pa.int32(), pa.string()))
        return Categorical.of(whole.unify_dictionaries()).take(self._order)

    def _matrix(self, name: str, width: int | None, otherwise: str) -> NDArray[np.float32] | None:
        """Return lists of one length as [N, D] float32 in order, None where all are null; a null among them is NaN."""
        matrix: NDArray[np.float32] | None = None
        nulls = 0
        for rows, column in self._parts(name):
            nulls += column.null_count
            lengths = pc.unique(pc.list_value_length(column)).to_pylist()
            if lengths in ([], [None]):
                continue
            width = lengths[0] if width is None else width
            if lengths != [width] or not width:
                raise DataError(f"{self._path}: {otherwise}")
            if matrix is None:
                matrix = np.empty((len(self._order), width), np.float32)
            matrix[rows] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)
        if matrix is not None and nulls:
            raise DataError(f"{self._path}: {otherwise}")
        return matrix

    def _parts(self, name: str) -> Iterator[tuple[Rows, pa.Array]]:
        """Yield a column row group by row group, with the places [n] of its rows."""
        start = 0
        for group in range(self._file.num_row_groups):
            table = self._file.read_row_group(group, [name], use_threads=False)
            table.validate(full=True)
            yield self._place[start : start + len(table)], table[name].combine_chunks()
            start += len(table)


def _order(ids: pa.StringArray, subset: Categorical) -> Rows:
    """Return the rows sorted by id and subset."""
    keys = pa.table({"id": ids, "subset": subset.code})
    order: Rows = pc.sort_indices(keys, [("id", "ascending"), ("subset", "ascending")]).to_numpy().astype(np.intp)
    return order


def _is_ordered(ids: pa.StringArray, subset: Categorical) -> bool:
    """Return whether rows are sorted by id and subset, which takes a hundredth of the time of sorting them."""
    if len(ids) < 2:
        return True
    rising = pc.less(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False)
    return bool((rising | (same_as_before(ids)[1:] & (subset.code[:-1] <= subset.code[1:]))).all())


def same_as_before(ids: pa.StringArray) -> NDArray[np.bool_]:
    """Return [N] which of sorted ids is the one before it again."""
    same = np.zeros(len(ids), bool)
    if len(ids) > 1:
        same[1:] = pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return same


def _first_of_each(lists: pa.ListArray) -> pa.Array:
    """Return the first string of each list, null where it is empty."""
    offsets = lists.offsets.to_numpy()
    filled = np.diff(offsets) > 0
    if not filled.any():
        return pa.nulls(len(lists), pa.string())
    return lists.values.take(pa.array(np.where(filled, offsets[:-1], 0), mask=~filled))


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
