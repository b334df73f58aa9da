"""What only a GPU shows: all models run there, NCCL and workers that share a GPU come to what one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from dfad_bench import registry
from dfad_bench.records.results import read_result
from dfad_bench.testing import check_device
from tests.test_contracts import in_small
from tests.test_run_distributed import MODEL, call, folder, losses
from tests.torchrun import CLI

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
REPOSITORY = Path(__file__).resolve().parents[2]


def on_cuda(here: Path, runs: str, *more: str | Path) -> tuple[str | Path, ...]:
    where = ("--protocol", "demo", "--data", here / "data", "--runs", here / runs, "--device", "cuda")
    return ("run", "--model", here / "tiny.py", *where, *more)


def in_a_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo faces, a model, and a run of one process on the GPU in float32."""
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "tiny.py").write_text(MODEL, encoding="utf-8")
    call("prepare", "--source", "demo", "--set", "faces=67", "--data", folder / "data")
    call(*on_cuda(folder, "one", "--precision", "float32"))
    return folder


@pytest.mark.parametrize("name", registry.entries("models"))
def test_a_model_answers_on_a_gpu_as_on_a_cpu_and_trains_in_mixed_precision(name: str) -> None:
    check_device(in_small(name), torch.device("cuda"))


def test_a_run_names_its_gpu_and_repeats_itself(here: Path) -> None:
    call(*on_cuda(here, "again", "--precision", "float32"))
    one, again = folder(here, "one"), folder(here, "again")
    assert read_result(one / "result.json").environment["device"] == torch.cuda.get_device_name()
    assert losses(again) == losses(one)
    assert (again / "predictions.parquet").read_bytes() == (one / "predictions.parquet").read_bytes()


def test_the_same_weights_answer_on_a_cpu_as_on_the_gpu(here: Path) -> None:
    weights = folder(here, "one") / "model.safetensors"
    for device in ("cuda", "cpu"):
        call(*on_cuda(here, device, "--weights", weights, "--precision", "float32"), "--device", device)
    cuda, cpu = (pq.read_table(folder(here, runs) / "predictions.parquet") for runs in ("cuda", "cpu"))
    assert cuda["id"].equals(cpu["id"])
    assert cuda["fake_score"].to_pylist() == pytest.approx(cpu["fake_score"].to_pylist(), abs=1e-5)


@pytest.mark.parametrize("sharded", ["copies", "shares"])
def test_a_rank_over_nccl_learns_what_one_process_learns(here: Path, sharded: str) -> None:
    """One rank is all that one GPU takes; every collective of a run goes through NCCL nonetheless."""
    in_a_process("-m", "tests.modelling.alone_over_nccl", here / "tiny.py", here / "data", here / sharded, sharded)
    one, alone = folder(here, "one"), folder(here, sharded)
    assert losses(alone) == pytest.approx(losses(one), abs=1e-5)
    assert read_result(alone / "result.json").counts == read_result(one / "result.json").counts


def test_workers_of_ray_that_share_a_gpu_answer_as_one_process_does(here: Path) -> None:
    pytest.importorskip("ray")
    weights = folder(here, "one") / "model.safetensors"
    given = ("--weights", weights, "--precision", "float32", "--batch-size", "1")
    call(*on_cuda(here, "given", *given))
    shares = ("--engine", "ray", "--replicas", "2", "--gpus-per-replica", "0.5")
    in_a_process(*CLI, *on_cuda(here, "shared", *given, *shares), RAY_ADDRESS="local")
    predicted = [(folder(here, runs) / "predictions.parquet").read_bytes() for runs in ("given", "shared")]
    assert predicted[0] == predicted[1]
