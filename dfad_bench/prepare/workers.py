"""Does tasks, in this process or in several; with several, results come in whatever order they are finished."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from dfad_bench.errors import DataError
from dfad_bench.prepare.faces import CropRecipe, FaceMaker
from dfad_bench.prepare.ledger import Ledger, PartName, PartSummary
from dfad_bench.types import RawImage

Task = TypeVar("Task")
Result = TypeVar("Result")

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
        return map(_PartMaker(maker, out), tasks)
    return in_processes(tasks, partial(_part_maker, maker.source, maker.recipe, out), workers)


def in_processes(
    tasks: Iterator[Task], build: Callable[[], Callable[[Task], Result]], workers: int
) -> Iterator[Result]:
    """Yield what each task comes to in a process that called ``build`` once; tasks, results and ``build`` are pickled.

    Raises DataError where a process is killed.
    """
    # Spawned, not forked: threads of OpenCV and Arrow do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(build,))
    try:
        yield from _in_flight(pool, tasks, workers)
    except BrokenProcessPool:
        raise DataError(
            "A worker process was killed, most likely for want of memory. Run the same command to go on, with fewer --workers."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_flight(pool: ProcessPoolExecutor, tasks: Iterator[Any], workers: int) -> Iterator[Any]:
    pending: set[Future[Any]] = set()
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


def _part_maker(source: str, recipe: CropRecipe, out: Path) -> _PartMaker:
    return _PartMaker(FaceMaker(source, recipe), out)


_worker: Callable[[Any], Any] | None = None


def _start_worker(build: Callable[[], Callable[[Any], Any]]) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = build()


def _parent() -> BaseProcess:
    parent = multiprocessing.parent_process()
    assert parent is not None
    return parent


def _end_with_parent() -> None:
    """End this worker when the main process is killed: it would otherwise wait for tasks for ever."""
    _parent().join()
    os._exit(1)


def _run_in_worker(task: Any) -> Any:
    # A main process that was killed while we started has left tasks in the pipe; another one may be at work on them.
    if not _parent().is_alive():
        os._exit(1)
    assert _worker is not None
    return _worker(task)
