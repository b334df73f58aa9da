"""A leaderboard as it is kept: results, what seeds say, which models nobody can tell apart, and the pages of all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dfad_bench import provenance
from dfad_bench.cli import app
from dfad_bench.publish.leaderboard import place
from dfad_bench.records.pairs import read_pairs
from dfad_bench.records.results import CodeRecord, read_result, write_result
from dfad_bench.records.results import Result as RunResult
from dfad_bench.records.seeds import read_seeds


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of two models' runs on 60 demo faces, two seeds each."""
    folder = tmp_path_factory.mktemp("board")
    call("prepare", "--source", "demo", "--set", "faces=60", "--data", folder / "data", "--workers", "2")
    where = ("--data", folder / "data", "--runs", folder / "runs", "--device", "cpu")
    call("run", "--model", "chance,file_header", "--protocol", "demo", "--seeds", "2", *where)
    yield folder / "runs" / "demo"


def test_seeds_and_pairs_stand_on_the_page_below_the_results(runs: Path, tmp_path: Path) -> None:
    first = [runs / name / "seed-0" / "result.json" for name in ("chance", "file_header")]
    everything = sorted(runs.glob("*/seed-*/result.json"))
    assert len(everything) == 4
    board = ("--folder", tmp_path)
    call("leaderboard", "seeds", *everything, *board)
    call("leaderboard", "pairs", *first, "--resamples", "50", *board)
    seeds, pairs = read_seeds(tmp_path / "seeds" / "demo.json"), read_pairs(tmp_path / "pairs" / "demo.json")
    assert [model.seeds for model in seeds.models] == [[0, 1], [0, 1]]
    assert {model.predictions_sha256 for model in pairs.models} == {
        read_result(path).predictions.sha256 for path in first
    }
    assert pairs.resamples == 50
    (tmp_path / "results").mkdir()
    call("leaderboard", "build", *board)
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "### demo v1: significance groups" in page
    assert "### demo v1 over seeds" in page


def test_both_print_what_they_write(runs: Path, tmp_path: Path) -> None:
    first = [runs / name / "seed-0" / "result.json" for name in ("chance", "file_header")]
    for command, read in (("seeds", read_seeds), ("pairs", read_pairs)):
        told = json.loads(call("leaderboard", command, *first, "--folder", tmp_path, "--format", "json").stdout)
        assert told == read(tmp_path / command / "demo.json").model_dump()
        assert "demo v1" in call("leaderboard", command, *first, "--folder", tmp_path).stdout


def test_a_result_whose_predictions_were_changed_is_not_paired(runs: Path, tmp_path: Path) -> None:
    copied = []
    for name in ("chance", "file_header"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("result.json", "predictions.parquet"):
            (folder / file).write_bytes((runs / name / "seed-0" / file).read_bytes())
        copied.append(folder / "result.json")
    (tmp_path / "chance" / "predictions.parquet").write_bytes(
        (runs / "chance" / "seed-1" / "predictions.parquet").read_bytes()
    )
    answer = call("leaderboard", "pairs", *copied, "--folder", tmp_path, expect=1)
    assert "was not computed from" in answer.stderr.replace("\n", " ")


def test_one_model_has_no_pair(runs: Path, tmp_path: Path) -> None:
    answer = call("leaderboard", "pairs", runs / "chance" / "seed-0" / "result.json", "--folder", tmp_path, expect=1)
    assert "Pairs need two models or more" in answer.stderr


def test_a_run_on_a_protocol_of_the_users_own_file_is_not_added(
    runs: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No release and no commit vouches for such a file, be its name that of a registered protocol."""
    monkeypatch.setattr(provenance, "code", lambda: CodeRecord(version="1.0", commit="c" * 40, dirty=False))
    mine = tmp_path / "demo.yaml"
    mine.write_bytes((repository / "protocols" / "demo.yaml").read_bytes())
    for protocol in (mine, "demo"):
        where = (
            "--data",
            runs.parent.parent / "data",
            "--runs",
            tmp_path / Path(protocol).suffix[1:],
            "--device",
            "cpu",
        )
        call("run", "--model", "chance", "--protocol", protocol, *where)
    told = [
        set(read_result(tmp_path / folder / "demo" / "chance" / "seed-0" / "result.json").ineligible)
        for folder in ("yaml", "")
    ]
    assert told[0] - told[1] == {"the protocol is a local file, not a registered one"}
    refused = tmp_path / "yaml" / "demo" / "chance" / "seed-0" / "result.json"
    answer = call("leaderboard", "add", refused, "--folder", tmp_path / "board", expect=1)
    assert "the protocol is a local file, not a registered one" in " ".join(answer.stderr.split())


def test_a_row_that_was_added_without_its_predictions_passes_the_check_and_is_named(runs: Path, tmp_path: Path) -> None:
    added = place(runs / "chance" / "seed-0" / "result.json", tmp_path / "pull" / "results")
    write_result(added, clean(read_result(added)))
    (tmp_path / "base" / "results").mkdir(parents=True)
    report = tmp_path / "comment.md"
    check = ("leaderboard", "check", "--against", tmp_path / "base", "--report", report, added)
    answer = call(*check)
    assert "Not recomputed: no predictions beside demo/chance.json" in " ".join(answer.stderr.split())
    assert "Not recomputed: no predictions in the pull request" in report.read_text(encoding="utf-8")
    before = place(added, tmp_path / "base" / "results")
    before.with_suffix(".parquet").write_bytes((runs / "chance" / "seed-0" / "predictions.parquet").read_bytes())
    assert "chance.parquet is gone" in " ".join(call(*check, expect=1).stderr.split())


def clean(result: RunResult) -> RunResult:
    """What the same run would say of itself from a clean checkout."""
    return result.model_copy(update={"ineligible": [], "code": CodeRecord(version="1.0", commit="c" * 40, dirty=False)})
