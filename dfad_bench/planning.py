"""Everything that can be wrong with a request is found out, and said, before any work starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfad_bench import registry
from dfad_bench.config import file_sha256
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import UsageError
from dfad_bench.interfaces import Engine
from dfad_bench.modelling.data import check_inputs
from dfad_bench.modelling.device import pick_device
from dfad_bench.modelling.distributed import current
from dfad_bench.modelling.options import Value, configured, row_name
from dfad_bench.modelling.weights import BY_PATH, find_backbone
from dfad_bench.records.protocol import load_protocol
from dfad_bench.records.selection import Selection, open_manifests, resolve
from dfad_bench.scoring.score import Options
from dfad_bench.types import ModelSpec, Recipe

ShowProgress = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]
"""Given a label, a context manager that yields a function of what is done and what there is in all."""


def silently(label: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
    """Show no progress: what a worker process does."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True, slots=True)
class Request:
    """What to run, and how: a model and a protocol by name or path, and everything the user may set.

    settings: the model's options as ``option=value``; backbone_weights: a name that the model offers, the path of a file,
    ``none`` for random weights, or None for the model's own default. shard: leave each rank a share of the model, which
    needs several. engine: what trains and predicts; all its workers must see the folders under these paths.
    """

    model: str
    protocol: str
    data: Path
    runs: Path
    seed: int = 0
    device: str = "auto"
    weights: Path | None = None
    settings: Sequence[str] = ()
    backbone_weights: str | None = None
    offline: bool = False
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 0
    limit: int | None = None
    scoring: Options = field(default_factory=Options)
    overwrite: bool = False
    shard: bool = False
    engine: Engine = field(default_factory=LocalEngine)


@dataclass(frozen=True, slots=True)
class Run:
    """A request with everything it names found and checked.

    name: the model's, and in what it differs from its defaults: options, and the weights that it starts from;
    backbone_weights: ``none`` or a choice that ``find_backbone`` knows.
    """

    request: Request
    entry: registry.Entry
    name: str
    spec: ModelSpec
    options: Mapping[str, Value]
    backbone_weights: str
    selection: Selection
    recipe: Recipe
    device: torch.device
    folder: Path
    config: dict[str, Any]


def portable(request: Request) -> Request:
    """Return a request that means the same in another process's working folder, where it is done by that process alone."""

    def path_of(kind: str, name: str) -> str:
        entry = registry.find(kind, name)
        return str(entry.path) if entry.is_local_file else name

    backbone = request.backbone_weights
    if backbone is not None and Path(backbone).expanduser().is_file():
        backbone = str(Path(backbone).expanduser().absolute())
    return replace(
        request,
        model=path_of("models", request.model),
        protocol=path_of("protocols", request.protocol),
        data=request.data.absolute(),
        runs=request.runs.absolute(),
        weights=None if request.weights is None else request.weights.absolute(),
        backbone_weights=backbone,
        engine=LocalEngine(),
    )


def planned(request: Request, progress: ShowProgress, selection: Selection | None = None) -> Run:
    """Return a request with everything it names found; raise UsageError or DataError for what can be wrong with it.

    selection: what ``selected`` gave for this protocol, data and limit, where that is known already.
    """
    if request.shard and not current().are_several:
        raise UsageError(
            "--shard spreads a model over several ranks, and this is one process. "
            "Start it with 'torchrun --nproc-per-node 2 --no-python dfad-bench run … --shard'."
        )
    entry = registry.find("models", request.model)
    spec, options = configured(entry.name, registry.get("models", request.model), request.settings)
    recipe = _recipe(spec, request)
    if selection is None:
        selection = selected(request, progress)
    check_inputs(entry.name, spec, [selection.train, selection.val, *selection.test.values()])
    _check_face_size(spec, selection)
    backbone = _backbone_choice(spec, request)
    name = row_name(entry.name, options | _other_weights(entry.name, spec, backbone, request))
    folder = request.runs / selection.protocol.name / name / f"seed-{request.seed}"
    config = {
        "recipe": asdict(recipe),
        "options": options,
        "limit": request.limit,
        "backbone_weights": _told_backbone(entry.name, spec, backbone, folder),
        "weights_sha256": None if request.weights is None else _given_weights_sha256(request.weights, folder),
    }
    device = pick_device(request.device)
    return Run(request, entry, name, spec, options, backbone, selection, recipe, device, folder, config)


def selected(request: Request, progress: ShowProgress) -> Selection:
    """Return the faces of a request's protocol; raise UsageError or DataError where they cannot be had."""
    protocol = load_protocol(request.protocol)
    with progress(f"selecting the faces of {protocol.name}"):
        return resolve(protocol, open_manifests(protocol, request.data), request.limit)


def _recipe(spec: ModelSpec, request: Request) -> Recipe:
    try:
        return replace(spec.recipe, **request.recipe_changes)
    except ValueError as error:
        raise UsageError(f"Nothing can be trained so: {error}.") from None


def _backbone_choice(spec: ModelSpec, request: Request) -> str:
    if request.backbone_weights is not None:
        return request.backbone_weights
    # trained weights replace every tensor, so that a default backbone would be fetched for nothing
    return "none" if request.weights is not None else spec.default_backbone_weights


def _other_weights(name: str, spec: ModelSpec, choice: str, request: Request) -> dict[str, str]:
    """Return what a row's name says of the weights that a model is trained from, where these are not its own.

    One that starts from random weights, or from another file, is another row: nobody shall take the one for the other.
    """
    default = spec.default_backbone_weights
    if request.weights is not None or choice == default:
        return {}
    found = None if choice == "none" else find_backbone(name, spec, choice)
    if found is None or not isinstance(found.file, Path):
        return {"backbone_weights": choice}
    return {} if default == BY_PATH else {"backbone_weights": f"sha256-{found.sha256[:12]}"}


def _told_backbone(name: str, spec: ModelSpec, choice: str, folder: Path) -> str:
    """Return a choice of backbone weights as configurations keep it: of a file its hash, wherever it lies."""
    if choice == "none":
        return choice
    found = find_backbone(name, spec, choice)
    if not isinstance(found.file, Path):
        return choice
    _refuse_from(folder, found.file)
    return f"sha256:{found.sha256}"


def _check_face_size(spec: ModelSpec, selection: Selection) -> None:
    """Preprocess a black face of the size that was prepared: what does not fit is said before any work starts."""
    size = next(iter(selection.manifests.values())).footer.recipe.size
    if spec.preprocess is not None:
        spec.preprocess(np.zeros((size, size, 3), np.uint8), None)


def _given_weights_sha256(path: Path, folder: Path) -> str:
    if not path.is_file():
        raise UsageError(f"There is no weights file {path}.")
    _refuse_from(folder, path)
    return file_sha256(path)


def _refuse_from(folder: Path, path: Path) -> None:
    if path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{path} lies in the folder of this run. Copy it elsewhere, or choose another --runs folder.")
