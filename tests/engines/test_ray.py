"""The engine of a cluster writes the very bytes of one machine, also when a node is lost, and tells mistakes as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfad_bench.prepare.add_gaze import add_gaze
from dfad_bench.prepare.pack import pack
from dfad_bench.records.results import read_result
from tests.prepare.builders import contents, detector_file, folder_tree, job, run, write
from tests.prepare.test_only_gaze import estimator_file
from tests.test_run_distributed import MODEL, arguments, call, folder, losses

REPOSITORY = Path(__file__).resolve().parents[2]
COUNTS = {"real": 150, "simswap": 70, "stylegan3": 70}
PARTS, FACES = 7, 290

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def program(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of this folder by itself: Ray's own warnings would fail a test."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.engines.{module}", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"},  # never another program's cluster
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def written(data: Path) -> dict[str, bytes]:
    """A manifest with its gaze, and what it was packed into."""
    packed = contents(data / "packed" / "faces")
    return contents(data / "faces") | {f"packed {name}": file for name, file in packed.items()}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, dict[str, bytes]]:
    """Images, one of them broken, a slow detector, an estimator, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("ray")
    root = folder_tree(folder / "root", COUNTS)
    write(root / "real" / "broken.jpg", b"broken")
    detector, estimator = detector_file(folder / "slow.py", seconds=0.02), estimator_file(folder)
    report = run(job(root, folder / "here", detector=detector))
    add_gaze(report.root, estimator)
    pack(report.root, folder / "here" / "packed" / "faces", shard_bytes=2**17)
    return root, detector, estimator, written(folder / "here")


@pytest.mark.parametrize("after", [0, 130], ids=["whole", "a node is killed"])
def test_a_cluster_writes_the_bytes_of_one_process(
    tmp_path: Path, material: tuple[Path, str, str, dict[str, bytes]], after: int
) -> None:
    root, detector, estimator, here = material
    done = program("on_a_cluster", root, tmp_path / "there", detector, estimator, after)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"parts {PARTS} kept {FACES}" in done.stdout
    assert "problems []" in done.stdout
    there = written(tmp_path / "there")
    assert any(name.startswith("packed shards/") for name in there) and there == here


def test_mistakes_are_told_as_they_are_and_bugs_with_their_traceback() -> None:
    done = program("mistakes_on_a_cluster")  # with the settings of a command, and of its nodes
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        "none: 0 answers",
        "in order: True",
        "listing: DataError: the listing is broken",
        "building: DataError: the stage is broken",
        "working: DataError: task 5 is broken",
        "settings: [(('/node', '/command'), ('/node', '/command'))]",
        "bug: RayTaskError(UserCodeException) names the line: True",
        "too large: UsageError names the remedy: True",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo faces, a model, and a run of one process."""
    here = tmp_path_factory.mktemp("runs")
    (here / "tiny.py").write_text(MODEL, encoding="utf-8")
    call("prepare", "--source", "demo", "--set", "faces=67", "--data", here / "data")
    call(*arguments(here, "one"))
    return here


def test_a_run_that_loses_a_node_ends_with_the_very_bytes_of_one_process(trained: Path) -> None:
    """Its workers ask for half a GPU each, of GPUs that the nodes only say they have."""
    weights = folder(trained, "one") / "model.safetensors"
    call(*arguments(trained, "given", "--weights", weights, "--batch-size", "1"))
    done = program("run_on_a_cluster", trained / "tiny.py", trained / "data", trained / "lost", weights, 1, "loses")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a node was lost after" in done.stdout
    here, there = folder(trained, "given"), folder(trained, "lost")
    assert (there / "predictions.parquet").read_bytes() == (here / "predictions.parquet").read_bytes()
    same = [read_result(run / "result.json").model_dump(exclude={"code"}) for run in (here, there)]
    assert same[0] == same[1]  # somebody may commit between the two


def test_two_workers_of_ray_train_learn_what_one_process_learns(trained: Path) -> None:
    done = program("run_on_a_cluster", trained / "tiny.py", trained / "data", trained / "two", "", 7, "keeps")
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(folder(trained, "two")) == pytest.approx(losses(folder(trained, "one")), abs=1e-5)
    one, two = (read_result(folder(trained, runs) / "result.json") for runs in ("one", "two"))
    assert two.environment == one.environment | {"ranks": "2"}
    assert two.counts == one.counts


def test_what_a_rank_finds_wrong_is_told_once_in_a_line(trained: Path) -> None:
    done = program("run_on_a_cluster", trained / "tiny.py", trained / "data", trained / "none", "", 1, "keeps")
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    assert line.startswith("UsageError: ") and "--batch-size" in line
