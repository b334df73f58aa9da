"""Models × protocols × seeds as a list of cells: what is finished, what can run, and how long that takes."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from dfad_bench import weights as published
from dfad_bench.cells import AskedLevel, Cell, State, cell_key, standing
from dfad_bench.errors import DfadError, UsageError, WeightsMissing
from dfad_bench.evaluation import RESULT
from dfad_bench.modelling.cost import Cost, measure
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.distributed import current, is_agreed
from dfad_bench.modelling.perturb import check_perturbable, parse_perturbations
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.planning import Request, Run, ShowProgress, planned, selected
from dfad_bench.records.results import Result, read_result
from dfad_bench.records.selection import Selection
from dfad_bench.run import is_whole
from dfad_bench.shared_runs import bring_levels, bring_result
from dfad_bench.stores import Store
from dfad_bench.types import WeightsFile

ALL = "all"


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
    store: Store | None = None,
    lenient: bool = False,
) -> list[Cell]:
    """Return every cell, in the order in which they are done: seed by seed, the quickest first.

    request: what all of them share; perturbations: texts for ``parse_perturbations``. What can be wrong is found out here
    and becomes a cell's state: data that are not prepared, published weights that are not on this machine and cannot be
    fetched. The time of each model is measured on a few faces. fetch: whether missing weights may be fetched for that.
    store: where runs are kept, by default in the request's folder. lenient: a model that never looks at pixels is run
    without perturbations, and says so; otherwise it cannot run with any.
    """
    ranks = current()
    store = store or Store(str(request.runs))
    levels = [(level, level.record) for level in parse_perturbations(perturbations)]
    cells: list[Cell] = []
    for protocol in protocols:
        try:
            asked_of = replace(request, protocol=protocol)
            selection = ranks.together(partial(selected, asked_of, progress))
        except DfadError as error:
            if not is_agreed(error):
                raise
            everything = itertools.product(models, seeds)
            asked = [replace(request, model=model, protocol=protocol, seed=seed) for model, seed in everything]
            cells += [stopped(each, "needs data", error) for each in asked]
            continue
        for model in models:
            asked = [replace(request, model=model, protocol=protocol, seed=seed) for seed in seeds]
            cells += _of_one_model(asked, selection, levels, store, progress, fetch, lenient)
    order = {"finished": 0, "to do": 1}
    return sorted(cells, key=lambda each: (order.get(each.state, 2), each.request.seed, each.seconds or 0.0))


def told_time(seconds: float) -> str:
    """Return a time in the unit that suits it, such as ``about 12 min``."""
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _of_one_model(
    asked: Sequence[Request],
    selection: Selection,
    levels: Sequence[AskedLevel],
    store: Store,
    progress: ShowProgress,
    fetch: bool,
    lenient: bool,
) -> Iterator[Cell]:
    """Yield one model's cells, all seeds on one protocol; it is measured once, and only where something is to do."""
    cost: Cost | None = None
    ranks = current()
    for request in asked:
        try:
            run = ranks.together(partial(planned, request, progress, selection))
            perturbed, why = ranks.together(partial(_perturbed, run, levels, lenient))
            if not request.overwrite:
                ranks.first_says(partial(_bring, store, run, perturbed))
            found = standing(run, perturbed)
            key = ranks.first_says(partial(cell_key, run, [record for _, record in perturbed]))
            cell = Cell(request, "finished", run.name, key, why, levels=perturbed, outcome=found.outcome)
            if found.outcome is not None and not request.overwrite:
                yield replace(cell, levels_finished=len(perturbed))
                continue
            if fetch or request.offline:
                ranks.first_then_others(partial(_fetch_weights, run))
            if cost is None:
                with progress(f"trying {run.name}"):
                    cost = ranks.first_says(partial(_measured, run))
            anew = found.clean is None or request.overwrite
            missing = len(perturbed if anew else found.missing)
            of_a_level = selection.test_faces * cost.predict / ranks.world_size
            seconds = missing * of_a_level
            seconds += cost.seconds(selection, run.recipe) / ranks.world_size if anew else 0.0
            kept = len(perturbed) - missing
            yield replace(
                cell,
                state="to do",
                seconds=seconds,
                level_seconds=of_a_level,
                needs_run=anew,
                levels_finished=kept,
                run=run,
                outcome=None,
            )
        except WeightsMissing as error:
            yield stopped(request, "needs weights", error)
        except Exception as error:  # see stopped
            if not is_agreed(error):
                raise
            yield stopped(request, "cannot run", error)


def _perturbed(run: Run, levels: Sequence[AskedLevel], lenient: bool) -> tuple[Sequence[AskedLevel], str | None]:
    """Return the levels that a model is tested at, and why there are none where some were asked for."""
    if not levels:
        return (), None
    try:
        check_perturbable(run.entry.name, run.spec)
    except UsageError:
        if not lenient:
            raise
        return (), "without perturbations: it never looks at a face's pixels"
    return tuple(levels), None


def _bring(store: Store, run: Run, levels: Sequence[AskedLevel]) -> None:
    bring_result(store, store.relative(run.folder))
    if levels:
        bring_levels(store, store.relative(run.folder))


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


def stopped(request: Request, state: State, error: Exception) -> Cell:
    """Return a cell that an error stopped; the traceback of a bug is printed.

    A bug is no reason to stop the list: it may be in one model, a third party's, and would cost the night's other results.
    """
    if told_error(error)[1]:
        traceback.print_exception(error)
    return Cell(request, state, request.model, why=told_error(error)[0])


def told_error(error: Exception) -> tuple[str, bool]:
    """Return an error in a line, and whether it is a bug, whose traceback somebody will want to see."""
    why = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return "the device has too little memory; try a lower --batch-size", False
    return (why, False) if isinstance(error, DfadError) else (f"{type(error).__name__}: {why}", True)


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
