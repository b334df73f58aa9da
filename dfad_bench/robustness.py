"""A run under perturbations: the test faces are disturbed, level by level; the weights and the threshold stay the run's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.evaluation import PREDICTIONS, RESULT, Evaluation, Outcome, evaluate
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.distributed import current
from dfad_bench.modelling.perturb import Level, check_perturbable, parse_perturbations
from dfad_bench.modelling.sharding import copy_first
from dfad_bench.modelling.train import WEIGHTS
from dfad_bench.modelling.weights import load_weights
from dfad_bench.planning import Request, Run, ShowProgress, planned
from dfad_bench.records.results import PerturbationRecord, Result, read_result
from dfad_bench.records.robustness import LevelRecord, RobustnessRecord, write_robustness
from dfad_bench.run import is_whole, locked, run_planned
from dfad_bench.scoring.robustness import curves, mean_curves
from dfad_bench.scoring.score import Options

PERTURBED, ROBUSTNESS = "perturbed", "robustness.json"
_CLEAN = "clean_predictions_sha256"
"""Where a level's configuration keeps the predictions on faces as they are, whose val rows and weights it shares."""


@dataclass(frozen=True, slots=True)
class Robust:
    """A run on faces as they are, the levels that were asked for, and the curves of all its levels; None without any."""

    clean: Outcome
    levels: Sequence[Outcome] = ()
    curves: RobustnessRecord | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every face that the protocol declares was evaluated, at every level."""
        counts = [outcome.result.counts for outcome in (self.clean, *self.levels)]
        return all(each.evaluated == each.declared for each in counts)


def run_perturbed(
    request: Request, perturbations: Iterable[str], progress: ShowProgress, run: Run | None = None
) -> Robust:
    """Run a model as ``run_model`` does, then at every level that ``parse_perturbations`` finds in the given texts.

    A level has a folder in the run's, ``perturbed/<name>-<severity>``, with predictions, result and timing; nothing is
    trained for it. Its test faces are disturbed before the model sees them. Its val rows are copied from the predictions
    on faces as they are: the model was shown them once, and the threshold they give is the run's. A level that an earlier
    call finished is kept; one that is broken, or of another run (other weights, faces or configuration), is done anew.
    ``robustness.json`` is then written anew from all levels in the folder that are this run's.

    run: what ``planned`` gave for the request, where that is known already.

    Raises UsageError before any work starts for what ``parse_perturbations`` refuses and for a model that never looks at
    pixels, and where the weights of a finished run are gone; and whatever ``run_model`` raises.
    """
    levels = parse_perturbations(perturbations)
    ranks = current()
    if run is None:
        run = ranks.together(lambda: planned(request, progress))
    check_perturbable(run.entry.name, run.spec)
    asked = {level: level.record for level in levels}  # a local file's hash is taken now, as it is imported
    with locked(run):
        clean = run_planned(run, progress)
        outcomes = list(_run_levels(run, clean.result, asked, progress))
        robustness = ranks.first_says(lambda: write_curves(run.folder, clean.result))
    return Robust(clean, outcomes, robustness)


def _run_levels(
    run: Run, clean: Result, asked: dict[Level, PerturbationRecord], progress: ShowProgress
) -> Iterator[Outcome]:
    module: nn.Module | None = None
    for level, record in asked.items():
        folder = level_folder(run.folder, record)
        earlier = current().first_says(partial(finished_level, folder, clean))
        if earlier is not None and earlier.perturbation == record:
            yield Outcome(folder, earlier, finished_before=True)
            continue
        if module is None:
            module = with_weights(run, clean)
        with locked(replace(run, folder=folder)):
            yield run_level(run, module, clean, level, record, progress)


def run_level(
    run: Run, module: nn.Module, clean: Result, level: Level, record: PerturbationRecord, progress: ShowProgress
) -> Outcome:
    """Test a module, which has the weights that ``clean`` was measured with, at one level; the folder is locked."""
    folder = level_folder(run.folder, record)
    asked = Evaluation(folder, _config(clean), _options(clean), level, record, run.folder / PREDICTIONS)
    return evaluate(run, module, clean.model, asked, progress)


def with_weights(run: Run, clean: Result) -> nn.Module:
    """Return the model with the very weights that the run was measured with."""
    weights = run.request.weights or run.folder / WEIGHTS
    seed_everything(run.request.seed, run.device)
    module = run.spec.build(run.selection.classes)

    def load() -> None:
        if not weights.is_file() or file_sha256(weights) != clean.model.weights_sha256:
            raise UsageError(
                f"{weights} is not what {run.folder / RESULT} was measured with. Put those weights back, "
                "or add --overwrite to run anew."
            )
        load_weights(module, weights)

    current().first_says(load)
    copy_first(module, current())
    return module


def level_folder(run_folder: Path, perturbation: PerturbationRecord) -> Path:
    name = perturbation.name.partition(" (file sha256:")[0]
    return run_folder / PERTURBED / f"{name}-{perturbation.severity}"


def _config(clean: Result) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(clean.config))  # as it is read back: a list for every tuple
    return config | {_CLEAN: clean.predictions.sha256}


def _options(result: Result) -> Options:
    scoring = result.scoring
    return Options(scoring.resamples, scoring.cluster_by, scoring.pooling, scoring.seed)


def finished_level(folder: Path, clean: Result) -> Result | None:
    """Return the result of a level of this run that is finished and still whole, None for anything else."""
    if not (folder / RESULT).is_file():
        return None
    try:
        result = read_result(folder / RESULT)
    except DataError:
        return None
    ours = (
        result.perturbation is not None
        and result.seed == clean.seed
        and result.model == clean.model
        and result.protocol.fingerprint == clean.protocol.fingerprint
        and result.config == _config(clean)
        and _options(result) == _options(clean)
    )
    return result if ours and is_whole(folder, result) else None


def write_curves(run_folder: Path, clean: Result) -> RobustnessRecord:
    """Write and return the curves over every level in a run's folder that is finished and of this run."""
    found: dict[str, tuple[PerturbationRecord, Result]] = {}
    for folder in sorted((run_folder / PERTURBED).glob("*")):
        result = finished_level(folder, clean)
        # a folder that somebody copied under another name would be a level twice
        if (
            result is not None
            and result.perturbation is not None
            and folder == level_folder(run_folder, result.perturbation)
        ):
            found[folder.name] = (result.perturbation, result)
    levels = {(record.name, record.severity): result.scores for record, result in found.values()}
    each = curves(clean.scores, levels)
    robustness = RobustnessRecord(
        seed=clean.seed,
        model=clean.model.name,
        weights_sha256=clean.model.weights_sha256,
        protocol=clean.protocol,
        clean_predictions_sha256=clean.predictions.sha256,
        levels=[
            LevelRecord(perturbation=record, folder=f"{PERTURBED}/{name}", predictions_sha256=result.predictions.sha256)
            for name, (record, result) in found.items()
        ],
        curves=each,
        means=mean_curves(each),
    )
    write_robustness(run_folder / ROBUSTNESS, robustness)
    return robustness
