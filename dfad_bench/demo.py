"""The walk through everything, on faces that need no download: prepare, run, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dfad_bench import registry
from dfad_bench.planning import Request, ShowProgress
from dfad_bench.prepare import pipeline
from dfad_bench.prepare.options import build_job
from dfad_bench.prepare.plan import plan
from dfad_bench.publish import leaderboard
from dfad_bench.publish.report import report
from dfad_bench.publish.scores import result_tables
from dfad_bench.publish.tables import Table
from dfad_bench.records.json_files import write_text
from dfad_bench.run import RESULT, run_model
from dfad_bench.types import ModelSpec


def run_demo(
    folder: Path, faces: int, workers: int, progress: ShowProgress, note: Callable[[str], None]
) -> Iterator[Table]:
    """Prepare ``faces`` demo faces, run our own light models on the demo protocol and yield the tables.

    Every run gets a report, all of them a leaderboard. Finished work is kept.
    """
    job = build_job("demo", folder / "data", settings=[f"faces={faces}"], workers=workers)
    with progress(f"rendering and preparing {faces} demo faces") as bar:
        prepared = pipeline.prepare(job, plan(job), on_progress=bar)
    note(f"Prepared {sum(count.kept for count in prepared.generators)} faces in {prepared.root}.")
    board, reports = folder / "leaderboard", []
    for model in _light():
        request = Request(model=model, protocol="demo", data=job.data, runs=folder / "runs", device="cpu")
        outcome = run_model(request, progress)
        yield from result_tables(outcome.result)
        leaderboard.place(outcome.folder / RESULT, board / leaderboard.RESULTS)
        reports.append(outcome.folder / "report.html")
        with progress(f"reporting {model}") as bar:
            write_text(reports[-1], report(outcome.folder, faces=job.data, on_progress=bar))
    page = leaderboard.build(board)[0]
    yield from leaderboard.tables(leaderboard.collect(board / leaderboard.RESULTS))
    told = "\n".join(f"  {path}" for path in reports)
    note(f"A report of every run:\n{told}\nThe leaderboard, to open in a browser:\n  {page}")


def _light() -> list[str]:
    """Return the models that come with dfad-bench and say that they are light."""
    names = [name for name, entry in registry.entries("models").items() if entry.is_ours]
    specs: dict[str, ModelSpec] = {name: registry.get("models", name) for name in names}
    return [name for name, spec in specs.items() if spec.light]
