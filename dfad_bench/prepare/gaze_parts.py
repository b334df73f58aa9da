"""One part of an added gaze: crops in, a file with the gaze of each out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.interfaces import GazeEstimator
from dfad_bench.prepare.crop_files import CHANGED, Unsound, read_crop
from dfad_bench.prepare.crop_landmarks import landmarks_in_crop
from dfad_bench.prepare.faces import BATCH
from dfad_bench.prepare.ledger import write_table
from dfad_bench.records.gaze import CROP_FLAGS, GAZE_COLUMNS, FacePart
from dfad_bench.records.manifest import PrepareRecipe
from dfad_bench.types import Gaze

_PART_KEY = b"dfad_bench_gaze_part"
FEATURES_CELL = pa.field("features", pa.list_(pa.float32()))
"""The column of a part that holds its faces' features."""
_NUMBERS = {
    "gaze_pitch": "pitch",
    "gaze_yaw": "yaw",
    "gaze_head_pitch": "head_pitch",
    "gaze_head_yaw": "head_yaw",
    "gaze_confidence": "confidence",
}
"""Columns, and the fields of ``Gaze`` that they hold."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all parts have in common: the manifest's folder and recipe, where parts are written, and the mark that they
    bear of what computed them."""

    root: Path
    recipe: PrepareRecipe
    parts: Path
    mark: str

    def path(self, digest: str) -> Path:
        """Return where the part of that digest is written."""
        return self.parts / f"{digest}.parquet"

    def is_made(self, digest: str) -> bool:
        """Return whether a part is there and needs no second try: a crop that was missing may be back."""
        try:
            stored = json.loads(pq.read_schema(self.path(digest)).metadata[_PART_KEY])
            return bool(stored["whole"] and stored["mark"] == self.mark)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
            return False


@dataclass(frozen=True, slots=True)
class MadeGaze:
    """A part that was made just now: its digest, its faces, and the seconds that each stage took."""

    digest: str
    faces: int
    seconds: dict[str, float]


class GazeMaker:
    """Estimates the gaze of one part after the other, and writes each to a file of its own."""

    def __init__(self, setting: Setting, estimator: GazeEstimator) -> None:
        cv2.setNumThreads(1)  # workers are processes; threads inside them would only compete
        self._setting, self._estimator = setting, estimator
        self._seconds: dict[str, float] = {}

    def __call__(self, part: FacePart) -> MadeGaze:
        self._seconds = {}
        tables = [self._estimated(part.table.slice(start, BATCH)) for start in range(0, part.table.num_rows, BATCH)]
        table = pa.concat_tables(tables)
        with self._timed("write"):
            whole = not set(table["gaze_flag"].to_pylist()) & set(CROP_FLAGS)
            metadata = {_PART_KEY: json.dumps({"mark": self._setting.mark, "whole": whole}).encode()}
            self._setting.parts.mkdir(parents=True, exist_ok=True)
            write_table(self._setting.path(part.digest), table.replace_schema_metadata(metadata))
        return MadeGaze(part.digest, part.table.num_rows, self._seconds)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def _estimated(self, table: pa.Table) -> pa.Table:
        """Return the gaze of a few faces, those whose crop is not sound flagged."""
        rows = table.to_pylist()
        with self._timed("read"):
            crops = [self._read(row) for row in rows]
        seen = [at for at, crop in enumerate(crops) if not isinstance(crop, Unsound)]
        flags = [crop.flag if isinstance(crop, Unsound) else None for crop in crops]
        columns = {name: np.full(len(rows), np.nan, np.float32) for name in _NUMBERS}
        features = np.full((len(rows), self._estimator.feature_dim), np.nan, np.float32)
        if seen:
            with self._timed("gaze"):
                gaze = self._gaze([rows[at] for at in seen], [crops[at] for at in seen])
            for name, field in _NUMBERS.items():
                if (values := getattr(gaze, field)) is not None:
                    columns[name][seen] = values
            if gaze.features is not None:
                features[seen] = gaze.features
            for at, flag in zip(seen, gaze.flags or [None] * len(seen), strict=True):
                flags[at] = flag
        arrays = {
            "id": table["id"].combine_chunks(),
            **{name: pa.array(values, mask=~np.isfinite(values)) for name, values in columns.items()},
            "gaze_flag": pa.array(flags, pa.string()),
            FEATURES_CELL.name: pa.array(list(features), FEATURES_CELL.type),
        }
        schema = GAZE_COLUMNS.append(FEATURES_CELL)
        return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)

    def _read(self, row: dict[str, Any]) -> NDArray[np.uint8] | Unsound:
        crop = read_crop(self._setting.root, row["file_name"], row["sha256"])
        side = self._setting.recipe.size
        if not isinstance(crop, Unsound) and crop.shape != (side, side, 3):
            return Unsound(CHANGED, f"{row['file_name']} is not {side} px wide and high")
        return crop

    def _gaze(self, rows: list[dict[str, Any]], crops: list[Any]) -> Gaze:
        decisive = ("box", "landmarks", "crop_scale", "decode_reduction")
        landmarks = [landmarks_in_crop(self._setting.recipe, *(row[name] for name in decisive)) for row in rows]
        return self._estimator.estimate(np.stack(crops), np.stack(landmarks), [None] * len(rows))


def build_maker(setting: Setting, estimator: str) -> GazeMaker:
    """Return a maker with an estimator of its own, as a worker needs it."""
    return GazeMaker(setting, registry.get("gaze_estimators", estimator)())
