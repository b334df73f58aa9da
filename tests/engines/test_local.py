"""The engine of one machine does every task once, reads them as work goes on, and builds a stage per worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dfad_bench.engines import EngineName, build_engine
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, UsageError


class Square:
    """A stage that knows its process, and is slower with small numbers than with large ones."""

    def __init__(self, pause: float = 0.0) -> None:
        self._process, self._pause = os.getpid(), pause

    def __call__(self, number: int) -> tuple[int, int]:
        time.sleep(self._pause / (1 + number))
        return number * number, self._process


class Refusing:
    def __call__(self, number: int) -> int:
        raise DataError(f"{number} is refused")


class Dying:
    def __call__(self, number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return number


def counting(count: int) -> Iterator[int]:
    return iter(range(count))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("in_order", [False, True])
def test_every_task_is_done_once(workers: int, in_order: bool) -> None:
    engine = LocalEngine(workers)
    answers = list(engine.map(partial(counting, 20), partial(Square, 0.05), in_order=in_order))
    squares = [square for square, _ in answers]
    assert sorted(squares) == [number * number for number in range(20)]
    assert squares == sorted(squares) or not in_order
    processes = {process for _, process in answers}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes


def test_tasks_are_not_read_far_ahead_of_their_answers() -> None:
    read: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    answers = LocalEngine(2).map(tasks, Square)
    next(answers)
    assert len(read) <= 8
    assert len([*answers]) == 99


def test_one_worker_is_this_process_and_may_be_given_a_stage_that_is_there() -> None:
    stage = Square()
    build: Callable[[], Square] = lambda: stage  # noqa: E731  # what cannot be pickled shows that nothing is
    assert LocalEngine().is_here
    assert not LocalEngine(2).is_here
    assert [square for square, _ in LocalEngine().map(lambda: iter([3]), build)] == [9]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_found_by_a_stage_is_told_as_it_is(workers: int) -> None:
    with pytest.raises(DataError, match=r"^0 is refused$"):
        list(LocalEngine(workers).map(partial(counting, 1), Refusing))


def test_a_killed_worker_is_told_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"killed.*fewer --workers"):
        list(LocalEngine(2).map(partial(counting, 3), Dying))


def test_no_task_starts_no_process() -> None:
    assert list(LocalEngine(2).map(partial(counting, 0), Dying)) == []


def test_a_share_of_a_gpu_is_a_matter_of_ray() -> None:
    assert build_engine(EngineName.local) == LocalEngine(1)
    assert build_engine(EngineName.local, 3) == LocalEngine(3)
    with pytest.raises(UsageError, match="--engine ray"):
        build_engine(EngineName.local, 1, 0.5)
