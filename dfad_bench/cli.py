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
from dfad_bench.commands import exporting, gaze, leaderboard, listing, packing, reporting, running, scoring, taking_down
from dfad_bench.commands.options import (
    DataOption,
    EngineOption,
    FormatOption,
    GpusOption,
    WorkersOption,
    data_folder,
    show,
)
from dfad_bench.console import Format
from dfad_bench.engines import EngineName
from dfad_bench.errors import FAILED, INTERRUPTED, DfadError, UsageError


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
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(exporting.app, name="export")


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
def doctor(
    verify: Annotated[bool, typer.Option("--verify", help="Hash the published weights that are here.")] = False,
    runs: Annotated[Path, typer.Option("--runs", help="Where runs are kept.")] = Path("runs"),
    format: FormatOption = Format.human,
) -> None:
    """Look at this installation: versions, GPU, conflicts, plugins, weights, folders, and what can run."""
    from dfad_bench.doctor import examine

    findings = examine(verify, runs)
    if format is Format.json:
        console.show_json([dataclasses.asdict(finding) for finding in findings])
    else:
        # A file that is missing stands with whatever needs it.
        told = [f for f in findings if not (f.what.startswith("weights file") and f.status == "note")]
        shown = [(f.what, f.status, f.detail if f.mend is None else f"{f.detail}\n→ {f.mend}") for f in told]
        console.show_table("doctor", ("what", "status", "detail"), shown)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(FAILED)


app.command("list")(listing.list_)
app.command()(listing.schema)
app.command()(data_commands.prepare)
app.command()(data_commands.audit)
app.command()(packing.pack)
app.command("take-down")(taking_down.take_down)


app.command()(running.run)
app.command()(scoring.score)
app.command()(scoring.compare)
app.command("gaze-fid")(gaze.gaze_fid)
app.command()(reporting.report)


@app.command()
def check(
    kind: Annotated[
        str, typer.Argument(help="model, metric, perturbation, source, protocol, manifest, predictions or result.")
    ],
    target: Annotated[str, typer.Argument(help="A registered name, or a path.")],
    root: Annotated[Path | None, typer.Option("--root", help="For a source: where its files lie.")] = None,
    data: DataOption = None,
    engine: EngineOption = EngineName.local,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = 0.0,
) -> None:
    """Check a plugin against its contract, or a file against its promises; a manifest's crops by as many workers as asked."""
    from dfad_bench.checks import CHECKS
    from dfad_bench.engines import build_engine

    if kind not in CHECKS:
        raise UsageError(f"There is no check for {kind!r}. Choose one of {', '.join(CHECKS)}.")
    with console.progress(f"checking {target}") as bar:
        problems = CHECKS[kind](target, root, data_folder(data), bar, build_engine(engine, workers, gpus_per_worker))
    for problem in problems[:20]:
        console.fail(problem)
    if problems:
        raise DfadError(f"{kind} {target}: {len(problems)} problem{'s' if len(problems) > 1 else ''}.")
    console.note(f"{kind} {target} is sound.")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where everything is written.")] = Path("demo"),
    faces: Annotated[int, typer.Option("--faces", min=60, help="Demo faces to render.")] = 720,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that render, then train.")] = 2,
) -> None:
    """Prepare the demo faces, run the built-in models, show the leaderboard. No download, no GPU."""
    from dfad_bench.demo import run_demo

    for table in run_demo(folder, faces, workers, console.progress, console.note):
        show(table)
