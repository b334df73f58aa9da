"""Model × protocol: train where there are no weights, predict, score, record."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dfad_bench import provenance, registry
from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.modelling.data import check_inputs
from dfad_bench.modelling.device import pick_device, seed_everything
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.train import WEIGHTS, train
from dfad_bench.modelling.weights import load_backbone, load_weights
from dfad_bench.records import predictions as records
from dfad_bench.records.protocol import Selection, load_protocol, open_manifests, resolve
from dfad_bench.records.results import (
    Counts,
    ModelRecord,
    PredictionsRecord,
    ProtocolRecord,
    Result,
    read_result,
    write_result,
    write_text,
)
from dfad_bench.scoring.score import score
from dfad_bench.types import ModelSpec, Recipe

PREDICTIONS, RESULT, TIMING = "predictions.parquet", "result.json", "timing.json"

ShowProgress = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]
"""Given a label, a context manager that yields a function of what is done and what there is in all."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to run, and how: a model and a protocol by name or path, and everything the user may set."""

    model: str
    protocol: str
    data: Path
    runs: Path
    seed: int = 0
    device: str = "auto"
    weights: Path | None = None
    backbone_weights: str = "none"
    offline: bool = False
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 0
    limit: int | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run lies and what it found; ``finished_before`` where nothing had to be done."""

    folder: Path
    result: Result
    finished_before: bool


def run_model(request: Request, progress: ShowProgress) -> Outcome:
    """Run one model on one protocol and record it; what an earlier call finished is not done again.

    Everything that can be wrong with the request is said before work starts. Raises UsageError where the folder holds
    a run of another configuration, and whatever the stages raise.
    """
    protocol = load_protocol(request.protocol)
    entry = registry.find("models", request.model)
    spec: ModelSpec = registry.get("models", request.model)
    with progress("selecting faces"):
        selection = resolve(protocol, open_manifests(protocol, request.data), request.limit)
    check_inputs(entry.name, spec, [selection.train, selection.val, *selection.test.values()])
    _check_face_size(spec, selection)
    device = pick_device(request.device)
    recipe = replace(spec.recipe, **request.recipe_changes)
    config = _config(request, recipe)
    folder = request.runs / protocol.name / entry.name / f"seed-{request.seed}"
    earlier = _finished(folder, config, selection, request.overwrite)
    if earlier is not None:
        return Outcome(folder, earlier, finished_before=True)

    started = time.perf_counter()
    seed_everything(request.seed, device)
    module = spec.build(selection.classes)
    if request.backbone_weights != "none":
        load_backbone(module, entry.name, spec, request.backbone_weights, request.offline)
    weights = _weights(request, module, spec, selection, recipe, folder, device, progress)
    trained = time.perf_counter()
    skipped = _predict(request, entry.name, module, spec, selection, recipe, folder, device, progress)
    predicted = time.perf_counter()
    predictions = records.read_predictions(folder / PREDICTIONS)
    result = Result(
        seed=request.seed,
        model=_model_record(request, entry, spec, module, weights),
        protocol=ProtocolRecord(
            name=protocol.name,
            version=protocol.version,
            origin=protocol.origin,
            fingerprint=selection.fingerprint,
            warning=protocol.warning,
        ),
        code=provenance.code(),
        environment=provenance.environment() | {"device": _device_name(device)},
        config=config,
        data={name: manifest.footer.recipe.model_dump() for name, manifest in selection.manifests.items()},
        predictions=PredictionsRecord(sha256=file_sha256(folder / PREDICTIONS), rows=len(predictions.id)),
        counts=Counts(
            declared=selection.test_faces, evaluated=selection.test_faces - skipped.total(), skipped=dict(skipped)
        ),
        scores=score(predictions),
        ineligible=_ineligible(entry, selection, skipped),
    )
    write_result(folder / RESULT, result)
    faces = selection.val.num_rows + selection.test_faces
    _write_timing(folder, trained - started, predicted - trained, faces)
    return Outcome(folder, result, finished_before=False)


def _check_face_size(spec: ModelSpec, selection: Selection) -> None:
    """Preprocess a black face of the size that was prepared: what does not fit is said before any work starts."""
    size = next(iter(selection.manifests.values())).footer.recipe.size
    if spec.preprocess is not None:
        spec.preprocess(np.zeros((size, size, 3), np.uint8), None)


def _config(request: Request, recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": asdict(recipe),
        "limit": request.limit,
        "backbone_weights": request.backbone_weights,
        "weights_sha256": None if request.weights is None else _given_weights_sha256(request.weights),
    }


def _given_weights_sha256(path: Path) -> str:
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}.")
    return file_sha256(path)


def _finished(folder: Path, config: dict[str, Any], selection: Selection, overwrite: bool) -> Result | None:
    """Return the result of an earlier call, having made sure that it is one of the same run and still whole."""
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / RESULT).is_file():
        return None
    result = read_result(folder / RESULT)
    changed = [key for key, value in config.items() if result.config.get(key) != json.loads(json.dumps(value))]
    if result.protocol.fingerprint != selection.fingerprint:
        changed.append("the protocol's faces")
    if changed:
        raise UsageError(
            f"{folder} holds a finished run that differs in {shorten(changed)}. "
            "Add --overwrite to replace it, or choose another --runs folder."
        )
    whole = (folder / PREDICTIONS).is_file() and file_sha256(folder / PREDICTIONS) == result.predictions.sha256
    return result if whole else None


def _weights(
    request: Request,
    module: nn.Module,
    spec: ModelSpec,
    selection: Selection,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    progress: ShowProgress,
) -> Path:
    """Bring the module to its final weights and return their file."""
    if request.weights is not None:
        _check_classes(request.weights, load_weights(module, request.weights), selection)
        return request.weights
    with progress(f"training {request.model}") as bar:
        train(
            module,
            spec,
            selection.classes,
            selection.train,
            selection.val,
            recipe=recipe,
            seed=request.seed,
            folder=folder,
            device=device,
            workers=request.workers,
            on_progress=lambda epoch: bar(epoch.epoch, recipe.epochs),
        )
    return folder / WEIGHTS


def _check_classes(path: Path, origin: dict[str, Any], selection: Selection) -> None:
    """Refuse weights whose head was trained for other classes, or for these in another order."""
    trained = [leaf["name"] for leaf in origin.get("classes", [])]
    wanted = [leaf.name for leaf in selection.classes]
    if trained and trained != wanted:
        raise UsageError(
            f"{path} was trained for the classes {', '.join(trained)}; this protocol has {', '.join(wanted)}. "
            "Train on this protocol, or test on the one these weights are for."
        )


def _predict(
    request: Request,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    selection: Selection,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    progress: ShowProgress,
) -> Counter[str]:
    """Write the predictions for val and every test subset; return the test faces left out, by reason."""
    protocol = selection.protocol
    subsets = {records.VAL: selection.val, **selection.test}
    total = sum(faces.num_rows for faces in subsets.values())
    done, skipped = 0, Counter[str]()
    with records.PredictionsWriter(folder / PREDICTIONS) as writer, progress(f"predicting with {name}") as bar:
        for subset, faces in subsets.items():
            for answer in predict(
                module, spec, faces, batch_size=recipe.batch_size, device=device, workers=request.workers
            ):
                if answer.logits is not None and answer.logits.shape[1] != len(selection.classes):
                    raise DataError(
                        f"{name} gives {answer.logits.shape[1]} logits for {len(selection.classes)} classes."
                    )
                writer.write(subset, answer.faces, answer.fake_score, answer.logits)
                if subset != records.VAL:
                    skipped.update(reason for _, reason in answer.unreadable)
                done += answer.faces.num_rows + len(answer.unreadable)
                bar(done, total)
        writer.finish(
            records.Context(
                schema_version=records.SCHEMA_VERSION,
                model=name,
                seed=request.seed,
                protocol=protocol.name,
                protocol_version=protocol.version,
                protocol_fingerprint=selection.fingerprint,
                classes=records.class_records(selection.classes),
                levels=list(protocol.attribution.levels),
                assume=protocol.attribution.assume,
                reals=protocol.detection.reals,
                subsets={subset: split.report_by for subset, split in protocol.test.items()},
                declared=selection.test_faces,
                skipped=dict(skipped),
            )
        )
    return skipped


def _model_record(
    request: Request, entry: registry.Entry, spec: ModelSpec, module: nn.Module, weights: Path
) -> ModelRecord:
    backbone = spec.backbone_weights.get(request.backbone_weights)
    return ModelRecord(
        name=entry.name,
        origin=entry.described if entry.is_local_file else entry.origin,
        reference=spec.reference,
        licence=spec.licence,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        weights_sha256=file_sha256(weights),
        backbone_weights=None if backbone is None else f"{backbone.name} sha256:{backbone.sha256}",
        selected_on="val" if request.weights is None else "given",
        trained_on=list(spec.trained_on),
        inputs=list(spec.inputs),
    )


def _ineligible(entry: registry.Entry, selection: Selection, skipped: Counter[str]) -> list[str]:
    code = provenance.code()
    reasons = list(selection.departures)
    if code.dirty:
        reasons.append("the code has changes that are not committed")
    if skipped:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        reasons.append(f"incomplete: {told}")
    if entry.is_local_file:
        reasons.append("the model is a local file, not a registered one")
    return reasons


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _write_timing(folder: Path, train_seconds: float, predict_seconds: float, faces: int) -> None:
    """Keep the clock's readings apart from the result, which the same run must reproduce byte by byte."""
    unit = 1024 if sys.platform != "darwin" else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    timing = {
        "train_seconds": round(train_seconds, 2),
        "predict_seconds": round(predict_seconds, 2),
        "faces_per_second": round(faces / predict_seconds, 1),
        "peak_memory_mib": round(peak),
    }
    write_text(folder / TIMING, json.dumps(timing, indent=1) + "\n")
