"""Runs a model over faces: every face once, in the table's order, batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from dfad_bench.modelling.data import Batches, FaceDataset, LoadedBatch, to_device
from dfad_bench.modelling.device import mixed_precision
from dfad_bench.modelling.distributed import Ranks, current
from dfad_bench.modelling.perturb import Level
from dfad_bench.modelling.sharding import is_sharded, without_gradients
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


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found on one batch: the rows [B] of the table that were evaluated, (row, reason) of those that were not."""

    rows: NDArray[np.int64]
    unreadable: tuple[tuple[int, str], ...]
    fake_score: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None

    def moved(self, start: int) -> Answers:
        """Return the same of a table in which these rows lie ``start`` further down."""
        unreadable = tuple((row + start, reason) for row, reason in self.unreadable)
        return replace(self, rows=self.rows + start, unreadable=unreadable)


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
    ranks: Ranks | None = None,
) -> Iterator[Predicted]:
    """Yield a model's answers to all faces of a selection's table.

    The batch size changes speed and memory, not the answers (within 1e-5 in float32). The module is never shown a label.
    ``precision`` is that of ``mixed_precision``. ``perturbation`` happens to every face before the model's preprocessing,
    to the same face always in the same way. ``on_progress`` is given the number of faces done since its last call.

    ranks: those that share the work, by default all of this run's; each exhausts the iterator. The first is given the very
    batches, in the same order, that one process would be given; the others nothing.
    """
    ranks = current() if ranks is None else ranks
    dataset = FaceDataset(spec, faces, perturbation=perturbation)
    share = functools.partial(ranks.whole_ones, padded=is_sharded(module))
    batches = Batches(dataset, batch_size, seed=None, workers=workers, device=device, share=share)
    module.to(device).eval()
    own = (answers(module, loaded, device, precision) for loaded in batches.epoch())
    for found in ranks.in_order(own, len(batches.sizes)):
        if len(found.rows) or found.unreadable:
            yield answered(faces, found)
        if on_progress is not None:
            on_progress(len(found.rows) + len(found.unreadable))


def answered(faces: pa.Table, found: Answers) -> Predicted:
    """Return what was found on rows of a table, with these rows."""
    return Predicted(
        faces=faces.take(pa.array(found.rows)),
        fake_score=found.fake_score,
        logits=found.logits,
        unreadable=tuple((faces["id"][row].as_py(), reason) for row, reason in found.unreadable),
        embedding=found.embedding,
    )


def answers(module: nn.Module, loaded: LoadedBatch, device: torch.device, precision: Precision) -> Answers:
    """Ask a module, which lies on the device in evaluation mode, about a loaded batch."""
    unreadable = tuple((each.row, each.reason) for each in loaded.unreadable)
    if not loaded.batch.size:
        return Answers(loaded.rows, unreadable, np.empty(0, np.float32))
    with without_gradients(module), mixed_precision(device, precision):
        output: Output = module(to_device(loaded.batch, device))
    return Answers(
        loaded.rows,
        unreadable,
        _to_numpy(output.fake_score),
        None if output.logits is None else _to_numpy(output.logits),
        None if output.embedding is None else _to_numpy(output.embedding),
    )


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array
