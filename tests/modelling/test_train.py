from __future__ import annotations

import inspect
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.train import CHECKPOINT, HISTORY, WEIGHTS, Epoch, TrainingSummary, learning_rate, train
from dfad_bench.modelling.weights import load_weights, read_metadata
from dfad_bench.types import Batch, ModelSpec, Recipe
from tests.modelling.builders import CLASSES, SHADE, Shade, make_faces

CPU = torch.device("cpu")


@pytest.fixture
def faces(tmp_path: Path) -> tuple[pa.Table, pa.Table]:
    return make_faces(tmp_path / "data", 10), make_faces(tmp_path / "data", 4, seed=1)


def _train(
    faces: tuple[pa.Table, pa.Table],
    folder: Path,
    *,
    spec: ModelSpec = SHADE,
    seed: int = 0,
    on_progress: Callable[[Epoch], None] | None = None,
    **changes: Any,
) -> TrainingSummary:
    seed_everything(seed, CPU)
    module = spec.build(CLASSES)
    recipe = replace(spec.recipe, **changes)
    return train(
        module, spec, CLASSES, *faces, recipe=recipe, seed=seed, folder=folder, device=CPU, on_progress=on_progress
    )


def test_training_learns_what_can_be_learned(faces: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    summary = _train(faces, tmp_path / "run", epochs=15, patience=15)
    module = SHADE.build(CLASSES)
    load_weights(module, summary.weights)
    test = make_faces(tmp_path / "data", 10, seed=2)
    answers = list(predict(module, SHADE, test, batch_size=8, device=CPU))
    chosen = np.concatenate([answer.logits.argmax(axis=1) for answer in answers if answer.logits is not None])
    right = [CLASSES[index].name == name for index, name in zip(chosen, test["generator"].to_pylist(), strict=True)]
    assert np.mean(right) > 0.9


def test_two_trainings_with_one_seed_are_the_same_to_the_byte_and_other_seeds_differ(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    one, two, other = (_train(faces, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.weights.read_bytes() == two.weights.read_bytes()
    assert (tmp_path / "a" / HISTORY).read_bytes() == (tmp_path / "b" / HISTORY).read_bytes()
    assert one.weights_sha256 == two.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path, stop_after: int
) -> None:
    def kill(row: Epoch) -> None:
        if row.epoch == stop_after:
            raise KeyboardInterrupt

    undisturbed = _train(faces, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _train(faces, tmp_path / "killed", on_progress=kill)
    torch.rand(5)
    seen: list[int] = []
    resumed = _train(faces, tmp_path / "killed", on_progress=lambda row: seen.append(row.epoch))
    assert seen == list(range(stop_after + 1, 5))
    for name in (WEIGHTS, HISTORY):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert resumed.weights_sha256 == undisturbed.weights_sha256 and resumed.epochs == undisturbed.epochs
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted([WEIGHTS, HISTORY])


def test_a_finished_training_is_not_repeated(faces: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    first = _train(faces, tmp_path / "run")
    again = _train(faces, tmp_path / "run", on_progress=lambda row: pytest.fail("it trained again"))
    assert again == first
    longer = _train(faces, tmp_path / "run", epochs=5, patience=5)
    assert longer.epochs == 5


@pytest.mark.parametrize("change", ["recipe", "seed", "faces", "damaged"])
def test_a_checkpoint_of_another_training_is_not_used(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    def kill(row: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(faces, tmp_path / "run", on_progress=kill)
    if change == "damaged":
        (tmp_path / "run" / CHECKPOINT).write_bytes(b"half a file")
    seen: list[int] = []
    with caplog.at_level(logging.WARNING):
        _train(
            (faces[0].slice(1), faces[1]) if change == "faces" else faces,
            tmp_path / "run",
            seed=1 if change == "seed" else 0,
            learning_rate=0.01 if change == "recipe" else 0.05,
            on_progress=lambda row: seen.append(row.epoch),
        )
    assert seen[0] == 1
    assert "Training starts anew." in caplog.text


def test_the_best_epoch_on_val_is_kept_and_training_stops_after_patience_epochs_without_a_better_one(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.0, 5.0, 0.0])

    class Scripted(Shade):
        def loss(self, batch: Batch) -> torch.Tensor:
            loss = super().loss(batch)
            return loss if self.training else loss * 0 + self.said

        def eval(self) -> Scripted:
            self.said = next(losses)
            return super().eval()

    states: list[dict[str, torch.Tensor]] = []
    seed_everything(0, CPU)
    module = Scripted(len(CLASSES))

    def remember(row: Epoch) -> None:
        states.append({name: tensor.clone() for name, tensor in module.state_dict().items()})

    recipe = replace(SHADE.recipe, epochs=6, patience=3)
    summary = train(
        module, SHADE, CLASSES, *faces, recipe=recipe, seed=0, folder=tmp_path / "run", device=CPU, on_progress=remember
    )
    assert (summary.epochs, summary.best_epoch, summary.val_loss) == (5, 2, 1.0)
    assert read_metadata(summary.weights)["selected_on"] == "lowest loss on val"
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, states[1][name])


def test_the_history_has_one_line_per_epoch_and_no_clock(faces: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    _train(faces, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / HISTORY).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"epoch", "train_loss", "val_loss", "learning_rate", "best_epoch"}


def test_an_unreadable_training_face_stops_the_training(faces: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    for table in faces:
        path = tmp_path / "data" / table["file_name"][3].as_py()
        data = path.read_bytes()
        path.write_bytes(data[:40])
        with pytest.raises(DataError, match=rf"{path.name}: unreadable face. Run 'dfad-bench check manifest "):
            _train(faces, tmp_path / "run")
        path.write_bytes(data)


def test_a_loss_that_is_not_finite_is_said_at_once(faces: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    class Broken(Shade):
        def loss(self, batch: Batch) -> torch.Tensor:
            return super().loss(batch) * float("nan")

    spec = replace(SHADE, build=lambda classes: Broken(len(classes)))
    with pytest.raises(DataError, match=r"The train loss is nan in epoch 1 at learning rate 0\.05"):
        _train(faces, tmp_path / "run", spec=spec)
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_a_module_without_a_loss_or_a_parameter_cannot_be_trained(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"Linear cannot be trained: it has no loss\(batch\)"):
        _train(faces, tmp_path, spec=replace(SHADE, build=lambda classes: nn.Linear(1, 1)))
    with pytest.raises(UsageError, match="no trainable parameter"):
        _train(faces, tmp_path, spec=replace(SHADE, build=lambda classes: Shade(3).requires_grad_(False)))


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    recipe = Recipe(learning_rate=1.0, warmup_fraction=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0 and abs(rates[55] - 0.5) < 1e-9 and 0 < rates[99] < 1e-3
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert learning_rate(replace(recipe, warmup_fraction=0.0), 0, 1) == 1.0


def test_the_training_code_cannot_be_given_a_test_face() -> None:
    tables = [name for name in inspect.signature(train).parameters if name.endswith("faces")]
    assert tables == ["train_faces", "val_faces"]
