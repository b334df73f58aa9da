"""The table of prepared faces: its columns, and how it is read and checked.

A manifest is a Hugging Face *imagefolder*: ``load_dataset("imagefolder", data_dir=…)`` shows it without any code of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dfad_bench.config import Strict, validate
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.records.results import MEAN, POOLED
from dfad_bench.records.row_checks import RowChecks

SCHEMA_VERSION = 2
METADATA, SKIPPED, FEATURES, REPORT = (
    "metadata.parquet",
    "skipped.parquet",
    "gaze_features.safetensors",
    "report.json",
)
_FOOTER_KEY = b"dfad_bench"

_text = pa.string()
_required = {"nullable": False}
COLUMNS = pa.schema(
    [
        pa.field("id", _text, **_required),
        pa.field("file_name", _text, **_required),
        pa.field("gaze_file_name", _text),
        pa.field("source", _text, **_required),
        pa.field("generator", _text, **_required),
        pa.field("family", _text, **_required),
        pa.field("forgery_type", _text, **_required),
        pa.field("generator_version", _text),
        pa.field("domain", _text, **_required),
        pa.field("source_split", _text),
        pa.field("video", _text),
        pa.field("frame", pa.int32()),
        pa.field("identities", pa.list_(_text), **_required),
        pa.field("box", pa.list_(pa.float32()), **_required),
        pa.field("landmarks", pa.list_(pa.float32())),
        pa.field("detection_score", pa.float32()),
        pa.field("faces_found", pa.int16(), **_required),
        pa.field("cut_off", pa.float32(), **_required),
        pa.field("sharpness", pa.float32(), **_required),
        pa.field("crop_scale", pa.float32(), **_required),
        pa.field("crop_roll", pa.float32(), **_required),
        pa.field("decode_reduction", pa.int8(), **_required),
        pa.field("gaze_pitch", pa.float32()),
        pa.field("gaze_yaw", pa.float32()),
        pa.field("gaze_head_pitch", pa.float32()),
        pa.field("gaze_head_yaw", pa.float32()),
        pa.field("gaze_confidence", pa.float32()),
        pa.field("gaze_flag", _text),
        pa.field("original_width", pa.int32(), **_required),
        pa.field("original_height", pa.int32(), **_required),
        pa.field("original_format", _text, **_required),
        pa.field("jpeg_quality", pa.int16()),
        pa.field("jpeg_chroma_quality", pa.int16()),
        pa.field("jpeg_subsampling", _text),
        pa.field("jpeg_tables", _text),
        pa.field("original_mean_color", pa.list_(pa.float32()), **_required),
        pa.field("sha256", _text, **_required),
        pa.field("perceptual_hash", _text, **_required),
        pa.field("licence", _text, **_required),
    ]
)
"""One row per face.

