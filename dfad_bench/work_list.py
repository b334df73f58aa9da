"""Models × protocols × seeds as a list of cells: what is finished, what can run and how long that takes, then all of it."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from dfad_bench import weights as published
from dfad_bench.errors import DfadError, UsageError, WeightsMissing
from dfad_bench.modelling.cost import Cost, measure
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.perturb import check_perturbable, parse_perturbations
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.planning import Request, Run, ShowProgress, planned, selected
from dfad_bench.records.results import Result, read_result
from dfad_bench.records.selection import Selection
from dfad_bench.robustness import Robust, run_perturbed
from dfad_bench.run import RESULT, finished_before, is_whole, locked, run_planned
from dfad_bench.types import WeightsFile

State = Literal["to do", "finished", "needs weights", "needs data", "cannot run", "failed"]
ALL = "all"
_TRUSTED = 120.0
"""Seconds after which the clock counts as much as what was expected."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one protocol with one seed, and how it stands.

    name: the model's row, its options included; why: what is missing or went wrong, in a line; seconds: how long its faces
    take if no training ends early, None where that is not known; outcome: what was found, once it is finished.
    """

    request: Request
    state: State
    name: str
    why: str | None = None
    seconds: float | None = None
    run: Run | None = None
    outcome: Robust | None = None


def named(asked: str, names: Sequence[str]) -> list[str]:
    """Return what ``all``, or names with commas between them, stand for; raise UsageError for one that is given twice."""
    if asked == ALL:
        return list(names)
    if Path(asked).is_file():
        return [asked]
    listed = [each.strip() for each in asked.split(",")]
    if doubled := next((each for each in listed if listed.count(each) > 1), None):
        raise UsageError(f"{doubled!r} is given twice in {asked!r}. Give it once.")
    return listed


def plan_cells(
    request: Request,
    models: Sequence[str],
    protocols: Sequence[str],
    seeds: Sequence[int],
    perturbations: Sequence[str],
    progress: ShowProgress,
    fetch: bool = True,
) -> list[Cell]:
    """Return every cell, in the order in which they are done: seed by seed, the quickest first.

    request: what all of them share; perturbations: texts for ``parse_perturbations``. What can be wrong is found out here
    and becomes a cell's state: data that are not prepared, published weights that are not on this machine and cannot be
    fetched. The time of each model is measured on a few faces. fetch: whether missing weights may be fetched for that.
    """
    levels = len(parse_perturbations(perturbations))
    cells: list[Cell] = []
    for protocol in protocols:
        try:
            selection = selected(replace(request, protocol=protocol), progress)
        except DfadError as error:
            everything = itertools.product(models, seeds)
            asked = [replace(request, model=model, protocol=protocol, seed=seed) for model, seed in everything]
            cells += [_stopped(each, "needs data", error) for each in asked]
            continue
        for model in models:
            asked = [replace(request, model=model, protocol=protocol, seed=seed) for seed in seeds]
            cells += _of_one_model(asked, selection, levels, progress, fetch)
    order = {"finished": 0, "to do": 1}
    return sorted(cells, key=lambda each: (order.get(each.state, 2), each.request.seed, each.seconds or 0.0))


def run_cells(
    cells: Sequence[Cell], perturbations: Sequence[str], progress: ShowProgress, note: Callable[[str], None]
) -> Iterator[Cell]:
    """Run what is to do and yield every cell as it then stands; after each, ``note`` is told what remains.

    A cell that fails, through whatever fault, leaves the others alone: its reason is told, and the traceback of a bug.
    """
    waiting = [cell for cell in cells if cell.state == "to do"]
    expected = spent = 0.0
    for place, cell in enumerate(cells):
        if cell.state != "to do":
            yield cell
            continue
        started = time.perf_counter()
        done = _run(cell, perturbations, progress)
        spent += time.perf_counter() - started
        expected += cell.seconds or 0.0
        yield done
        if done.state == "failed":
            note(f"{done.name} on {done.request.protocol}, seed {done.request.seed}, failed: {done.why}")
        left = [each for each in cells[place + 1 :] if each.state == "to do"]
        if left:
            # What the clock said corrects what was expected of the rest, the more the longer it ran.
            correction = (spent + _TRUSTED) / (expected + _TRUSTED)
            ahead = sum(each.seconds or 0.0 for each in left) * correction
            note(f"{len(waiting) - len(left)} of {len(waiting)} done, {told_time(ahead)} left.")


def told_time(seconds: float) -> str:
    """Return a time in the unit that suits it, such as ``about 12 min``."""
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _of_one_model(
    asked: Sequence[Request], selection: Selection, levels: int, progress: ShowProgress, fetch: bool
) -> Iterator[Cell]:
    """Yield one model's cells, all seeds on one protocol; it is measured once, and only where something is to do."""
    cost: Cost | None = None
    for request in asked:
        try:
            run = planned(request, progress, selection)
            if levels:
                check_perturbable(run.entry.name, run.spec)
            earlier = None if request.overwrite else finished_before(run)
            if earlier is not None and not levels:
                yield Cell(request, "finished", run.name, outcome=Robust(earlier))
                continue
            if fetch or request.offline:
                _fetch_weights(run)
            if cost is None:
                with progress(f"trying {run.name}"):
                    cost = _measured(run)
            seconds = levels * selection.test_faces * cost.predict
            seconds += 0.0 if earlier is not None else cost.seconds(selection, run.recipe)
            yield Cell(request, "to do", run.name, seconds=seconds, run=run)
        except WeightsMissing as error:
            yield _stopped(request, "needs weights", error)
        except Exception as error:  # noqa: BLE001  # see _stopped
            yield _stopped(request, "cannot run", error)


