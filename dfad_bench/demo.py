"""The walk through everything, on faces that need no download: prepare, run, publish."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from dfad_bench import registry
from dfad_bench.engines.local import LocalEngine
from dfad_bench.evaluation import RESULT, Outcome
from dfad_bench.planning import Request, ShowProgress, silently
from dfad_bench.prepare import pipeline
from dfad_bench.prepare.options import build_job
from dfad_bench.prepare.plan import plan
from dfad_bench.publish import leaderboard
from dfad_bench.publish.report import PAGE, report
from dfad_bench.publish.scores import result_tables
from dfad_bench.publish.tables import Table
from dfad_bench.records.json_files import write_text
from dfad_bench.run import run_model
from dfad_bench.types import REAL, Leaf, ModelSpec


def run_demo(
    folder: Path, faces: int, workers: int, progress: ShowProgress, note: Callable[[str], None]
) -> Iterator[Table]:
    """Prepare ``faces`` demo faces, run our own light models on the demo protocol and yield the tables.

    Every run gets a report, all of them a leaderboard. Finished work is kept. workers: processes that render, then train.
    """
    job = build_job("demo", folder / "data", settings=[f"faces={faces}"], engine=LocalEngine(workers))
    with progress(f"rendering and preparing {faces} demo faces") as bar:
        prepared = pipeline.prepare(job, plan(job), on_progress=bar)
    note(f"Prepared {sum(count.kept for count in prepared.generators)} faces in {prepared.root}.")
    board, reports = folder / "leaderboard", []
    for outcome in _run_all(_light(), job.data, folder / "runs", workers, progress):
        yield from result_tables(outcome.result)
        leaderboard.place(outcome.folder / RESULT, board / leaderboard.RESULTS)
        reports.append(outcome.folder / PAGE)
    page = leaderboard.build(board)[0]
    yield from leaderboard.tables(leaderboard.collect(board / leaderboard.RESULTS))
    told = "\n".join(f"  {path}" for path in reports)
    note(f"A report of every run:\n{told}\nThe leaderboard, to open in a browser:\n  {page}")


def _run_all(models: Sequence[str], data: Path, runs: Path, workers: int, progress: ShowProgress) -> Iterator[Outcome]:
    """Yield the outcomes in order. Small models leave most of a core idle between two steps, so several run at a time.

    The longest begin first, and one more runs than ``workers``: otherwise a core would have nothing to do once the others
    have none left and the last long one still trains.
    """
    threads = max((os.cpu_count() or 1) // workers, 1)
    # Started anew rather than forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    at_a_time = workers + 1 if workers > 1 else 1
    with (
        progress(f"training, testing and reporting {len(models)} models") as bar,
        ProcessPoolExecutor(
            at_a_time, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool,
    ):
        started = {model: pool.submit(_run, model, data, runs) for model in sorted(models, key=_effort, reverse=True)}
        for done, model in enumerate(models):
            bar(done, len(models))
            yield started[model].result()


def _effort(model: str) -> int:
    """Return by what models are put in order: of networks like these, parameters and epochs tell which trains longest."""
    spec: ModelSpec = registry.get("models", model)
    module = spec.build((Leaf(REAL, REAL, REAL), Leaf("made", "gan", "efs")))
    return spec.recipe.epochs * sum(parameter.numel() for parameter in module.parameters())


def _run(model: str, data: Path, runs: Path) -> Outcome:
    """Run a model on the demo protocol and write its report."""
    request = Request(model=model, protocol="demo", data=data, runs=runs, device="cpu")
    outcome = run_model(request, silently)
    if not (outcome.finished_before and (outcome.folder / PAGE).is_file()):
        write_text(outcome.folder / PAGE, report(outcome.folder, faces=data))
    return outcome


def _light() -> list[str]:
    """Return the models that come with dfad-bench and say that they are light."""
    names = [name for name, entry in registry.entries("models").items() if entry.is_ours]
    specs: dict[str, ModelSpec] = {name: registry.get("models", name) for name in names}
    return [name for name, spec in specs.items() if spec.light]
