"""The commands ``leaderboard …``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import FormatOption, show
from dfad_bench.console import Format
from dfad_bench.errors import DfadError, shorten

if TYPE_CHECKING:
    from dfad_bench.records.predictions import Predictions

app = typer.Typer(no_args_is_help=True, help="Collect results and write the tables.")
FolderOption = Annotated[Path, typer.Option("--folder", help="Where the leaderboard lies.")]
_FOLDER = Path("leaderboard")


@app.command()
def add(
    results: Annotated[list[Path], typer.Argument(help="The result.json of finished runs.")],
    folder: FolderOption = _FOLDER,
) -> None:
    """Copy results onto the leaderboard; a limited, dirty or incomplete one is refused with its reasons."""
    from dfad_bench.publish import leaderboard

    for result in results:
        console.note(f"added {leaderboard.add(result, folder / leaderboard.RESULTS)}")


@app.command()
def seeds(
    results: Annotated[list[Path], typer.Argument(help="The result.json of runs that differ in model and seed.")],
    folder: FolderOption = _FOLDER,
    format: FormatOption = Format.human,
) -> None:
    """Put what models score over several seeds onto the leaderboard, and how firm their order is."""
    from dfad_bench.publish import leaderboard
    from dfad_bench.publish.seeds import seeds_table
    from dfad_bench.records.results import read_result
    from dfad_bench.records.seeds import write_seeds
    from dfad_bench.scoring.seeds import over_seeds

    record = over_seeds([read_result(path) for path in results])
    path = folder / leaderboard.SEEDS / f"{record.protocol.name}.json"
    write_seeds(path, record)
    if format is Format.json:
        console.show_json(record.model_dump())
    else:
        show(seeds_table(record))
    console.note(f"Wrote {path}.")


@app.command()
def pairs(
    results: Annotated[
        list[Path], typer.Argument(help="The result.json of one run of each model, predictions beside it.")
    ],
    folder: FolderOption = _FOLDER,
    resamples: Annotated[int, typer.Option("--resamples", min=0, max=100_000)] = 1000,
    format: FormatOption = Format.human,
) -> None:
    """Test every pair of models on the same faces, and group those that nobody can tell apart."""
    from dfad_bench.publish import leaderboard
    from dfad_bench.publish.pairs import groups_table
    from dfad_bench.records.pairs import write_pairs
    from dfad_bench.records.results import read_result
    from dfad_bench.scoring.pairs import all_pairs
    from dfad_bench.scoring.score import Options

    runs = [(read_result(path), partial(_predictions, path)) for path in results]
    with console.progress("scoring models in the same resamples") as bar:
        record = all_pairs(runs, Options(resamples), bar)
    path = folder / leaderboard.PAIRS / f"{record.protocol.name}.json"
    write_pairs(path, record)
    if format is Format.json:
        console.show_json(record.model_dump())
    else:
        show(groups_table(record))
    console.note(f"Wrote {path}.")


@app.command()
def build(
    folder: FolderOption = _FOLDER,
    readme: Annotated[
        Path | None, typer.Option("--readme", help="Also renew the leaderboard region of this file.")
    ] = None,
    format: FormatOption = Format.human,
) -> None:
    """Write the leaderboard's pages from its results, seeds and pairs."""
    from dfad_bench.publish import leaderboard

    written = leaderboard.build(folder)
    if readme is not None:
        written.append(leaderboard.update_readme(readme, folder))
    if format is Format.json:
        console.show_json([str(path) for path in written])
    else:
        for table in leaderboard.tables(leaderboard.collect(folder / leaderboard.RESULTS)):
            show(table)
        console.note(f"Wrote {', '.join(map(str, written))}.")


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Results and predictions, <protocol>/<model>.json and .parquet.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The leaderboard they are to join.", show_default="the files' own")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="A leaderboard that the report compares with.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Also write what was found as Markdown.")] = None,
    format: FormatOption = Format.human,
) -> None:
    """Hold results against their predictions, their protocol and each other; nothing of a file is run.

    A result without predictions beside it is checked but for its scores, and named.
    """
    from dfad_bench.publish.leaderboard import RESULTS
    from dfad_bench.publish.pull_request import check_report
    from dfad_bench.publish.submission import check_submission, lost_predictions, not_recomputed
    from dfad_bench.records.json_files import write_text

    with console.progress("recomputing scores") as bar:
        problems = check_submission(files, bar, None if folder is None else folder / RESULTS)
    if against is not None:
        problems += lost_predictions(files, against / RESULTS)
    if report is not None:
        write_text(report, check_report(files, problems, (against or folder or _FOLDER) / RESULTS))
    if format is Format.json:
        console.show_json([{"path": str(each.path), "told": each.told} for each in problems])
    for problem in problems:
        console.fail(str(problem))
    if problems:
        raise DfadError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}.")
    if unseen := not_recomputed(files):
        told = shorten(f"{path.parent.name}/{path.name}" for path in unseen)
        console.warn(f"Not recomputed: no predictions beside {told}. Their numbers are taken on trust.")
    console.note("Nothing else is wrong with them." if unseen else "Nothing is wrong with them.")


@app.command()
def submit(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    output: Annotated[Path, typer.Option("--output", help="Where the files to send are put.")] = Path("submission"),
    folder: FolderOption = _FOLDER,
) -> None:
    """Put together what a run sends to the leaderboard, and the text of the pull request."""
    from dfad_bench.publish import leaderboard
    from dfad_bench.publish.pull_request import branch_commands
    from dfad_bench.publish.pull_request import submit as prepare

    with console.progress("recomputing scores") as bar:
        made = prepare(run, output, folder / leaderboard.RESULTS, bar)
    console.note(f"Wrote {made.result_path}, {made.predictions_path} and {made.text_path}.")
    for command in branch_commands(made, output.absolute(), Path.cwd()):
        print(command)


def _predictions(result: Path) -> Predictions:
    from dfad_bench.records.comparison import find_predictions
    from dfad_bench.records.predictions import read_predictions

    return read_predictions(find_predictions(result))
