"""Does the cells of a work list on whatever engine, and leaves alone what another machine is at work on."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from dfad_bench.cell_work import Answer, Sharing, Stage, Task, build_stage
from dfad_bench.cells import AskedLevel, Cell, standing
from dfad_bench.claims import STALE
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DfadError
from dfad_bench.interfaces import Engine
from dfad_bench.modelling.distributed import current, is_agreed
from dfad_bench.planning import ShowProgress, portable
from dfad_bench.shared_runs import bring_levels, bring_result
from dfad_bench.stores import Store
from dfad_bench.work_list import told_time

_TRUSTED = 120.0
"""Seconds after which the clock counts as much as what was expected."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """How a list is done: where runs are kept, on what, and whether to wait for cells that another machine does.

    pause: seconds between two looks at those; stale: seconds after which a machine that tells nothing is taken for dead.
    """

    store: Store
    engine: Engine = field(default_factory=LocalEngine)
    waits: bool = True
    pause: float = 15.0
    stale: float = STALE


def run_cells(
    cells: Sequence[Cell], how: Dispatch, progress: ShowProgress, note: Callable[[str], None]
) -> Iterator[Cell]:
    """Run what is to do and yield every cell as it then stands; ``note`` is told what remains.

    A cell that fails, through whatever fault, leaves the others alone: its reason is told, and the traceback of a bug. Of
    several ranks one may fail amid what they do together; then nothing more can be done together, and the error is raised.

    In this process cells are done one after the other; on other engines first all runs on faces as they are, then all
    perturbed levels. A cell that another machine is at work on is looked at again once the others are done: it is finished
    when that machine has finished it, and done here when that machine has died. Where nobody waits for it, it is yielded as
    ``elsewhere``.
    """
    yield from (cell for cell in cells if cell.state != "to do")
    waiting = {place: cell for place, cell in enumerate(cells) if cell.state == "to do"}
    total = len(waiting)
    work = _Work(cells, how, progress, note)
    is_first_round = True
    while waiting:
        for place, cell in work.round(dict(waiting), is_first_round):
            if cell.state == "elsewhere":
                waiting[place] = cell
                continue
            del waiting[place]
            yield cell
            if cell.state == "failed":
                note(f"{cell.name} on {cell.request.protocol}, seed {cell.request.seed}, failed: {cell.why}")
            if waiting and how.engine.is_here:
                note(f"{total - len(waiting)} of {total} done, {told_time(work.left)} left.")
        if waiting and not how.waits:
            yield from waiting.values()
            return
        if waiting:
            if is_first_round:
                who = ", ".join(sorted({str(cell.why) for cell in waiting.values()}))
                note(f"{len(waiting)} of {total} are being done by {who}. Waiting for them; --no-wait leaves them.")
            time.sleep(how.pause)
        is_first_round = False


class _Work:
    """The cells of one call, while they are done."""

    def __init__(
        self, cells: Sequence[Cell], how: Dispatch, progress: ShowProgress, note: Callable[[str], None]
    ) -> None:
        name = current().first_says(lambda: uuid.uuid4().hex)
        self._how, self._store, self._note = how, how.store, note
        self._sharing = Sharing(how.store, name, how.stale)
        self._here = Stage(self._sharing, progress)
        self._here.runs |= {place: cell.run for place, cell in enumerate(cells) if cell.run is not None}
        self._held: dict[int, str] = {}
        expected = sum(cell.seconds or 0.0 for cell in cells if cell.state == "to do")
        self._clock = _Clock(expected, how.engine.size() if expected else 1)

    @property
    def left(self) -> float:
        """Seconds until all is done, as far as one can tell."""
        return self._clock.left

    def round(self, waiting: dict[int, Cell], is_first: bool) -> Iterator[tuple[int, Cell]]:
        """Yield every cell that nobody else holds as it then stands, and those that somebody turns out to hold."""
        free = {place: cell for place, cell in waiting.items() if is_first or self._is_free(place)}
        if not self._how.engine.is_here:
            yield from self._together(free, is_first)
            return
        for place, cell in free.items():
            yield from self._together({place: cell}, is_first)

    def _is_free(self, place: int) -> bool:
        held = self._sharing.place(self._held[place])
        return current().first_says(lambda: held.holder(self._sharing.worklist)) is None

    def _together(self, group: dict[int, Cell], is_first: bool) -> Iterator[tuple[int, Cell]]:
        stopped: dict[int, Answer] = {}
        self._do(
            [
                Task(place, cell.request if is_first else replace(cell.request, overwrite=False))
                for place, cell in group.items()
                if cell.needs_run
            ],
            group,
            stopped,
        )
        self._do(
            [
                Task(place, replace(cell.request, overwrite=False), level)
                for place, cell in group.items()
                for level in self._missing_levels(place, cell, stopped)
            ],
            group,
            stopped,
        )
        for place, cell in group.items():
            yield place, self._stopped(cell, stopped[place]) if place in stopped else self._concluded(place, cell)

    def _missing_levels(self, place: int, cell: Cell, stopped: dict[int, Answer]) -> Sequence[AskedLevel]:
        if place in stopped or not cell.levels:
            return ()
        run = self._here.runs[place]
        folder = self._store.relative(run.folder)

        def bring() -> None:
            bring_result(self._store, folder)
            bring_levels(self._store, folder, anew=False)

        try:
            current().first_says(bring)
            return standing(run, cell.levels).missing
        except DfadError as error:
            if not is_agreed(error):
                raise
            stopped[place] = Answer(Task(place, cell.request), "failed", " ".join(str(error).split()))
            return ()

    def _do(self, tasks: Sequence[Task], group: dict[int, Cell], stopped: dict[int, Answer]) -> None:
        for done, answer in enumerate(self._answers(tasks, stopped), start=1):
            cell = group[answer.task.place]
            levels = cell.level_seconds * (len(cell.levels) - cell.levels_finished)
            self._clock.count((cell.seconds or 0.0) - levels if answer.task.level is None else cell.level_seconds)
            if answer.state != "finished":
                stopped.setdefault(answer.task.place, answer)
            if done < len(tasks) and not self._how.engine.is_here:
                what = "runs" if answer.task.level is None else "perturbed levels"
                self._note(f"{done} of {len(tasks)} {what} done, {told_time(self.left)} left.")

    def _answers(self, tasks: Sequence[Task], stopped: dict[int, Answer]) -> Iterator[Answer]:
        if self._how.engine.is_here:
            yield from (self._here(task) for task in tasks if task.place not in stopped)
        elif tasks:
            store = Store(str(self._store.folder.absolute())) if self._store.is_here else self._store
            portables = [replace(task, request=portable(task.request)) for task in tasks]
            build = partial(build_stage, replace(self._sharing, store=store))
            yield from self._how.engine.map(partial(iter, portables), build)

    def _concluded(self, place: int, cell: Cell) -> Cell:
        """Return a cell all of whose tasks are done: its curves are written, and what it found is read."""
        answer = self._here.conclude(place, cell)
        if answer.state != "finished":
            return self._stopped(cell, answer)
        found = standing(self._here.runs.pop(place), cell.levels)
        count = len(cell.levels)
        return replace(cell, state="finished", outcome=found.outcome, run=None, levels_finished=count)

    def _stopped(self, cell: Cell, answer: Answer) -> Cell:
        if answer.bug is not None and current().is_first:
            print(answer.bug, file=sys.stderr)
        if answer.state == "elsewhere":
            self._held[answer.task.place] = answer.folder
            return replace(cell, state="elsewhere", why=answer.why)
        what = "" if answer.task.level is None else f"{answer.task.level[0]}: "
        return replace(cell, state="failed", why=f"{what}{answer.why}", run=None)


class _Clock:
    """How long the rest takes: what was expected of it, corrected by what the clock said so far, the more the longer."""

    def __init__(self, expected: float, workers: int) -> None:
        self._started = time.perf_counter()
        self._left, self._done, self._workers = expected, 0.0, workers

    def count(self, seconds: float) -> None:
        """Count a task as done of which so many seconds were expected."""
        self._left, self._done = max(self._left - seconds, 0.0), self._done + seconds

    @property
    def left(self) -> float:
        """Seconds, all workers being at work."""
        worked = (time.perf_counter() - self._started) * self._workers
        return self._left * (worked + _TRUSTED) / (self._done + _TRUSTED) / self._workers
