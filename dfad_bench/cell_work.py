"""One piece of work of a list, wherever it is done: locked, claimed, brought from the store, done, and sent there."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from dfad_bench import weights as published
from dfad_bench.cells import AskedLevel, Cell, cell_key
from dfad_bench.claims import ClaimedElsewhere, Place
from dfad_bench.errors import DataError
from dfad_bench.evaluation import Outcome
from dfad_bench.modelling.distributed import current, is_agreed
from dfad_bench.planning import Request, Run, ShowProgress, planned, selected, silently
from dfad_bench.records.results import Result
from dfad_bench.records.selection import Selection
from dfad_bench.robustness import ROBUSTNESS, finished_level, level_folder, run_level, with_weights, write_curves
from dfad_bench.run import Locked, finished_before, locked, run_planned
from dfad_bench.shared_runs import TrainingSender, bring_levels, bring_result, bring_work, send_run
from dfad_bench.stores import Store
from dfad_bench.work_list import told_error


@dataclass(frozen=True, slots=True)
class Task:
    """A cell's run on faces as they are, or one of its perturbed levels; ``place``: the cell's in its list."""

    place: int
    request: Request
    level: AskedLevel | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a task ended; ``folder``: what of the store somebody else has claimed; ``bug``: a traceback."""

    task: Task
    state: Literal["finished", "elsewhere", "failed"]
    why: str | None = None
    folder: str = ""
    bug: str | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """What all workers of one call know: where runs are kept, its name among all calls, when a silent machine is dead."""

    store: Store
    worklist: str
    stale: float

    def place(self, relative: str) -> Place:
        """Return what is claimed by whoever works in a folder of the store."""
        return Place(self.store.fs, self.store.path(relative), self.stale)


def build_stage(sharing: Sharing) -> Stage:
    """Return the stage of a worker process: it shows nothing, and keeps to one thread since there are others beside it."""
    torch.set_num_threads(1)
    return Stage(sharing, silently)


