"""GazeCLIP's README leads to the lines that it names, and its figures are those that were kept."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def readme(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that writes what a machine writes of it: ``python benchmarks/readme.py``."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("readme")


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "gazeclip" / "README.md").read_text(encoding="utf-8")


def test_the_map_from_formulas_to_lines_is_right(readme: ModuleType, text: str, repository: Path) -> None:
    entries = readme.MAP.findall(text)
    assert len(entries) >= 11
    for code, file, line in entries:
        assert readme.places(repository / "gazeclip" / file, code) == [int(line)], f"{code} in {file}"


def test_the_figures_are_those_that_the_benchmarks_kept(readme: ModuleType, text: str) -> None:
    for region, lines in readme.gazeclip_regions().items():
        shown = text.partition(f"<!-- {region}:begin -->")[2].partition(f"<!-- {region}:end -->")[0]
        assert shown.strip().splitlines() == lines
