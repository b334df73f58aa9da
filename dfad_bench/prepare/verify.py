"""Checks that a manifest's files are there and hold the pixels its rows were hashed from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from dfad_bench.prepare.faces import pixel_sha256
from dfad_bench.records.manifest import read_manifest


def verify_manifest(root: Path, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Return one line per face whose crop or gaze map is missing, unreadable or altered; an empty list when all is well."""
    table = read_manifest(root, ("id", "file_name", "gaze_file_name", "sha256")).table
    problems = []
    for done, row in enumerate(table.to_pylist(), start=1):
        problem = _problem(root, row["file_name"], row["sha256"])
        if problem is None and row["gaze_file_name"] is not None and not (root / row["gaze_file_name"]).is_file():
            problem = f"{row['gaze_file_name']} is missing"
        if problem is not None:
            problems.append(f"{row['id']}: {problem}")
        if on_progress:
            on_progress(done, table.num_rows)
    return problems


def _problem(root: Path, file_name: str, sha256: str) -> str | None:
    try:
        data = (root / file_name).read_bytes()
    except OSError as error:
        return f"{file_name} cannot be read ({error.strerror})"
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if pixels is None:
        return f"{file_name} is no readable image"
    return None if pixel_sha256(pixels.astype(np.uint8, copy=False)) == sha256 else f"{file_name} holds other pixels"
