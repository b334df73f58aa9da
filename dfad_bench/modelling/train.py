"""Trains a model on a protocol's train faces and chooses its checkpoint on the val faces; it has no way to a test face."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
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
from dfad_bench.types import Batch, Leaf, ModelSpec, Recipe

WEIGHTS, CHECKPOINT, HISTORY = "model.safetensors", "checkpoint.safetensors", "training.jsonl"
SELECTED_ON = "lowest loss on val"

Loss = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch, counted from 1: mean losses per face (nats), its last learning rate, the best epoch so far."""

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
    on_progress: Callable[[Epoch], None] | None = None,
) -> TrainingSummary:
    """Train a module in place, leave it with the weights of its best epoch, and write them to ``folder``.

    The caller builds the module after ``seed_everything``. The best epoch is the one whose mean loss on val is lowest,
    the earlier one in a tie. A training that was stopped goes on after its last whole epoch and, on the CPU, ends with
    the same bytes as one that was not; one that is finished is not repeated. Raises UsageError where the module has no
    ``loss(batch)``, DataError for a face that cannot be read and for a loss that is not finite.
    """
    loss_of = _trainable(module)
    key = fingerprint(module, recipe, seed, classes, {"train": train_faces, "val": val_faces})
    finished = _finished(folder, key, module)
    if finished is not None:
        return finished
    seed_everything(seed, device)
    module.to(device)
    loading: dict[str, Any] = {"batch_size": recipe.batch_size, "workers": workers, "device": device}
    train_set = Batches(FaceDataset(spec, train_faces, classes, flip=recipe.horizontal_flip), seed=seed, **loading)
    val_set = Batches(FaceDataset(spec, val_faces, classes), seed=None, **loading)
    optimizer = torch.optim.AdamW(_parameter_groups(module, recipe.weight_decay), lr=recipe.learning_rate)
    progress = resume(folder / CHECKPOINT, key, module, optimizer)

    while not progress.is_over(recipe):
        epoch = progress.epochs
        torch.manual_seed((seed << 20) + epoch)  # anew for each epoch, so that resuming needs no generator's state
        module.train()
        total, rate = 0.0, 0.0
        for step, loaded in enumerate(train_set.epoch(epoch), start=epoch * len(train_set)):
            rate = learning_rate(recipe, step, recipe.epochs * len(train_set))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = to_device(require_readable(loaded), device)
            with mixed_precision(device):
                loss = loss_of(batch)
            total += _finite(loss.item(), "train", epoch, rate) * batch.size
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        val_loss = _finite(_mean_loss(module, loss_of, val_set, device), "val", epoch, rate)
        best_epoch = epoch + 1 if progress.is_best(val_loss) else progress.best_epoch
        row = Epoch(epoch + 1, total / train_faces.num_rows, val_loss, rate, best_epoch)
        progress = progress.after(asdict(row), val_loss, module)
        save(folder / CHECKPOINT, key, progress, module, optimizer)
        _write_history(folder / HISTORY, progress.history)
        if on_progress is not None:
            on_progress(row)

    module.load_state_dict(progress.best_state)
    _write_history(folder / HISTORY, progress.history)
    origin = {
        "training": key,
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


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate of ``step`` of ``steps``: a linear rise over the warm-up, then half a cosine to (almost) zero."""
    warmup = math.ceil(recipe.warmup_fraction * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _trainable(module: nn.Module) -> Loss:
    loss_of: Loss | None = getattr(module, "loss", None)
    if loss_of is None:
        raise UsageError(f"{type(module).__name__} cannot be trained: it has no loss(batch). Give it trained weights.")
    return loss_of


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trainable parameters; biases and normalisation gains are not decayed, having no excess to lose."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError(f"{type(module).__name__} cannot be trained: it has no trainable parameter.")
    groups = (
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def _mean_loss(module: nn.Module, loss_of: Loss, faces: Batches, device: torch.device) -> float:
    """Return the module's own loss, averaged over faces, in evaluation mode."""
    module.eval()
    total, count = 0.0, 0
    with torch.inference_mode(), mixed_precision(device):
        for loaded in faces.epoch():
            batch = to_device(require_readable(loaded), device)
            total += loss_of(batch).item() * batch.size
            count += batch.size
    return total / count


def _finite(loss: float, split: str, epoch: int, rate: float) -> float:
    if not math.isfinite(loss):
        raise DataError(
            f"The {split} loss is {loss} in epoch {epoch + 1} at learning rate {rate:.3g}. Lower the learning rate, "
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