def _fetch_weights(run: Run) -> None:
    """Fetch what a run will start from: that it cannot be had is told before hours of work, and not after."""
    if run.backbone_weights == "none":
        return
    file = find_backbone(run.entry.name, run.spec, run.backbone_weights).file
    if isinstance(file, WeightsFile):
        published.fetch(file, run.request.offline)


def _measured(run: Run) -> Cost:
    """Return what a face costs; the weights do not matter for that, so none are loaded."""
    seed_everything(run.request.seed, run.device)
    return measure(run.spec.build(run.selection.classes), run.spec, run.selection, run.recipe, run.device)


def _run(cell: Cell, perturbations: Sequence[str], progress: ShowProgress) -> Cell:
    assert cell.run is not None, "a cell that is to do has been planned"
    try:
        if perturbations:
            outcome = run_perturbed(cell.request, perturbations, progress, cell.run)
        else:
            with locked(cell.run):
                outcome = Robust(run_planned(cell.run, progress))
    except Exception as error:  # noqa: BLE001  # see _stopped
        return replace(_stopped(cell.request, "failed", error), name=cell.name)
    finally:
        if cell.run.device.type == "cuda":
            torch.cuda.empty_cache()
    return replace(cell, state="finished", outcome=outcome, run=None)


def _stopped(request: Request, state: State, error: Exception) -> Cell:
    """Return a cell that an error stopped; the traceback of a bug is printed.

    A bug is no reason to stop the list: it may be in one model, a third party's, and would cost the night's other results.
    """
    why = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        why = "the device has too little memory; try a lower --batch-size"
    elif not isinstance(error, DfadError):
        traceback.print_exception(error)
        why = f"{type(error).__name__}: {why}"
    return Cell(request, state, request.model, why)


def comparable_runs(cells: Sequence[Cell]) -> Iterator[tuple[Path, list[Result], dict[str, list[str]]]]:
    """Yield the folder of every protocol's runs with all results in it that can be compared with those of finished cells.

    These are the cells' own and those of earlier calls: whole, on the same faces, and each of a model's seeds run alike (as
    in these cells, or else as its first seed). The third are those left out, by reason. Perturbed levels are not looked at.
    """
    folders: dict[Path, dict[Path, Result]] = {}
    for cell in cells:
        if cell.outcome is not None:
            clean = cell.outcome.clean
            folders.setdefault(clean.folder.parent.parent, {})[clean.folder] = clean.result
    for folder, here in folders.items():
        found, left_out = dict(here), dict[str, list[str]]()
        protocol = next(iter(here.values())).protocol
        settings = {result.model.name: result.config for result in here.values()}
        for path in sorted(folder.glob(f"*/seed-*/{RESULT}")):
            if path.parent in found:
                continue
            told = path.parent.relative_to(folder).as_posix()
            try:
                result = read_result(path)
            except DfadError:
                left_out.setdefault("damaged", []).append(told)
                continue
            if told != f"{result.model.name}/seed-{result.seed}":
                reason = "another run's result"
            elif result.protocol != protocol:
                reason = "other faces, or another version of the protocol"
            elif not is_whole(path.parent, result):
                reason = "predictions that the result was not computed from"
            elif settings.setdefault(result.model.name, result.config) != result.config:
                reason = "other settings than another seed's"
            else:
                found[path.parent] = result
                continue
            left_out.setdefault(reason, []).append(told)
        yield folder, list(found.values()), left_out
