"""Many models and seeds in one call: what is finished is kept, what cannot run says why, and nothing stops the rest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dfad_bench import registry
from dfad_bench.cli import app
from dfad_bench.errors import UsageError
from dfad_bench.records.results import read_result
from dfad_bench.records.seeds import read_seeds
from dfad_bench.work_list import named, told_time

BROKEN = """
import torch
from torch import nn

from dfad_bench.types import ModelSpec


class Broken(nn.Module):
    def forward(self, batch):
        raise IndexError("a bug of a plugin")


MODEL = ModelSpec(build=lambda classes: Broken(), inputs=("gaze",), reference="none", licence="none")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of prepared demo faces."""
    folder = tmp_path_factory.mktemp("data")
    answer = CliRunner().invoke(
        app, ["prepare", "--source", "demo", "--set", "faces=60", "--data", str(folder), "--workers", "2"]
    )
    assert answer.exit_code == 0, answer.output
    yield folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder on a machine that has no weights and may not fetch any."""
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DFAD_BENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    return tmp_path


def call(here: Path, data: Path, model: str, *more: str, protocol: str = "demo", expect: int = 0) -> Result:
    where = ["--data", str(data), "--runs", str(here / "runs"), "--device", "cpu"]
    answer = CliRunner().invoke(app, ["run", "--model", model, "--protocol", protocol, *where, *more])
    assert answer.exit_code == expect, answer.output
    return answer


def cells(here: Path, data: Path, model: str, *more: str, **options: Any) -> dict[tuple[str, int], dict[str, Any]]:
    told = json.loads(call(here, data, model, *more, "--format", "json", **options).stdout)
    return {(cell["model"], cell["seed"]): cell for cell in told["cells"]}


def clocks(here: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in here.rglob("timing.json")}


def test_every_model_runs_with_every_seed_and_what_is_finished_is_kept(here: Path, data: Path) -> None:
    found = cells(here, data, "chance,file_header", "--seeds", "2")
    assert {key: cell["state"] for key, cell in found.items()} == {
        (model, seed): "finished" for model in ("chance", "file_header") for seed in (0, 1)
    }
    assert all((Path(cell["folder"]) / "result.json").is_file() for cell in found.values())
    before = clocks(here)
    assert len(before) == 4
    answer = call(here, data, "chance,file_header", "--seeds", "3")
    assert "2 of 6 to do" in answer.stderr
    after = clocks(here)
    assert {path: after[path] for path in before} == before
    assert len(after) == 6


def test_what_the_seeds_say_together_is_written_and_shown(here: Path, data: Path) -> None:
    told = json.loads(call(here, data, "chance,file_header", "--seeds", "2", "--format", "json").stdout)
    record = read_seeds(here / "runs" / "demo" / "seeds.json")
    assert [model.seeds for model in record.models] == [[0, 1], [0, 1]]
    assert told["seeds"] == [record.model_dump()]
    assert {each.metric for each in record.stability} == {"accuracy", "auc", "accuracy@val"}
    assert "demo v" in call(here, data, "chance,file_header", "--seeds", "2").stdout


def test_a_later_call_keeps_what_earlier_ones_say_over_seeds(here: Path, data: Path) -> None:
    call(here, data, "chance,file_header", "--seeds", "2")
    path = here / "runs" / "demo" / "seeds.json"
    before = path.read_bytes()
    answer = call(here, data, "chance", "--seeds", "2")
    assert path.read_bytes() == before
    assert "Not in it" not in answer.stderr
    call(here, data, "chance", "--seed", "2", "--seeds", "2")
    assert {model.name: model.seeds for model in read_seeds(path).models} == {
        "chance": [0, 1, 2, 3],
        "file_header": [0, 1],
    }


def test_runs_that_cannot_be_compared_are_left_out_of_the_seeds_with_the_reason(here: Path, data: Path) -> None:
    call(here, data, "chance,file_header", "--seeds", "3")
    runs = here / "runs" / "demo"
    (runs / "file_header" / "seed-0" / "result.json").write_text("{", encoding="utf-8")
    (runs / "file_header" / "seed-1" / "predictions.parquet").write_bytes(b"others")
    call(here, data, "file_header", "--seed", "2", "--epochs", "7", "--overwrite")
    shutil.copytree(runs / "chance" / "seed-0", runs / "chance" / "seed-9")
    elsewhere = runs / "chance" / "seed-2" / "result.json"
    text = elsewhere.read_text(encoding="utf-8")
    elsewhere.write_text(
        text.replace(read_result(elsewhere).protocol.fingerprint, f"sha256:{'0' * 64}"), encoding="utf-8"
    )
    call(here, data, "file_header", "--seed", "3")
    answer = call(here, data, "chance", "--seeds", "2")
    assert {model.name: model.seeds for model in read_seeds(runs / "seeds.json").models} == {
        "chance": [0, 1],
        "file_header": [2],
    }
    told = " ".join(answer.stderr.split())
    for left_out in (
        "chance/seed-2 (other faces, or another version of the protocol)",
        "chance/seed-9 (another run's result)",
        "file_header/seed-0 (damaged)",
        "file_header/seed-1 (predictions that the result was not computed from)",
        "file_header/seed-3 (other settings than another seed's)",
    ):
        assert f"Not in it: {left_out}." in told


