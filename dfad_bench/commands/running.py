"""The command ``run``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfad_bench import console
from dfad_bench.commands.options import DataOption, EngineOption, FormatOption, data_folder, show
from dfad_bench.commands.running_many import run_many
from dfad_bench.console import Format
from dfad_bench.engines import EngineName, build_engine
from dfad_bench.errors import INCOMPLETE

if TYPE_CHECKING:
    from dfad_bench.evaluation import Outcome
    from dfad_bench.planning import Request


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
    runs: Annotated[
        str,
        typer.Option(
            "--runs",
            help="Where runs are kept: a folder, or a URL such as s3://bucket/prefix. Several machines may share it.",
        ),
    ] = "runs",
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
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Under torchrun: each rank holds a share of the model (FSDP2), not all of it."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run anew what is finished.")] = False,
    engine: EngineOption = EngineName.local,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            min=1,
            max=65536,
            help="Cells, or their perturbed levels, that are done side by side. With ray, and a single cell: models that "
            "train and test together.",
            show_default="1; with ray, all there is room for",
        ),
    ] = None,
    gpus_per_replica: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-replica",
            min=0,
            help="With ray: 0.25 lets four share a GPU.",
            show_default="1 where this machine runs models on CUDA, else 0",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="End without the cells that other machines are at work on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do and how long it takes.")] = False,
    format: FormatOption = Format.human,
) -> None:
    """Train a model where it has no weights, predict the protocol's test faces, score, record.

    With --perturb, the same weights then meet the test faces perturbed, and the scores become curves. Several models,
    protocols or seeds are a list of cells: finished ones are kept, those whose data or weights are missing are named.
    Under torchrun (--nproc-per-node 4 --no-python dfad-bench run …) the ranks share every batch.
    """
    from dfad_bench import weights as published
    from dfad_bench.dispatch import Dispatch
    from dfad_bench.modelling.device import pick_device
    from dfad_bench.modelling.distributed import joined
    from dfad_bench.planning import Request
    from dfad_bench.stores import Store

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
    store = Store(runs)
    request = Request(
        model=model,
        protocol=protocol,
        data=data_folder(data),
        runs=store.folder,
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
        shard=shard,
    )
    perturbations = list(_each(perturb or ()))
    with joined(console.fail) as ranks:
        if not ranks.is_first:
            console.silence()
        is_list = dry_run or seeds > 1 or not all(_is_one(each) for each in (model, protocol))
        if gpus_per_replica is None:
            gpus_per_replica = float(engine is EngineName.ray and pick_device(device).type == "cuda")
        chosen = build_engine(engine, replicas, gpus_per_replica)
        if is_list or not store.is_here or (engine is EngineName.local and not chosen.is_here):
            how = Dispatch(store, chosen, waits=not no_wait)
            several = range(seed, seed + seeds)
            is_complete = run_many(request, model, protocol, several, perturbations, how, dry_run, format)
        else:
            is_complete = _run_one(replace(request, engine=chosen), perturbations, format)
    if not is_complete:
        raise typer.Exit(INCOMPLETE)


def _run_one(request: Request, perturbations: Sequence[str], format: Format) -> bool:
    """Run one model and show what came of it; return whether every face was evaluated."""
    from dfad_bench.publish.robustness import robustness_tables
    from dfad_bench.publish.scores import result_tables
    from dfad_bench.robustness import Robust, run_perturbed
    from dfad_bench.run import run_model

    if perturbations:
        robust = run_perturbed(request, perturbations, console.progress)
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
    return robust.is_complete


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
