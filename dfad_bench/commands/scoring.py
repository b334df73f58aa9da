"""The commands ``score`` and ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import FormatOption, show
from dfad_bench.console import Format

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


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A predictions.parquet, a run's folder or its result.json.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The same of another run.")],
    resamples: ResamplesOption = 1000,
    cluster_by: ClusterOption = "auto",
    pooling: PoolingOption = None,
    seed: SeedOption = 0,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Only this one, such as eer or accuracy@val.", show_default="headline ones"),
    ] = None,
    subset: Annotated[
        list[str] | None, typer.Option("--subset", help="Only this test subset; 'all': unknown classes.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Also write every number to this JSON file.")] = None,
    format: FormatOption = Format.human,
) -> None:
    """Test whether two models differ on the same faces: paired bootstrap, DeLong, McNemar, Holm over the groups."""
    from dfad_bench.config import file_sha256
    from dfad_bench.publish.comparison import HEADLINE, HEADLINE_OF_DETECTION, comparison_tables
    from dfad_bench.records.comparison import find_predictions, write_comparison
    from dfad_bench.records.predictions import read_predictions
    from dfad_bench.records.results import PredictionsRecord
    from dfad_bench.scoring.compare import compare as compute
    from dfad_bench.scoring.score import Options

    file_a, file_b = find_predictions(a), find_predictions(b)
    read_a, read_b = read_predictions(file_a), read_predictions(file_b)
    options = Options(resamples, cluster_by, pooling, seed)
    metrics: Sequence[str] | None = metric
    if not metric and output is None and format is Format.human:  # what is not shown need not be computed
        metrics = HEADLINE_OF_DETECTION if read_a.logits is None or read_b.logits is None else HEADLINE
    with console.progress("comparing") as bar:
        compared = compute(read_a, read_b, options, metrics=metrics, subsets=subset, on_progress=bar)
    comparison = compared.record(
        PredictionsRecord(sha256=file_sha256(file_a), rows=len(read_a)),
        PredictionsRecord(sha256=file_sha256(file_b), rows=len(read_b)),
    )
    if output is not None:
        write_comparison(output, comparison)
        console.note(f"Wrote {output}.")
    if format is Format.json:
        console.show_json(comparison.model_dump())
    else:
        for table in comparison_tables(comparison, metric):
            show(table)
