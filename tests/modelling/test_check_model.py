"""The contract must catch a model that breaks it: one broken model for each promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.testing import ContractError, check_device, check_model
from dfad_bench.types import Batch, ModelSpec, Output
from tests.modelling.builders import SHADE, Shade


def _with(forward: Callable[[Shade, Batch, Output], Output]) -> ModelSpec:
    """Return a spec whose module changes a sound module's answer."""

    class Changed(Shade):
        def forward(self, batch: Batch) -> Output:
            return forward(self, batch, super().forward(batch))

    return replace(SHADE, build=lambda classes: Changed(len(classes)))


def _fails(spec: ModelSpec, because: str) -> None:
    with pytest.raises(ContractError, match=because):
        check_model(spec, face_size=16)


def test_a_sound_model_passes() -> None:
    check_model(SHADE, face_size=16)


def test_a_pure_detector_passes() -> None:
    class Detector(nn.Module):
        def forward(self, batch: Batch) -> Output:
            assert batch.image is not None
            return Output(None, batch.image.mean(dim=(1, 2, 3)))

    check_model(replace(SHADE, build=lambda classes: Detector()), face_size=16)


def test_metadata_must_be_there() -> None:
    _fails(replace(SHADE, reference=" "), "reference is empty")
    _fails(replace(SHADE, licence=""), "licence is empty")


def test_the_default_backbone_must_be_offered() -> None:
    _fails(replace(SHADE, default_backbone_weights="imagenet"), "'imagenet' is neither 'none' nor one of")


def test_options_must_have_defaults_that_can_be_typed_and_be_given_by_name() -> None:
    def without(depth: int) -> ModelSpec:
        return SHADE

    def nameless(depth: int = 2, /) -> ModelSpec:
        return SHADE

    def of_many(**options: int) -> ModelSpec:
        return SHADE

    def listed(depths: tuple[int, ...] = (1, 2)) -> ModelSpec:
        return SHADE

    def unset(depth: int | None = None) -> ModelSpec:
        return SHADE

    def unoffered(pooling: Literal["mean", "max"] = "min") -> ModelSpec:  # type: ignore[assignment]
        return SHADE

    def sound(pooling: Literal["mean", "max"] = "mean", depth: int = 2) -> ModelSpec:
        return SHADE

    _fails(replace(SHADE, configure=without), "option depth has no default")
    _fails(replace(SHADE, configure=nameless), "cannot be given by name")
    _fails(replace(SHADE, configure=of_many), "cannot be given by name")
    _fails(replace(SHADE, configure=listed), "default of depths is a tuple")
    _fails(replace(SHADE, configure=unset), "default of depth is a NoneType")
    _fails(replace(SHADE, configure=unoffered), "default of pooling is not among its choices")
    check_model(replace(SHADE, configure=sound), face_size=16)


def test_the_defaults_of_the_options_must_be_the_model_itself() -> None:
    _fails(replace(SHADE, configure=lambda: replace(SHADE, reference="another")), "returns another reference")
    _fails(replace(SHADE, configure=lambda: replace(SHADE, inputs=("image", "gaze"))), "returns another inputs")
    other = replace(SHADE, preprocess=Preprocess(size=4))
    _fails(replace(SHADE, configure=lambda: other), "returns another preprocess")


def test_a_backbone_that_is_not_the_modules_is_refused() -> None:
    class Confused(Shade):
        def backbone_parameters(self) -> list[nn.Parameter]:
            return [nn.Parameter(torch.zeros(2))]

    _fails(replace(SHADE, build=lambda classes: Confused(len(classes))), "what is no parameter of the module")


def test_inputs_and_preprocess_must_agree() -> None:
    _fails(replace(SHADE, inputs=()), "exactly when inputs has 'image'")
    _fails(replace(SHADE, preprocess=None), "exactly when inputs has 'image'")


def test_a_preprocess_that_no_worker_can_receive_is_refused() -> None:
    def local(face: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.float32]:
        return face.transpose(2, 0, 1).astype(np.float32)

    _fails(replace(SHADE, preprocess=local), "cannot be sent to a worker")


def _random(face: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.float32]:
    return np.random.default_rng().random((3, 8, 8), dtype=np.float32)


def _double(face: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.float32]:
    return face.transpose(2, 0, 1).astype(np.float64)  # type: ignore[return-value]