``cut_off``: share of the box outside the image; ``sharpness``: ``prepare.crop.sharpness`` of the crop; ``crop_scale``: crop
pixels per original pixel, above 1 the face was enlarged; ``crop_roll``: radians by which the crop was turned to stand
upright; ``decode_reduction``: 1, 2, 4 or 8, the divisor at which a JPEG was decoded; ``gaze_head_*``: the gaze in the head's
frame; ``gaze_flag``: why there is none; ``jpeg_subsampling``: as ``4:2:0``; ``jpeg_tables``: digest of the quantisation
tables; ``original_mean_color``: mean red, green, blue of the whole original, 0..255.
"""

SKIPPED_COLUMNS = pa.schema(
    [
        pa.field("id", _text, **_required),
        pa.field("generator", _text, **_required),
        pa.field("reason", _text, **_required),
        pa.field("detail", _text, **_required),
    ]
)
"""One row per input that did not become a face, with the reason as one word and a sentence of detail."""


RESERVED = frozenset({MEAN, POOLED})
"""What scores call numbers of several generators, so that no generator may be called so."""


class PrepareRecipe(Strict):
    """How faces were made from images; two manifests with one recipe were cut the same way."""

    face_detector: str
    face_detector_sha256: str | None
    gaze_estimator: str
    gaze_estimator_sha256: str | None
    size: int
    margin: float
    align: bool
    full_decode: bool
    min_face: float
    max_cut_off: float
    min_sharpness: float
    max_faces: int | None
    border: str = "reflect_101"
    resampling: str = "area below, bicubic above the original resolution"
    source_options: dict[str, Any]
    software: dict[str, str]


class Footer(Strict):
    """What a manifest says about itself, stored as JSON in the Parquet footer."""

    schema_version: int
    source: str
    plugin: str
    homepage: str
    recipe: PrepareRecipe
    limit: int | None
    declared: int
    kept: int
    skipped: dict[str, int]
    feature_dim: int
    """Columns of ``gaze_features.safetensors``, whose rows are the manifest's; 0 where there is no such file."""
    defects: dict[str, int]
    """What was wrong with the dataset as found on disk, by kind."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A prepared source: its folder, its table (possibly with fewer columns than on disk) and its footer."""

    root: Path
    table: pa.Table
    footer: Footer

    @property
    def name(self) -> str:
        """The source's name, which begins every id."""
        return self.footer.source

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some columns a few thousand at a time."""
        yield from self.table.select(list(columns)).to_batches(_STORED_BATCH)


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A prepared source whose rows were checked and are left on disk."""

    root: Path
    footer: Footer

    @property
    def name(self) -> str:
        """The source's name, which begins every id."""
        return self.footer.source

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some columns a few thousand at a time; raise DataError where the file was damaged since."""
        yield from _stored(self.root / METADATA, columns)


AnyManifest = Manifest | StoredManifest


def with_footer(schema: pa.Schema, footer: Footer) -> pa.Schema:
    """Return the schema with the footer stored in its metadata."""
    return schema.with_metadata({_FOOTER_KEY: footer.model_dump_json().encode()})


def read_manifest(root: Path, columns: Sequence[str] | None = None) -> Manifest:
    """Read and check a manifest.

    root: the folder that holds ``metadata.parquet``; columns: those needed, all by default.
    Raises UsageError where there is no manifest, DataError where the file is damaged or breaks a promise of the format.
    """
    path, wanted = root / METADATA, list(columns or COLUMNS.names)
    checks, footer = _opened(path, wanted)
    try:
        table = pq.read_table(path, columns=wanted)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    for batch in table.to_batches():
        checks.add(batch)
    checks.refuse(lambda: table["id"].chunks)
    # another tool may call every column nullable; manifests are put together, so their schemas must be the same
    return Manifest(root, table.cast(_schema(wanted)), footer)


def open_manifest(root: Path, columns: Sequence[str]) -> StoredManifest:
    """Check every row of a manifest as ``read_manifest`` does, holding a few thousand at a time and none afterwards."""
    path = root / METADATA
    checks, footer = _opened(path, columns)
    for batch in _stored(path, columns, check_text=True):
        checks.add(batch)
    checks.refuse(lambda: (batch["id"] for batch in _stored(path, ["id"])))
    return StoredManifest(root, footer)


_BATCH = 4096
_STORED_BATCH = 16_384
"""As many as ``prepare`` puts into one group of rows."""


def read_batches(root: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a manifest's rows a few thousand at a time, so that memory does not grow with the faces.

    Raises as ``read_manifest`` does, an id that occurs twice when all rows were told.
    """
    path = root / METADATA
    checks, _ = _opened(path, columns)
    for batch in _stored(path, columns, _BATCH, check_text=True):
        checks.add(batch)
        checks.refuse()
        yield pa.Table.from_batches([batch])
    checks.refuse(lambda: (batch["id"] for batch in _stored(path, ["id"])))


