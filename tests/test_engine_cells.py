"""One list of cells, several workers: processes of this machine, machines that share a folder or a store, a Ray cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dfad_bench import dispatch
from dfad_bench.claims import Claim
from dfad_bench.cli import app
from dfad_bench.records.results import read_result
from dfad_bench.records.robustness import read_robustness
from dfad_bench.shared_runs import bring_results
from dfad_bench.stores import Store
from tests.conftest import REPOSITORY
from tests.object_store import BUCKET, served

MODELS = "chance,file_header"
PERTURBED = ["jpeg:1", "jpeg:5"]
TINY = """
import time

import torch
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.types import ModelSpec, Recipe


class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(3, classes)

    def forward(self, batch):
        return classifier_output(self.layer(batch.image.mean((2, 3))))

    def loss(self, batch):
        time.sleep({slow})
        return attribution_loss(self(batch), batch)


def preprocess(image, randomness):
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


MODEL = ModelSpec(
    build=lambda classes: Tiny(len(classes)),
    inputs=("image",),
    preprocess=preprocess,
    reference="none",
    licence="none",
    recipe=Recipe(epochs=2, patience=2),
)
"""

ONLY_HERE = """
import dataclasses
import multiprocessing

if multiprocessing.parent_process() is not None:
    MODEL = dataclasses.replace(MODEL, build=lambda classes: 1 / 0)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared demo faces."""
    folder = tmp_path_factory.mktemp("data")
    answer = CliRunner().invoke(
        app, ["prepare", "--source", "demo", "--set", "faces=60", "--data", str(folder), "--workers", "2"]
    )
    assert answer.exit_code == 0, answer.output
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment in which an S3 is found."""
    with served() as environment:
        yield environment


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty object store of this process."""
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    return Store(f"memory://{uuid.uuid4().hex}/runs")


def invoked(data: Path, runs: str, model: str, *more: str, expect: int = 0) -> Result:
    where = ["--data", str(data), "--runs", runs, "--device", "cpu", "--format", "json"]
    answer = CliRunner().invoke(app, ["run", "--model", model, "--protocol", "demo", *where, *more])
    assert answer.exit_code == expect, answer.output
    return answer


def call(data: Path, runs: str, model: str, *more: str, expect: int = 0) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the cells that ``run`` tells of, by model and seed."""
    return cells(invoked(data, runs, model, *more, expect=expect))


def cells(answer: Result) -> dict[tuple[str, int], dict[str, Any]]:
    return {(cell["model"], cell["seed"]): cell for cell in json.loads(answer.stdout)["cells"]}


