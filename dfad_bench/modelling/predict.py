"""Runs a model over faces: every face once, in the table's order, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from dfad_bench.modelling.data import Batches, FaceDataset, to_device
from dfad_bench.modelling.device import mixed_precision
from dfad_bench.modelling.perturb import Level
from dfad_bench.types import ModelSpec, Output, Precision


@dataclass(frozen=True, slots=True)
class Predicted:
    """A model's answers to the faces of one batch.

    faces: the B rows of the table that were evaluated; fake_score [B] float32; logits [B, C] and embedding
    [B, D] float32 or None; unreadable: (id, reason) of the faces of this batch that were not evaluated.
    """

    faces: pa.Table
    fake_score: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    unreadable: tuple[tuple[str, str], ...]
    embedding: NDArray[np.float32] | None = None


def predict(
    module: nn.Module,
    spec: ModelSpec,
    faces: pa.Table,
    *,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    precision: Precision = "auto",
    perturbation: Level | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Predicted]:
    """Yield a model's answers to all faces of a selection's table.

    The batch size changes speed and memory, not the answers (within 1e-5 in float32). The module is never shown a label.
    ``precision`` is that of ``mixed_precision``. ``perturbation`` happens to every face before the model's preprocessing,
    to the same face always in the same way. ``on_progress`` is given the number of faces done since its last call.
    """
    dataset = FaceDataset(spec, faces, perturbation=perturbation)
    batches = Batches(dataset, batch_size, seed=None, workers=workers, device=device)
    module.to(device).eval()
    for loaded in batches.epoch():
        unreadable = tuple((faces["id"][each.row].as_py(), each.reason) for each in loaded.unreadable)
        if loaded.batch.size:
            with torch.inference_mode(), mixed_precision(device, precision):
                output: Output = module(to_device(loaded.batch, device))
            yield Predicted(
                faces=faces.take(pa.array(loaded.rows)),
                fake_score=_to_numpy(output.fake_score),
                logits=None if output.logits is None else _to_numpy(output.logits),
                unreadable=unreadable,
                embedding=None if output.embedding is None else _to_numpy(output.embedding),
            )
        elif unreadable:
            yield Predicted(faces.slice(0, 0), np.empty(0, np.float32), None, unreadable)
        if on_progress is not None:
            on_progress(len(loaded.rows) + len(unreadable))


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array