class Stage:
    """Does one task after the other; what several have in common is kept: faces, a cell's plan, the last module.

    A task that fails, through whatever fault, is an answer. What another process or machine is at work on is left to it.
    """

    def __init__(self, sharing: Sharing, progress: ShowProgress) -> None:
        self._sharing, self._store, self._progress = sharing, sharing.store, progress
        self.runs: dict[int, Run] = {}
        """What is planned already, by place."""
        self._selections: dict[tuple[str, Path, int | None], Selection] = {}
        self._module: tuple[object, nn.Module] | None = None

    def __call__(self, task: Task) -> Answer:
        """Do a task; what is finished already is not done again."""
        return self._answer(task, partial(self._do, task))

    def conclude(self, place: int, cell: Cell) -> Answer:
        """Write what all levels of a cell say together."""
        return self._answer(Task(place, cell.request), partial(self._conclude, place, cell))

    def _answer(self, task: Task, doing: Callable[[], None]) -> Answer:
        try:
            doing()
        except _Elsewhere as error:
            return Answer(task, "elsewhere", str(error), error.folder)
        except Exception as error:  # a bug may be in one model, a third party's
            if not is_agreed(error):
                raise
            why, is_bug = told_error(error)
            return Answer(task, "failed", why, bug=traceback.format_exc() if is_bug else None)
        finally:
            torch.cuda.empty_cache()
        return Answer(task, "finished")

    def _do(self, task: Task) -> None:
        run = self._planned(task)
        if task.level is None:
            self._run(run)
        else:
            self._run_level(run, task.level)

    def _planned(self, task: Task) -> Run:
        request = replace(task.request, runs=self._store.folder)
        if request.offline:
            published.forbid_downloads()
        if task.place not in self.runs:
            faces = (request.protocol, request.data, request.limit)
            if faces not in self._selections:
                self._selections[faces] = selected(request, self._progress)
            self.runs[task.place] = planned(request, self._progress, self._selections[faces])
        return replace(self.runs[task.place], request=request)

    def _run(self, run: Run) -> None:
        folder, ranks = self._store.relative(run.folder), current()
        sender = TrainingSender(self._store, folder)
        with self._alone(run, run.folder, lambda: cell_key(run), sender.send) as check:
            if run.request.overwrite:
                ranks.first_says(lambda: None if self._store.is_here else self._store.remove(folder))
            ranks.first_says(lambda: bring_work(self._store, folder))
            run_planned(run, self._progress)
            sender.end()
            ranks.first_says(lambda: self._send(folder, check))

    def _run_level(self, run: Run, level: AskedLevel) -> None:
        asked, record = level
        folder, ranks = level_folder(run.folder, record), current()
        relative = self._store.relative(folder)
        with self._alone(run, folder, lambda: cell_key(run, [record])) as check:
            ranks.first_says(lambda: bring_result(self._store, relative))
            clean, module = self._with_weights(run)
            earlier = ranks.first_says(lambda: finished_level(folder, clean))
            if earlier is None or earlier.perturbation != record:
                run_level(run, module, clean, asked, record, self._progress)
            ranks.first_says(lambda: self._send(relative, check))

    def _with_weights(self, run: Run) -> tuple[Result, nn.Module]:
        ours = None if self._module is None else self._module[0]
        clean = None if ours is None else finished_before(run)
        if clean is None or ours != (run.folder, clean.result.model):
            current().first_says(lambda: bring_work(self._store, self._store.relative(run.folder)))
            clean = _require_finished(run)
            self._module = None  # before the next one is built: two may be too much for the device
            self._module = ((run.folder, clean.result.model), with_weights(run, clean.result))
        assert self._module is not None
        return clean.result, self._module[1]

    def _conclude(self, place: int, cell: Cell) -> None:
        run, store = replace(self.runs[place], request=cell.request), self._store
        folder = store.relative(run.folder)
        current().first_says(lambda: bring_result(store, folder))
        clean = _require_finished(run)
        if not cell.levels:
            return
        with self._alone(run, run.folder, lambda: cell_key(run)):

            def write() -> None:
                bring_levels(store, folder, anew=False)
                write_curves(run.folder, clean.result)
                if not store.is_here:
                    store.send(f"{folder}/{ROBUSTNESS}")

            current().first_says(write)

    @contextmanager
    def _alone(
        self, run: Run, folder: Path, key: Callable[[], str], meanwhile: Callable[[], None] = lambda: None
    ) -> Iterator[Callable[[], bool]]:
        """Keep other processes and machines away from a folder; yield a function that says whether it is still ours.

        Of several ranks the first one claims, and may call it.
        """
        relative = self._store.relative(folder)
        place, claims = self._sharing.place(relative), list[Callable[[], bool]]()
        with ExitStack() as held:

            def claim() -> None:
                claimed = place.claimed(key(), str(folder.absolute()), self._sharing.worklist, meanwhile)
                claims.append(held.enter_context(claimed))

            try:
                held.enter_context(locked(replace(run, folder=folder)))
                current().first_says(claim)
            except Locked:
                raise _Elsewhere("another process of this machine", relative) from None
            except ClaimedElsewhere as error:
                raise _Elsewhere(str(error), relative) from None
            yield lambda: claims[0]()

    def _send(self, folder: str, is_ours: Callable[[], bool]) -> None:
        if self._store.is_here:
            return
        if not is_ours():
            raise _Elsewhere("a machine that took it over from this one", folder)
        send_run(self._store, folder)


class _Elsewhere(Exception):
    """Somebody else is at work on a folder of the store."""

    def __init__(self, by: str, folder: str = "") -> None:
        super().__init__(by)
        self.folder = folder


def _require_finished(run: Run) -> Outcome:
    clean = finished_before(run)
    if clean is None:
        raise DataError(
            f"{run.folder} was finished where it ran, and is not here. "
            "Let --runs be a folder that all workers share, or the URL of an object store."
        )
    return clean
