from __future__ import annotations

import inspect
import itertools
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.train import CHECKPOINT, HISTORY, WEIGHTS, Epoch, TrainingSummary, rate_factor, train
from dfad_bench.modelling.weights import load_weights, read_metadata, read_tensors
from dfad_bench.types import Batch, ModelSpec, Output
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
    model: dict[str, Any] | None = None,
    on_progress: Callable[[Epoch], None] | None = None,
    **changes: Any,
) -> TrainingSummary:
    seed_everything(seed, CPU)
    module = spec.build(CLASSES)
    recipe = replace(spec.recipe, **changes)
    where: dict[str, Any] = {"folder": folder, "device": CPU}
    return train(module, spec, CLASSES, *faces, recipe=recipe, seed=seed, model=model, on_progress=on_progress, **where)


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


@pytest.mark.parametrize("change", ["recipe", "options", "seed", "faces", "damaged"])
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
            model={"name": "shade", "options": {"depth": 2}} if change == "options" else None,
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
    rates = [rate_factor(0.1, step, 100) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0 and abs(rates[55] - 0.5) < 1e-9 and 0 < rates[99] < 1e-3
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rate_factor(0.0, 0, 1) == 1.0


def test_the_training_code_cannot_be_given_a_test_face() -> None:
    tables = [name for name in inspect.signature(train).parameters if name.endswith("faces")]
    assert tables == ["train_faces", "val_faces"]


# --- steps of the optimiser ----------------------------------------------------------------------------------------


@dataclass
class Step:
    """What the optimiser was given at one step: per group its rate and decay, and all gradients by parameter."""

    rates: list[float]
    decays: list[float]
    gradients: list[torch.Tensor]

    @property
    def norm(self) -> float:
        return float(torch.cat([gradient.flatten() for gradient in self.gradients]).norm())


@pytest.fixture
def steps() -> Iterator[list[Step]]:
    """Every step that any optimiser takes during a test."""
    taken: list[Step] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimizer.param_groups
        found = [parameter.grad for group in groups for parameter in group["params"]]
        gradients = [gradient.clone() for gradient in found if gradient is not None]
        taken.append(Step([group["lr"] for group in groups], [group["weight_decay"] for group in groups], gradients))

    hook = register_optimizer_step_pre_hook(note)
    yield taken
    hook.remove()


class Towered(nn.Module):
    """A backbone and a head, both with decayed and undecayed parameters, and no randomness."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 4), nn.Linear(4, classes)
        self.seen: list[tuple[bool, torch.dtype]] = []

    def forward(self, batch: Batch) -> Output:
        assert batch.image is not None
        hidden = self.backbone(batch.image.mean(dim=(2, 3)))
        self.seen.append((self.training, hidden.dtype))
        return classifier_output(self.head(hidden.relu()))

    def loss(self, batch: Batch) -> torch.Tensor:
        return attribution_loss(self(batch), batch)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()


TOWERED = replace(
    SHADE,
    build=lambda classes: Towered(len(classes)),
    recipe=replace(SHADE.recipe, epochs=1, batch_size=8, weight_decay=0.1, horizontal_flip=False),
)


@pytest.fixture
def thirteen(tmp_path: Path) -> tuple[pa.Table, pa.Table]:
    """13 faces to train on: batches and groups of batches are not all of one size."""
    return make_faces(tmp_path / "data", 5).slice(0, 13), make_faces(tmp_path / "data", 2, seed=1)


def test_batches_that_are_added_up_give_the_gradients_of_one_batch_of_all_their_faces(
    thirteen: tuple[pa.Table, pa.Table], tmp_path: Path, steps: list[Step]
) -> None:
    """As 4 + 3 and 3 + 3 faces, or as 7 and 6."""
    whole = _train(thirteen, tmp_path / "whole", spec=TOWERED)
    at_once, steps[:] = list(steps), []
    added_up = _train(thirteen, tmp_path / "added up", spec=TOWERED, batch_size=4, accumulate=2)
    assert len(steps) == len(at_once) == 2
    for one, other in zip(at_once, steps, strict=True):
        assert one.rates == other.rates
        for gradient, same in zip(one.gradients, other.gradients, strict=True):
            torch.testing.assert_close(gradient, same, atol=1e-6, rtol=0)
    modules = [TOWERED.build(CLASSES), TOWERED.build(CLASSES)]
    for module, summary in zip(modules, (whole, added_up), strict=True):
        load_weights(module, summary.weights)
    for parameter, same in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(parameter, same, atol=1e-6, rtol=0)
    losses = [json.loads((tmp_path / name / HISTORY).read_text())["train_loss"] for name in ("whole", "added up")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_last_group_that_is_shorter_is_weighted_by_its_own_faces(
    thirteen: tuple[pa.Table, pa.Table], tmp_path: Path, steps: list[Step]
) -> None:
    """13 faces in batches of 4, 3, 3, 3: groups of three leave one batch to the last step, which is not a third of one."""
    _train(thirteen, tmp_path / "grouped", spec=TOWERED, batch_size=4, accumulate=3, learning_rate=0.0)
    grouped, steps[:] = list(steps), []
    _train(thirteen, tmp_path / "alone", spec=TOWERED, batch_size=4, learning_rate=0.0)
    assert (len(grouped), len(steps)) == (2, 4)
    for index, gradient in enumerate(grouped[1].gradients):
        torch.testing.assert_close(gradient, steps[3].gradients[index], atol=1e-7, rtol=0)
        mean = sum(size / 10 * step.gradients[index] for size, step in zip((4, 3, 3), steps, strict=False))
        torch.testing.assert_close(grouped[0].gradients[index], mean, atol=1e-6, rtol=0)


def test_the_schedule_counts_steps_of_the_optimiser(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path, steps: list[Step]
) -> None:
    _train(faces, tmp_path / "run", epochs=4, accumulate=2)  # 5 batches are 3 steps
    assert [step.rates[0] for step in steps] == [0.05 * rate_factor(0.05, step, 12) for step in range(12)]
    last = json.loads((tmp_path / "run" / HISTORY).read_text().splitlines()[-1])
    assert last["learning_rate"] == steps[-1].rates[0]


def test_the_backbone_has_a_rate_of_its_own_that_the_schedule_moves_alike(
    thirteen: tuple[pa.Table, pa.Table], tmp_path: Path, steps: list[Step]
) -> None:
    recipe: dict[str, Any] = {"epochs": 4, "patience": 4, "learning_rate": 0.1}
    _train(thirteen, tmp_path / "run", spec=TOWERED, **recipe, backbone_learning_rate=0.001)
    assert len(steps) == 8 and len({step.rates[0] for step in steps}) > 6
    for step in steps:
        assert step.decays == [0.1, 0.0, 0.1, 0.0]
        backbone, backbone_undecayed, head, head_undecayed = step.rates
        assert backbone == backbone_undecayed and head == head_undecayed
        assert head / backbone == pytest.approx(100)
    steps.clear()
    _train(thirteen, tmp_path / "same", spec=TOWERED, **recipe)
    assert all(len(set(step.rates)) == 1 for step in steps)


def test_a_backbone_whose_rate_is_zero_is_not_touched(thirteen: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    seed_everything(0, CPU)
    before = TOWERED.build(CLASSES).state_dict()
    summary = _train(thirteen, tmp_path / "run", spec=TOWERED, epochs=3, backbone_learning_rate=0.0)
    after = TOWERED.build(CLASSES)
    load_weights(after, summary.weights)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("backbone."), name


def test_frozen_parameters_are_left_out(thirteen: tuple[pa.Table, pa.Table], tmp_path: Path, steps: list[Step]) -> None:
    def frozen(classes: Any) -> nn.Module:
        module = Towered(len(classes))
        module.backbone.requires_grad_(False)
        return module

    _train(thirteen, tmp_path / "run", spec=replace(TOWERED, build=frozen), backbone_learning_rate=0.1)
    assert [len(step.rates) for step in steps] == [2, 2]


def test_a_backbone_that_is_not_the_modules_is_a_bug_and_one_that_is_absent_gets_no_rate(
    thirteen: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    class Confused(Towered):
        def backbone_parameters(self) -> Iterator[nn.Parameter]:
            yield from [*super().backbone_parameters(), nn.Parameter(torch.zeros(2))]

    with pytest.raises(ValueError, match=r"Confused\.backbone_parameters\(\) yields 1 that are no parameter"):
        _train(thirteen, tmp_path, spec=replace(TOWERED, build=lambda classes: Confused(len(classes))))
    with pytest.raises(UsageError, match=r"Shade has no backbone_parameters\(\).*Leave it away"):
        _train(thirteen, tmp_path, backbone_learning_rate=0.1)


def test_the_gradients_are_clipped_to_their_norm_together(
    thirteen: tuple[pa.Table, pa.Table], tmp_path: Path, steps: list[Step]
) -> None:
    _train(thirteen, tmp_path / "free", spec=TOWERED, batch_size=4, accumulate=2)
    free, steps[:] = list(steps), []
    assert free[0].norm > 0.1
    _train(thirteen, tmp_path / "clipped", spec=TOWERED, batch_size=4, accumulate=2, clip_norm=0.05)
    assert len(steps) == 2 and all(step.norm <= 0.05 * (1 + 1e-5) for step in steps)
    for gradient, clipped in zip(free[0].gradients, steps[0].gradients, strict=True):
        torch.testing.assert_close(gradient * (0.05 / free[0].norm), clipped, atol=1e-6, rtol=1e-4)
    steps.clear()
    _train(thirteen, tmp_path / "long", spec=TOWERED, batch_size=4, accumulate=2, clip_norm=1e6)
    torch.testing.assert_close(steps[0].gradients, free[0].gradients)


@pytest.mark.parametrize(("precision", "computed"), [("bfloat16", torch.bfloat16), ("auto", torch.float32)])
def test_training_and_validation_run_in_the_recipes_precision_and_parameters_stay_float32(
    thirteen: tuple[pa.Table, pa.Table], tmp_path: Path, precision: str, computed: torch.dtype
) -> None:
    built: list[Towered] = []

    def build(classes: Any) -> nn.Module:
        built.append(Towered(len(classes)))
        return built[-1]

    _train(thirteen, tmp_path / "run", spec=replace(TOWERED, build=build), precision=precision)
    assert set(built[0].seen) == {(True, computed), (False, computed)}
    assert {parameter.dtype for parameter in built[0].parameters()} == {torch.float32}


# --- losses that are not finite ------------------------------------------------------------------------------------


def _broken_at(batch: int, seen: list[int]) -> ModelSpec:
    """A model whose loss is NaN for one batch of training, counted from 1, and finite before and after."""

    class Broken(Shade):
        def loss(self, faces: Batch) -> torch.Tensor:
            loss = super().loss(faces)
            if not self.training:
                return loss.nan_to_num(1.0)
            seen.append(faces.size)
            return loss.nan_to_num(1.0) * (float("nan") if len(seen) == batch else 1.0)

    return replace(SHADE, build=lambda classes: Broken(len(classes)))


@pytest.mark.parametrize("batch", [3, 8])
def test_a_loss_that_is_not_finite_amid_an_epoch_is_said_by_its_end_and_never_saved(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path, batch: int
) -> None:
    seen: list[int] = []
    epoch = 1 + batch // 5
    with pytest.raises(DataError, match=rf"The train loss is nan in epoch {epoch} at learning rate 0\.05"):
        _train(faces, tmp_path / "run", spec=_broken_at(batch, seen))
    assert len(seen) == 5 * epoch
    assert not (tmp_path / "run" / WEIGHTS).exists()
    assert (tmp_path / "run" / CHECKPOINT).exists() == (epoch > 1)
    if epoch > 1:
        tensors, told = read_tensors(tmp_path / "run" / CHECKPOINT)
        assert len(told["history"]) == epoch - 1
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_a_long_epoch_does_not_wait_for_its_end_to_say_so(tmp_path: Path) -> None:
    seen: list[int] = []
    many = make_faces(tmp_path / "data", 40), make_faces(tmp_path / "data", 2, seed=1)
    with pytest.raises(DataError, match="The train loss is nan in epoch 1"):
        _train(many, tmp_path / "run", spec=_broken_at(3, seen), batch_size=1)
    assert len(seen) == 50


def test_no_step_waits_for_the_device(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses are read once for training and once for validation in each epoch; what the optimiser counts is on the host."""
    read: list[torch.Tensor] = []
    item = torch.Tensor.item

    def noted(tensor: torch.Tensor) -> float:
        if tensor.requires_grad or tensor.dtype == torch.float64:
            read.append(tensor)
        return item(tensor)

    monkeypatch.setattr(torch.Tensor, "item", noted)
    _train(faces, tmp_path / "run", epochs=2, batch_size=1, accumulate=2, clip_norm=0.1)  # 30 steps in 2 epochs
    assert len(read) == 4


# --- a training that is killed -------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from tests.modelling import test_train
from tests.modelling.builders import make_faces

torch.set_num_threads(1)
data, run = Path(sys.argv[1]), Path(sys.argv[2])
faces = make_faces(data, 10), make_faces(data, 4, seed=1)
loss, left = test_train.Towered.loss, [int(sys.argv[3])]

def counted(module, batch):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(module, batch)

test_train.Towered.loss = counted
test_train.all_at_once(faces, run)
"""


def all_at_once(faces: tuple[pa.Table, pa.Table], folder: Path) -> TrainingSummary:
    recipe = {"epochs": 4, "batch_size": 4, "accumulate": 3, "clip_norm": 0.1, "backbone_learning_rate": 0.01}
    return _train(faces, folder, spec=TOWERED, **recipe)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_sigkill_amid_a_group_of_batches_costs_nothing_but_time(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path, repository: Path
) -> None:
    """Killed in epochs 2 and 4, each time amid a group: 8 batches of training and 3 of validation are an epoch."""
    undisturbed = all_at_once(faces, tmp_path / "whole")
    for calls, finished in ((16, 1), (27, 3)):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "data"), str(tmp_path / "killed"), str(calls)]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (tmp_path / "killed" / WEIGHTS).exists()
        assert len((tmp_path / "killed" / HISTORY).read_text().splitlines()) == finished
    resumed = all_at_once(faces, tmp_path / "killed")
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    for name in (WEIGHTS, HISTORY):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


# --- what the weights say ------------------------------------------------------------------------------------------


def test_the_weights_say_which_model_with_which_options_to_rebuild(
    faces: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    model = {"name": "shade", "options": {"depth": 2, "pooling": "max"}}
    assert read_metadata(_train(faces, tmp_path / "run", model=model).weights)["model"] == model
