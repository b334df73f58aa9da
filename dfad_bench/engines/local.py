"""The engine of one machine: tasks are done in this process, or in several; nothing has to be installed or started."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from dfad_bench.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2
"""Tasks in flight per worker: enough that none waits, few enough that memory does not grow with the source."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Does tasks in this process, or from two ``workers`` on in as many processes."""

    workers: int = 1

    @property
    def is_here(self) -> bool:
        """Whether tasks are done in this process, one after the other."""
        return self.workers <= 1

    def size(self) -> int:
        """Return how many stages are built."""
        return max(self.workers, 1)

    def ranks(self) -> int:
        """Return 1: if torchrun started several, each has an engine of its own."""
        return 1

    def together(self, work: Callable[[], None]) -> None:
        """Do work in this process, which may be a rank that torchrun started; see ``interfaces.Engine``."""
        work()

    def map(
        self,
        tasks: Callable[[], Iterator[Task]],
        build: Callable[[], Callable[[Task], Result]],
        *,
        in_order: bool = False,
    ) -> Iterator[Result]:
        """Yield what each task comes to; see ``interfaces.Engine``. Raises DataError where a process is killed."""
        if self.is_here:
            return map(build(), tasks())
        return _in_processes(tasks(), build, self.workers, in_order)


def _in_processes(
    tasks: Iterator[Task], build: Callable[[], Callable[[Task], Result]], workers: int, in_order: bool
) -> Iterator[Result]:
    # Spawned, not forked: threads of OpenCV and Arrow do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(build,))
    try:
        yield from (_one_by_one if in_order else _as_finished)(pool, tasks, workers * _AHEAD)
    except BrokenProcessPool:
        raise DataError(
            "A worker process was killed, most likely for want of memory. Run the same command to go on, "
            "with fewer --workers (or --replicas)."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_finished(pool: ProcessPoolExecutor, tasks: Iterator[Any], ahead: int) -> Iterator[Any]:
    pending: set[Future[Any]] = set()
    while True:
        pending |= {pool.submit(_run_in_worker, task) for task in islice(tasks, ahead - len(pending))}
        if not pending:
            return
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


def _one_by_one(pool: ProcessPoolExecutor, tasks: Iterator[Any], ahead: int) -> Iterator[Any]:
    pending: deque[Future[Any]] = deque()
    while True:
        pending.extend(pool.submit(_run_in_worker, task) for task in islice(tasks, ahead - len(pending)))
        if not pending:
            return
        yield pending.popleft().result()


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
