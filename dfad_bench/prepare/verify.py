"""Checks that a manifest's files are there and hold the pixels its rows were hashed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, shorten
from dfad_bench.interfaces import Engine
from dfad_bench.prepare.crop_files import Unsound, read_crop, read_png
from dfad_bench.prepare.gaze_map import render_gaze_map
from dfad_bench.records.features import read_features
from dfad_bench.records.gaze import CROP_FLAGS, added_estimators, adding_command, gaze_path, read_gaze
from dfad_bench.records.manifest import FEATURES, read_batches, read_footer, read_manifest

Row = dict[str, Any]
_COLUMNS = ("id", "file_name", "gaze_file_name", "gaze_pitch", "gaze_yaw", "sha256")


def verify_manifest(
    root: Path, on_progress: Callable[[int, int], None] | None = None, engine: Engine | None = None
) -> list[str]:
    """Return one line per face whose crop or gaze map is missing, unreadable or altered, and per gaze of another estimator
    that is not what it should be; an empty list when all is well. Every crop is decoded and hashed, wherever the engine
    does that."""
    total = read_manifest(root, ("id",)).table.num_rows
    problems = _feature_problems(root, total) + _added_gaze_problems(root)
    done = 0
    checked = (engine or LocalEngine()).map(partial(_rows, root), partial(_FaceChecker, root), in_order=True)
    for faces, found in checked:
        problems += found
        done += faces
        if on_progress:
            on_progress(done, total)
    return problems


_FACES_PER_TASK = 256


def _rows(root: Path) -> Iterator[list[Row]]:
    for batch in read_batches(root, _COLUMNS):
        for start in range(0, batch.num_rows, _FACES_PER_TASK):
            yield batch.slice(start, _FACES_PER_TASK).to_pylist()


class _FaceChecker:
    """The stage of a verification: rows in, their number and what is wrong with them out."""

    def __init__(self, root: Path) -> None:
        cv2.setNumThreads(1)  # workers are processes; threads inside them would only compete
        self._root = root

    def __call__(self, rows: Sequence[Row]) -> tuple[int, list[str]]:
        problems = []
        for row in rows:
            problem = _problem(self._root, row["file_name"], row["sha256"])
            if problem is None and row["gaze_file_name"] is not None:
                problem = _gaze_problem(self._root, row["gaze_file_name"], row["gaze_pitch"], row["gaze_yaw"])
            if problem is not None:
                problems.append(f"{row['id']}: {problem}")
        return len(rows), problems


def _feature_problems(root: Path, faces: int) -> list[str]:
    width = read_footer(root).feature_dim
    if not width:
        return []
    try:
        shape = read_features(root).shape
    except DataError as error:
        return [str(error)]
    return [] if shape == (faces, width) else [f"{FEATURES} is {shape}, expected {(faces, width)}"]


def _problem(root: Path, file_name: str, sha256: str) -> str | None:
    crop = read_crop(root, file_name, sha256)
    return crop.detail if isinstance(crop, Unsound) else None


def _gaze_problem(root: Path, file_name: str, pitch: float | None, yaw: float | None) -> str | None:
    pixels = read_png(root, file_name)
    if isinstance(pixels, Unsound):
        return pixels.detail
    if pitch is None or yaw is None:
        return f"{file_name} is the map of a gaze that the row does not give"
    drawn = render_gaze_map(pitch, yaw)
    same = pixels.shape[:2] == drawn.shape[:2] and _far(pixels[..., :2], drawn) <= _DRAWN_ALIKE
    return None if same else f"{file_name} shows another gaze than the row gives"


_DRAWN_ALIKE = 2
"""Grey levels by which a map may differ from one drawn here: angles are stored as float32."""


def _far(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    return int(np.abs(first.astype(np.int16) - second.astype(np.int16)).max())


def _added_gaze_problems(root: Path) -> list[str]:
    """Return what is wrong with the gaze that was added by other estimators."""
    problems = []
    for estimator in added_estimators(root):
        try:
            gaze = read_gaze(root, estimator)
        except DataError as error:
            problems.append(str(error))
            continue
        blind = [name for name, flag in zip(gaze.ids, gaze.flags, strict=True) if flag in CROP_FLAGS]
        if blind:
            problems.append(
                f"{gaze_path(root, estimator).relative_to(root)} knows no gaze of {shorten(blind)}, whose crops were missing "
                f"or altered. Prepare them again, then '{adding_command(root, estimator)}'."
            )
    return problems
