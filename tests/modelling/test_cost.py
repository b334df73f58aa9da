"""What a run will cost is measured on few faces and never on more than a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from dfad_bench.modelling import cost
from dfad_bench.modelling.cost import Cost, measure
from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe
from tests.modelling.builders import CLASSES, make_faces

CPU = torch.device("cpu")


class Watched(nn.Module):
    """Remembers the batches that it was shown, and in which mode."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)
        self.learned: list[int] = []
        self.answered: list[int] = []
        self.generators = 0

    def forward(self, batch: Batch) -> Output:
        assert batch.image is not None
        if not self.training:
            self.answered.append(batch.size)
        return classifier_output(self.head(batch.image.mean(dim=(2, 3))))

    def loss(self, batch: Batch) -> torch.Tensor:
        assert batch.target is not None
        self.learned.append(batch.size)
        self.generators = max(self.generators, len(batch.target.unique()))
        return attribution_loss(self(batch), batch)


def build(classes: Sequence[Leaf]) -> nn.Module:
    return Watched(len(classes))


SPEC = ModelSpec(build=build, inputs=("image",), preprocess=Preprocess(size=16), reference="none", licence="none")


class Faces:
    """The part of a selection that costs are about."""

    def __init__(self, train: pa.Table, val: int, test: int) -> None:
        self.classes, self.train, self.val, self.test_faces = CLASSES, train, train.slice(0, val), test


@pytest.fixture
def selection(tmp_path: Path) -> Any:
    return Faces(make_faces(tmp_path, 30).sort_by("generator"), val=10, test=100)


def test_a_training_is_its_epochs_and_what_is_predicted_after_it(selection: Any) -> None:
    assert Cost(train=0.2, predict=0.1).seconds(selection, Recipe(epochs=5)) == pytest.approx(
        5 * (90 * 0.2 + 10 * 0.1) + 110 * 0.1
    )


def test_what_is_not_trained_costs_its_predictions(selection: Any) -> None:
    assert Cost(train=0.0, predict=0.1).seconds(selection, Recipe(epochs=5)) == pytest.approx(11)


def test_batches_grow_to_that_of_the_recipe_and_hold_faces_of_every_class(selection: Any) -> None:
    module = Watched(len(CLASSES))
    found = measure(module, SPEC, selection, Recipe(batch_size=40), CPU)
    assert module.learned == [4, 4, 16, 40, 40]
    assert module.answered == [4, 4, 16, 40, 40]
    assert module.generators == len(CLASSES)
    assert found.train > 0 and found.predict > 0


def test_a_slow_model_is_not_shown_a_whole_batch(selection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_LONG", 0.0)
    module = Watched(len(CLASSES))
    measure(module, SPEC, selection, Recipe(batch_size=40), CPU)
    assert max(module.learned) == 4


def test_a_module_that_learns_nothing_costs_no_training(selection: Any) -> None:
    module = Watched(len(CLASSES)).requires_grad_(False)
    assert measure(module, SPEC, selection, Recipe(), CPU).train == 0
    assert module.learned == []
