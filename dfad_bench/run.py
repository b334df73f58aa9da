"""Model × protocol: train where there are no weights, predict, score, record.

Several ranks (``modelling.distributed``) run one model together: each calls the same functions and is given the same
answers, but the first alone reads and writes the run's folder, and scores.
"""

from __future__ import annotations

import collections
import json
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from dfad_bench import provenance, registry
from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.distributed import current
from dfad_bench.modelling.options import row_name
from dfad_bench.modelling.perturb import Level
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.sharding import shard
from dfad_bench.modelling.train import WEIGHTS, train
from dfad_bench.modelling.weights import Backbone, load_backbone, load_weights, save_weights
from dfad_bench.planning import Request, Run, ShowProgress, planned
from dfad_bench.records import predictions as records
from dfad_bench.records.json_files import write_text
from dfad_bench.records.results import (
    Counts,
    ModelRecord,
    PerturbationRecord,
    PredictionsRecord,
    ProtocolRecord,
    Result,
    read_result,
    write_result,
)
from dfad_bench.records.selection import Selection
from dfad_bench.scoring.score import Options, score
from dfad_bench.types import Recipe

PREDICTIONS, RESULT, TIMING = "predictions.parquet", "result.json", "timing.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run lies and what it found; ``finished_before`` where nothing had to be done."""

    folder: Path
    result: Result
    finished_before: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One time that a model is shown the test faces: where that is recorded, how it is scored, what happens to the faces.

    clean: None for faces as they are; for perturbed ones the predictions on faces as they are, whose val rows are copied.
    Val is never perturbed: a threshold that is chosen on perturbed faces would make another detector of the model.
    """

    folder: Path
    config: Mapping[str, Any]
    scoring: Options
    level: Level | None = None
    perturbation: PerturbationRecord | None = None
    clean: Path | None = None


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
    seed_everything(request.seed, run.device)
    module = run.spec.build(run.selection.classes)
    backbone = None
    if run.backbone_weights != "none":
        asked_for = (run.entry.name, run.spec, run.backbone_weights, request.offline)
        backbone = ranks.first_then_others(lambda: load_backbone(module, *asked_for))
    weights = _bring_to_weights(run, module, progress)
    trained = time.perf_counter() - started
    asked = Evaluation(run.folder, run.config, request.scoring)
    model = ranks.first_says(lambda: _model_record(run, module, weights, backbone))
    return evaluate(run, module, model, asked, progress, train_seconds=round(trained, 2))


def evaluate(
    run: Run, module: nn.Module, model: ModelRecord, asked: Evaluation, progress: ShowProgress, **timing: float
) -> Outcome:
    """Predict, score and record with a module that has its weights; the result is written last, and makes it finished.

    timing: what the clock said before, in seconds by name.
    """
    started = time.perf_counter()
    shown, skipped = _predict(run, module, asked, progress)
    predicted = time.perf_counter() - started

    def record() -> Outcome:
        result = _result(run, model, asked, skipped, progress)
        write_result(asked.folder / RESULT, result)
        _write_timing(asked.folder, timing, predicted, shown)
        return Outcome(asked.folder, result, finished_before=False)

    return current().first_says(record)


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
    if changed:
        raise UsageError(
            f"{run.folder} holds a finished run that differs in {shorten(changed)}. "
            "Add --overwrite to replace it, or choose another --runs folder."
        )
    return Outcome(run.folder, result, finished_before=True) if is_whole(run.folder, result) else None


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


def _predict(run: Run, module: nn.Module, asked: Evaluation, progress: ShowProgress) -> tuple[int, Counter[str]]:
    """Write the predictions for val and every test subset; return the faces shown, and by reason the test faces left out.

    The first rank writes; the others only answer, and know of no face that was left out.
    """
    classes = len(run.selection.classes)
    subsets = {} if asked.clean is not None else {records.VAL: run.selection.val}
    subsets |= run.selection.test
    total = sum(faces.num_rows for faces in subsets.values())
    loading: dict[str, Any] = {
        "batch_size": run.recipe.batch_size,
        "device": run.device,
        "workers": run.request.workers,
        "precision": run.recipe.precision,
        "perturbation": asked.level,
    }
    if run.request.shard:
        shard(module.to(run.device), current(), run.device)
    done, skipped = 0, Counter[str]()
    if not current().is_first:
        for faces in subsets.values():
            collections.deque(predict(module, run.spec, faces, **loading), maxlen=0)
        return total, skipped
    path, label = asked.folder / PREDICTIONS, _labelled("predicting with", run, asked)
    with records.PredictionsWriter(path) as writer, progress(label) as bar:
        if asked.clean is not None:
            writer.copy(asked.clean, records.VAL)
        for subset, faces in subsets.items():
            for answer in predict(module, run.spec, faces, **loading):
                if answer.logits is not None and answer.logits.shape[1] != classes:
                    raise DataError(f"{run.name} gives {answer.logits.shape[1]} logits for {classes} classes.")
                writer.write(subset, answer.faces, answer.fake_score, answer.logits, answer.embedding)
                if subset != records.VAL:
                    skipped.update(reason for _, reason in answer.unreadable)
                done += answer.faces.num_rows + len(answer.unreadable)
                bar(done, total)
        writer.finish(_context(run, asked, skipped))
    return total, skipped


def _labelled(doing: str, run: Run, asked: Evaluation) -> str:
    return f"{doing} {run.name}" + (f", {asked.level}" if asked.level is not None else "")


def _context(run: Run, asked: Evaluation, skipped: Counter[str]) -> records.Context:
    protocol = run.selection.protocol
    return records.Context(
        schema_version=records.SCHEMA_VERSION,
        model=run.name,
        seed=run.request.seed,
        protocol=protocol.name,
        protocol_version=protocol.version,
        protocol_fingerprint=run.selection.fingerprint,
        protocol_warning=protocol.warning,
        classes=records.class_records(run.selection.classes),
        levels=list(protocol.attribution.levels),
        assume=protocol.attribution.assume,
        reals=protocol.detection.reals,
        pooling=protocol.detection.pooling,
        perturbation=asked.perturbation,
        subsets={subset: split.report_by for subset, split in protocol.test.items()},
        declared=run.selection.test_faces,
        skipped=dict(skipped),
    )


def _result(run: Run, model: ModelRecord, asked: Evaluation, skipped: Counter[str], progress: ShowProgress) -> Result:
    protocol, declared = run.selection.protocol, run.selection.test_faces
    path = asked.folder / PREDICTIONS
    predictions = records.read_predictions(path)
    with progress(_labelled("scoring", run, asked)) as bar:
        report = score(predictions, asked.scoring, bar)
    return Result(
        seed=run.request.seed,
        model=model,
        protocol=ProtocolRecord(
            name=protocol.name,
            version=protocol.version,
            origin=protocol.origin,
            fingerprint=run.selection.fingerprint,
            warning=protocol.warning,
        ),
        code=provenance.code(),
        environment=provenance.environment() | {"device": _device_name(run.device)} | _ranks(),
        config=dict(asked.config),
        data={name: manifest.footer.recipe.model_dump() for name, manifest in run.selection.manifests.items()},
        predictions=PredictionsRecord(sha256=file_sha256(path), rows=len(predictions)),
        counts=Counts(declared=declared, evaluated=declared - skipped.total(), skipped=dict(skipped)),
        scoring=report.scoring,
        scores=report.scores,
        details=report.details,
        perturbation=asked.perturbation,
        ineligible=_ineligible(run, asked, skipped),
    )


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


def _ineligible(run: Run, asked: Evaluation, skipped: Counter[str]) -> list[str]:
    reasons = list(run.selection.departures)
    if provenance.code().dirty:
        reasons.append("the code has changes that are not committed")
    if skipped:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        reasons.append(f"incomplete: {told}")
    if run.entry.is_local_file:
        reasons.append("the model is a local file, not a registered one")
    if registry.find("protocols", run.request.protocol).is_local_file:
        reasons.append("the protocol is a local file, not a registered one")
    if asked.level is not None:
        reasons.append(f"the faces were perturbed ({asked.level})")
    return reasons


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _ranks() -> dict[str, str]:
    """Return how many ranks ran a model together, where there were several: sums in another order are other sums."""
    ranks = current()
    return {"ranks": str(ranks.world_size)} if ranks.are_several else {}


def _write_timing(folder: Path, earlier: Mapping[str, float], predict_seconds: float, faces: int) -> None:
    """Keep the clock's readings apart from the result, which the same run must reproduce byte by byte."""
    unit = 1024 if sys.platform != "darwin" else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    timing = {
        **earlier,
        "predict_seconds": round(predict_seconds, 2),
        "faces_per_second": round(faces / predict_seconds, 1),
        "peak_memory_mib": round(peak),
    }
    write_text(folder / TIMING, json.dumps(timing, indent=1) + "\n")
