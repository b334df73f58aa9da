"""A model with options and a backbone, run as users type it: what becomes of each flag, in every place that names a run."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from dfad_bench import provenance, registry
from dfad_bench.cli import app
from dfad_bench.config import file_sha256
from dfad_bench.modelling.weights import read_metadata
from dfad_bench.records.predictions import read_predictions
from dfad_bench.records.results import CodeRecord, read_result
from dfad_bench.testing import check_model
from tests.conftest import REPOSITORY

MODEL = "tunable_for_tests"
CODE = """
from typing import Literal

import torch
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.weights import load_state, read_state
from dfad_bench.types import ModelSpec, Recipe, WeightsFile


class Tunable(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.tower, self.head = nn.Linear(3, width), nn.Linear(width, len(classes))

    def forward(self, batch):
        return classifier_output(self.head(self.tower(batch.image.mean(dim=(2, 3))).tanh()))

    def loss(self, batch):
        return attribution_loss(self(batch), batch)

    def backbone_parameters(self):
        return self.tower.parameters()


def load_tower(module, path):
    load_state(module.tower, read_state(path), path)


def configure(
    *, width: int = 4, dropout: float = 0.5, pooling: Literal["mean", "max"] = "mean", published: bool = False
) -> ModelSpec:
    if width < 1:
        raise ValueError("width must be 1 or more")
    return ModelSpec(
        build=lambda classes: Tunable(classes, width),
        inputs=("image",),
        preprocess=PREPROCESS,
        reference="none",
        licence="Apache-2.0",
        recipe=Recipe(epochs=2, batch_size=16, backbone_learning_rate=1e-4),
        backbone_weights={
            "paper": WeightsFile("tower.pth", "http://127.0.0.1:1/tower.pth", "0" * 64, None, "none", "none")
        },
        load_backbone=load_tower,
        default_backbone_weights="paper" if published else "none",
        configure=configure,
    )


PREPROCESS = Preprocess(size=16)
MODEL = configure()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared demo faces."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    call("prepare", "--source", "demo", "--set", "faces=60", "--data", folder, "--workers", "2")
    return folder


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model as a distribution registers it, and code whose changes are all committed."""
    site = tmp_path_factory.mktemp("site")
    (site / f"{MODEL}.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    found = registry.entry_points

    def and_ours(group: str) -> list[EntryPoint]:
        ours = [EntryPoint(MODEL, f"{MODEL}:MODEL", group)] if group == "dfad_bench.models" else []
        return [*found(group=group), *ours]

    monkeypatch.setattr(registry, "entry_points", and_ours)
    monkeypatch.setattr(provenance, "code", lambda: CodeRecord(version="0", commit="c" * 40, dirty=False))


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


def run(data: Path, runs: Path, *more: str | Path, expect: int = 0) -> Result:
    where = ("--protocol", "demo", "--data", data, "--runs", runs, "--device", "cpu")
    return call("run", "--model", MODEL, *where, *more, expect=expect)


def folder_of(runs: Path, options: str = "") -> Path:
    return runs / "demo" / f"{MODEL}{options}" / "seed-0"


def started_from(file: Path) -> str:
    """Return what a row's name says of a file of the user's that it starts from."""
    return f"+backbone_weights=sha256-{file_sha256(file)[:12]}"


def tower_file(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(nn.Linear(3, 4).state_dict(), path)
    return path


def test_the_model_of_these_tests_keeps_the_contract() -> None:
    check_model(MODEL)


# --- options -------------------------------------------------------------------------------------------------------


def test_a_model_with_options_is_another_row_in_every_place_that_names_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfad_bench.records.selection._departures", lambda *_: [])  # of 60 faces instead of 720
    runs = tmp_path / "runs"
    run(data, runs)
    run(data, runs, "--set", "pooling=max", "--set", "dropout=0.25", "--set", "width=4")
    name = f"{MODEL}+dropout=0.25+pooling=max"
    plain, tuned = folder_of(runs), folder_of(runs, "+dropout=0.25+pooling=max")
    result = read_result(tuned / "result.json")
    assert result.model.name == name and not result.ineligible
    assert result.config["options"] == {"dropout": 0.25, "pooling": "max"}
    assert read_predictions(tuned / "predictions.parquet").context.model == name
    assert read_metadata(tuned / "model.safetensors")["model"] == {"name": MODEL, "options": result.config["options"]}
    assert read_result(plain / "result.json").config["options"] == {}
    assert read_metadata(plain / "model.safetensors")["model"] == {"name": MODEL, "options": {}}
    call("leaderboard", "add", plain / "result.json", tuned / "result.json", "--folder", tmp_path / "leaderboard")
    assert {path.stem for path in (tmp_path / "leaderboard" / "results" / "demo").iterdir()} == {MODEL, name}
    call("leaderboard", "build", "--folder", tmp_path / "leaderboard")
    page = (tmp_path / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert name.replace("_", r"\_") in page
    call("compare", plain, tuned)


def test_the_same_options_in_any_order_and_those_that_change_nothing_are_the_same_run(
    data: Path, tmp_path: Path
) -> None:
    run(data, tmp_path, "--set", "width=8", "--set", "dropout=0.1")
    answer = run(data, tmp_path, "--set", "dropout=1e-1", "--set", "pooling=mean", "--set", "width=8")
    assert "This run was finished before" in answer.stderr
    assert [path.name for path in (tmp_path / "demo").iterdir() if path.is_dir()] == [f"{MODEL}+dropout=0.1+width=8"]


def test_options_change_what_is_built_and_belong_to_what_a_level_is_tested_with(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, "--set", "width=8", "--perturb", "jpeg:3")
    level = read_result(folder_of(tmp_path, "+width=8") / "perturbed" / "jpeg-3" / "result.json")
    assert level.model.name == f"{MODEL}+width=8" and level.config["options"] == {"width": 8}
    run(data, tmp_path)
    parameters = [read_result(folder_of(tmp_path, each) / "result.json").model.parameters for each in ("", "+width=8")]
    assert parameters[0] < parameters[1]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("widht=8", "Did you mean 'width'? It has: width=4, dropout=0.5, pooling=mean (mean, max), published=false."),
        ("width=wide", "width is a whole number"),
        ("pooling=min", "pooling is one of mean, max."),
        ("width=0", "width must be 1 or more"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, setting: str, told: str
) -> None:
    answer = run(data, tmp_path / "runs", "--set", setting, expect=2)
    assert told in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_run_that_was_finished_before_there_were_options_is_still_finished(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path)
    path = folder_of(tmp_path) / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["config"]["options"]
    for name in ("accumulate", "clip_norm", "precision"):
        del stored["config"]["recipe"][name]
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert "This run was finished before" in run(data, tmp_path).stderr
    answer = run(data, tmp_path, "--accumulate", "2", expect=2)
    assert "differs in recipe" in answer.stderr


def test_a_file_called_like_a_registered_protocol_is_not_taken_for_it(data: Path, tmp_path: Path) -> None:
    registered = (REPOSITORY / "protocols" / "demo.yaml").read_text(encoding="utf-8")
    assert registered.count("reals: same_domain") == 1
    mine = tmp_path / "demo.yaml"
    where = ("--data", data, "--runs", tmp_path / "runs", "--device", "cpu", "--model", MODEL)
    run(data, tmp_path / "runs")
    mine.write_text(registered, encoding="utf-8")
    assert "differs in where the protocol comes from" in call("run", "--protocol", mine, *where, expect=2).stderr
    call("run", "--protocol", mine, *where, "--overwrite")
    assert "was finished before" in call("run", "--protocol", mine, *where).stderr
    mine.write_text(registered.replace("reals: same_domain", "reals: all"), encoding="utf-8")
    assert "differs in the protocol's rules" in call("run", "--protocol", mine, *where, expect=2).stderr


def test_weights_that_were_trained_with_other_options_are_refused_though_their_tensors_fit(
    data: Path, tmp_path: Path
) -> None:
    run(data, tmp_path / "trained", "--set", "pooling=max")
    weights = folder_of(tmp_path / "trained", "+pooling=max") / "model.safetensors"
    answer = run(data, tmp_path / "tested", "--weights", weights, expect=2)
    assert f"was trained as {MODEL}+pooling=max, and this run is {MODEL}. Give the same --set." in answer.stderr
    assert not (folder_of(tmp_path / "tested") / "predictions.parquet").exists()
    run(data, tmp_path / "tested", "--weights", weights, "--set", "pooling=max")


# --- the recipe ----------------------------------------------------------------------------------------------------


def test_each_flag_of_the_recipe_reaches_it(data: Path, tmp_path: Path) -> None:
    flags = ("--accumulate", "2", "--backbone-learning-rate", "0.01", "--clip-norm", "0.5", "--precision", "bfloat16")
    run(data, tmp_path, *flags)
    recipe = read_result(folder_of(tmp_path) / "result.json").config["recipe"]
    changed = {"accumulate": 2, "backbone_learning_rate": 0.01, "clip_norm": 0.5, "precision": "bfloat16"}
    assert {name: recipe[name] for name in changed} == changed
    assert (recipe["epochs"], recipe["batch_size"]) == (2, 16), "what is not said is the model's own"
    assert read_metadata(folder_of(tmp_path) / "model.safetensors")["recipe"] == recipe


def test_faces_are_tested_in_the_precision_of_the_recipe(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "trained")
    weights = folder_of(tmp_path / "trained") / "model.safetensors"
    for precision in ("float32", "bfloat16"):
        run(data, tmp_path / precision, "--weights", weights, "--precision", precision)
    exact, same, rounded = (
        (folder_of(tmp_path / each) / "predictions.parquet").read_bytes() for each in ("trained", "float32", "bfloat16")
    )
    assert exact == same != rounded


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--precision", "float16"), "precision is 'float16': it must be one of auto, float32, bfloat16"),
        (("--clip-norm", "0"), "clip_norm is 0.0: it must be more than 0"),
        (("--learning-rate", "-1"), "learning_rate is -1.0: it must be 0 or more"),
        (("--backbone-learning-rate", "nan"), "backbone_learning_rate is nan: it must be 0 or more, and finite"),
    ],
)
def test_a_recipe_that_nothing_can_be_trained_by_is_one_line(
    data: Path, tmp_path: Path, flags: tuple[str, str], told: str
) -> None:
    answer = run(data, tmp_path / "runs", *flags, expect=2)
    assert told in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


# --- the backbone --------------------------------------------------------------------------------------------------


def test_a_file_of_the_users_makes_a_row_of_its_own_and_is_recorded_with_its_hash_wherever_it_lies(
    data: Path, tmp_path: Path
) -> None:
    mine = tower_file(tmp_path / "mine.pth")
    run(data, tmp_path / "runs", "--backbone-weights", mine)
    result = read_result(folder_of(tmp_path / "runs", started_from(mine)) / "result.json")
    assert result.model.name == f"{MODEL}{started_from(mine)}"
    assert result.model.backbone_weights == f"mine.pth sha256:{file_sha256(mine)}"
    assert result.config["backbone_weights"] == f"sha256:{file_sha256(mine)}"
    moved = shutil.copy(mine, tmp_path / "moved.pth")
    assert "finished before" in run(data, tmp_path / "runs", "--backbone-weights", moved).stderr
    other = tower_file(tmp_path / "other.pth", seed=1)
    run(data, tmp_path / "runs", "--backbone-weights", other)
    run(data, tmp_path / "runs")
    rows = {path.name for path in (tmp_path / "runs" / "demo").iterdir() if path.is_dir()}
    assert rows == {MODEL, f"{MODEL}{started_from(mine)}", f"{MODEL}{started_from(other)}"}


def test_training_starts_from_the_file(data: Path, tmp_path: Path) -> None:
    mine = tower_file(tmp_path / "mine.pth")
    run(data, tmp_path, "--backbone-weights", mine, "--backbone-learning-rate", "0")
    from dfad_bench.modelling.weights import read_tensors

    trained, published = (
        read_tensors(folder_of(tmp_path, started_from(mine)) / "model.safetensors")[0],
        torch.load(mine),
    )
    assert torch.equal(trained["tower.weight"], published["weight"])


def test_a_backbone_file_that_would_be_overwritten_is_refused(data: Path, tmp_path: Path) -> None:
    elsewhere = tower_file(tmp_path / "mine.pth")
    folder = folder_of(tmp_path, started_from(elsewhere))
    folder.mkdir(parents=True)
    mine = elsewhere.rename(folder / "mine.pth")
    answer = run(data, tmp_path, "--backbone-weights", mine, "--overwrite", expect=2)
    assert "lies in the folder of this run" in answer.stderr and mine.is_file()


def test_published_weights_that_cannot_be_had_end_the_run_before_training_and_name_both_ways_on(
    data: Path, tmp_path: Path
) -> None:
    for asked in (("--backbone-weights", "paper"), ("--set", "published=yes")):
        answer = run(data, tmp_path, *asked, "--offline", expect=1)
        assert "tower.pth could not be downloaded" in answer.stderr
        assert "put it in" in answer.stderr and "DFAD_BENCH_WEIGHTS" in answer.stderr
        assert "--backbone-weights none" in answer.stderr
    assert not list(tmp_path.rglob("checkpoint.safetensors")) and not list(tmp_path.rglob("training.jsonl"))


def test_the_models_own_backbone_is_the_default_and_random_weights_must_be_asked_for(
    data: Path, tmp_path: Path
) -> None:
    run(data, tmp_path, "--set", "published=yes", "--offline", expect=1)
    run(data, tmp_path, "--set", "published=yes", "--offline", "--backbone-weights", "none")
    folder = folder_of(tmp_path, "+backbone_weights=none+published=true")
    result = read_result(folder / "result.json")
    assert result.config["backbone_weights"] == "none" and result.model.backbone_weights is None
    weights = shutil.copy(folder / "model.safetensors", tmp_path / "trained.safetensors")
    # trained weights hold a backbone, so that no other is fetched
    run(data, tmp_path / "tested", "--set", "published=yes", "--offline", "--weights", weights)


def test_a_backbone_that_is_not_offered_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    answer = run(data, tmp_path / "runs", "--backbone-weights", "papper", expect=2)
    assert "Did you mean 'paper'? Offered: paper, none, the path of a .safetensors, .pt or .pth file." in answer.stderr
    assert "There is no weights file" in run(data, tmp_path / "runs", "--backbone-weights", "a/b.pth", expect=2).stderr
    assert not (tmp_path / "runs").exists()


# --- what is missing -----------------------------------------------------------------------------------------------

PROTOCOL = """
name: several
version: 1
origin: ours
reference: none
description: Faces of three sources.
sources: [demo, ffpp, ours]
train: {where: {source_split: train}}
val: {where: {source_split: val}}
test: {seen: {where: {source_split: test}}}
attribution: {levels: [generator]}
"""


def test_missing_sources_are_told_a_command_a_line_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **named: object) -> None:
        pytest.fail("something started")

    monkeypatch.setattr(nn.Module, "__init__", never)
    monkeypatch.setattr("dfad_bench.weights.fetch", never)
    monkeypatch.setattr("dfad_bench.modelling.weights.fetch", never)
    (tmp_path / "several.yaml").write_text(PROTOCOL, encoding="utf-8")
    where = ("--protocol", tmp_path / "several.yaml", "--data", tmp_path / "data", "--runs", tmp_path / "runs")
    answer = call("run", "--model", MODEL, *where, "--backbone-weights", "paper", expect=2)
    first, *commands = answer.stderr.strip().splitlines()
    assert first.startswith("Error: Protocol several needs demo, ffpp, ours, which ") and first.endswith("or run:")
    assert commands == [
        f"dfad-bench prepare --source demo --data {tmp_path / 'data'}",
        f"dfad-bench prepare --source ffpp --root … --data {tmp_path / 'data'}",
        f"dfad-bench prepare --source … --name ours --root … --data {tmp_path / 'data'}",
    ]
    assert not (tmp_path / "runs").exists()
