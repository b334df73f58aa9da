"""The command ``run``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import DataOption, FormatOption, data_folder, show
from dfad_bench.commands.running_many import run_many
from dfad_bench.console import Format
from dfad_bench.errors import INCOMPLETE

if TYPE_CHECKING:
    from dfad_bench.run import Outcome


def run(
    model: Annotated[
        str,
        typer.Option(
            "--model", help="A registered model, several with commas between, all, or the path of a .py file."
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", help="A registered protocol, several with commas between, all, or the path of a .yaml file."
        ),
    ],
    data: DataOption = None,
    runs: Annotated[Path, typer.Option("--runs", help="Where runs are kept.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Two runs with one seed are identical on one CPU.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, --seed being the first.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Trained weights: test these, do not train.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A model's option, as option=value; each that differs from its default makes another row."
        ),
    ] = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(
            "--backbone-weights",
            help="What to start from: published weights that the model names, the path of a file, or none for random ones.",
            show_default="the model's own",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never download weights.")] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, show_default="the model's recipe")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, show_default="the model's recipe")] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            "--accumulate", min=1, help="Batches per step of the optimiser.", show_default="the model's recipe"
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", show_default="the model's recipe")] = None,
    backbone_learning_rate: Annotated[
        float | None,
        typer.Option(
            "--backbone-learning-rate",
            help="That of the parameters that came with published weights.",
            show_default="the model's recipe",
        ),
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(
            "--clip-norm", help="The highest norm of all gradients together.", show_default="the model's recipe"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="auto (bfloat16 on CUDA, float32 elsewhere), float32 or bfloat16.",
            show_default="the model's recipe",
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, max=256, help="Processes that load faces.")] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Faces per generator and split, for a try.")
    ] = None,
    perturb: Annotated[
        list[str] | None,
        typer.Option(
            "--perturb",
            help="Test under a perturbation too: jpeg:3, jpeg (severities 1 to 5), all, or the path of a .py file. "
            "Repeat it, or put commas between several.",
            show_default="none",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run anew what is finished.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do and how long it takes.")] = False,
    format: FormatOption = Format.human,
) -> None:
    """Train a model where it has no weights, predict the protocol's test faces, score, record.

    With --perturb, the same weights then meet the test faces perturbed, and the scores become curves. Several models,
    protocols or seeds are a list of cells: finished ones are kept, those whose data or weights are missing are named.
    """
    from dfad_bench import weights as published
    from dfad_bench.planning import Request
    from dfad_bench.publish.robustness import robustness_tables
    from dfad_bench.publish.scores import result_tables
    from dfad_bench.robustness import Robust, run_perturbed
    from dfad_bench.run import run_model

    if offline:
        published.forbid_downloads()
    published.report_downloads(console.progress)
    changes = {
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "backbone_learning_rate": backbone_learning_rate,
        "clip_norm": clip_norm,
        "precision": precision,
    }
    request = Request(
        model=model,
        protocol=protocol,
        data=data_folder(data),
        runs=runs,
        seed=seed,
        device=device,
        weights=weights,
        settings=settings or (),
        backbone_weights=backbone_weights,
        offline=offline,
        recipe_changes={name: value for name, value in changes.items() if value is not None},
        workers=workers,
        limit=limit,
        overwrite=overwrite,
    )
    if dry_run or seeds > 1 or not all(_is_one(each) for each in (model, protocol)):
        several = range(seed, seed + seeds)
        run_many(request, model, protocol, several, list(_each(perturb or ())), dry_run, format)
        return
    if perturb:
        robust = run_perturbed(request, _each(perturb), console.progress)
    else:
        robust = Robust(run_model(request, console.progress))
    outcome = robust.clean
    if outcome.finished_before:
        version = outcome.result.code.commit or outcome.result.code.version
        console.note(f"This run was finished before, by code {version[:12]}; --overwrite runs it anew.")
    _note_levels(robust.levels)
    result = outcome.result.model_dump()
    if format is Format.human:
        for table in result_tables(outcome.result):
            show(table)
        for table in [] if robust.curves is None else robustness_tables(robust.curves):
            show(table)
        console.note(f"Recorded in {outcome.folder}.")
    elif robust.curves is None:
        console.show_json(result)
    else:
        console.show_json({"result": result, "robustness": robust.curves.model_dump()})
    if not robust.is_complete:
        raise typer.Exit(INCOMPLETE)


def _is_one(name: str) -> bool:
    """Return whether a name stands for itself; a file may have a comma in its own."""
    return Path(name).is_file() or not (name == "all" or "," in name)


def _each(perturbations: Sequence[str]) -> Iterator[str]:
    """Yield what is asked for, one by one; a file may have a comma in its name."""
    for text in perturbations:
        is_file = any(Path(each).is_file() for each in (text, text.rpartition(":")[0]))
        yield from [text] if is_file else text.split(",")


def _note_levels(levels: Sequence[Outcome]) -> None:
    kept = sum(level.finished_before for level in levels)
    if kept:
        console.note(f"{kept} of {len(levels)} perturbed levels were finished before.")
