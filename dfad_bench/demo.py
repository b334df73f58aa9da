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
from dfad_bench.publish.scores import result_tables
from dfad_bench.publish.tables import Table
from dfad_bench.run import RESULT, run_model
from dfad_bench.types import ModelSpec


def run_demo(
    folder: Path, faces: int, workers: int, progress: ShowProgress, note: Callable[[str], None]
) -> Iterator[Table]:
    """Prepare ``faces`` demo faces, run our own light models on the demo protocol and yield the tables.

    Finished work is kept.
    """
    job = build_job("demo", folder / "data", settings=[f"faces={faces}"], workers=workers)
    with progress(f"rendering and preparing {faces} demo faces") as bar:
        report = pipeline.prepare(job, plan(job), on_progress=bar)
    note(f"Prepared {sum(count.kept for count in report.generators)} faces in {report.root}.")
    board = folder / "leaderboard"
    for model in _light():
        request = Request(model=model, protocol="demo", data=job.data, runs=folder / "runs", device="cpu")
        outcome = run_model(request, progress)
        yield from result_tables(outcome.result)
        leaderboard.place(outcome.folder / RESULT, board / leaderboard.RESULTS)
    written = leaderboard.build(board)
    note(f"Wrote {', '.join(map(str, written))}.")
    yield from leaderboard.tables(leaderboard.collect(board / leaderboard.RESULTS))


def _light() -> list[str]:
    """Return the models that come with dfad-bench and say that they are light."""
    names = [name for name, entry in registry.entries("models").items() if entry.is_ours]
    specs: dict[str, ModelSpec] = {name: registry.get("models", name) for name in names}
    return [name for name, spec in specs.items() if spec.light]
