"""The whole walk, as users type it: prepare → audit → run → score → leaderboard, on the demo and on real faces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from dfad_bench import registry
from dfad_bench.cli import app
from dfad_bench.modelling.weights import read_tensors, save_tensors
from dfad_bench.records.manifest import read_manifest
from dfad_bench.records.results import read_result
from tests.conftest import SHARED, WITHOUT_TORCH

FACES = 120
CORPUS_PROTOCOL = Path(__file__).parent / "protocols" / "corpus.yaml"


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with prepared demo faces in ``data``."""
    folder = tmp_path_factory.mktemp("demo")
    call("prepare", "--source", "demo", "--set", f"faces={FACES}", "--data", folder / "data", "--workers", "2")
    yield folder


def run(demo: Path, model: str, *more: str, runs: str = "runs", expect: int = 0) -> Path:
    where = ("--data", demo / "data", "--runs", demo / runs, "--device", "cpu")
    call("run", "--model", model, "--protocol", "demo", *where, *more, expect=expect)
    return demo / runs / "demo" / model / "seed-0"


def test_the_demo_holds_no_shortcut_and_no_leak(demo: Path) -> None:
    report = json.loads(call("audit", "demo", "--data", demo / "data", "--format", "json").stdout)
    assert report["problems"] == []
    assert "SHORTCUT" not in report["verdict"]


@pytest.mark.parametrize("model", ["chance", "file_header", "spectral"])
def test_a_model_is_trained_tested_scored_and_recorded(demo: Path, model: str) -> None:
    folder = run(demo, model)
    result = read_result(folder / "result.json")
    assert result.counts.declared == result.counts.evaluated > 0
    assert {score.subset for score in result.scores} == {"seen", "unseen", "all"}
    assert any(score.low is not None for score in result.scores)
    assert result.model.selected_on == "val"
    assert all(score.value is None or 0 <= score.value <= 1 for score in result.scores)
    assert all(score.value is not None or score.reason for score in result.scores)


