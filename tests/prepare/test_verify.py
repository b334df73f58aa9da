"""Verification names every face whose files are not what its row says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from dfad_bench.errors import UsageError
from dfad_bench.prepare.gaze_map import encode_gaze_map, render_gaze_map
from dfad_bench.prepare.verify import verify_manifest
from dfad_bench.records.features import FeaturesWriter
from dfad_bench.records.manifest import COLUMNS, read_footer, with_footer
from tests.prepare.builders import face, images, job, json_lines, rows, run, write


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    names = images(tmp_path / "root", 3)
    gaze = {"gaze_pitch": 0.1, "gaze_yaw": 0.2}
    json_lines(tmp_path / "root" / "a.jsonl", [{"path": name, "generator": "real", **gaze} for name in names])
    return run(job(tmp_path / "root", tmp_path / "data", "table")).root


def second(prepared: Path) -> dict[str, str]:
    return rows(prepared)[1]


def the_problem(prepared: Path) -> str:
    (problem,) = verify_manifest(prepared)
    assert problem.startswith(f"{second(prepared)['id']}: ")
    return problem


def test_a_manifest_as_it_was_written_is_sound(prepared: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert verify_manifest(prepared, lambda done, total: steps.append((done, total))) == []
    assert steps == [(3, 3)]


def test_one_altered_pixel_is_named(prepared: Path) -> None:
    name = second(prepared)["file_name"]
    altered = face(prepared, name).copy()
    altered[3, 4, 1] ^= 1
    assert cv2.imwrite(str(prepared / name), cv2.cvtColor(altered, cv2.COLOR_RGB2BGR))
    assert "holds other pixels" in the_problem(prepared)


def test_the_same_pixels_in_another_file_are_sound(prepared: Path) -> None:
    name = second(prepared)["file_name"]
    before = (prepared / name).read_bytes()
    pixels = cv2.imread(str(prepared / name))
    assert pixels is not None
    assert cv2.imwrite(str(prepared / name), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert (prepared / name).read_bytes() != before
    assert verify_manifest(prepared) == []


def test_a_deleted_face_is_named(prepared: Path) -> None:
    (prepared / second(prepared)["file_name"]).unlink()
    assert the_problem(prepared).endswith("is missing")


def test_a_deleted_gaze_map_is_named(prepared: Path) -> None:
    name = second(prepared)["gaze_file_name"]
    (prepared / name).unlink()
    assert the_problem(prepared).endswith(f"{name} is missing")


def test_a_gaze_map_of_another_gaze_is_named(prepared: Path) -> None:
    name = second(prepared)["gaze_file_name"]
    write(prepared / name, encode_gaze_map(render_gaze_map(0.1, -0.2)))
    assert the_problem(prepared).endswith(f"{name} shows another gaze than the row gives")


@pytest.mark.parametrize("damage", ["missing", "shorter", "none"])
def test_gaze_features_that_do_not_fit_the_faces_are_named(prepared: Path, damage: str) -> None:
    table = pq.read_table(prepared / "metadata.parquet")
    footer = read_footer(prepared).model_copy(update={"feature_dim": 4})
    pq.write_table(table.replace_schema_metadata(with_footer(COLUMNS, footer).metadata), prepared / "metadata.parquet")
    if damage != "missing":
        with FeaturesWriter(prepared, 3 - (damage == "shorter"), 4) as file:
            file.add(np.zeros((3 - (damage == "shorter"), 4), np.float32))
    problems = verify_manifest(prepared)
    assert [("gaze_features.safetensors" in problem) for problem in problems] == [True] * (damage != "none")


@pytest.mark.parametrize("kept", [0, 8, 60, 0.5, 0.95])
def test_a_truncated_face_is_named(prepared: Path, kept: float) -> None:
    path = prepared / second(prepared)["file_name"]
    data = path.read_bytes()
    write(path, data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    assert second(prepared)["file_name"] in the_problem(prepared)


def test_a_face_exchanged_for_another_is_named(prepared: Path) -> None:
    first, other = (prepared / row["file_name"] for row in rows(prepared)[:2])
    write(other, first.read_bytes())
    assert "holds other pixels" in the_problem(prepared)


def test_a_folder_without_a_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no manifest"):
        verify_manifest(tmp_path)
