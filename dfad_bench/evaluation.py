"""Shows a model that has its weights the protocol's faces, scores what it says, and puts that on record."""

from __future__ import annotations

import collections
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from dfad_bench import provenance, registry
from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError
from dfad_bench.modelling.device import device_name
from dfad_bench.modelling.distributed import current
from dfad_bench.modelling.perturb import Level
from dfad_bench.modelling.predict import Predicted, predict
from dfad_bench.modelling.replica import Replica, device_of, predict_on
from dfad_bench.modelling.sharding import shard
from dfad_bench.modelling.train import WEIGHTS
from dfad_bench.planning import Run, ShowProgress, portable
from dfad_bench.records import predictions as records
from dfad_bench.records.json_files import write_text
from dfad_bench.records.results import (
    Counts,
    ModelRecord,
    PerturbationRecord,
    PredictionsRecord,
    ProtocolRecord,
    Result,
    write_result,
)
from dfad_bench.scoring.score import Options, score

PREDICTIONS, RESULT, TIMING = "predictions.parquet", "result.json", "timing.json"
LOCAL_PROTOCOL = "the protocol is a local file, not a registered one"


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


def _predict(run: Run, module: nn.Module, asked: Evaluation, progress: ShowProgress) -> tuple[int, Counter[str]]:
    """Write the predictions for val and every test subset; return the faces shown, and by reason the test faces left out.

    The first rank writes; the others only answer, and know of no face that was left out.
    """
    classes = len(run.selection.classes)
    subsets = {} if asked.clean is not None else {records.VAL: run.selection.val}
    subsets |= run.selection.test
    total = sum(faces.num_rows for faces in subsets.values())
    if run.request.shard:
        shard(module.to(run.device), current(), run.device)
    done, skipped = 0, Counter[str]()
    answers = _answers(run, module, asked, subsets)
    if not current().is_first:
        collections.deque(answers, maxlen=0)
        return total, skipped
    path, label = asked.folder / PREDICTIONS, _labelled("predicting with", run, asked)
    with records.PredictionsWriter(path) as writer, progress(label) as bar:
        if asked.clean is not None:
            writer.copy(asked.clean, records.VAL)
        for subset, answer in answers:
            if answer.logits is not None and answer.logits.shape[1] != classes:
                raise DataError(f"{run.name} gives {answer.logits.shape[1]} logits for {classes} classes.")
            writer.write(subset, answer.faces, answer.fake_score, answer.logits, answer.embedding)
            if subset != records.VAL:
                skipped.update(reason for _, reason in answer.unreadable)
            done += answer.faces.num_rows + len(answer.unreadable)
            bar(done, total)
        writer.finish(context_of(run, asked.perturbation, skipped))
    return total, skipped


def _answers(
    run: Run, module: nn.Module, asked: Evaluation, subsets: Mapping[str, pa.Table]
) -> Iterator[tuple[str, Predicted]]:
    """Yield the model's answers to one subset after the other: it is asked here, or on the workers of the run's engine."""
    request, recipe = run.request, run.recipe
    if request.engine.is_here:
        for subset, faces in subsets.items():
            for answer in predict(
                *(module, run.spec, faces),
                batch_size=recipe.batch_size,
                device=run.device,
                workers=request.workers,
                precision=recipe.precision,
                perturbation=asked.level,
            ):
                yield subset, answer
        return
    sent = portable(request)
    replica = Replica(
        sent.model,
        sent.settings,
        run.selection.classes,
        sent.weights or (run.folder / WEIGHTS).absolute(),
        seed=request.seed,
        device=request.device,
        precision=recipe.precision,
        workers=request.workers,
        perturbation=asked.level,
    )
    yield from predict_on(request.engine, replica, subsets, batch_size=recipe.batch_size)


def _labelled(doing: str, run: Run, asked: Evaluation) -> str:
    return f"{doing} {run.name}" + (f", {asked.level}" if asked.level is not None else "")


def context_of(run: Run, level: PerturbationRecord | None, skipped: Counter[str]) -> records.Context:
    """Return what a run's predictions say beside their rows; skipped: the test faces left out, by reason."""
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
        perturbation=level,
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
        environment=provenance.environment() | _device(run) | _ranks(run, model),
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


def has_local_protocol(run: Run) -> bool:
    """Return whether a run's protocol was given by the path of a file, whatever it calls itself."""
    return registry.find("protocols", run.request.protocol).is_local_file


def _ineligible(run: Run, asked: Evaluation, skipped: Counter[str]) -> list[str]:
    reasons = list(run.selection.departures)
    if provenance.code().dirty:
        reasons.append("the code has changes that are not committed")
    if skipped:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        reasons.append(f"incomplete: {told}")
    if run.entry.is_local_file:
        reasons.append("the model is a local file, not a registered one")
    if has_local_protocol(run):
        reasons.append(LOCAL_PROTOCOL)
    if asked.level is not None:
        reasons.append(f"the faces were perturbed ({asked.level})")
    return reasons


def _device(run: Run) -> dict[str, str]:
    engine = run.request.engine
    return {"device": device_name(run.device) if engine.is_here else device_of(engine, run.request.device)}


def _ranks(run: Run, model: ModelRecord) -> dict[str, str]:
    """Return how many ranks ran a model together, where there were several: sums in another order are other sums."""
    engine, together = run.request.engine, current().world_size
    if not engine.is_here and model.selected_on == "val":
        together = engine.ranks()
    return {"ranks": str(together)} if together > 1 else {}


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
