"""The README's map leads to the lines that it names, and its figures are those that were kept."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

MAP = re.compile(r"\[`(.+?)`\]\((\w+\.py)#L(\d+)\)")


def test_the_map_from_formulas_to_lines_is_right(repository: Path) -> None:
    package = repository / "gazeclip"
    entries = MAP.findall((package / "README.md").read_text(encoding="utf-8"))
    assert len(entries) >= 11
    for code, file, line in entries:
        lines = (package / file).read_text(encoding="utf-8").splitlines()
        places = [number for number, text in enumerate(lines, start=1) if code in text]
        assert places == [int(line)], f"{code} stands in {file} on {places}, the README says {line}"


def test_the_figures_are_those_that_the_benchmarks_kept(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    readme = importlib.import_module("readme")
    text = (repository / "gazeclip" / "README.md").read_text(encoding="utf-8")
    for region, lines in readme.gazeclip_regions().items():
        shown = text.partition(f"<!-- {region}:begin -->")[2].partition(f"<!-- {region}:end -->")[0]
        assert shown.strip().splitlines() == lines
