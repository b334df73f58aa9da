"""The Ray engine against the local one on the same two cores, one worker against two, 50,000 faces against 5,000."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start a Ray cluster of two CPUs on this machine, as an administrator has done where there is one; its address."""
    ray = str(BIN / "ray")
    start = [ray, "start", "--head", "--block", "--num-cpus", "2", "--num-gpus", "0", "--port", str(PORT)]
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
    return Measured(taken.seconds, max(taken.peak_mib, watched.peak_mib))


def sizes(photos: Path, prepared: Path) -> list[dict[str, object]]:
    """Return what a face weighs: read, written, and sent between a cluster's processes with its part."""
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


def empty_tasks(address: dict[str, str]) -> dict[str, object]:
    """Return how fast tasks go through Ray that do nothing: what its driver can hand out."""
    code = (
        "import time\n"
        "from functools import partial\n"
        "from dfad_bench.engines import EngineName, build_engine\n"
        "def counted(start, end): return iter(range(start, end))\n"
        "def stage(): return lambda number: number\n"
        "engine = build_engine(EngineName.ray, 2)\n"
        "seconds = []\n"
        f"for count in (10, {EMPTY + 10}):\n"
        "    started = time.perf_counter()\n"
        "    assert len(list(engine.map(partial(counted, 0, count), stage))) == count\n"
        "    seconds.append(time.perf_counter() - started)\n"
        "print(seconds[1] - seconds[0])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], env=os.environ | address, capture_output=True, check=True)
    return {"what": "tasks that do nothing, ray, 2 workers", "tasks_per_second": EMPTY / float(told.stdout)}


def over(seconds: float, local: float) -> dict[str, object]:
    """Return by what share something took longer than the local engine."""
    return {"over_local": seconds / local - 1}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, nargs=2, default=(FEW, MANY), help="few and many faces")
    few, many = parser.parse_args().faces
    ways = {"crops": CROPS, "found by yunet, gaze by openvino_adas": FACES}
    if not any(find(weights) for weights in YuNet.weights) or not all(find(w) for w in OpenvinoAdas.weights):
        print("The weights of yunet and openvino_adas are not on this machine: only crops are measured.")
        ways = {"crops": CROPS}
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photographs(folder / "few", few)
        write_photographs(folder / "many", many)
        cold = prepare(folder / "few", folder / "cold", CROPS, "ray", 2, {"RAY_ADDRESS": "local"})
        with cluster() as address:
            where = {"local": {}, "ray": address}
            taken = {
                (what, engine, workers): prepare(
                    *(folder / "few", folder / f"{what}-{engine}-{workers}"),
                    *(options, engine, workers, where[engine]),
                )
                for what, options in ways.items()
                for engine in where
                for workers in ((1, 2) if what == "crops" else (2,))
            }
            empty = empty_tasks(address)
            rows += [
                {
                    "what": f"{few:,} faces, {what}, {engine}, {workers} worker{'s' if workers > 1 else ''}",
                    "seconds": each.seconds,
                    "faces_per_second": few / each.seconds,
                    "peak_mib": each.peak_mib,
                }
                | (
                    {"efficiency": taken[what, engine, 1].seconds / each.seconds / 2}
                    if (what, workers) == ("crops", 2)
                    else {}
                )
                | over(each.seconds, taken[what, "local", workers].seconds)
                for (what, engine, workers), each in taken.items()
            ]
            rows.append(
                {"what": f"{few:,} faces, crops, ray, 2 workers, its cluster started for it", "seconds": cold.seconds}
                | over(cold.seconds, taken["crops", "local", 2].seconds)
            )
            rows.append(empty)
            rows += sizes(folder / "few", folder / "crops-local-1" / "folder")
            record("scaling", rows)
            at_scale = {
                engine: prepare(folder / "many", folder / f"many-{engine}", CROPS, engine, 2, where[engine])
                for engine in where
            }
            rows += [
                {
                    "what": f"{many:,} faces, crops, {engine}, 2 workers",
                    "seconds": each.seconds,
                    "faces_per_second": many / each.seconds,
                    "peak_mib": each.peak_mib,
                    "peak_over_few": each.peak_mib / taken["crops", engine, 2].peak_mib,
                }
                | over(each.seconds, at_scale["local"].seconds)
                for engine, each in at_scale.items()
            ]
    record("scaling", rows)


if __name__ == "__main__":
    main()
