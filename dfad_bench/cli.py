"""The command line: parse, call, print. Heavy imports stay inside the commands, so that --help is instant."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dfad_bench import console
from dfad_bench.commands import data as data_commands
from dfad_bench.commands import listing
from dfad_bench.commands.options import DataOption, FormatOption, data_folder, show
from dfad_bench.console import Format
from dfad_bench.errors import FAILED, INCOMPLETE, INTERRUPTED, DfadError, UsageError


class _Commands(TyperGroup):
    """Turns our errors into one line and an exit code; everything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DfadError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            console.fail(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            again = shlex.join(["dfad-bench", *sys.argv[1:]])
            console.fail(f"Interrupted. What was finished is kept; go on with: {again}")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prepare faces, run models, score them, publish the table. Face-forgery attribution and detection, recomputable.",
)
leaderboard_app = typer.Typer(no_args_is_help=True, help="Collect results and write the tables.")
app.add_typer(leaderboard_app, name="leaderboard")


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        print(importlib.metadata.version("dfad-bench"))
        raise typer.Exit


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and every log message.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""
    console.log_to_stderr(debug)


@app.command()
def doctor(format: FormatOption = Format.human) -> None:
    """Look at this installation: versions, GPU, conflicts, plugins, folders."""
    from dfad_bench.doctor import examine

    findings = examine()
    if format is Format.json:
        console.show_json([dataclasses.asdict(finding) for finding in findings])
    else:
        console.show_table("doctor", ("what", "status", "detail"), [(f.what, f.status, f.detail) for f in findings])
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(FAILED)


app.command("list")(listing.list_)
app.command()(data_commands.prepare)
app.command()(data_commands.audit)


@app.command()
def run(
    model: Annotated[str, typer.Option("--model", help="A registered model, or the path of a .py file.")],
    protocol: Annotated[str, typer.Option("--protocol", help="A registered protocol, or the path of a .yaml file.")],
    data: DataOption = None,
    runs: Annotated[Path, typer.Option("--runs", help="Where runs are kept.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Two runs with one seed are identical on one CPU.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Trained weights: test these, do not train.")
    ] = None,
    backbone_weights: Annotated[
        str, typer.Option("--backbone-weights", help="Published weights to start from, or none for random ones.")
    ] = "none",
    offline: Annotated[bool, typer.Option("--offline", help="Never download weights.")] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, show_default="the model's recipe")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, show_default="the model's recipe")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", show_default="the model's recipe")] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, max=256, help="Processes that load faces.")] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Faces per generator and split, for a try.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run anew what is finished.")] = False,
    format: FormatOption = Format.human,
) -> None:
    """Train a model where it has no weights, predict the protocol's test faces, score, record."""
    from dfad_bench.publish.tables import result_table
    from dfad_bench.run import Request, run_model

    changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    request = Request(
        model=model,
        protocol=protocol,
        data=data_folder(data),
        runs=runs,
        seed=seed,
        device=device,
        weights=weights,
        backbone_weights=backbone_weights,
        offline=offline,
        recipe_changes={name: value for name, value in changes.items() if value is not None},
        workers=workers,
        limit=limit,
        overwrite=overwrite,
    )
    outcome = run_model(request, console.progress)
    if outcome.finished_before:
        version = outcome.result.code.commit or outcome.result.code.version
        console.note(f"This run was finished before, by code {version[:12]}; --overwrite runs it anew.")
    if format is Format.json:
        console.show_json(outcome.result.model_dump())
    else:
        show(result_table(outcome.result))
        console.note(f"Recorded in {outcome.folder}.")
    if outcome.result.counts.evaluated < outcome.result.counts.declared:
        raise typer.Exit(INCOMPLETE)


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="A predictions.parquet.")],
    format: FormatOption = Format.human,
) -> None:
    """Recompute every number of a run from its predictions; needs neither torch nor a GPU nor the faces."""
    from dfad_bench.publish.tables import scores_table
    from dfad_bench.records.predictions import read_predictions
    from dfad_bench.scoring.score import score as compute

    read = read_predictions(predictions)
    with console.progress("scoring"):
        scores = compute(read)
    if format is Format.json:
        console.show_json([each.model_dump() for each in scores])
    else:
        show(scores_table(f"{read.context.model} on {read.context.protocol}", scores, read.context.protocol_warning))


@leaderboard_app.command("add")
def leaderboard_add(
    results: Annotated[list[Path], typer.Argument(help="The result.json of finished runs.")],
    into: Annotated[Path, typer.Option("--results", help="The leaderboard's results.")] = Path("leaderboard/results"),
) -> None:
    """Copy results onto the leaderboard; a limited, dirty or incomplete one is refused with its reasons."""
    from dfad_bench.publish.leaderboard import add

    for result in results:
        console.note(f"added {add(result, into)}")


@leaderboard_app.command("build")
def leaderboard_build(
    results: Annotated[Path, typer.Option("--results", help="The leaderboard's results.")] = Path(
        "leaderboard/results"
    ),
    output: Annotated[Path, typer.Option("--output", help="Where the tables go.")] = Path("leaderboard"),
    readme: Annotated[
        Path | None, typer.Option("--readme", help="Also renew the leaderboard region of this file.")
    ] = None,
    format: FormatOption = Format.human,
) -> None:
    """Write leaderboard.md and leaderboard.json from the results."""
    from dfad_bench.publish import leaderboard

    written = leaderboard.build(results, output)
    if readme is not None:
        written.append(leaderboard.update_readme(readme, results))
    if format is Format.json:
        console.show_json([str(path) for path in written])
    else:
        for table in leaderboard.tables(leaderboard.collect(results)):
            show(table)
        console.note(f"Wrote {', '.join(map(str, written))}.")


@app.command()
def check(
    kind: Annotated[str, typer.Argument(help="model, metric, source, protocol, manifest, predictions or result.")],
    target: Annotated[str, typer.Argument(help="A registered name, or a path.")],
    root: Annotated[Path | None, typer.Option("--root", help="For a source: where its files lie.")] = None,
    data: DataOption = None,
) -> None:
    """Check a plugin against its contract, or a file against its promises."""
    from dfad_bench.checks import CHECKS

    if kind not in CHECKS:
        raise UsageError(f"There is no check for {kind!r}. Choose one of {', '.join(CHECKS)}.")
    with console.progress(f"checking {target}") as bar:
        problems = CHECKS[kind](target, root, data_folder(data), bar)
    for problem in problems[:20]:
        console.fail(problem)
    if problems:
        raise DfadError(f"{kind} {target}: {len(problems)} problem{'s' if len(problems) > 1 else ''}.")
    console.note(f"{kind} {target} is sound.")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where everything is written.")] = Path("demo"),
    faces: Annotated[int, typer.Option("--faces", min=60, help="Demo faces to render.")] = 720,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that render.")] = 2,
) -> None:
    """Prepare the demo faces, run the built-in models, show the leaderboard. No download, no GPU."""
    from dfad_bench.demo import run_demo

    for table in run_demo(folder, faces, workers, console.progress, console.note):
        show(table)
