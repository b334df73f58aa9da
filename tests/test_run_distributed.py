"""Runs over several ranks, started as users do: the numbers of one process, and one message where a rank dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dfad_bench.cli import app
from dfad_bench.modelling.weights import read_tensors
from dfad_bench.records.results import Result, read_result
from tests.torchrun import CLI, torchrun

pytestmark = pytest.mark.slow

MODEL = """
import os
import signal

import torch
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import ModelSpec, Recipe

RANK = os.environ.get("RANK", "0")


class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.tower, self.head = nn.Linear(3 * 64, 16), nn.Linear(16, classes)
        self.log_scale = nn.Parameter(torch.tensor(0.1))
        self.unused = nn.Linear(3, 3)
        self.losses = 0

    def forward(self, batch):
        logits = self.head(self.tower(batch.image.flatten(1)).tanh()) * self.log_scale.exp()
        return classifier_output(logits)

    def loss(self, batch):
        if self.training:
            self.losses += 1
            if os.environ.get("DIES") == f"{RANK} at {self.losses}":
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ.get("SLEEPS") == f"{RANK} at {self.losses}":
                print("asleep", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
            if "SEEDS" in os.environ:
                with open(os.environ["SEEDS"] + RANK, "a") as file:
                    print(torch.initial_seed(), file=file)
        return attribution_loss(self(batch), batch)

    def sharded_blocks(self):
        return (self.tower,)


MODEL = ModelSpec(
    build=lambda classes: Tiny(len(classes)),
    inputs=("image",),
    preprocess=Preprocess(size=8),
    reference="none",
    licence="Apache-2.0",
    recipe=Recipe(
        epochs=3, batch_size=7, accumulate=2, learning_rate=0.01, clip_norm=1.0, horizontal_flip=True, patience=3
    ),
)
"""
DIED = (
    "Error: Another rank of this run has died. Finished epochs are kept; run the same command to go on after epoch 1.\n"
)


def call(*arguments: str | Path) -> None:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == 0, answer.output


def arguments(here: Path, runs: str, *more: str | Path, model: str | Path | None = None) -> tuple[str | Path, ...]:
    where = ("--protocol", "demo", "--data", here / "data", "--runs", here / runs, "--device", "cpu")
    return ("run", "--model", here / "tiny.py" if model is None else model, *where, *more)


def folder(here: Path, runs: str) -> Path:
    return here / runs / "demo" / "tiny" / "seed-0"


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("train_loss", "val_loss")]


def but_for_ranks(result: Result) -> dict[str, Any]:
    told = result.model_dump()
    told["environment"].pop("ranks", None)
    return told


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo faces, whose numbers no batch and no number of ranks divides, a model, and a run of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "tiny.py").write_text(MODEL, encoding="utf-8")
    call("prepare", "--source", "demo", "--set", "faces=67", "--data", folder / "data", "--workers", "2")
    call(*arguments(folder, "one"))
    return folder


def test_two_ranks_learn_what_one_process_learns(here: Path, tmp_path: Path) -> None:
    first, second = torchrun(
        tmp_path / "logs", *CLI, *arguments(here, "two"), SEEDS=str(tmp_path / "seeds-"), DFAD_BENCH_HOME=str(tmp_path)
    ).ranks
    assert "Recorded in" in first.stderr and (second.stdout, second.stderr) == ("", "")
    one, two = folder(here, "one"), folder(here, "two")
    assert len(losses(one)) == 6 and losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    shapes = [
        {name: each.shape for name, each in read_tensors(run / "model.safetensors")[0].items()} for run in (one, two)
    ]
    assert shapes[0] == shapes[1]
    result = read_result(two / "result.json")
    assert result.environment["ranks"] == "2" and "ranks" not in read_result(one / "result.json").environment
    assert result.counts.evaluated == result.counts.declared
    seen = [pq.read_table(run / "predictions.parquet", columns=["subset", "id"]).to_pylist() for run in (one, two)]
    assert seen[0] == seen[1]
    assert set(Counter((each["subset"], each["id"]) for each in seen[1]).values()) == {1}
    seeds = [set((tmp_path / f"seeds-{rank}").read_text().split()) for rank in range(2)]
    assert seeds[0] == {"0", "1", "2"} and len(seeds[1]) == 3 and not seeds[0] & seeds[1]


@pytest.mark.parametrize(("ranks", "more"), [(2, ()), (3, ("--shard",))])
def test_with_the_same_weights_ranks_write_the_very_predictions_of_one_process_perturbed_or_not(
    here: Path, tmp_path: Path, ranks: int, more: tuple[str, ...]
) -> None:
    given = ("--weights", folder(here, "one") / "model.safetensors", "--perturb", "jpeg:3")
    call(*arguments(here, "given", *given))
    torchrun(tmp_path / "logs", *CLI, *arguments(here, f"given {ranks}", *given, *more), ranks=ranks)
    one, several = folder(here, "given"), folder(here, f"given {ranks}")
    for name in ("predictions.parquet", "perturbed/jpeg-3/predictions.parquet", "robustness.json"):
        assert (one / name).read_bytes() == (several / name).read_bytes(), name
    for name in ("result.json", "perturbed/jpeg-3/result.json"):
        assert but_for_ranks(read_result(one / name)) == but_for_ranks(read_result(several / name))


def test_ranks_that_hold_shares_of_a_model_learn_the_same_and_their_checkpoint_is_whole(
    here: Path, tmp_path: Path
) -> None:
    """One of them dies in the second epoch of two batches a step; then one process goes on with whole weights."""
    torchrun(tmp_path / "logs", *CLI, *arguments(here, "shares", "--shard"))
    assert losses(folder(here, "shares")) == pytest.approx(losses(folder(here, "one")), abs=1e-5)
    dying = torchrun(tmp_path / "dying", *CLI, *arguments(here, "dying", "--shard"), expect=None, DIES="1 at 6")
    assert dying.code != 0 and dying.ranks[0].stderr.endswith(DIED)
    call(*arguments(here, "dying"))
    assert losses(folder(here, "dying")) == pytest.approx(losses(folder(here, "one")), abs=1e-5)


def test_a_rank_that_is_killed_ends_the_run_with_one_message_and_any_number_of_ranks_goes_on(
    here: Path, tmp_path: Path
) -> None:
    dying = torchrun(tmp_path / "dying", *CLI, *arguments(here, "killed"), expect=None, DIES="1 at 6")
    first, second = dying.ranks
    assert dying.code != 0 and "SIGKILL" in dying.report
    assert (first.stdout, first.stderr, second.stdout, second.stderr) == ("", DIED, "", "")
    run = folder(here, "killed")
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.safetensors", "training.jsonl"]
    kept = (run / "training.jsonl").read_text()
    assert len(kept.splitlines()) == 1
    alone = [sys.executable, *CLI, *map(str, arguments(here, "killed"))]
    killed = subprocess.run(alone, env={**os.environ, "DIES": "0 at 6"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL and (run / "training.jsonl").read_text().count("\n") == 2
    torchrun(tmp_path / "logs", *CLI, *arguments(here, "killed"), ranks=3)
    assert (run / "training.jsonl").read_text().startswith(kept)
    assert losses(run) == pytest.approx(losses(folder(here, "one")), abs=1e-5)
    assert not (run / "checkpoint.safetensors").exists()


def test_the_fault_of_another_rank_is_told_by_the_first_as_it_was_found(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "data", tmp_path / "data")
    (tmp_path / "tiny.py").write_text(MODEL, encoding="utf-8")
    faces = pq.read_table(tmp_path / "data" / "demo" / "metadata.parquet")
    for name, split in zip(faces["file_name"].to_pylist(), faces["source_split"].to_pylist(), strict=True):
        if split == "train":
            (tmp_path / "data" / "demo" / name).write_bytes(b"no image")
    answer = torchrun(tmp_path / "logs", *CLI, *arguments(tmp_path, "runs"), expect=None)
    first, second = answer.ranks
    assert answer.code != 0 and (first.stdout, second.stdout, second.stderr) == ("", "", "")
    assert first.stderr.count("\n") == 1 and "unreadable face" in first.stderr


@pytest.mark.parametrize(
    ("model", "more", "told"),
    [
        ("no_such_model", (), "No model is named 'no_such_model'"),
        (None, ("--batch-size", "1"), "Each of 2 ranks needs at least 1 of a batch's faces; the smallest batch"),
    ],
)
def test_a_wrong_call_is_told_once(
    here: Path, tmp_path: Path, model: str | None, more: tuple[str, ...], told: str
) -> None:
    answer = torchrun(tmp_path / "logs", *CLI, *arguments(here, "wrong", *more, model=model), expect=None)
    first, second = answer.ranks
    assert "exitcode  : 2" in answer.report
    assert first.stderr.startswith(f"Error: {told}") and first.stderr.count("\n") == 1
    assert (first.stdout, second.stdout, second.stderr) == ("", "", "")


def test_shares_of_a_model_need_several_ranks(here: Path) -> None:
    answer = CliRunner().invoke(app, [str(each) for each in arguments(here, "wrong", "--shard")])
    assert answer.exit_code == 2 and "torchrun --nproc-per-node 2" in answer.stderr


def test_ranks_walk_one_list_of_cells(here: Path, tmp_path: Path) -> None:
    models = "chance,file_header,no_such_model"
    asked = arguments(here, "list", "--seeds", "2", "--format", "json", model=models)
    planned = torchrun(tmp_path / "dry", *CLI, *asked, "--dry-run").ranks
    answer = torchrun(tmp_path / "logs", *CLI, *asked, expect=None)
    assert "exitcode  : 3" in answer.report
    for other in (planned[1], answer.ranks[1]):
        assert (other.stdout, other.stderr) == ("", "")
    states = [
        {(cell["model"], cell["seed"]): cell["state"] for cell in json.loads(each.stdout)["cells"]}
        for each in (planned[0], answer.ranks[0])
    ]
    for found, done in zip(states, ("to do", "finished"), strict=True):
        assert found == {
            (model, seed): state
            for model, state in (("chance", done), ("file_header", done), ("no_such_model", "cannot run"))
            for seed in (0, 1)
        }
    assert (here / "list" / "demo" / "seeds.json").is_file()


IN_A_GROUP = """
import sys
from contextlib import nullcontext
from pathlib import Path

import torch.distributed as dist

from dfad_bench.planning import Request
from dfad_bench.run import run_model

dist.init_process_group("gloo")
here = Path(sys.argv[1])
request = Request(str(here / "tiny.py"), "demo", here / "data", here / "workers", device="cpu")
outcome = run_model(request, lambda label: nullcontext(lambda done, total: None))
print(outcome.result.predictions.sha256)
dist.destroy_process_group()
"""


def test_a_run_takes_the_group_that_somebody_else_has_formed(here: Path, tmp_path: Path) -> None:
    """As the workers of Ray Train do: every one is given the result."""
    first, second = torchrun(tmp_path / "logs", "-c", IN_A_GROUP, here).ranks
    assert first.stdout == second.stdout != "" and first.stderr == second.stderr == ""
    assert losses(folder(here, "workers")) == pytest.approx(losses(folder(here, "one")), abs=1e-5)


def test_a_rank_that_waits_for_one_that_hangs_says_so_when_it_is_told_to_stop(here: Path, tmp_path: Path) -> None:
    """A stopped process keeps its connections, as a lost one seems to with NCCL: the other waits in C++ without end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "SLEEPS": "1 at 6"}
    command = [sys.executable, *CLI, *map(str, arguments(here, "hanging"))]
    ranks = []
    try:
        for rank in ("0", "1"):
            env = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            ranks.append(subprocess.Popen(command, env=env, **pipes))
        first, second = ranks
        assert second.stdout is not None and second.stdout.readline() == "asleep\n"
        time.sleep(1)
        first.send_signal(signal.SIGTERM)
        _, stderr = first.communicate(timeout=60)
        assert first.returncode == 1 and "Traceback" not in stderr
        assert stderr.count("told to stop, as torchrun does when another rank has died. Finished epochs are kept;") == 1
        assert (folder(here, "hanging") / "checkpoint.safetensors").is_file()
    finally:
        for each in ranks:
            each.kill()
            each.communicate()