def test_rescoring_without_torch_gives_the_numbers_of_the_run(demo: Path) -> None:
    folder = run(demo, "spectral")
    code = (
        f"{WITHOUT_TORCH}\n"
        "from dfad_bench.cli import app\n"
        f"app(['score', {str(folder / 'predictions.parquet')!r}, '--format', 'json'])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    recorded = read_result(folder / "result.json").model_dump(mode="json", include={"scoring", "scores", "details"})
    assert json.loads(answer.stdout) == recorded
    call("check", "result", folder / "result.json")
    assert "prove nothing about real" in call("score", folder / "predictions.parquet").stdout.replace("\n", " ")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(demo: Path) -> None:
    first = run(demo, "spectral")
    second = run(demo, "spectral", runs="again")
    for name in ("predictions.parquet", "model.safetensors", "result.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    run(demo, "spectral", "--seed", "1", runs="again")
    other = demo / "again" / "demo" / "spectral" / "seed-1"
    assert (first / "predictions.parquet").read_bytes() != (other / "predictions.parquet").read_bytes()


def test_finished_work_is_not_done_twice_and_another_configuration_is_not_mistaken_for_it(demo: Path) -> None:
    folder = run(demo, "chance", runs="twice")
    before = (folder / "timing.json").stat().st_mtime_ns
    run(demo, "chance", runs="twice")
    assert (folder / "timing.json").stat().st_mtime_ns == before
    run(demo, "chance", "--epochs", "3", runs="twice", expect=2)
    run(demo, "chance", "--epochs", "3", "--overwrite", runs="twice")
    assert (folder / "timing.json").stat().st_mtime_ns != before


def test_a_local_model_that_was_changed_is_not_taken_for_what_it_was(demo: Path, tmp_path: Path) -> None:
    baseline = Path(registry.find("models", "chance").path or "")
    mine = tmp_path / "mine.py"
    mine.write_bytes(baseline.read_bytes())
    where = ("--protocol", "demo", "--data", demo / "data", "--runs", tmp_path / "runs", "--device", "cpu")
    call("run", "--model", mine, *where)
    assert "finished before" in call("run", "--model", mine, *where).stderr
    mine.write_text(mine.read_text(encoding="utf-8") + "# another\n", encoding="utf-8")
    answer = call("run", "--model", mine, *where, expect=2)
    assert "differs in the model's file" in answer.stderr.replace("\n", " ")
    call("run", "--model", mine, *where, "--overwrite")


def test_given_weights_are_tested_and_nothing_is_trained(demo: Path) -> None:
    trained = run(demo, "spectral")
    tested = run(demo, "spectral", "--weights", str(trained / "model.safetensors"), runs="given")
    assert not (tested / "training.jsonl").exists()
    assert (tested / "predictions.parquet").read_bytes() == (trained / "predictions.parquet").read_bytes()
    assert read_result(tested / "result.json").model.selected_on == "given"


def test_weights_of_other_classes_and_weights_that_would_be_overwritten_are_refused(demo: Path, tmp_path: Path) -> None:
    weights = run(demo, "spectral") / "model.safetensors"
    tensors, origin = read_tensors(weights)
    origin["classes"][1]["name"] = "stylegan3"
    other = tmp_path / "other.safetensors"
    save_tensors(tensors, other, origin)
    run(demo, "spectral", "--weights", str(other), runs="other", expect=2)
    run(demo, "spectral", "--weights", str(weights), "--overwrite", expect=2)
    assert weights.is_file()


def test_two_runs_do_not_write_to_one_folder(demo: Path) -> None:
    folder = demo / "busy" / "demo" / "chance"
    folder.mkdir(parents=True)
    with FileLock(folder / ".seed-0.lock"):
        run(demo, "chance", runs="busy", expect=2)
    run(demo, "chance", runs="busy")


def test_a_face_that_cannot_be_read_is_counted_and_the_run_ends_with_3(demo: Path, tmp_path: Path) -> None:
    import shutil

    import pyarrow.parquet as pq

    shutil.copytree(demo / "data", tmp_path / "data")
    rows = pq.read_table(tmp_path / "data" / "demo" / "metadata.parquet").to_pylist()
    lost = next(row for row in rows if row["source_split"] == "test" and row["generator"] == "demo_flow")
    (tmp_path / "data" / "demo" / lost["file_name"]).write_bytes(b"")
    folder = run(tmp_path, "spectral", expect=3)
    result = read_result(folder / "result.json")
    assert result.counts.skipped == {"unreadable face": 1}
    assert result.counts.evaluated == result.counts.declared - 1
    assert any("incomplete" in reason for reason in result.ineligible)
    call("leaderboard", "add", folder / "result.json", "--folder", tmp_path, expect=1)


def test_faces_too_small_for_a_model_are_refused_before_any_work(tmp_path: Path) -> None:
    call("prepare", "--source", "demo", "--set", "faces=60", "--data", tmp_path / "data", "--size", "64")
    answer = CliRunner().invoke(
        app,
        [
            "run",
            "--model",
            "resnet18",
            "--protocol",
            "demo",
            "--data",
            f"{tmp_path}/data",
            "--runs",
            f"{tmp_path}/runs",
        ],
    )
    assert answer.exit_code == 1
    assert "Prepare them with --size 128 or more" in answer.stderr
    assert not (tmp_path / "runs").exists()


def test_a_limited_run_is_marked(demo: Path) -> None:
    result = read_result(run(demo, "chance", "--limit", "2", runs="limited") / "result.json")
    assert any("limited" in reason for reason in result.ineligible)


def test_training_never_opens_a_test_face(demo: Path, tmp_path: Path) -> None:
    """Without any test face on disk, training ends with the same weights."""
    import shutil

    import pyarrow.parquet as pq

    shutil.copytree(demo / "data", tmp_path / "data")
    for row in pq.read_table(tmp_path / "data" / "demo" / "metadata.parquet").to_pylist():
        if row["source_split"] == "test":
            (tmp_path / "data" / "demo" / row["file_name"]).unlink()
    blind = run(tmp_path, "spectral", expect=3)  # nothing is left to test
    assert (blind / "model.safetensors").read_bytes() == (run(demo, "spectral") / "model.safetensors").read_bytes()


def test_the_demo_command_walks_the_whole_way_and_its_second_call_is_all_kept_work(tmp_path: Path) -> None:
    arguments = ("demo", "--folder", tmp_path, "--faces", "60")
    call(*arguments)
    table = (tmp_path / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert "prove nothing about real" in table
    for model in ("chance", "file_header", "spectral", "resnet18"):
        assert model.replace("_", r"\_") in table
    timings = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("timing.json")}
    call(*arguments)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("timing.json")} == timings


def test_real_faces_go_the_same_way_and_the_audit_is_loud_about_their_files(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(SHARED / "weights"))
    where = ("--root", corpus, "--name", "corpus", "--data", data)
    call("prepare", "--source", "table", *where, "--workers", "2", "--offline")
    table = read_manifest(data / "corpus").table
    assert table.num_rows == 969, "yunet finds a face in every one"
    assert table["gaze_pitch"].null_count == 969 - table["gaze_flag"].null_count < 97
    answer = call("audit", "corpus", "--data", data, "--format", "json")
    report = json.loads(answer.stdout)
    assert "SHORTCUT" in report["verdict"]
    runs = ("--protocol", CORPUS_PROTOCOL, "--data", data, "--runs", tmp_path / "runs", "--device", "cpu")
    for model in ("file_header", "spectral"):
        call("run", "--model", model, *runs)
        result = read_result(tmp_path / "runs" / "corpus" / model / "seed-0" / "result.json")
        assert result.protocol.warning
        assert result.counts.evaluated == result.counts.declared
