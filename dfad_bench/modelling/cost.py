"""How long a training and its predictions will take: a few faces are tried, and the rest is arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from dfad_bench.modelling.data import FaceDataset, Request, require_readable, to_device
from dfad_bench.modelling.device import mixed_precision
from dfad_bench.modelling.distributed import Ranks
from dfad_bench.modelling.predict import predict
from dfad_bench.records.selection import Selection
from dfad_bench.types import ModelSpec, Recipe

_FEWEST = 4
_LONG = 0.25
"""Seconds after which a try says enough."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds per face on this machine: of a training step, 0 for a module that is not trained, and of a prediction."""

    train: float
    predict: float

    def seconds(self, selection: Selection, recipe: Recipe) -> float:
        """Return the seconds that a run's faces take if training does not end early; the files of an epoch come on top."""
        trained, chosen = int(selection.train.num_rows), int(selection.val.num_rows)
        learning = recipe.epochs * (trained * self.train + chosen * self.predict) if self.train else 0.0
        return learning + (chosen + selection.test_faces) * self.predict


def measure(module: nn.Module, spec: ModelSpec, selection: Selection, recipe: Recipe, device: torch.device) -> Cost:
    """Try a module on faces of the selection's training, loading included, and return its cost; its state is spoiled.

    On batches that grow up to the recipe's, until one takes a quarter of a second: large ones cost less a face. The
    optimiser's own step is not counted. Raises DataError for a face that cannot be read.
    """
    module.to(device)

    def learn(faces: pa.Table) -> None:
        dataset = FaceDataset(spec, faces, selection.classes, flip=recipe.horizontal_flip)
        loaded = dataset[Request(np.arange(faces.num_rows), randomness=(0, 0))]
        with mixed_precision(device, recipe.precision):
            loss: torch.Tensor = module.train().loss(to_device(require_readable(loaded), device))  # type: ignore[operator]
        loss.backward()  # type: ignore[no-untyped-call]
        module.zero_grad(set_to_none=True)

    def answer(faces: pa.Table) -> None:
        how: dict[str, Any] = {"batch_size": faces.num_rows, "device": device, "precision": recipe.precision}
        asked = predict(module, spec, faces, ranks=Ranks(), **how)
        for _ in asked:
            pass

    learns = hasattr(module, "loss") and any(parameter.requires_grad for parameter in module.parameters())
    return Cost(
        train=_seconds_per_face(learn, selection.train, recipe, device) if learns else 0.0,
        predict=_seconds_per_face(answer, selection.train, recipe, device),
    )


def _seconds_per_face(
    doing: Callable[[pa.Table], None], faces: pa.Table, recipe: Recipe, device: torch.device
) -> float:
    """Return the time of a batch, the lower of two, by its faces; the first one of all warms up."""
    most = min(recipe.batch_size, int(faces.num_rows))
    size = min(_FEWEST, most)
    _timed(doing, _spread(faces, size), device)
    while (took := _timed(doing, _spread(faces, size), device)) < _LONG and size < most:
        size = min(4 * size, most)
    return min(took, _timed(doing, _spread(faces, size), device)) / size


def _spread(faces: pa.Table, count: int) -> pa.Table:
    """Return so many faces from all over the table: its first ones may be of one generator."""
    return faces.take(pa.array(np.linspace(0, faces.num_rows - 1, count).round().astype(np.int64)))


def _timed(doing: Callable[[pa.Table], None], faces: pa.Table, device: torch.device) -> float:
    started = time.perf_counter()
    doing(faces)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
