"""A run's model as the workers of an engine have it: built anew from its name and its weights, asked batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from dfad_bench import registry
from dfad_bench.interfaces import Engine
from dfad_bench.modelling.data import Batches, FaceDataset, cut
from dfad_bench.modelling.device import device_name, pick_device, seed_everything
from dfad_bench.modelling.options import configured
from dfad_bench.modelling.perturb import Level
from dfad_bench.modelling.predict import Answers, Predicted, answered, answers
from dfad_bench.modelling.weights import load_weights
from dfad_bench.types import Leaf, Precision

_BATCHES = 8
"""Batches in a task: enough that handing it over costs little beside them."""


@dataclass(frozen=True, slots=True)
class Replica:
    """What a worker must know to answer as one process would.

    model: a registered name or the path of a file; settings: its options as ``option=value``; weights: a file that every
    worker sees; workers: processes that load faces beside each.
    """

    model: str
    settings: Sequence[str]
    classes: Sequence[Leaf]
    weights: Path
    seed: int
    device: str
    precision: Precision
    workers: int = 0
    perturbation: Level | None = None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Some batches on end: their rows of a named table, which row is the first, and the batches' sizes."""

    table: str
    faces: pa.Table
    start: int
    sizes: Sequence[int]


def predict_on(
    engine: Engine, replica: Replica, tables: Mapping[str, pa.Table], *, batch_size: int
) -> Iterator[tuple[str, Predicted]]:
    """Yield what ``predict`` does for one table after the other, with the table's name, whichever workers answered."""
    tasks = partial(_stretches, tables, batch_size)
    for name, found in engine.map(tasks, partial(_Asked, replica), in_order=True):
        for each in found:
            if len(each.rows) or each.unreadable:
                yield name, answered(tables[name], each)


def device_of(engine: Engine, device: str) -> str:
    """Return what a worker of the engine calls a device, ``auto`` included."""
    (told,) = engine.map(partial(iter, [device]), _device_teller)
    return told


def _device_teller() -> Callable[[str], str]:
    return lambda device: device_name(pick_device(device))


def _stretches(tables: Mapping[str, pa.Table], batch_size: int) -> Iterator[_Stretch]:
    for name, faces in tables.items():
        batches = cut(np.arange(faces.num_rows, dtype=np.int64), batch_size)
        for first in range(0, len(batches), _BATCHES):
            some = batches[first : first + _BATCHES]
            # taken rather than sliced: a slice would be sent with all that it is a slice of
            rows = faces.take(pa.array(np.concatenate(some)))
            yield _Stretch(name, rows, int(some[0][0]), [len(each) for each in some])


class _Asked:
    """The stage of a prediction: a stretch of faces in, the answers to it out."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._device = pick_device(replica.device)
        entry = registry.find("models", replica.model)
        self._spec, _ = configured(entry.name, registry.load("models", entry), replica.settings)
        seed_everything(replica.seed, self._device)
        module = self._spec.build(tuple(replica.classes))
        load_weights(module, replica.weights)
        self._module = module.to(self._device).eval()

    def __call__(self, stretch: _Stretch) -> tuple[str, list[Answers]]:
        replica, edges = self._replica, np.cumsum([0, *stretch.sizes])
        rows = [np.arange(start, end, dtype=np.int64) for start, end in itertools.pairwise(edges.tolist())]
        batches = Batches(
            FaceDataset(self._spec, stretch.faces, perturbation=replica.perturbation),
            max(stretch.sizes),
            seed=None,
            workers=replica.workers,
            device=self._device,
            share=lambda _: rows,
        )
        found = (answers(self._module, loaded, self._device, replica.precision) for loaded in batches.epoch())
        return stretch.table, [each.moved(stretch.start) for each in found]