def test_a_preprocess_that_is_random_in_evaluation_or_of_another_type_is_refused() -> None:
    _fails(replace(SHADE, preprocess=_random), "must not be random in evaluation")
    _fails(replace(SHADE, preprocess=_double), "float32")


def test_wrong_shapes_are_refused() -> None:
    _fails(_with(lambda self, batch, out: Output(out.logits, out.fake_score[:, None])), "fake_score must be")
    _fails(_with(lambda self, batch, out: Output(out.logits[:, 1:], out.fake_score)), "logits must be")  # type: ignore[index]


def test_an_answer_that_is_not_finite_is_refused() -> None:
    _fails(_with(lambda self, batch, out: Output(out.logits, out.fake_score / 0)), "not finite")


def test_an_answer_that_depends_on_chance_is_refused() -> None:
    _fails(_with(lambda self, batch, out: Output(out.logits, out.fake_score + torch.rand(1))), "two passes")


def test_an_answer_that_depends_on_the_label_is_refused() -> None:
    def peek(self: Shade, batch: Batch, out: Output) -> Output:
        return out if batch.target is None else Output(out.logits, out.fake_score + batch.target)

    _fails(_with(peek), "depends on the labels")


def test_an_answer_that_depends_on_the_other_faces_of_the_batch_is_refused() -> None:
    _fails(_with(lambda self, batch, out: Output(out.logits, out.fake_score - out.fake_score.mean())), "on its batch")


def test_a_parameter_that_no_gradient_reaches_is_refused() -> None:
    class Idle(Shade):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.idle = nn.Parameter(torch.zeros(3))

    _fails(replace(SHADE, build=lambda classes: Idle(len(classes))), "no gradient reaches idle")


def test_a_layer_that_starts_at_zero_is_no_fault() -> None:
    class Gated(Shade):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.inner, self.gate = nn.Linear(3, 3), nn.Linear(3, classes)
            nn.init.zeros_(self.gate.weight)

        def forward(self, batch: Batch) -> Output:
            assert batch.image is not None
            out = super().forward(batch)
            assert out.logits is not None
            return Output(out.logits + self.gate(self.inner(batch.image.mean(dim=(2, 3)))), out.fake_score)

    check_model(replace(SHADE, build=lambda classes: Gated(len(classes))), face_size=16)


def test_state_that_is_not_saved_is_refused() -> None:
    class Forgetful(Shade):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.offset = torch.rand(1)

        def forward(self, batch: Batch) -> Output:
            out = super().forward(batch)
            return Output(out.logits, out.fake_score + self.offset)

    _fails(replace(SHADE, build=lambda classes: Forgetful(len(classes))), "saving and loading")


class Moved(Shade):
    """Knows whether it was moved to a device, as a tensor made on the CPU would."""

    there = False

    def to(self, *where: Any, **how: Any) -> Any:
        self.there = True
        return super().to(*where, **how)


@pytest.mark.parametrize(
    ("because", "shift"),
    [
        ("fails on cpu: Expected all tensors to be on the same device", None),
        ("on cpu in float32 an answer differs from the CPU's by", 0.1),
        ("logits are not finite", float("nan")),
    ],
)
def test_what_fails_on_a_device_alone_is_told(because: str, shift: float | None) -> None:
    class Elsewhere(Moved):
        def forward(self, batch: Batch) -> Output:
            out = super().forward(batch)
            if self.there and shift is None:
                raise RuntimeError("Expected all tensors to be on the same device\nand more of it")
            return Output(out.logits + shift * self.there, out.fake_score) if out.logits is not None and shift else out

    with pytest.raises(ContractError, match=because):
        check_device(replace(SHADE, build=lambda classes: Elsewhere(len(classes))), torch.device("cpu"), face_size=16)


def test_a_loss_that_is_not_finite_on_a_device_is_told() -> None:
    class Infinite(Shade):
        def loss(self, batch: Batch) -> torch.Tensor:
            return super().loss(batch) / 0

    spec = replace(SHADE, build=lambda classes: Infinite(len(classes)))
    with pytest.raises(ContractError, match="loss must be finite on cpu"):
        check_device(spec, torch.device("cpu"), face_size=16)


def test_a_sound_model_passes_on_a_device() -> None:
    check_device(SHADE, torch.device("cpu"), face_size=16)
