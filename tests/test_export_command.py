"""``export`` as it is typed: faces as a dataset, a result in the formats of others; the functions have tests of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.records.results import read_result, write_result


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with 60 prepared demo faces and one run on them."""
    folder = tmp_path_factory.mktemp("export")
    call("prepare", "--source", "demo", "--set", "faces=60", "--data", folder / "data", "--workers", "2")
    where = ("--data", folder / "data", "--runs", folder / "runs", "--device", "cpu")
    call("run", "--model", "chance", "--protocol", "demo", *where)
    yield folder


def test_faces_become_a_dataset_with_a_config_per_protocol(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    more = ("--protocol", "demo", "--data", demo / "data", "--creator", "A Group", "--format", "json")
    told = json.loads(call("export", "dataset", out, "--source", "demo", *more).stdout)
    assert told["url"] is None
    assert {path for path in map(Path, told["files"]) if path.is_file()} >= {out / "README.md", out / "croissant.json"}
    card = (out / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert [config["config_name"] for config in yaml.safe_load(card)["configs"]] == ["demo"]
    described = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    assert "A Group" in json.dumps(described["creator"])


def test_what_croissant_asks_for_and_was_not_given_is_said(demo: Path, tmp_path: Path) -> None:
    answer = call("export", "dataset", tmp_path / "faces", "--source", "demo", "--data", demo / "data")
    assert "Croissant 1.1 also asks for" in answer.stderr


def test_a_result_becomes_three_files_and_an_ineligible_one_is_refused(demo: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="the Hub's formats are written by huggingface_hub")
    stored = demo / "runs" / "demo" / "chance" / "seed-0" / "result.json"
    result = tmp_path / "result.json"
    write_result(result, read_result(stored).model_copy(update={"ineligible": []}))
    names = ("--dataset", "org/dfad-bench", "--model-id", "org/chance", "--organisation", "org")
    told = json.loads(call("export", "result", result, "--output", tmp_path, *names, "--format", "json").stdout)
    found = {Path(path).name for path in told["files"]}
    assert found == {"demo-chance.yaml", "demo-chance.card.md", "demo-chance.every_eval_ever.json"}
    assert all(Path(path).is_file() for path in told["files"])
    write_result(result, read_result(stored).model_copy(update={"ineligible": ["limited"]}))
    answer = call("export", "result", result, "--output", tmp_path / "no", *names, expect=1)
    assert "limited" in answer.stderr
    assert not (tmp_path / "no").exists()


def test_a_push_without_a_network_is_one_line(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="pushing needs huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_token")
    where = ("--source", "demo", "--data", demo / "data", "--push", "org/faces")
    answer = call("export", "dataset", tmp_path / "faces", *where, expect=2)
    assert "HF_HUB_OFFLINE" in answer.stderr
    assert (tmp_path / "faces" / "README.md").is_file()
