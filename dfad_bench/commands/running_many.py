"""The command ``run`` for more than one model, protocol or seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfad_bench import console
from dfad_bench.commands.options import show
from dfad_bench.console import Format
from dfad_bench.errors import UsageError, shorten

if TYPE_CHECKING:
    from dfad_bench.cells import Cell
    from dfad_bench.dispatch import Dispatch
    from dfad_bench.planning import Request
    from dfad_bench.publish.tables import Table

SEEDS = "seeds.json"
"""In the folder of a protocol's runs: what all its finished models scored over seeds."""


def run_many(
    request: Request,
    models: str,
    protocols: str,
    seeds: Sequence[int],
    perturbations: Sequence[str],
    how: Dispatch,
    dry_run: bool,
    format: Format,
) -> bool:
    """Run every model on every protocol with every seed; finished cells are kept, what cannot run is listed with its reason.

    request: with the folder of ``how``'s store for its runs.

    Return whether all is there that was asked for by name.
    """
    from dfad_bench import registry
    from dfad_bench.dispatch import run_cells
    from dfad_bench.modelling.distributed import current
    from dfad_bench.shared_runs import bring_results
    from dfad_bench.work_list import ALL, named, plan_cells, told_time

    asked_models = named(models, list(registry.entries("models")))
    _require_one_model(request, asked_models, seeds)
    if current().are_several and not (how.engine.is_here and how.store.is_here):
        raise UsageError(
            "Under torchrun all ranks do one cell after the other: leave --engine and --replicas away, and let --runs be a "
            "folder that all ranks share."
        )
    how.store.check()
    asked_protocols = named(protocols, list(registry.entries("protocols")))
    cells = plan_cells(
        request,
        asked_models,
        asked_protocols,
        seeds,
        perturbations,
        console.progress,
        fetch=not dry_run,
        store=how.store,
        lenient=models == ALL,
    )
    waiting = [cell for cell in cells if cell.state == "to do"]
    if format is Format.human:
        show(_plan_table(cells))
    longest = max((_longest_task(cell) for cell in waiting), default=0.0)
    workers = how.engine.size() if waiting and not dry_run else 1
    expected = max(sum(cell.seconds or 0.0 for cell in waiting) / workers, longest)
    ahead = f", {told_time(expected)} if no training ends early; scoring comes on top"
    console.note(f"{len(waiting)} of {len(cells)} to do{ahead if waiting else ''}.")
    if not dry_run:
        cells = list(run_cells(cells, how, console.progress, console.note))
    records = []
    if not dry_run and current().is_first:
        protocols_done = {cell.outcome.clean.folder.parent.parent for cell in cells if cell.outcome is not None}
        for folder in sorted(protocols_done):
            bring_results(how.store, how.store.relative(folder))
        records = list(_write_seeds(cells))
        for folder in () if how.store.is_here else sorted(protocols_done):
            how.store.send(how.store.relative(folder / SEEDS))
    if format is Format.json:
        told = {"cells": [_as_json(cell) for cell in cells], "seeds": [record for _, record in records]}
        console.show_json(told)
    else:
        for table, _ in records:
            show(table)
        if waiting and not dry_run:
            show(_plan_table(cells))
    forgiven = {"needs weights"} if models == ALL else set()
    forgiven |= {"needs data"} if protocols == ALL else set()
    return dry_run or all(_is_complete(cell) or cell.state in forgiven for cell in cells)


def _require_one_model(request: Request, models: Sequence[str], seeds: Sequence[int]) -> None:
    given = {
        "--set": bool(request.settings),
        "--backbone-weights": request.backbone_weights is not None,
        "--weights": request.weights is not None,
    }
    for option, is_given in given.items():
        if is_given and len(models) > 1:
            raise UsageError(f"{option} is about one model, and {len(models)} are named. Run that one by itself.")
    if request.weights is not None and len(seeds) > 1:
        raise UsageError("--weights come from one training, so that seeds change nothing. Leave --seeds away.")


def _longest_task(cell: Cell) -> float:
    """Return how long the longest part of a cell takes, of those that can be done side by side."""
    levels = cell.level_seconds * (len(cell.levels) - cell.levels_finished)
    return max((cell.seconds or 0.0) - levels, min(levels, cell.level_seconds))


def _is_complete(cell: Cell) -> bool:
    return cell.outcome is not None and cell.outcome.is_complete


def _plan_table(cells: Sequence[Cell]) -> Table:
    """Return one row per model, protocol and state; reasons that several share stand below once."""
    from dfad_bench.publish.tables import NONE, Notes, Table
    from dfad_bench.work_list import told_time

    def key(cell: Cell) -> tuple[str, str, str, str]:
        return cell.request.protocol, cell.state, cell.name, cell.why or ""

    perturbed = any(cell.levels for cell in cells)
    rows, notes = [], Notes()
    for (protocol, state, name, why), alike in itertools.groupby(sorted(cells, key=key), key=key):
        group = list(alike)
        seeds = ", ".join(str(cell.request.seed) for cell in group)
        seconds = sum(cell.seconds or 0.0 for cell in group)
        told = f"{state} {notes.mark(why.removesuffix('.'))}" if why else state
        asked, finished = (sum(each) for each in zip(*((len(c.levels), c.levels_finished) for c in group), strict=True))
        levels = (f"{finished} of {asked}" if asked else NONE,) if perturbed else ()
        rows.append((name, protocol, seeds, *levels, told, told_time(seconds) if state == "to do" else NONE))
    columns = ("model", "protocol", "seeds", *(("levels",) if perturbed else ()), "state", "time")
    return Table(f"{len(cells)} cells", columns, tuple(rows), tuple(notes.lines()))


def _write_seeds(cells: Sequence[Cell]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Write what all runs in every protocol's folder say together, and yield it as a table and as JSON."""
    from dfad_bench.publish.seeds import seeds_table
    from dfad_bench.records.seeds import write_seeds
    from dfad_bench.scoring.seeds import over_seeds
    from dfad_bench.work_list import comparable_runs

    for folder, results, left_out in comparable_runs(cells):
        record = over_seeds(results)
        write_seeds(folder / SEEDS, record)
        console.note(f"Wrote {folder / SEEDS}.")
        for reason, runs in left_out.items():
            console.note(f"Not in it: {shorten(runs)} ({reason}).")
        yield seeds_table(record), record.model_dump()


def _as_json(cell: Cell) -> dict[str, Any]:
    folder: Path | None = None if cell.outcome is None else cell.outcome.clean.folder
    return {
        "model": cell.name,
        "protocol": cell.request.protocol,
        "seed": cell.request.seed,
        "key": cell.key,
        "levels": len(cell.levels),
        "levels_finished": cell.levels_finished,
        "state": cell.state,
        "why": cell.why,
        "seconds": cell.seconds,
        "folder": None if folder is None else str(folder),
    }
