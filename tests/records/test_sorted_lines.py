"""Lines come in order however little memory they may take, and what was put into files is read a block at a time."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records import sorted_lines
from dfad_bench.records.sorted_lines import SortedLines


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.text(st.sampled_from("abé\n "), max_size=3), max_size=8), max_size=8),
    st.integers(1, 100),
    st.integers(1, 4),
)
def test_lines_come_in_order_and_none_is_lost(parts: list[list[str]], most: int, block: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_lines, "_MOST", most)
        patch.setattr(sorted_lines, "_BLOCK", block)
        lines = SortedLines(Path(folder))
        for part in parts:
            lines.add(pa.array(part, pa.string()))
        found = [line for each in lines.blocks() for line in each.to_pylist()]
    assert found == sorted((line for part in parts for line in part), key=str.encode)


def test_runs_go_to_files_and_come_back_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_lines, "_MOST", 1000)
    monkeypatch.setattr(sorted_lines, "_BLOCK", 10)
    lines = SortedLines(tmp_path)
    for start in range(20):
        lines.add(pa.array([f"{number:05}" for number in range(start, 2000, 20)]))
    runs = len(list(tmp_path.iterdir()))
    assert runs > 5
    blocks = list(lines.blocks())
    assert max(map(len, blocks)) <= 10 * (runs + 1)
    assert pa.concat_arrays(blocks).to_pylist() == [f"{number:05}" for number in range(2000)]


def test_few_lines_need_no_file(tmp_path: Path) -> None:
    lines = SortedLines(tmp_path)
    lines.add(pa.array(["b", "a"]))
    assert [each.to_pylist() for each in lines.blocks()] == [["a", "b"]]
    assert not list(tmp_path.iterdir())
