"""The Ray engine against the local one on the same cores, one worker against several, 50,000 faces against 5,000."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from measure import Measured, record, run
from prepare import CROPS, FACES, write_photographs

from dfad_bench.prepare.face_detectors.yunet import YuNet
from dfad_bench.prepare.gaze_estimators.openvino_adas import OpenvinoAdas
from dfad_bench.prepare.ledger import Ledger
from dfad_bench.prepare.options import build_job
from dfad_bench.prepare.part_maker import Made, PartTask
from dfad_bench.prepare.plan import chunks, unheard
from dfad_bench.weights import find

BIN = Path(sys.executable).parent
PORT = 26379
FEW, MANY = 5_000, 50_000
EMPTY = 1_000
CROPPED = "crops"
Way = tuple[str, str, int]
"""What is prepared, the engine, and how many workers."""
TURNS = 3
"""Times that each way is timed, all in turn, for the median: the speed of a shared machine drifts by a fifth."""


@contextlib.contextmanager
def cluster(cpus: int) -> Iterator[dict[str, str]]:
    """Start a Ray cluster of so many CPUs on this machine, as an administrator has done where there is one; its address."""
    ray = str(BIN / "ray")
    start = [ray, "start", "--head", "--block", "--num-cpus", str(cpus), "--num-gpus", "0", "--port", str(PORT)]
    address = {"RAY_ADDRESS": f"127.0.0.1:{PORT}", "RAY_AUTH_MODE": "disabled"}
    env = os.environ | address
    head = subprocess.Popen(
        [*start, "--include-dashboard", "false"], env=env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
                break
            time.sleep(1)
        yield address
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # 'ray stop' would end other people's clusters too
        head.wait()


class Workers:
    """Watches the memory of a cluster's workers, which are no children of the command."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Workers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for status in Path("/proc").glob("[0-9]*/status"):
                with contextlib.suppress(OSError, KeyError):  # a process may end while it is looked at
                    told = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
                    if told["Name"].strip().startswith("ray::"):
                        self.peak_mib = max(self.peak_mib, int(told["VmHWM"].split()[0]) / 1024)


def prepare(
    photos: Path, data: Path, options: tuple[str, ...], engine: str, workers: int, env: dict[str, str]
) -> Measured:
    """Run `dfad-bench prepare` into a fresh folder; the peak is the largest process's, workers included."""
    command = [str(BIN / "dfad-bench"), "prepare", "--source", "folder", "--root", str(photos), "--data", str(data)]
    with Workers() as watched:
        taken = run([*command, *options, "--engine", engine, "--workers", str(workers)], env)
    shutil.rmtree(data)
    return Measured(taken.seconds, max(taken.peak_mib, watched.peak_mib))