def test_a_model_whose_weights_are_missing_is_named_and_never_runs_from_random_ones(here: Path, data: Path) -> None:
    found = cells(here, data, "chance,xception,dinov2_linear", expect=3)
    assert found["chance", 0]["state"] == "finished"
    for model, why in (("xception", "--backbone-weights FILE"), ("dinov2_linear", "dinov2_vitb14_pretrain.pth")):
        assert found[model, 0]["state"] == "needs weights"
        assert why in found[model, 0]["why"]
        assert not (here / "runs" / "demo" / model).exists()


def test_all_forgives_models_whose_weights_are_missing(here: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = registry.entries

    def few(kind: str) -> dict[str, registry.Entry]:
        return {k: v for k, v in everything(kind).items() if kind != "models" or k in ("chance", "xception")}

    monkeypatch.setattr(registry, "entries", few)
    found = cells(here, data, "all")
    assert {key[0]: cell["state"] for key, cell in found.items()} == {"chance": "finished", "xception": "needs weights"}


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(here: Path, data: Path) -> None:
    answer = call(here, data, "chance", "--seeds", "2", "--dry-run")
    assert "2 of 2 to do, about" in answer.stderr
    assert "to do" in answer.stdout
    assert not (here / "runs").exists()
    call(here, data, "chance")
    before = sorted(here.rglob("*"))
    call(here, data, "chance", "--dry-run")
    assert sorted(here.rglob("*")) == before


def test_a_dry_run_fetches_no_weights(here: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dfad_bench import weights

    def fetched(*_: object) -> None:
        raise AssertionError("a dry run went for weights")

    monkeypatch.setattr(weights, "fetch", fetched)
    found = cells(here, data, "convnext_tiny", "--dry-run")
    assert found["convnext_tiny", 0]["state"] == "to do"


def test_a_protocol_whose_data_are_missing_is_named_with_what_to_do(here: Path, data: Path) -> None:
    found = cells(here, data, "chance", protocol="demo,fine_grained", expect=3)
    assert found["chance", 0]["state"] in ("finished", "needs data")
    told = json.loads(call(here, data, "chance", "--format", "json", protocol="demo,fine_grained", expect=3).stdout)
    states = {cell["protocol"]: cell for cell in told["cells"]}
    assert states["demo"]["state"] == "finished"
    assert states["fine_grained"]["state"] == "needs data"
    assert "dfad-bench prepare" in states["fine_grained"]["why"]


def test_a_bug_in_one_model_shows_its_traceback_and_leaves_the_others_alone(
    here: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    Path("broken.py").write_text(BROKEN, encoding="utf-8")
    told = call(here, data, "./broken.py,chance", "--format", "json", expect=3)
    states = {cell["model"]: cell for cell in json.loads(told.stdout)["cells"]}
    assert states["chance"]["state"] == "finished"
    broken = states["./broken.py"]
    assert broken["state"] == "cannot run"
    assert broken["why"] == "IndexError: a bug of a plugin"
    assert "Traceback" in told.stderr + capfd.readouterr().err


def test_a_run_that_fails_half_way_is_told_and_the_next_call_does_it_anew(
    here: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfad_bench import cell_work

    def full(*_: object) -> None:
        raise UsageError("No space left.")

    monkeypatch.setattr(cell_work, "run_planned", full)
    failed = cells(here, data, "chance,file_header", expect=3)
    assert {cell["state"] for cell in failed.values()} == {"failed"}
    assert {cell["why"] for cell in failed.values()} == {"No space left."}
    monkeypatch.undo()
    assert {cell["state"] for cell in cells(here, data, "chance,file_header").values()} == {"finished"}


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(here: Path, data: Path) -> None:
    call(here, data, "chance")
    found = cells(here, data, "chance,file_header", "--epochs", "3", expect=3)
    assert found["chance", 0]["state"] == "cannot run"
    assert "--overwrite" in found["chance", 0]["why"]
    assert found["file_header", 0]["state"] == "finished"


def test_perturbations_reach_every_cell_and_a_model_that_sees_no_pixels_says_so(here: Path, data: Path) -> None:
    found = cells(here, data, "spectral,chance", "--perturb", "jpeg:3", "--epochs", "1", expect=3)
    assert (Path(found["spectral", 0]["folder"]) / "perturbed" / "jpeg-3" / "result.json").is_file()
    assert found["chance", 0]["state"] == "cannot run"


def test_all_models_under_all_perturbations_run_and_those_that_see_no_pixels_run_without(
    here: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = registry.entries
    few = {"models": ("chance", "spectral"), "perturbations": ("jpeg", "webp")}

    def entries(kind: str) -> dict[str, registry.Entry]:
        return {name: entry for name, entry in everything(kind).items() if name in few.get(kind, (name,))}

    monkeypatch.setattr(registry, "entries", entries)
    found = cells(here, data, "all", "--perturb", "all", "--epochs", "1")
    assert {name: (cell["state"], cell["levels"]) for (name, _), cell in found.items()} == {
        "chance": ("finished", 0),
        "spectral": ("finished", 10),
    }
    assert "never looks at a face's pixels" in found["chance", 0]["why"]
    call(here, data, "all", "--perturb", "all", "--epochs", "1")


def test_the_plan_says_how_many_levels_are_finished_and_only_the_others_are_done(here: Path, data: Path) -> None:
    options = ("--epochs", "1", "--seeds", "2")
    call(here, data, "spectral", *options, "--perturb", "jpeg:1")
    before = clocks(here)
    planned = call(here, data, "spectral", *options, "--perturb", "jpeg:1,jpeg:5", "--dry-run")
    assert "2 of 4" in planned.stdout
    after = cells(here, data, "spectral", *options, "--perturb", "jpeg:1,jpeg:5")
    assert {cell["levels_finished"] for cell in after.values()} == {2}
    now = clocks(here)
    assert {path: now[path] for path in before} == before
    assert len(now) == len(before) + 2
    assert "0 of 2 to do" in call(here, data, "spectral", *options, "--perturb", "jpeg:1,jpeg:5").stderr
    (here / "runs" / "demo" / "spectral" / "seed-0" / "robustness.json").unlink()
    call(here, data, "spectral", *options, "--perturb", "jpeg:1,jpeg:5")
    assert (here / "runs" / "demo" / "spectral" / "seed-0" / "robustness.json").is_file()
    assert clocks(here) == now


def test_cells_that_mean_the_same_have_the_same_key_wherever_they_lie(
    here: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(*more: str) -> list[str]:
        return [cell["key"] for cell in cells(here, data, "spectral", "--dry-run", *more).values()]

    one = keys("--seeds", "2")
    assert len(set(one)) == 2
    assert keys("--seeds", "2", "--runs", str(here / "elsewhere")) == one
    for more in (["--epochs", "3"], ["--perturb", "jpeg:1"], ["--limit", "4"]):
        assert not set(keys(*more)) & set(one), more
    copy = here / "a" / "spectral.py"
    copy.parent.mkdir()
    copy.write_text(Path(str(registry.find("models", "spectral").path)).read_text(encoding="utf-8"), encoding="utf-8")
    of_file = [cell["key"] for cell in cells(here, data, str(copy), "--dry-run").values()]
    assert not set(of_file) & set(one)
    copy = copy.rename(here / "spectral.py")
    assert [cell["key"] for cell in cells(here, data, str(copy), "--dry-run").values()] == of_file


def test_two_replicas_are_expected_to_take_half_the_time(here: Path, data: Path) -> None:
    from dfad_bench.dispatch import _Clock

    clock = _Clock(expected=4000.0, workers=2)
    assert clock.left == pytest.approx(2000.0, rel=0.01)
    clock.count(1000.0)
    assert clock.left < 1500.0  # it took no time at all, which is believed in part


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "a=b"], "--set is about one model"),
        (["--backbone-weights", "none"], "--backbone-weights is about one model"),
        (["--weights", "w.safetensors"], "--weights is about one model"),
    ],
)
def test_what_is_about_one_model_is_refused_for_several(here: Path, data: Path, more: list[str], message: str) -> None:
    assert message in call(here, data, "chance,file_header", *more, expect=2).stderr


def test_weights_of_one_training_have_no_seeds(here: Path, data: Path) -> None:
    answer = call(here, data, "chance", "--weights", "w.safetensors", "--seeds", "2", expect=2)
    assert "seeds change nothing" in answer.stderr


def test_names_are_taken_as_they_are_typed(here: Path) -> None:
    assert named("all", ["a", "b"]) == ["a", "b"]
    assert named("b, a", ["a", "b", "c"]) == ["b", "a"]
    with pytest.raises(UsageError, match="'a' is given twice in 'a,b,a'"):
        named("a,b,a", ["a", "b"])
    odd = here / "a,b.py"
    odd.touch()
    assert named(os.fspath(odd), []) == [os.fspath(odd)]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "about 1 s"), (89, "about 89 s"), (600, "about 10 min"), (9000, "about 2.5 h")]
)
def test_times_are_told_in_the_unit_that_suits_them(seconds: float, told: str) -> None:
    assert told_time(seconds) == told
