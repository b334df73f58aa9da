"""The engine of a cluster writes the very bytes of one machine, also when a node is lost, and tells mistakes as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfad_bench.prepare.add_gaze import add_gaze
from tests.prepare.builders import contents, detector_file, folder_tree, job, run, write
from tests.prepare.test_only_gaze import estimator_file

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
        env=os.environ | {"RAY_DISABLE_DOCKER_CPU_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, dict[str, bytes]]:
    """Images, one of them broken, a slow detector, an estimator, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("ray")
    root = folder_tree(folder / "root", COUNTS)
    write(root / "real" / "broken.jpg", b"broken")
    detector, estimator = detector_file(folder / "slow.py", seconds=0.02), estimator_file(folder)
    report = run(job(root, folder / "here", detector=detector))
    add_gaze(report.root, estimator)
    return root, detector, estimator, contents(folder / "here" / "faces")


@pytest.mark.parametrize("after", [0, 130], ids=["whole", "a node is killed"])
def test_a_cluster_writes_the_bytes_of_one_process(
    tmp_path: Path, material: tuple[Path, str, str, dict[str, bytes]], after: int
) -> None:
    root, detector, estimator, here = material
    done = program("on_a_cluster", root, tmp_path / "there", detector, estimator, after)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"parts {PARTS} kept {FACES}" in done.stdout
    assert "problems []" in done.stdout
    assert contents(tmp_path / "there" / "faces") == here


def test_mistakes_are_told_as_they_are_and_bugs_with_their_traceback() -> None:
    done = program("mistakes_on_a_cluster")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        "none: 0 answers",
        "in order: True",
        "listing: DataError: the listing is broken",
        "building: DataError: the stage is broken",
        "working: DataError: task 5 is broken",
        "bug: RayTaskError(UserCodeException) names the line: True",
        "too large: UsageError names the remedy: True",
    ]
