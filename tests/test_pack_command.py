"""``pack`` as it is typed, and every command that reads faces on what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.records.results import read_result


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with 60 prepared demo faces in ``data``, and packed in ``data-packed``."""
    folder = tmp_path_factory.mktemp("pack")
    call("prepare", "--source", "demo", "--set", "faces=60", "--data", folder / "data", "--workers", "2")
    told = json.loads(
        call(
            "pack", "demo", "--data", folder / "data", "--shard-size", "2", "--workers", "2", "--format", "json"
        ).stdout
    )
    assert (told["source"], told["faces"], told["resumed"]) == ("demo", 60, 0)
    assert told["shards"] > 1 and Path(told["root"]) == folder / "data-packed" / "demo"
    yield folder


def test_it_says_how_to_use_it_and_that_nothing_was_left_to_do(demo: Path) -> None:
    shown = " ".join(call("pack", demo / "data" / "demo", "--shard-size", "2").output.split())
    assert f"dfad-bench run --data {demo / 'data-packed'}" in shown
    assert "load_dataset(" in shown
    shards = len(list((demo / "data-packed" / "demo" / "shards").iterdir()))
    assert f"{shards} of {shards} shards were finished before" in shown


@pytest.mark.parametrize("model", ["spectral", "gaze_only"])
def test_a_run_on_packed_faces_writes_the_same_predictions(demo: Path, model: str) -> None:
    written = {}
    for data in ("data", "data-packed"):
        call(
            *("run", "--model", model, "--protocol", "demo", "--device", "cpu"),
            *("--data", demo / data, "--runs", demo / f"runs-{data}"),
        )
        folder = demo / f"runs-{data}" / "demo" / model / "seed-0"
        written[data] = (folder / "predictions.parquet").read_bytes(), read_result(folder / "result.json")
    assert written["data"][0] == written["data-packed"][0]
    one, other = (result for _, result in written.values())
    assert one.protocol.fingerprint == other.protocol.fingerprint
    assert one.scores == other.scores


def test_checking_and_auditing_it_finds_what_they_find_in_loose_faces(demo: Path) -> None:
    call("check", "manifest", "demo", "--data", demo / "data-packed")
    told = [call("audit", "demo", "--data", demo / data, "--format", "json").stdout for data in ("data", "data-packed")]
    assert json.loads(told[0]) == json.loads(told[1])


def test_an_export_of_packed_faces_holds_the_same_images(demo: Path) -> None:
    def exported(data: str) -> list[dict[str, Any]]:
        out = demo / f"export-{data}"
        call("export", "dataset", out, "--source", "demo", "--data", demo / data)
        return [row for path in sorted((out / "data").iterdir()) for row in pq.read_table(path).to_pylist()]

    for one, other in zip(exported("data"), exported("data-packed"), strict=True):
        for column in ("image", "gaze_map"):
            first, second = one.pop(column), other.pop(column)
            assert first["bytes"] == second["bytes"]
            assert Path(first["path"]).name == second["path"]
        assert one == other


def test_a_report_shows_packed_faces(demo: Path) -> None:
    where = ("--data", demo / "data-packed", "--runs", demo / "shown", "--device", "cpu")
    call("run", "--model", "chance", "--protocol", "demo", *where)
    page = demo / "page.html"
    call("report", demo / "shown" / "demo" / "chance" / "seed-0", "--data", demo / "data-packed", "--output", page)
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") > 0
    assert "The file is not there" not in html


def test_mistakes_are_told_in_one_line(demo: Path) -> None:
    for arguments, told in (
        (("nowhere",), "There is no manifest in nowhere"),
        (("demo", "--output", demo / "data" / "demo"), "lie in each other"),
        (("demo", "--output", demo / "elsewhere"), f"give --output {demo / 'elsewhere' / 'demo'}"),
    ):
        answer = call("pack", *arguments, "--data", demo / "data", expect=2)
        assert told in " ".join(answer.output.split())
    again = call("prepare", "--source", "demo", "--data", demo / "data-packed", expect=2)
    assert "is a packed manifest" in " ".join(again.output.split())
