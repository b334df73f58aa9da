"""Makes parts, in this process or in several; with several, they come in whatever order they are finished."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path

from dfad_bench.errors import DataError
from dfad_bench.prepare.faces import CropRecipe, FaceMaker
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


@dataclass(frozen=True, slots=True)
class Made:
    """A part that was made just now, and the seconds that each stage took."""

    name: PartName
    summary: PartSummary
    seconds: dict[str, float]


def run_parts(tasks: Iterator[PartTask], maker: FaceMaker, out: Path, workers: int) -> Iterator[Made]:
    """Make every part and yield what each says of itself; one worker is this process, with the maker as given.

    Raises DataError where a worker process is killed; finished parts stay.
    """
    if workers <= 1:
        make = _PartMaker(maker, out)
        for task in tasks:
            yield make(task)
        return
    # Spawned, not forked: threads of OpenCV and Arrow do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(maker.source, maker.recipe, out))
    try:
        yield from _in_flight(pool, tasks, workers)
    except BrokenProcessPool:
        raise DataError(
            "A worker process was killed, most likely for want of memory. Run the same command to go on, with fewer --workers."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_flight(pool: ProcessPoolExecutor, tasks: Iterator[PartTask], workers: int) -> Iterator[Made]:
    pending: set[Future[Made]] = set()
    while True:
        pending |= {pool.submit(_run_in_worker, task) for task in islice(tasks, workers * _AHEAD - len(pending))}
        if not pending:
            return
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


class _PartMaker:
    """Makes parts one after the other."""

    def __init__(self, maker: FaceMaker, out: Path) -> None:
        self._maker = maker
        self._ledger = Ledger(out)

    def __call__(self, task: PartTask) -> Made:
        start = time.perf_counter()
        self._maker.seconds.clear()
        summary = self._ledger.write(task.name, task.inputs, self._maker.make(task.images))
        seconds = self._maker.seconds.copy()
        seconds["write"] = time.perf_counter() - start - sum(seconds.values())
        return Made(task.name, summary, seconds)


_worker: _PartMaker | None = None


def _start_worker(source: str, recipe: CropRecipe, out: Path) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _PartMaker(FaceMaker(source, recipe), out)


def _parent() -> BaseProcess:
    parent = multiprocessing.parent_process()
    assert parent is not None
    return parent


def _end_with_parent() -> None:
    """End this worker when the main process is killed: it would otherwise wait for tasks for ever."""
    _parent().join()
    os._exit(1)


def _run_in_worker(task: PartTask) -> Made:
    # A main process that was killed while we started has left tasks in the pipe; another one may be at work on them.
    if not _parent().is_alive():
        os._exit(1)
    assert _worker is not None
    return _worker(task)
