"""Model × protocol: train where there are no weights, predict, score, record.

Several ranks (``modelling.distributed``) run one model together: each calls the same functions and is given the same
answers, but the first alone reads and writes the run's folder, and scores.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import UsageError, shorten
from dfad_bench.evaluation import (
    LOCAL_PROTOCOL,
    PREDICTIONS,
    RESULT,
    Evaluation,
    Outcome,
    context_of,
    evaluate,
    has_local_protocol,
)
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.distributed import current
from dfad_bench.modelling.options import row_name
from dfad_bench.modelling.train import WEIGHTS, train
from dfad_bench.modelling.weights import Backbone, load_backbone, load_weights, save_weights
from dfad_bench.planning import Request, Run, ShowProgress, planned, portable, silently
from dfad_bench.records.predictions import Context, read_context
from dfad_bench.records.results import (
    ModelRecord,
    Result,
    read_result,
)
from dfad_bench.records.selection import Selection
from dfad_bench.types import Recipe


def run_model(request: Request, progress: ShowProgress) -> Outcome:
    """Run one model on one protocol and record it; what an earlier call finished is not done again.

    Everything that can be wrong with the request is said before work starts. Several ranks call it alike, in a process
    group that torchrun's or Ray Train's workers have formed. Raises UsageError where the folder holds a run of another
    configuration, and whatever the stages raise.
    """
    run = current().together(lambda: planned(request, progress))
    with locked(run):
        return run_planned(run, progress)


class Locked(UsageError):
    """Another process of this machine is writing to the folder of a run."""


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep every other process away from the folder of a run; raise UsageError where one is writing to it."""
    lock = FileLock(run.folder.with_name(f".{run.folder.name}.lock"), timeout=0)

    def acquire() -> None:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise Locked(
                f"Another dfad-bench is writing to {run.folder}. Wait, or choose another --runs folder."
            ) from None

    current().first_says(acquire)
    try:
        yield
    finally:
        lock.release()


def run_planned(run: Run, progress: ShowProgress) -> Outcome:
    """Do what ``run_model`` does, the request being checked and the folder locked."""
    request, ranks = run.request, current()
    if request.overwrite:
        ranks.first_says(lambda: shutil.rmtree(run.folder, ignore_errors=True))
    earlier = finished_before(run)
    if earlier is not None:
        return earlier
    started = time.perf_counter()
    module, backbone = _built(run)
    weights = _bring_to_weights(run, module, progress)
    trained = time.perf_counter() - started
    asked = Evaluation(run.folder, run.config, request.scoring)
    model = ranks.first_says(lambda: _model_record(run, module, weights, backbone))
    return evaluate(run, module, model, asked, progress, train_seconds=round(trained, 2))


def _built(run: Run) -> tuple[nn.Module, Backbone | None]:
    """Return the module that a training starts from, and the published weights in it."""
    seed_everything(run.request.seed, run.device)
    module = run.spec.build(run.selection.classes)
    if run.backbone_weights == "none":
        return module, None
    asked_for = (run.entry.name, run.spec, run.backbone_weights, run.request.offline)
    return module, current().first_then_others(lambda: load_backbone(module, *asked_for))


def finished_before(run: Run) -> Outcome | None:
    """Return what an earlier call found, None where that is not whole.

    Raises UsageError where the folder holds a run of another configuration.
    """
    return current().first_says(lambda: _finished_before(run))


def _finished_before(run: Run) -> Outcome | None:
    if not (run.folder / RESULT).is_file():
        return None
    result = read_result(run.folder / RESULT)
    wanted = json.loads(json.dumps(run.config))
    had = _as_of_now(result.config)
    changed = [key for key, value in wanted.items() if had.get(key) != value]
    if result.protocol.fingerprint != run.selection.fingerprint:
        changed.append("the protocol's faces")
    if result.model.origin != model_origin(run):
        changed.append("where the model comes from" if not run.entry.is_local_file else "the model's file")
    if (LOCAL_PROTOCOL in result.ineligible) != has_local_protocol(run):
        changed.append("where the protocol comes from")
    is_finished = is_whole(run.folder, result)
    if is_finished and _rules(read_context(run.folder / PREDICTIONS)) != _rules(context_of(run, None, Counter())):
        changed.append("the protocol's rules")
    if changed:
        raise UsageError(
            f"{run.folder} holds a finished run that differs in {shorten(changed)}. "
            "Add --overwrite to replace it, or choose another --runs folder."
        )
    return Outcome(run.folder, result, finished_before=True) if is_finished else None


