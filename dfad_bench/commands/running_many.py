"""The command ``run`` for more than one model, protocol or seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dfad_bench import console
from dfad_bench.commands.options import show
from dfad_bench.console import Format
from dfad_bench.errors import INCOMPLETE, UsageError, shorten

if TYPE_CHECKING:
    from dfad_bench.planning import Request
    from dfad_bench.publish.tables import Table
    from dfad_bench.work_list import Cell

SEEDS = "seeds.json"
"""In the folder of a protocol's runs: what all its finished models scored over seeds."""


def run_many(
    request: Request,
    models: str,
    protocols: str,
    seeds: Sequence[int],
    perturbations: Sequence[str],
    dry_run: bool,
    format: Format,
) -> None:
    """Run every model on every protocol with every seed; finished cells are kept, what cannot run is listed with its reason.

    Raises typer.Exit with INCOMPLETE where something that was asked for by name is missing, or failed.
    """
    from dfad_bench import registry
    from dfad_bench.work_list import ALL, named, plan_cells, run_cells, told_time

    asked_models = named(models, list(registry.entries("models")))
    _require_one_model(request, asked_models, seeds)
    asked_protocols = named(protocols, list(registry.entries("protocols")))
    cells = plan_cells(
        request, asked_models, asked_protocols, seeds, perturbations, console.progress, fetch=not dry_run
    )
    waiting = [cell for cell in cells if cell.state == "to do"]
    if format is Format.human:
        show(_plan_table(cells))
    ahead = (
        f", {told_time(sum(cell.seconds or 0.0 for cell in waiting))} if no training ends early; scoring comes on top"
    )
    console.note(f"{len(waiting)} of {len(cells)} to do{ahead if waiting else ''}.")
    if not dry_run:
        cells = list(run_cells(cells, perturbations, console.progress, console.note))
    records = [] if dry_run else list(_write_seeds(cells))
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
    if not dry_run and not all(_is_complete(cell) or cell.state in forgiven for cell in cells):
        raise typer.Exit(INCOMPLETE)


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


def _is_complete(cell: Cell) -> bool:
    return cell.outcome is not None and cell.outcome.is_complete


def _plan_table(cells: Sequence[Cell]) -> Table:
    """Return one row per model, protocol and state; reasons that several share stand below once."""
    from dfad_bench.publish.tables import NONE, Notes, Table
    from dfad_bench.work_list import told_time

    def key(cell: Cell) -> tuple[str, str, str, str]:
        return cell.request.protocol, cell.state, cell.name, cell.why or ""

    rows, notes = [], Notes()
    for (protocol, state, name, why), alike in itertools.groupby(sorted(cells, key=key), key=key):
        group = list(alike)
        seeds = ", ".join(str(cell.request.seed) for cell in group)
        seconds = sum(cell.seconds or 0.0 for cell in group)
        told = f"{state} {notes.mark(why.removesuffix('.'))}" if why else state
        rows.append((name, protocol, seeds, told, told_time(seconds) if state == "to do" else NONE))
    columns = ("model", "protocol", "seeds", "state", "time")
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
        "state": cell.state,
        "why": cell.why,
        "seconds": cell.seconds,
        "folder": None if folder is None else str(folder),
    }