def in_turns(ways: dict[Way, Callable[[], Measured]], turns: int) -> dict[Way, Measured]:
    """Return the median seconds of each way, and its largest peak."""
    taken: dict[Way, list[Measured]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, measure in ways.items():
            taken[way].append(measure())
            print(*way, f"{taken[way][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    return {
        way: Measured(statistics.median(each.seconds for each in found), max(each.peak_mib for each in found))
        for way, found in taken.items()
    }


def sizes(photos: Path, data: Path) -> list[dict[str, object]]:
    """Return what a face weighs: read, written, and sent between a cluster's processes with its part."""
    prepared = data / "folder"
    command = [str(BIN / "dfad-bench"), "prepare", "--source", "folder", "--root", str(photos), "--data", str(data)]
    run([*command, *CROPS, "--workers", str(os.cpu_count())])
    job = build_job("folder", prepared.parent, root=photos, face_detector="whole_image", gaze_estimator="annotated")
    name, images = next(chunks(job, None, unheard))
    task = PartTask(name, "0" * 64, tuple(images))
    summary = Ledger(prepared).summary(name)
    assert summary is not None, "the folder was prepared just now"
    faces = list((prepared / "faces").rglob("*.png"))
    weighed = {
        "image read": sum(len(image.payload.read()) for image in images) / len(images),
        "crop written": sum(face.stat().st_size for face in faces) / len(faces),
        "rows written": (prepared / "metadata.parquet").stat().st_size / len(faces),
        "sent to a worker": len(pickle.dumps(task)) / len(images),
        "sent back": len(pickle.dumps(Made(name, summary, {}))) / len(images),
    }
    return [{"what": f"bytes of a face, {what}", "bytes": each} for what, each in weighed.items()]


def empty_tasks(address: dict[str, str], workers: int) -> dict[str, object]:
    """Return how fast tasks go through Ray that do nothing: what its driver can hand out."""
    code = (
        "import time\n"
        "from functools import partial\n"
        "from dfad_bench.engines import EngineName, build_engine\n"
        "def counted(start, end): return iter(range(start, end))\n"
        "def stage(): return lambda number: number\n"
        f"engine = build_engine(EngineName.ray, {workers})\n"
        "seconds = []\n"
        f"for count in (10, {EMPTY + 10}):\n"
        "    started = time.perf_counter()\n"
        "    assert len(list(engine.map(partial(counted, 0, count), stage))) == count\n"
        "    seconds.append(time.perf_counter() - started)\n"
        "print(seconds[1] - seconds[0])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], env=os.environ | address, capture_output=True, check=True)
    return {"what": f"tasks that do nothing, ray, {workers} workers", "tasks_per_second": EMPTY / float(told.stdout)}


def rows_of(few: int, taken: dict[Way, Measured], cold: Measured | None) -> list[dict[str, object]]:
    """Return a row for each way, beside the local engine's and one worker's."""
    told: list[dict[str, object]] = []
    for (what, engine, workers), each in taken.items():
        row: dict[str, object] = {
            "what": f"{few:,} faces, {what}, {engine}, {workers} worker{'s' if workers > 1 else ''}",
            "seconds": each.seconds,
            "faces_per_second": few / each.seconds,
            "peak_mib": each.peak_mib,
            "over_local": each.seconds / taken[what, "local", workers].seconds - 1,
        }
        if workers > 1 and (what, engine, 1) in taken:
            row["efficiency"] = taken[what, engine, 1].seconds / each.seconds / workers
        told.append(row)
        if cold and (what, engine, workers) == (CROPPED, "ray", max(each[2] for each in taken)):
            told.append(
                {
                    "what": f"{row['what']}, its cluster started for it",
                    "seconds": cold.seconds,
                    "over_local": cold.seconds / taken[what, "local", workers].seconds - 1,
                }
            )
    return told


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, nargs=2, default=(FEW, MANY), help="few and many faces")
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 2), help="how many workers, rising")
    parser.add_argument("--turns", type=int, default=TURNS, help="times that few faces are prepared each way")
    parser.add_argument("--results", default="scaling", help="name of the file of results")
    asked = parser.parse_args()
    few, many = asked.faces
    most = max(asked.workers)
    ways = {CROPPED: CROPS, "yunet and openvino_adas": FACES}
    if not any(find(weights) for weights in YuNet.weights) or not all(find(w) for w in OpenvinoAdas.weights):
        print("The weights of yunet and openvino_adas are not on this machine: only crops are measured.")
        ways = {CROPPED: CROPS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos, data = folder / "few", folder / "data"
        write_photographs(photos, few)
        cold = prepare(photos, data, CROPS, "ray", most, {"RAY_ADDRESS": "local"})
        with cluster(most) as address:
            where = {"local": {}, "ray": address}
            taken = in_turns(
                {
                    (what, engine, workers): partial(prepare, photos, data, options, engine, workers, where[engine])
                    for what, options in ways.items()
                    for workers in (asked.workers if what == CROPPED else [most])
                    for engine in where
                },
                asked.turns,
            )
            rows = [*rows_of(few, taken, cold), empty_tasks(address, most), *sizes(photos, data)]
            record(asked.results, rows)
            write_photographs(folder / "many", many)
            at_scale = in_turns(
                {
                    (CROPPED, engine, most): partial(prepare, folder / "many", data, CROPS, engine, most, where[engine])
                    for engine in where
                },
                1,
            )
    for row, way in zip(rows_of(many, at_scale, None), at_scale, strict=True):
        rows.append(row | {"peak_over_few": at_scale[way].peak_mib / taken[way].peak_mib})
    record(asked.results, rows)


if __name__ == "__main__":
    main()
