"""The commands ``score`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import FormatOption, show
from dfad_bench.console import Format

if TYPE_CHECKING:
    pass

ResamplesOption = Annotated[
    int, typer.Option("--resamples", min=0, max=100_000, help="Resamples for the intervals; 0: none.")
]
ClusterOption = Annotated[
    str,
    typer.Option(
        "--cluster-by",
        help="What is resampled: auto (whom a face shows, and its video), identity, video or face.",
    ),
]
PoolingOption = Annotated[
    str | None,
    typer.Option(
        "--pooling", help="How frames become a video's score: mean, median or top<k>.", show_default="the protocol's"
    ),
]
SeedOption = Annotated[int, typer.Option("--resampling-seed", min=0, help="Which resamples.")]


def score(
    predictions: Annotated[Path, typer.Argument(help="A predictions.parquet.")],
    resamples: ResamplesOption = 1000,
    cluster_by: ClusterOption = "auto",
    pooling: PoolingOption = None,
    seed: SeedOption = 0,
    format: FormatOption = Format.human,
) -> None:
    """Recompute every number of a run from its predictions; needs neither torch nor a GPU nor the faces."""
    from dfad_bench.publish.scores import report_tables
    from dfad_bench.records.predictions import read_predictions
    from dfad_bench.scoring.score import Options
    from dfad_bench.scoring.score import score as compute

    read = read_predictions(predictions)
    with console.progress("scoring") as bar:
        report = compute(read, Options(resamples, cluster_by, pooling, seed), bar)
    if format is Format.json:
        console.show_json(
            {
                "scoring": report.scoring.model_dump(),
                "scores": [each.model_dump() for each in report.scores],
                "details": report.details.model_dump(),
            }
        )
    else:
        title = f"{read.context.model} on {read.context.protocol}"
        for table in report_tables(title, report.scores, report.scoring, read.context.protocol_warning):
            show(table)


def compare() -> None:
    pass
