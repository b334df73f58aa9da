"""``report`` as it is typed; what stands on the page has tests of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dfad_bench.cli import app


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """The folders of prepared demo faces and of two runs on them."""
    folder = tmp_path_factory.mktemp("report")
    call("prepare", "--source", "demo", "--set", "faces=60", "--data", folder / "data", "--workers", "2")
    where = ("--data", folder / "data", "--runs", folder / "runs", "--device", "cpu")
    call("run", "--model", "chance,file_header", "--protocol", "demo", *where)
    of_demo = folder / "runs" / "demo"
    yield folder / "data", of_demo / "chance" / "seed-0", of_demo / "file_header" / "seed-0"


def test_every_run_gets_its_page_beside_its_result(runs: tuple[Path, Path, Path]) -> None:
    _, chance, header = runs
    told = json.loads(call("report", chance, header, "--format", "json").stdout)
    assert [Path(path) for path in told] == [chance / "report.html", header / "report.html"]
    assert "chance on demo" in (chance / "report.html").read_text(encoding="utf-8")


def test_the_gallery_needs_the_prepared_faces(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, chance, _ = runs
    call("report", chance, "--output", tmp_path / "without.html")
    call("report", chance, "--output", tmp_path / "with.html", "--data", data)
    without, with_faces = ((tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("without", "with"))
    assert "data:image/jpeg" not in without
    assert "data:image/jpeg" in with_faces


def test_one_page_cannot_be_that_of_two_runs(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, chance, header = runs
    assert "several runs" in call("report", chance, header, "--output", tmp_path / "page.html", expect=2).stderr


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in call("report", tmp_path, expect=2).stderr.replace("\n", "")
