"""One model on one protocol with one seed: what identifies that work, and what of it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from dfad_bench.errors import DfadError
from dfad_bench.evaluation import Outcome
from dfad_bench.modelling.distributed import current
from dfad_bench.modelling.perturb import Level
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.planning import Request, Run
from dfad_bench.records.results import PerturbationRecord
from dfad_bench.records.robustness import RobustnessRecord, read_robustness
from dfad_bench.robustness import ROBUSTNESS, Robust, finished_level, level_folder
from dfad_bench.run import finished_before, model_origin

State = Literal["to do", "finished", "elsewhere", "needs weights", "needs data", "cannot run", "failed"]
AskedLevel = tuple[Level, PerturbationRecord]
"""A level, and its record as it was when the list was planned: a local file may change meanwhile."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one protocol with one seed, and how it stands.

    name: the model's row, its options included; key: of ``cell_key``, None where it cannot be planned; why: what is missing
    or went wrong, or who does it elsewhere, in a line. seconds: how long what is missing takes if no training ends early,
    None where that is not known; level_seconds: each perturbed level's part of it. needs_run: whether
    more than levels is missing. levels: those that were asked for;
    levels_finished: how many of them. outcome: what was found, once it is finished.
    """

    request: Request
    state: State
    name: str
    key: str | None = None
    why: str | None = None
    seconds: float | None = None
    level_seconds: float = 0.0
    needs_run: bool = False
    levels: Sequence[AskedLevel] = ()
    levels_finished: int = 0
    run: Run | None = None
    outcome: Robust | None = None


def cell_key(run: Run, perturbations: Sequence[PerturbationRecord] = ()) -> str:
    """Return 12 hexadecimal digits that two calls share if, and only if, they mean the same work.

    That is the protocol's faces, the model's row, its code where that is a local file, recipe and options, the weights it
    starts from or is tested with, by their hash, the seed, how it is scored, and the perturbations. The version of
    dfad-bench, the machine and the folders do not count.
    """
    backbone = None
    if run.backbone_weights != "none":
        backbone = find_backbone(run.entry.name, run.spec, run.backbone_weights).sha256
    told = {
        "faces": run.selection.fingerprint,
        "model": run.name,
        "origin": model_origin(run),
        "config": run.config,
        "backbone": backbone,
        "seed": run.request.seed,
        "scoring": asdict(run.request.scoring),
        "perturbations": [each.model_dump() for each in perturbations],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a cell lies in its folder, finished and whole.

    curves: those of ``robustness.json`` where they are of these very levels and predictions.
    """

    clean: Outcome | None
    levels: Sequence[Outcome] = ()
    missing: Sequence[AskedLevel] = ()
    curves: RobustnessRecord | None = None

    @property
    def outcome(self) -> Robust | None:
        """The cell's, None where anything is missing."""
        if self.clean is None or self.missing or (self.levels and self.curves is None):
            return None
        return Robust(self.clean, self.levels, self.curves)


def standing(run: Run, levels: Sequence[AskedLevel]) -> Standing:
    """Look at a run's folder; raise UsageError where it holds a run of another configuration."""
    clean = finished_before(run)
    if clean is None or not levels:
        return Standing(clean, missing=levels)
    return current().first_says(lambda: _with_levels(run, clean, levels))


def _with_levels(run: Run, clean: Outcome, levels: Sequence[AskedLevel]) -> Standing:
    finished, missing = list[Outcome](), list[AskedLevel]()
    for level, record in levels:
        folder = level_folder(run.folder, record)
        result = finished_level(folder, clean.result)
        if result is not None and result.perturbation == record:
            finished.append(Outcome(folder, result, finished_before=True))
        else:
            missing.append((level, record))
    return Standing(clean, finished, missing, _curves(run, clean, finished))


def _curves(run: Run, clean: Outcome, levels: Sequence[Outcome]) -> RobustnessRecord | None:
    try:
        found = read_robustness(run.folder / ROBUSTNESS)
    except DfadError:
        return None
    ours = found.clean_predictions_sha256 == clean.result.predictions.sha256
    kept = {each.predictions_sha256 for each in found.levels}
    return found if ours and all(each.result.predictions.sha256 in kept for each in levels) else None
