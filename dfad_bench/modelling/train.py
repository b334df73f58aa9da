"""Trains a model on a protocol's train faces and chooses its checkpoint on the val faces; it has no way to a test face.

Several ranks (``distributed``) train as one process does: the same batches of the same faces in the same order, each rank
taking its part of every batch, and the gradients of all parts together. What differs is what a model does to a batch as a
whole. Dropout is drawn on each rank apart. A loss that couples the faces of a batch (contrastive, mixing) couples those of
a rank's part. Batch normalisation sees all ranks' parts on CUDA; on the CPU it sees a rank's own, and the running statistics
are the first rank's.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.checkpoint import Progress, State, fingerprint, resume, save
from dfad_bench.modelling.data import Batches, FaceDataset, require_readable, to_device
from dfad_bench.modelling.device import mixed_precision, seed_everything
from dfad_bench.modelling.distributed import Ranks, current
from dfad_bench.modelling.sharding import (
    SharedLoss,
    copy_first,
    fill,
    fill_optimizer,
    shard,
    synchronise_batch_norm,
    whole,
    whole_optimizer,
    without_gradients,
)
from dfad_bench.modelling.weights import load_weights, read_metadata, save_tensors
from dfad_bench.types import Leaf, ModelSpec, Precision, Recipe

WEIGHTS, CHECKPOINT, HISTORY = "model.safetensors", "checkpoint.safetensors", "training.jsonl"
SELECTED_ON = "lowest loss on val"
_LOOK_EVERY = 50
"""Optimiser steps between two looks at the running loss: each look makes the host wait for the device."""


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
    sharded: bool = False,
    model: Mapping[str, Any] | None = None,
    on_progress: Callable[[Epoch], None] | None = None,
) -> TrainingSummary:
    """Train a module in place, leave it with the weights of its best epoch, and write them to ``folder``.

    The caller builds the module after ``seed_everything``. The best epoch is the one whose mean loss on val is lowest,
    the earlier one in a tie. A training that was stopped goes on after its last whole epoch and, on the CPU, ends with
    the same bytes as one that was not, if as many ranks go on with it; one that is finished is not repeated.

    sharded: leave each rank a share of every parameter, as ``sharding.shard`` does. model: the name and the options that
    the module was built by, kept in the weights file so that it says what to rebuild. on_progress: called on every rank.
    Only the first rank reads and writes the folder.

    Raises UsageError where the module has no ``loss(batch)``, or no backbone to which the recipe gives a rate, and for
    batches that are too small for so many ranks; DataError for a face that cannot be read and for a loss that is not
    finite: it is looked for every 50 steps and before an epoch is saved; RankDied where another rank is lost.
    """
    _require_loss(module)
    ranks = current()
    tables = {"train": train_faces, "val": val_faces}
    key = ranks.first_says(lambda: fingerprint(module, recipe, seed, classes, tables, model))
    finished = ranks.first_says(lambda: _finished(folder, key, module))
    if finished is not None:
        copy_first(module, ranks)
        return finished
    seed_everything(seed, device)
    loading: dict[str, Any] = {"batch_size": recipe.batch_size, "workers": workers, "device": device}
    train_data = FaceDataset(spec, train_faces, classes, flip=recipe.horizontal_flip)
    train_set = Batches(train_data, seed=seed, share=ranks.part_of_each, **loading)
    padded = functools.partial(ranks.whole_ones, padded=sharded)
    val_set = Batches(FaceDataset(spec, val_faces, classes), seed=None, share=padded, **loading)
    _require_enough_faces(module, train_set.sizes, ranks, device)
    module.to(device)
    if ranks.are_several and device.type == "cuda":
        synchronise_batch_norm(module)
    if sharded:
        copy_first(module, ranks)
        shard(module, ranks, device)
    optimizer = torch.optim.AdamW(_parameter_groups(module, recipe), lr=recipe.learning_rate)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    progress, state = resume(folder / CHECKPOINT, key) if ranks.is_first else (Progress(), State())
    progress = ranks.first_says(lambda: progress)
    if progress.epochs:
        fill(module, state.module, ranks)
        fill_optimizer(optimizer, state.optimizer, ranks)
    best = state.best
    loss_of = SharedLoss(module, ranks)
    faces = train_set.sizes
    groups = [faces[start : start + recipe.accumulate] for start in range(0, len(faces), recipe.accumulate)]

    with ranks.watched(lambda: _resumption(progress)):
        while not progress.is_over(recipe):
            epoch = progress.epochs
            torch.manual_seed(_epoch_seed(seed, epoch, ranks))
            module.train()
            total, factor, batches = _zero(device), 0.0, train_set.epoch(epoch)
            for step, sizes in enumerate(groups, start=epoch * len(groups)):
                factor = rate_factor(recipe.warmup_fraction, step, recipe.epochs * len(groups))
                for group in optimizer.param_groups:
                    group["lr"] = group["highest_rate"] * factor
                optimizer.zero_grad(set_to_none=True)
                for place, loaded in enumerate(itertools.islice(batches, len(sizes)), start=1):
                    batch = to_device(require_readable(loaded), device)
                    with loss_of.adding(is_last=place == len(sizes)):
                        with mixed_precision(device, recipe.precision):
                            loss = loss_of(batch)
                        weight = batch.size * ranks.world_size / sum(sizes)
                        (loss * weight).backward()  # type: ignore[no-untyped-call]
                    total += loss.detach().to(total.dtype) * batch.size
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
                optimizer.step()
                if (step + 1) % _LOOK_EVERY == 0:
                    _finite(ranks.sum(total.item()), "train", epoch, recipe)
            train_loss = _finite(ranks.sum(total.item()) / train_faces.num_rows, "train", epoch, recipe)
            mean_loss = _mean_loss(module, val_set, ranks, device, recipe.precision)
            val_loss = _finite(mean_loss, "val", epoch, recipe)
            best_epoch = epoch + 1 if progress.is_best(val_loss) else progress.best_epoch
            row = Epoch(epoch + 1, train_loss, val_loss, recipe.learning_rate * factor, best_epoch)
            progress = progress.after(asdict(row), val_loss)
            last = whole(module.state_dict(), ranks)
            if best_epoch == progress.epochs:
                best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in last.items()}
            state = State(last, best, whole_optimizer(optimizer, ranks))
            if ranks.is_first:
                save(folder / CHECKPOINT, key, progress, state)
                _write_history(folder / HISTORY, progress.history)
            if on_progress is not None:
                on_progress(row)
        fill(module, best, ranks)

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
    return ranks.first_says(lambda: _write(folder, progress, best, origin))


def _write(
    folder: Path, progress: Progress, best: Mapping[str, torch.Tensor], origin: dict[str, Any]
) -> TrainingSummary:
    """Write what a finished training leaves: its history and its best weights, and no checkpoint."""
    _write_history(folder / HISTORY, progress.history)
    save_tensors(best, folder / WEIGHTS, origin)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return _summary(folder / WEIGHTS, origin)


def _epoch_seed(seed: int, epoch: int, ranks: Ranks) -> int:
    """Return the seed of torch's generator in an epoch: anew for each, so that resuming needs no generator's state."""
    if ranks.is_first:
        return (seed << 20) + epoch
    return int(np.random.SeedSequence((seed, epoch, ranks.rank)).generate_state(1, np.uint64)[0])


def _resumption(progress: Progress) -> str:
    if not progress.epochs:
        return "No epoch was finished; run the same command to start anew."
    return f"Finished epochs are kept; run the same command to go on after epoch {progress.epochs}."


def rate_factor(warmup_fraction: float, step: int, steps: int) -> float:
    """Return by what a highest rate is multiplied at ``step`` of ``steps``, in 0..1.

    It rises linearly over the warm-up, then falls as half a cosine to (almost) zero.
    """
    warmup = math.ceil(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _require_loss(module: nn.Module) -> None:
    if not hasattr(module, "loss"):
        raise UsageError(f"{type(module).__name__} cannot be trained: it has no loss(batch). Give it trained weights.")


def _require_enough_faces(module: nn.Module, sizes: Sequence[int], ranks: Ranks, device: torch.device) -> None:
    """Refuse batches of which a rank would get nothing, or less than batch normalisation can take on its own."""
    norm = nn.modules.batchnorm._BatchNorm
    normalises = device.type != "cuda" and any(isinstance(each, norm) for each in module.modules())
    least = 2 if normalises else 1
    if ranks.are_several and min(sizes, default=0) < least * ranks.world_size:
        why = ", since its batch normalisation takes no fewer" if normalises else ""
        raise UsageError(
            f"Each of {ranks.world_size} ranks needs at least {least} of a batch's faces{why}; the smallest batch of an "
            f"epoch has {min(sizes, default=0)}. Take a larger --batch-size, or fewer ranks."
        )


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


def _mean_loss(module: nn.Module, faces: Batches, ranks: Ranks, device: torch.device, precision: Precision) -> float:
    """Return the module's own loss, averaged over the faces of all ranks, in evaluation mode."""
    module.eval()
    total = _zero(device)
    owned = ranks.owned(len(faces.sizes))
    with without_gradients(module), mixed_precision(device, precision):
        for number, loaded in enumerate(faces.epoch()):
            batch = to_device(require_readable(loaded), device)
            loss: torch.Tensor = module.loss(batch)  # type: ignore[operator]
            if number < owned:
                total += loss.to(total.dtype) * batch.size
    return ranks.sum(total.item()) / sum(faces.sizes)


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