def _rules(context: Context) -> dict[str, Any]:
    """Return what of a protocol scores depend on beside its faces."""
    return context.model_dump(include={"classes", "levels", "assume", "reals", "pooling", "subsets"})


def _as_of_now(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration with what earlier versions did not record: nothing could be set there."""
    return {"options": {}} | dict(config) | {"recipe": asdict(Recipe()) | config.get("recipe", {})}


def is_whole(folder: Path, result: Result) -> bool:
    """Return whether the predictions in a folder are those that its result was computed from."""
    predictions = folder / PREDICTIONS
    return predictions.is_file() and file_sha256(predictions) == result.predictions.sha256


def _bring_to_weights(run: Run, module: nn.Module, progress: ShowProgress) -> Path:
    """Load the given weights, or train what can be trained; return the file of the module's final weights."""
    given = run.request.weights
    if given is not None:
        current().together(lambda: _load_given(run, module, given))
        return given
    if not _is_trained(run, module):
        current().first_says(lambda: save_weights(module, run.folder / WEIGHTS, {}))
        return run.folder / WEIGHTS
    if not run.request.engine.is_here:
        with progress(f"training {run.name}"):
            run.request.engine.together(partial(_train_as_rank, portable(run.request)))
        return run.folder / WEIGHTS
    with progress(f"training {run.name}") as bar:
        train(
            module,
            run.spec,
            run.selection.classes,
            run.selection.train,
            run.selection.val,
            recipe=run.recipe,
            seed=run.request.seed,
            folder=run.folder,
            device=run.device,
            workers=run.request.workers,
            sharded=run.request.shard,
            model={"name": run.entry.name, "options": dict(run.options)},
            on_progress=lambda epoch: bar(epoch.epoch, run.recipe.epochs),
        )
    return run.folder / WEIGHTS


def _train_as_rank(request: Request) -> None:
    """Train on a worker of an engine, which may be one rank of several."""
    run = planned(request, silently)
    module, _ = _built(run)
    _bring_to_weights(run, module, silently)


def _is_trained(run: Run, module: nn.Module) -> bool:
    """Return whether a run trains its module: not where it has no loss, and published weights to answer with."""
    return run.request.weights is None and (hasattr(module, "loss") or run.backbone_weights == "none")


def _load_given(run: Run, module: nn.Module, path: Path) -> None:
    origin = load_weights(module, path)
    _check_classes(path, origin, run.selection)
    _check_options(path, origin, run)


def _check_classes(path: Path, origin: dict[str, Any], selection: Selection) -> None:
    """Refuse weights whose head was trained for other classes, or for these in another order."""
    trained = [leaf["name"] for leaf in origin.get("classes", [])]
    wanted = [leaf.name for leaf in selection.classes]
    if trained and trained != wanted:
        raise UsageError(
            f"{path} was trained for the classes {', '.join(trained)}; this protocol has {', '.join(wanted)}. "
            "Train on this protocol, or test on the one these weights are for."
        )


def _check_options(path: Path, origin: dict[str, Any], run: Run) -> None:
    """Refuse weights that the same model learned with other options: what fits may still be used otherwise."""
    trained = origin.get("model") or {}
    if trained.get("name") == run.entry.name and trained.get("options") != run.options:
        theirs = row_name(run.entry.name, trained.get("options") or {})
        raise UsageError(f"{path} was trained as {theirs}, and this run is {run.name}. Give the same --set.")


def _model_record(run: Run, module: nn.Module, weights: Path, backbone: Backbone | None) -> ModelRecord:
    return ModelRecord(
        name=run.name,
        origin=model_origin(run),
        reference=run.spec.reference,
        licence=run.spec.licence,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        weights_sha256=file_sha256(weights),
        backbone_weights=None if backbone is None else backbone.recorded,
        selected_on="given" if run.request.weights is not None else "val" if _is_trained(run, module) else "nothing",
        trained_on=list(run.spec.trained_on),
        inputs=list(run.spec.inputs),
    )


def model_origin(run: Run) -> str:
    """Return where the model's code comes from; of a local file with its hash, since it changes from run to run."""
    return run.entry.described if run.entry.is_local_file else run.entry.origin