def _stored(
    path: Path, columns: Sequence[str], rows: int | None = None, check_text: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file whose types were checked; raise DataError where it is damaged."""
    schema = _schema(columns)
    try:
        # the next rows are decoded while these are looked at
        with pq.ParquetFile(path) as file, ThreadPoolExecutor(1) as reader:
            batches = file.iter_batches(rows or _STORED_BATCH, columns=list(columns))
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                batch.validate(full=check_text)
                yield pa.RecordBatch.from_arrays([batch[name] for name in columns], schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([COLUMNS.field(name) for name in columns])


def _opened(path: Path, columns: Sequence[str]) -> tuple[RowChecks, Footer]:
    """Return the checks and the footer of a manifest that has these columns, of the right types."""
    schema, footer = _read_head(path)
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise DataError(f"{path} lacks the column {shorten(missing)}. Prepare the source again.")
    checks = RowChecks(path, _schema(columns), footer.source, RESERVED, is_inside)
    checks.check_types(schema)
    return checks, footer


def read_footer(root: Path) -> Footer:
    """Read what a manifest says about itself, and none of its rows; raises as ``read_manifest`` does."""
    return _read_head(root / METADATA)[1]


def _read_head(path: Path) -> tuple[pa.Schema, Footer]:
    if not path.is_file():
        raise UsageError(
            f"There is no manifest in {path.parent}: {METADATA} is missing. Run 'dfad-bench prepare' first."
        )
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    return schema, _footer(schema, path)


def _damaged(path: Path, error: Exception) -> DataError:
    told = " ".join(str(error).split())
    return DataError(f"{path} cannot be read as Parquet ({told}). Prepare the source again.")


def _footer(schema: pa.Schema, path: Path) -> Footer:
    try:
        stored = json.loads((schema.metadata or {})[_FOOTER_KEY])
    except (KeyError, ValueError):
        raise DataError(
            f"{path} was not written by dfad-bench: its footer is missing. Prepare the source again."
        ) from None
    if isinstance(stored, dict) and stored.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {stored.get('schema_version')}, this dfad-bench reads {SCHEMA_VERSION}. "
            "Prepare the source again."
        )
    return validate(stored, Footer, str(path))


def is_inside(relative: str) -> bool:
    """Return whether a relative POSIX path names something below its root, judged by its text alone."""
    parts = relative.split("/")  # no PurePosixPath for each of a million
    return (
        any(part not in ("", ".") for part in parts)
        and not relative.startswith("/")
        and ".." not in parts
        and "\\" not in relative
        and "\0" not in relative
    )


_SPLIT_WORD = re.compile(
    r"(?<![^-._ 0-9])(?:train|training|validation|valid|val|dev|test|testing|eval|evaluation)(?![^-._ 0-9])"
)


def without_split_words(name: str) -> str:
    """Return the name of a file or folder with a ``+`` behind each word that ``load_dataset`` would take for a split.

    It would load the files so named and no others. The words, and what may stand around them, are those of
    ``datasets.data_files``; two names stay two, as long as none of them has a ``+``.
    """
    return _SPLIT_WORD.sub(r"\g<0>+", name)


HEADER_FEATURES = (
    "is_jpeg",
    "is_png",
    "is_other_format",
    "log2_width",
    "log2_height",
    "log2_aspect",
    "has_jpeg_quality",
    "jpeg_quality",
    "jpeg_chroma_quality",
    "jpeg_chroma_share",
)
"""What a shortcut learner sees: the file around the face, never the face."""


_CHROMA_SHARES = {"4:4:4": 1.0, "4:4:0": 0.5, "4:2:2": 0.5, "4:2:0": 0.25, "4:1:1": 0.25, "4:1:0": 0.125}


def header_features(table: pa.Table) -> NDArray[np.float32]:
    """Return [N, F] float32 of HEADER_FEATURES from the ``original_*`` and ``jpeg_*`` columns.

    Qualities are in 0..1; the chroma share is of chroma samples per pixel (4:2:0 has 0.25), 0 where there are no JPEG tables.
    """
    formats = np.asarray(table["original_format"].to_pylist(), dtype=object)
    width = table["original_width"].to_numpy().astype(np.float32)
    height = table["original_height"].to_numpy().astype(np.float32)
    quality, chroma = (
        pc.fill_null(pc.cast(table[name], pa.float32()), -1.0).to_numpy()
        for name in ("jpeg_quality", "jpeg_chroma_quality")
    )
    shares = np.asarray([_CHROMA_SHARES.get(name, 0.0) for name in table["jpeg_subsampling"].to_pylist()])
    columns = (
        formats == "JPEG",
        formats == "PNG",
        ~np.isin(formats, ("JPEG", "PNG")),
        np.log2(width),
        np.log2(height),
        np.log2(width / height),
        quality >= 0,
        np.maximum(quality, 0.0) / 100.0,
        np.maximum(chroma, 0.0) / 100.0,
        shares,
    )
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1).reshape(
        -1, len(HEADER_FEATURES)
    )