def machine(here: Path, url: str, data: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    """Start one machine at a list, with a cache of its own."""
    name = uuid.uuid4().hex
    words = [sys.executable, "-m", "tests.list_worker", url, str(data), str(here / f"{name}.log"), MODELS, *more]
    environment |= {"DFAD_BENCH_HOME": str(here / name), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, cwd=REPOSITORY, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


def ran(here: Path) -> list[str]:
    """Return every run that was done and not found finished, by all machines together."""
    return sorted(line for log in here.glob("*.log") for line in log.read_text(encoding="utf-8").splitlines())


def finished(seeds: int) -> str:
    return " ".join(f"{model}:{seed}:finished" for model in MODELS.split(",") for seed in range(seeds))


def hidden(store: Store) -> list[str]:
    """Return the claims that lie in a store."""
    store.fs.invalidate_cache()
    return [name for name in store.fs.find(store.path("").rstrip("/")) if ".claim-" in name]


def claimed_elsewhere(store: Store, folder: str, name: str) -> str:
    """Let a machine called node-7 hold a folder of a store, and return the path of its claim."""
    path = store.path(f"{folder}/.{name}.claim-0")
    held = Claim(key="k", host="node-7", process=12, folder="/x", worklist="theirs", renewed=time.time())
    store.fs.pipe_file(path, held.model_dump_json().encode())
    return path


def predictions(folder: Path) -> dict[str, str]:
    """Return the hash of every run's and level's predictions by folder."""
    return {
        path.parent.relative_to(folder).as_posix(): read_result(path).predictions.sha256
        for path in folder.rglob("result.json")
    }


# --- machines that share a folder or a store -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_machines_at_one_list_do_every_cell_once_and_both_end_with_all_of_them(
    kind: str, tmp_path: Path, data: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    url = str(tmp_path / "runs") if kind == "folder" else f"s3://{BUCKET}/{uuid.uuid4().hex}"
    machines = [machine(tmp_path, url, data, "--seeds", "4") for _ in range(2)]
    assert [ended(each) for each in machines] == [finished(4)] * 2
    assert ran(tmp_path) == sorted(f"{model} {seed}" for model in MODELS.split(",") for seed in range(4))
    assert hidden(Store(url)) == []
    store = Store(url)
    bring_results(store, "demo")
    assert len(predictions(store.folder)) == 8


@pytest.mark.slow
def test_what_a_killed_machine_had_claimed_is_done_by_another_once_its_claim_is_stale(
    tmp_path: Path, data: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    killed = machine(tmp_path, url, data, "--seeds", "2", "--hang")
    for _ in range(1200):
        if ran(tmp_path) == ["hangs"]:
            break
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(hidden(Store(url))) == 1
    assert ended(machine(tmp_path, url, data, "--seeds", "2", "--stale", "25")) == finished(2)
    assert [each for each in ran(tmp_path) if each != "hangs"] == [
        "chance 0",
        "chance 1",
        *(f"file_header {i}" for i in (0, 1)),
    ]
    assert hidden(Store(url)) == []


def test_a_cell_that_another_machine_does_is_left_to_it_and_told(
    memory: Store, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed_elsewhere(memory, "demo/chance", "seed-0")
    found = call(data, memory.url, MODELS, "--no-wait", expect=3)
    assert (found["chance", 0]["state"], found["chance", 0]["why"]) == ("elsewhere", "node-7, process 12")
    assert found["file_header", 0]["state"] == "finished"

    def ends(_: float) -> None:
        memory.fs.rm(claim)

    monkeypatch.setattr(dispatch.time, "sleep", ends)
    assert call(data, memory.url, MODELS)["chance", 0]["state"] == "finished"


def test_what_another_machine_finished_while_we_waited_is_read_and_not_done_again(
    memory: Store, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(data, memory.url, "chance", "--seeds", "2")
    kept = memory.path("kept")
    memory.fs.mv(memory.path("demo/chance/seed-0"), kept, recursive=True)
    shutil.rmtree(memory.folder)
    claim = claimed_elsewhere(memory, "demo/chance", "seed-0")

    def ends(_: float) -> None:
        memory.fs.mv(kept, memory.path("demo/chance/seed-0"), recursive=True)
        memory.fs.rm(claim)

    monkeypatch.setattr(dispatch.time, "sleep", ends)
    stamp = [info["created"] for info in memory.fs.find(kept, detail=True).values()]
    assert {cell["state"] for cell in call(data, memory.url, "chance", "--seeds", "2").values()} == {"finished"}
    sent = memory.fs.find(memory.path("demo/chance/seed-0"), detail=True)
    assert len(sent) == len(stamp)
    assert read_result(memory.folder / "demo" / "chance" / "seed-0" / "result.json").seed == 0


def test_a_list_in_a_store_is_what_it_would_be_in_a_folder_and_needs_no_mirror_to_be_known(
    memory: Store, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "tiny.py"
    model.write_text(TINY.format(slow=0), encoding="utf-8")
    options = ("--seeds", "2", "--perturb", ",".join(PERTURBED))
    call(data, str(tmp_path / "runs"), str(model), *options)
    there = call(data, memory.url, str(model), *options)
    assert predictions(memory.folder) == predictions(tmp_path / "runs")
    assert {cell["levels_finished"] for cell in there.values()} == {2}
    shutil.rmtree(memory.folder)
    again = call(data, memory.url, str(model), *options)
    assert again.keys() == there.keys()
    assert predictions(memory.folder) == predictions(tmp_path / "runs")
    assert not (memory.folder / "demo" / "tiny" / "seed-0" / "model.safetensors").exists()  # nobody needed it
    assert "demo/seeds.json" in memory.files("")
    call(data, memory.url, str(model), "--seeds", "1", "--perturb", "jpeg:3")  # a level more needs the weights
    kept = read_robustness(memory.folder / "demo" / "tiny" / "seed-0" / "robustness.json")
    assert [level.perturbation.severity for level in kept.levels] == [1, 3, 5]


@pytest.mark.parametrize("damaged", ["predictions.parquet", "perturbed/jpeg-5/predictions.parquet"])
def test_what_was_damaged_in_the_store_is_never_read_as_finished(
    damaged: str, memory: Store, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "tiny.py"
    model.write_text(TINY.format(slow=0), encoding="utf-8")
    call(data, memory.url, str(model), "--perturb", "jpeg:5")
    path = memory.path(f"demo/tiny/seed-0/{damaged}")
    whole = memory.fs.cat_file(path)
    memory.fs.pipe_file(path, whole[: len(whole) // 2])
    shutil.rmtree(memory.folder)
    assert call(data, memory.url, str(model), "--perturb", "jpeg:5")["tiny", 0]["state"] == "finished"
    assert memory.fs.cat_file(path) == whole


def test_levels_are_not_measured_with_weights_that_were_damaged_in_the_store(
    memory: Store, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "tiny.py"
    model.write_text(TINY.format(slow=0), encoding="utf-8")
    call(data, memory.url, str(model))
    path = memory.path("demo/tiny/seed-0/model.safetensors")
    whole = memory.fs.cat_file(path)
    memory.fs.pipe_file(path, whole[:-1] + b"x")
    shutil.rmtree(memory.folder)
    found = call(data, memory.url, str(model), "--perturb", "jpeg:5", expect=3)["tiny", 0]
    assert found["state"] == "failed"
    assert "is not what" in found["why"]
    assert call(data, memory.url, str(model), "--perturb", "jpeg:5", "--overwrite")["tiny", 0]["state"] == "finished"
    assert memory.fs.cat_file(path) == whole


# --- processes of this machine -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_find_what_one_does_levels_and_curves_included(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny.py"
    model.write_text(TINY.format(slow=0), encoding="utf-8")
    options = ("--seeds", "2", "--perturb", ",".join(PERTURBED))
    one = call(data, str(tmp_path / "one"), str(model), *options)
    two = call(data, str(tmp_path / "two"), str(model), *options, "--replicas", "2")
    assert predictions(tmp_path / "two") == predictions(tmp_path / "one")
    assert len(predictions(tmp_path / "two")) == 6
    assert {key: cell["key"] for key, cell in one.items()} == {key: cell["key"] for key, cell in two.items()}
    for seed in ("seed-0", "seed-1"):
        curves = [tmp_path / each / "demo" / "tiny" / seed / "robustness.json" for each in ("one", "two")]
        assert curves[0].read_bytes() == curves[1].read_bytes()


@pytest.mark.slow
def test_a_bug_in_a_process_is_told_with_its_traceback_and_leaves_the_others_alone(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "broken.py"
    model.write_text(TINY.format(slow=0) + ONLY_HERE, encoding="utf-8")
    answer = invoked(data, str(tmp_path / "runs"), f"chance,{model}", "--replicas", "2", expect=3)
    found = cells(answer)
    assert found["chance", 0]["state"] == "finished"
    assert found["broken", 0]["state"] == "failed"
    assert found["broken", 0]["why"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in answer.stderr


# --- a cluster -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_list_on_a_cluster_survives_the_loss_of_a_node(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dfad-bench[ray]'")
    model = tmp_path / "tiny.py"
    model.write_text(TINY.format(slow=1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.list_on_a_cluster", str(tmp_path / "cluster"), str(data), str(model)],
        cwd=REPOSITORY,
        env=os.environ | {"RAY_DISABLE_DOCKER_CPU_WARNING": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert "2 replicas" in told
    assert "lost" in told
    assert told[-1] == " ".join(f"{seed}:finished:None" for seed in range(4))
    assert len(predictions(tmp_path / "cluster")) == 4 * 3
    assert hidden(Store(str(tmp_path / "cluster"))) == []
    model.write_text(TINY.format(slow=0), encoding="utf-8")
    call(data, str(tmp_path / "here"), str(model), "--seeds", "4", "--perturb", ",".join(PERTURBED))
    assert predictions(tmp_path / "cluster") == predictions(tmp_path / "here")
