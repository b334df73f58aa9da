"""A preparation that is killed at any moment is resumed to the very bytes of an undisturbed one, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfad_bench.engines import local
from dfad_bench.prepare.ledger import PartName
from dfad_bench.prepare.part_maker import PartTask
from tests.prepare.builders import contents, detector_file, folder_tree, rows, write

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "DFAD_TEST_KILLED"
COUNTS = {"real": 150, "simswap": 40, "stylegan3": 70}
PARTS = 6
PROGRAM = """
import sys
from pathlib import Path
from dfad_bench.engines.local import LocalEngine
from tests.prepare.builders import job, run

if __name__ == "__main__":
    root, data, detector, workers = sys.argv[1:]
    run(job(Path(root), Path(data), detector=detector, engine=LocalEngine(int(workers))))
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, bytes]]:
    """The images, a slow detector, and what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("killed")
    root = folder_tree(folder / "root", COUNTS)
    write(root / "real" / "broken.jpg", b"broken")
    detector = detector_file(folder / "slow.py", seconds=0.006)
    assert start(root, folder / "whole", detector, 1, "whole").wait(timeout=60) == 0
    return root, detector, contents(folder / "whole" / "faces")


def start(root: Path, data: Path, detector: str, workers: int, mark: str) -> subprocess.Popen[bytes]:
    program = write(data.parent / "program.py", PROGRAM.encode())  # spawned workers import it again, so it is a file
    with said(data).open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, str(program), str(root), str(data), detector, str(workers)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), MARK: mark, "PYTHONWARNINGS": ""},
            stderr=errors,
        )


def said(data: Path) -> Path:
    """Where the last run wrote its errors."""
    return data.parent / "errors.txt"


def finished_parts(out: Path) -> int:
    return len([path for path in out.glob(".prepare/parts/*/*.parquet") if not path.name.startswith(".")])


def alive(mark: str) -> list[int]:
    """The processes that carry the mark in their environment, zombies apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def kill_when(process: subprocess.Popen[bytes], out: Path, parts: int, later: float) -> None:
    """Kill once so many parts are finished and a moment has passed; a run that ends before is an error."""
    deadline = time.monotonic() + 60
    while finished_parts(out) < parts or not out.is_dir():
        assert process.poll() is None, f"ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(later)
    process.send_signal(signal.SIGKILL)
    process.wait()


POINTS = [
    (1, [(0, 0.0), (0, 0.6), (2, 0.1), (4, 0.15)]),
    (2, [(0, 0.9), (2, 0.05)]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "points"), POINTS, ids=["one process", "two workers"])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, material: tuple[Path, str, dict[str, bytes]], workers: int, points: list[tuple[int, float]]
) -> None:
    root, detector, expected = material
    out = tmp_path / "data" / "faces"
    kept = 0
    for number, (parts, later) in enumerate(points):
        mark = f"{os.getpid()}-{workers}-{number}"
        process = start(root, tmp_path / "data", detector, workers, mark)
        kill_when(process, out, parts, later)
        if Path("/proc").is_dir():
            deadline = time.monotonic() + 5
            while (left := alive(mark)) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert left == [], "a worker outlived its main process"
        assert finished_parts(out) >= kept, "a finished part was thrown away"
        kept = finished_parts(out)
        if (out / "metadata.parquet").exists():
            named = {row["file_name"] for row in rows(out)}
            assert all((out / name).is_file() for name in named)
    final = start(root, tmp_path / "data", detector, workers, "final")
    assert final.wait(timeout=60) == 0
    assert contents(out) == expected
    names = {path.name for path in out.rglob("*")}
    assert not [n for n in names if n.endswith(".part") or (n.startswith(".") and n != ".prepare")], "temporary files"
    assert finished_parts(out) == PARTS


KILLS = 20
LONGEST = 2.5
"""Seconds after its start within which a run is killed: before its first part, between parts, while assembling, after."""


@pytest.mark.slow
def test_twenty_kills_at_random_moments_with_workers_end_with_the_same_bytes(
    tmp_path: Path, material: tuple[Path, str, dict[str, bytes]]
) -> None:
    root, detector, expected = material
    out = tmp_path / "data" / "faces"
    dice = random.Random(20)
    killed = 0
    while killed < KILLS:
        process = start(root, tmp_path / "data", detector, 2, f"{os.getpid()}-random-{killed}")
        try:
            assert process.wait(timeout=dice.uniform(0.0, LONGEST)) == 0, said(tmp_path / "data").read_text()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            continue
        assert contents(out) == expected, "finished before it could be killed"
        shutil.rmtree(out)
    assert start(root, tmp_path / "data", detector, 2, "after").wait(timeout=60) == 0
    assert contents(out) == expected


def test_a_worker_whose_main_process_has_gone_takes_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def is_alive(self) -> bool:
            return False

    def leave(code: int) -> None:
        raise SystemExit(code)

    taken: list[object] = []
    monkeypatch.setattr(local.multiprocessing, "parent_process", Gone)
    monkeypatch.setattr(local.os, "_exit", leave)
    monkeypatch.setattr(local, "_worker", taken.append)
    with pytest.raises(SystemExit):
        local._run_in_worker(PartTask(PartName("real", 0), "", ()))
    assert taken == []


EVERY_RENAME = """
import os, signal, sys
from pathlib import Path
from dfad_bench.prepare.faces import FaceMaker
from tests.prepare.builders import job, run

replace = Path.replace

def in_a_child(what, kill_at):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [kill_at]

    def counted(path, target):
        moved = replace(path, target)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = counted
    run(what)
    os._exit(0)

root, data = map(Path, sys.argv[1:])
FaceMaker("faces", job(root, data).recipe)  # what is imported here is not imported again in each child
for kill_at in range(1, 100):
    what = job(root, data / f"{kill_at:02d}")
    code = in_a_child(what, kill_at)
    resumed = in_a_child(what, 0)
    print(code, resumed, flush=True)
    if code == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_after_any_of_its_renames_ends_with_the_same_bytes(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 3, "simswap": 2, "stylegan3": 2})
    write(root / "real" / "broken.jpg", b"broken")
    driver = subprocess.run(
        [sys.executable, "-c", EVERY_RENAME, str(root), str(tmp_path / "data")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    outcomes = driver.stdout.split("\n")[:-1]
    assert outcomes == [f"{-signal.SIGKILL} 0"] * (len(outcomes) - 1) + ["0 0"]
    assert len(outcomes) > 3 * 2 + 3, "each part, the ledger, the manifest and its card are renamed into place"
    ends = [contents(folder / "faces") for folder in sorted((tmp_path / "data").iterdir())]
    assert len(ends[-1]) == 7 + 4
    assert all(end == ends[-1] for end in ends)
