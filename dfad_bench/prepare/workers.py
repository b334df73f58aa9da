"""Makes parts, in this process or in several; with several, they come in whatever order they are finished."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dfad_bench.errors import DataError
from dfad_bench.prepare.faces import BATCH, CropRecipe, FaceMaker
from dfad_bench.prepare.ledger import Ledger, PartName, PartSummary
from dfad_bench.types import RawImage

_AHEAD = 2
"""Tasks in flight per worker: enough that none waits, few enough that memory does not grow with the source."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """A part to be made, with the digest of its inputs."""

    name: PartName
    inputs: str
    images: tuple[RawImage, ...]


def run_parts(
    tasks: Iterator[PartTask], source: str, recipe: CropRecipe, out: Path, workers: int
) -> Iterator[tuple[PartName, PartSummary]]:
    """Make every part and yield what each says of itself.

    Raises DataError where a worker process is killed; finished parts stay.
    """
    if workers <= 1:
        maker = _PartMaker(source, recipe, out)
        for task in tasks:
            yield task.name, maker(task)
        return
    # Spawned, not forked: threads of OpenCV and Arrow do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(source, recipe, out))
    try:
        yield from _in_flight(pool, tasks, workers)
    except BrokenProcessPool:
        raise DataError(
            "A worker process was killed, most likely for want of memory. Run the same command to go on, with fewer --workers."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_flight(
    pool: ProcessPoolExecutor, tasks: Iterator[PartTask], workers: int
) -> Iterator[tuple[PartName, PartSummary]]:
    pending: set[Future[tuple[PartName, PartSummary]]] = set()
    while True:
        pending |= {pool.submit(_run_in_worker, task) for task in islice(tasks, workers * _AHEAD - len(pending))}
        if not pending:
            return
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


class _PartMaker:
    """Makes parts one after the other; its detector and estimator are built once."""

    def __init__(self, source: str, recipe: CropRecipe, out: Path) -> None:
        self._maker = FaceMaker(source, recipe)
        self._ledger = Ledger(out)

    def __call__(self, task: PartTask) -> PartSummary:
        batches = (task.images[start : start + BATCH] for start in range(0, len(task.images), BATCH))
        return self._ledger.write(task.name, task.inputs, (self._maker.make(batch) for batch in batches))


_worker: _PartMaker | None = None


def _start_worker(source: str, recipe: CropRecipe, out: Path) -> None:
    global _worker
    _worker = _PartMaker(source, recipe, out)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the main process is killed: it would otherwise wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(task: PartTask) -> tuple[PartName, PartSummary]:
    assert _worker is not None
    return task.name, _worker(task)
