"""A program: what goes wrong in a listing, in building a stage and in a task on a Ray cluster of this machine, and settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dfad_bench.engines import EngineName, build_engine
from dfad_bench.errors import DataError


def counting(count: int, broken_at: int | None = None) -> Iterator[int]:
    for number in range(count):
        if number == broken_at:
            raise DataError("the listing is broken")
        yield number


def same(number: int) -> int:
    return number


def refusing(number: int) -> int:
    if number == 5:
        raise DataError("task 5 is broken")
    return number


def failing(number: int) -> int:
    if number == 5:
        raise ValueError("a bug in task 5")
    return number


def stage(chosen: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return chosen


def broken_stage() -> Callable[[int], int]:
    raise DataError("the stage is broken")


def settings() -> Iterator[tuple[str, str]]:
    yield os.environ["DFAD_BENCH_HOME"], os.environ["DFAD_BENCH_WEIGHTS"]


def with_its_own(listed: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return listed, *settings()


def told(tasks: Callable[[], Iterator[Any]], build: Callable[[], Callable[[Any], Any]], gpus: float = 0.0) -> Any:
    try:
        return list(build_engine(EngineName.ray, gpus_per_worker=gpus).map(tasks, build, in_order=True))
    except Exception as error:  # noqa: BLE001  # told is whatever came
        return error


def main() -> None:
    os.environ["DFAD_BENCH_HOME"] = "/node"
    print(f"none: {len(told(partial(counting, 0), partial(stage, same)))} answers")
    print(f"in order: {told(partial(counting, 40), partial(stage, same)) == list(range(40))}")
    for what, tasks, build in (
        ("listing", partial(counting, 9, 3), partial(stage, same)),
        ("building", partial(counting, 9), broken_stage),
        ("working", partial(counting, 9), partial(stage, refusing)),
    ):
        error = told(tasks, build)
        print(f"{what}: {type(error).__name__}: {error}")
    os.environ |= {"DFAD_BENCH_HOME": "/command", "DFAD_BENCH_WEIGHTS": "/command"}
    print(f"settings: {told(settings, partial(stage, with_its_own))}")
    bug = told(partial(counting, 9), partial(stage, failing))
    print(f"bug: {type(bug).__name__} names the line: {'a bug in task 5' in str(bug)}")
    large = told(partial(counting, 9), partial(stage, same), gpus=1000.0)
    print(f"too large: {type(large).__name__} names the remedy: {'lower --gpus-per-worker' in str(large)}")


if __name__ == "__main__":
    main()
