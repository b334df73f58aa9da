"""Keeps a training on disk after every epoch, so that a killed one goes on and ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.weights import read_tensors, save_tensors
from dfad_bench.types import Leaf, Recipe

log = logging.getLogger(__name__)

_MODULE, _BEST, _OPTIMIZER = "module.", "best.", "optimizer."


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training has come: one row of numbers per finished epoch, and which one is the best."""

    history: tuple[dict[str, Any], ...] = ()
    best_epoch: int = 0
    best_loss: float = float("inf")

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    def is_over(self, recipe: Recipe) -> bool:
        """Return whether every epoch is done, or ``patience`` epochs have passed without a better one."""
        return self.epochs >= recipe.epochs or self.epochs - self.best_epoch >= max(recipe.patience, 1)

    def is_best(self, val_loss: float) -> bool:
        """Return whether no epoch so far was as good; in a tie the earlier epoch stays the best."""
        return val_loss < self.best_loss

    def after(self, row: dict[str, Any], val_loss: float) -> Progress:
        """Return the progress after one more epoch, which ``row`` describes."""
        longer = replace(self, history=(*self.history, row))
        return replace(longer, best_epoch=longer.epochs, best_loss=val_loss) if self.is_best(val_loss) else longer


@dataclass(frozen=True, slots=True)
class State:
    """What a training is made of besides its progress: the module's last and best states, and the optimiser's by parameter.

    All tensors are whole, however many ranks train; ranks other than the first have none.
    """

    module: Mapping[str, torch.Tensor] = field(default_factory=dict)
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)
    optimizer: Mapping[int, Mapping[str, torch.Tensor]] = field(default_factory=dict)


def fingerprint(
    module: nn.Module,
    recipe: Recipe,
    seed: int,
    classes: Sequence[Leaf],
    tables: Mapping[str, pa.Table],
    model: Mapping[str, Any] | None = None,
) -> str:
    """Return a hash of all that decides a training: initial weights, recipe, seed, classes, faces and their order.

    model: its name and options as JSON values: an option may change a loss and no initial weight.
    """
    told = (asdict(recipe), seed, list(classes), json.dumps(model, sort_keys=True))
    digest = hashlib.sha256(repr(told).encode())
    for name, table in tables.items():
        digest.update(f"{name} {table.num_rows}\n".encode())
        for rows in table.select(["id", "sha256", "generator"]).to_batches(max_chunksize=4096):
            digest.update(repr(rows.to_pydict()).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def save(path: Path, key: str, progress: Progress, state: State) -> None:
    """Write the checkpoint, whole or not at all."""
    tensors = {f"{_MODULE}{name}": tensor for name, tensor in state.module.items()}
    tensors |= {f"{_BEST}{name}": tensor for name, tensor in state.best.items()}
    for index, kept in state.optimizer.items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": tensor for name, tensor in kept.items()}
    told = {"key": key, "history": list(progress.history), "best": [progress.best_epoch, progress.best_loss]}
    save_tensors(tensors, path, told)


def resume(path: Path, key: str) -> tuple[Progress, State]:
    """Return where a stopped training was, or a fresh progress and no state.

    A checkpoint that is damaged or of another training is left aside with a warning in the log.
    """
    if not path.is_file():
        return Progress(), State()
    try:
        tensors, told = read_tensors(path)
    except DataError as error:
        log.warning("%s Training starts anew.", error)
        return Progress(), State()
    if told.get("key") != key:
        log.warning(
            "%s belongs to another training (recipe, options, seed, faces or initial weights). Training starts anew.",
            path,
        )
        return Progress(), State()
    optimizer: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(_OPTIMIZER, tensors).items():
        index, _, what = name.partition(".")
        optimizer.setdefault(int(index), {})[what] = tensor
    progress = Progress(tuple(told["history"]), *told["best"])
    return progress, State(_under(_MODULE, tensors), _under(_BEST, tensors), optimizer)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
