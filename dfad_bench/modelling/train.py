"""Trains a model on a protocol's train faces and chooses its checkpoint on the val faces; it has no way to a test face."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.checkpoint import fingerprint, resume, save
from dfad_bench.modelling.data import Batches, FaceDataset, require_readable, to_device
from dfad_bench.modelling.device import mixed_precision, seed_everything
from dfad_bench.modelling.weights import load_weights, read_metadata, save_weights
from dfad_bench.types import Batch, Leaf, ModelSpec, Precision, Recipe

WEIGHTS, CHECKPOINT, HISTORY = "model.safetensors", "checkpoint.safetensors", "training.jsonl"
SELECTED_ON = "lowest loss on val"
_LOOK_EVERY = 50
"""Optimiser steps between two looks at the running loss: each look makes the host wait for the device."""

Loss = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch, counted from 1: mean losses per face (nats), its last learning rate, the best epoch so far.

    learning_rate: that of all parameters outside a backbone.
    """

    epoch: int
    train_loss: float
    val_loss: float
    learning_rate: float
    best_epoch: int


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a training ended: where the weights of the best epoch lie, and how that epoch was chosen."""

    weights: Path
    weights_sha256: str
    epochs: int
    best_epoch: int
    val_loss: float
    selected_on: str = SELECTED_ON


def train(
    module: nn.Module,
    spec: ModelSpec,
    classes: Sequence[Leaf],
    train_faces: pa.Table,
    val_faces: pa.Table,
    *,
    recipe: Recipe,
    seed: int,
    folder: Path,
    device: torch.device,
    workers: int = 0,
    model: Mapping[str, Any] | None = None,
    on_progress: Callable[[Epoch], None] | None = None,
) -> TrainingSummary:
    """Train a module in place, leave it with the weights of its best epoch, and write them to ``folder``.

    The caller builds the module after ``seed_everything``. The best epoch is the one whose mean loss on val is lowest,
    the earlier one in a tie. A training that was stopped goes on after its last whole epoch and, on the CPU, ends with
    the same bytes as one that was not; one that is finished is not repeated. model: the name and the options that the
    module was built by, kept in the weights file so that it says what to rebuild.

    Raises UsageError where the module has no ``loss(batch)``, or no backbone to which the recipe gives a rate; DataError
    for a face that cannot be read and for a loss that is not finite: it is looked for every 50 steps and before an epoch
    is saved.
    """
    loss_of = _trainable(module)
    tables = {"train": train_faces, "val": val_faces}
    key = fingerprint(module, recipe, seed, classes, tables, model)
    finished = _finished(folder, key, module)
    if finished is not None:
        return finished
    seed_everything(seed, device)
    module.to(device)
    loading: dict[str, Any] = {"batch_size": recipe.batch_size, "workers": workers, "device": device}
    train_set = Batches(FaceDataset(spec, train_faces, classes, flip=recipe.horizontal_flip), seed=seed, **loading)
    val_set = Batches(FaceDataset(spec, val_faces, classes), seed=None, **loading)
    optimizer = torch.optim.AdamW(_parameter_groups(module, recipe), lr=recipe.learning_rate)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    progress = resume(folder / CHECKPOINT, key, module, optimizer)
    faces = train_set.sizes
    groups = [faces[start : start + recipe.accumulate] for start in range(0, len(faces), recipe.accumulate)]

    while not progress.is_over(recipe):
        epoch = progress.epochs
        torch.manual_seed((seed << 20) + epoch)  # anew for each epoch, so that resuming needs no generator's state
        module.train()
        total, factor, batches = _zero(device), 0.0, train_set.epoch(epoch)
        for step, sizes in enumerate(groups, start=epoch * len(groups)):
            factor = rate_factor(recipe.warmup_fraction, step, recipe.epochs * len(groups))
            for group in optimizer.param_groups:
                group["lr"] = group["highest_rate"] * factor
            optimizer.zero_grad(set_to_none=True)
            for loaded in itertools.islice(batches, len(sizes)):
                batch = to_device(require_readable(loaded), device)
                with mixed_precision(device, recipe.precision):
                    loss = loss_of(batch)
                (loss * (batch.size / sum(sizes))).backward()  # type: ignore[no-untyped-call]
                total += loss.detach().to(total.dtype) * batch.size
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            optimizer.step()
            if (step + 1) % _LOOK_EVERY == 0:
                _finite(total.item(), "train", epoch, recipe)
        train_loss = _finite(total.item() / train_faces.num_rows, "train", epoch, recipe)
        val_loss = _finite(_mean_loss(module, loss_of, val_set, device, recipe.precision), "val", epoch, recipe)
        best_epoch = epoch + 1 if progress.is_best(val_loss) else progress.best_epoch
        row = Epoch(epoch + 1, train_loss, val_loss, recipe.learning_rate * factor, best_epoch)
        progress = progress.after(asdict(row), val_loss, module)
        save(folder / CHECKPOINT, key, progress, module, optimizer)
        _write_history(folder / HISTORY, progress.history)
        if on_progress is not None:
            on_progress(row)

    module.load_state_dict(progress.best_state)
    _write_history(folder / HISTORY, progress.history)
    origin = {
        "training": key,
        "model": model,
        "classes": [asdict(leaf) for leaf in classes],
        "recipe": asdict(recipe),
        "seed": seed,
        "selected_on": SELECTED_ON,
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "val_loss": progress.best_loss,
    }
    save_weights(module, folder / WEIGHTS, origin)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return _summary(folder / WEIGHTS, origin)


def rate_factor(warmup_fraction: float, step: int, steps: int) -> float:
    """Return by what a highest rate is multiplied at ``step`` of ``steps``, in 0..1.

    It rises linearly over the warm-up, then falls as half a cosine to (almost) zero.
    """
    warmup = math.ceil(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _trainable(module: nn.Module) -> Loss:
    loss_of: Loss | None = getattr(module, "loss", None)
    if loss_of is None:
        raise UsageError(f"{type(module).__name__} cannot be trained: it has no loss(batch). Give it trained weights.")
    return loss_of


def _parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the trainable parameters, apart by highest rate and by decay.

    Biases and normalisation gains are not decayed, having no excess to lose.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError(f"{type(module).__name__} cannot be trained: it has no trainable parameter.")
    backbone = _backbone(module, recipe)
    rate = recipe.learning_rate
    backbone_rate = rate if recipe.backbone_learning_rate is None else recipe.backbone_learning_rate
    groups = [
        {
            "params": [each for each in trainable if (each in backbone, each.ndim >= 2) == (is_backbone, is_decayed)],
            "weight_decay": recipe.weight_decay if is_decayed else 0.0,
            "highest_rate": backbone_rate if is_backbone else rate,
        }
        for is_backbone, is_decayed in itertools.product((True, False), repeat=2)
    ]
    return [group for group in groups if group["params"]]


def _backbone(module: nn.Module, recipe: Recipe) -> set[nn.Parameter]:
    method: Callable[[], Iterable[nn.Parameter]] | None = getattr(module, "backbone_parameters", None)
    if method is None and recipe.backbone_learning_rate is not None:
        raise UsageError(
            f"{type(module).__name__} has no backbone_parameters(), so a backbone's learning rate changes nothing. "
            "Leave it away."
        )
    backbone = set() if method is None else set(method())
    if strangers := backbone - set(module.parameters()):
        raise ValueError(
            f"{type(module).__name__}.backbone_parameters() yields {len(strangers)} that are no parameter of the module"
        )
    return backbone


def _zero(device: torch.device) -> torch.Tensor:
    """Return a running sum that stays on the device, so that adding to it waits for nothing; mps has no float64."""
    return torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def _mean_loss(module: nn.Module, loss_of: Loss, faces: Batches, device: torch.device, precision: Precision) -> float:
    """Return the module's own loss, averaged over faces, in evaluation mode."""
    module.eval()
    total = _zero(device)
    with torch.inference_mode(), mixed_precision(device, precision):
        for loaded in faces.epoch():
            batch = to_device(require_readable(loaded), device)
            total += loss_of(batch).to(total.dtype) * batch.size
    return total.item() / sum(faces.sizes)


def _finite(loss: float, split: str, epoch: int, recipe: Recipe) -> float:
    if not math.isfinite(loss):
        rates = f"{recipe.learning_rate:.3g}"
        if recipe.backbone_learning_rate is not None:
            rates += f" (backbone {recipe.backbone_learning_rate:.3g})"
        raise DataError(
            f"The {split} loss is {loss} in epoch {epoch + 1} at learning rate {rates}. Lower the learning rate, "
            "or check the faces and weights that training starts from."
        )
    return loss


def _finished(folder: Path, key: str, module: nn.Module) -> TrainingSummary | None:
    """Return the summary of this very training where its weights are there already, and load them."""
    path = folder / WEIGHTS
    if not path.is_file() or read_metadata(path).get("training") != key:
        return None
    return _summary(path, load_weights(module, path))


def _summary(path: Path, origin: dict[str, Any]) -> TrainingSummary:
    return TrainingSummary(path, file_sha256(path), origin["epochs"], origin["best_epoch"], origin["val_loss"])


def _write_history(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(f"{json.dumps(asdict(Epoch(**row)))}\n" for row in rows), encoding="utf-8")
    part.replace(path)
