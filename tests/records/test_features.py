"""Gaze features are written block by block and read as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dfad_bench.errors import DataError
from dfad_bench.records.features import FeaturesWriter, read_features

FEATURES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def written(root: Path, rows: int = 10, width: int = 3) -> Path:
    with FeaturesWriter(root, rows, width) as file:
        for start in (0, 4, 7):
            file.add(FEATURES[start : {0: 4, 4: 7, 7: 10}[start]])
    return root


def test_blocks_come_back_as_one_table_that_safetensors_reads_too(tmp_path: Path) -> None:
    root = written(tmp_path)
    np.testing.assert_array_equal(read_features(root), FEATURES)
    (tensor,) = load_file(root / "gaze_features.safetensors").values()
    np.testing.assert_array_equal(tensor, FEATURES)


def test_no_face_is_a_table_without_rows(tmp_path: Path) -> None:
    with FeaturesWriter(tmp_path, 0, 5):
        pass
    assert read_features(tmp_path).shape == (0, 5)


@pytest.mark.parametrize("rows", [9, 11])
def test_another_number_of_rows_than_promised_leaves_no_file(tmp_path: Path, rows: int) -> None:
    with pytest.raises(ValueError, match=f"10 rows were written where {rows}"):
        written(tmp_path, rows=rows)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected rows \[n, 4\] float32"):
        written(tmp_path, width=4)
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_keeps_the_file_of_before(tmp_path: Path) -> None:
    before = (written(tmp_path) / "gaze_features.safetensors").read_bytes()
    with pytest.raises(KeyError), FeaturesWriter(tmp_path, 10, 3):
        raise KeyError
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_file_that_is_missing_or_none_of_ours_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "gaze_features.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"gaze_features\.safetensors"):
        read_features(tmp_path)
