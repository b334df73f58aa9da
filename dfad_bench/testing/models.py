"""The contract of a model."""

from __future__ import annotations

import inspect
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import torch
from torch import nn

from dfad_bench import registry
from dfad_bench.modelling.data import to_device
from dfad_bench.modelling.device import mixed_precision, seed_everything
from dfad_bench.modelling.options import options_of
from dfad_bench.modelling.weights import BY_PATH, load_weights, save_weights
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.records.manifest import HEADER_FEATURES
from dfad_bench.testing.contract import ContractError, require
from dfad_bench.types import Batch, Leaf, ModelSpec, Output

LEAVES = (
    Leaf("real", "real", "real"),
    Leaf("ddim", "diffusion", "efs"),
    Leaf("stylegan3", "gan", "efs"),
    Leaf("simswap", "gan", "fs"),
)
"""The leaf classes that a model is built for unless others are given."""

_TOLERANCE = 1e-5
_DEVICE_TOLERANCE = 1e-3
"""Kernels of a GPU add in another order, and a deep network with random weights makes more of that."""


def check_model(model: str | ModelSpec, classes: Sequence[Leaf] = LEAVES, face_size: int = 256) -> None:
    """Check a model against the contract of ``ModelSpec``, on random faces and on the CPU, and on CUDA where that is present.

    model: a registered name, the path of a model file, or a spec; face_size: side in pixels of the square faces that
    its preprocessing is given. Raises ContractError for the first promise that is broken.
    """
    spec: ModelSpec = registry.get("models", model) if isinstance(model, str) else model
    _check_metadata(spec)
    _check_preprocess(spec, face_size)
    if spec.configure is not None:
        _check_options(spec, face_size)
    torch.manual_seed(0)
    module = spec.build(classes)
    batch = _random_batch(spec, len(classes), faces=5, face_size=face_size)
    module.eval()
    _check_output(module, batch, len(classes))
    _check_evaluation(module, batch, len(classes))
    _check_round_trip(module, spec, classes, batch)
    if hasattr(module, "loss"):
        _check_training(module, spec, classes, face_size)
    if torch.cuda.is_available():
        check_device(spec, torch.device("cuda"), classes, face_size)


def check_device(spec: ModelSpec, device: torch.device, classes: Sequence[Leaf] = LEAVES, face_size: int = 256) -> None:
    """Check that a model answers on a device as on the CPU in float32, and that it answers and trains there as runs do.

    Runs use mixed precision on CUDA. Raises ContractError, for what fails on the device alone too, such as a tensor that
    the module makes on the CPU.
    """
    torch.manual_seed(0)
    module = spec.build(classes).eval()
    batch = _random_batch(spec, len(classes), faces=5, face_size=face_size)
    here = _answer(module, batch)
    seed_everything(0, device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*deterministic")  # some kernels are not, and runs take those too
            module.to(device)
            batch = to_device(batch, device)
            there = _answer(module, batch)
            with mixed_precision(device):
                _check_output(module, batch, len(classes))
            if hasattr(module, "loss"):
                _check_step(module, batch, device)
    except RuntimeError as error:
        raise ContractError(f"fails on {device.type}: {str(error).splitlines()[0]}") from error
    worst = _difference(here, _on_cpu(there))
    require(worst <= _DEVICE_TOLERANCE, f"on {device.type} in float32 an answer differs from the CPU's by {worst:.2g}")


def _check_step(module: nn.Module, batch: Batch, device: torch.device) -> None:
    module.train()
    with mixed_precision(device):
        loss: torch.Tensor = module.loss(batch)  # type: ignore[operator]
    require(bool(loss.isfinite()), f"loss must be finite on {device.type}, it is {loss}")
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
        require(finite, f"the gradient of {name} is not finite on {device.type}")


def _on_cpu(output: Output) -> Output:
    return Output(None if output.logits is None else output.logits.cpu(), output.fake_score.cpu())


def _check_metadata(spec: ModelSpec) -> None:
    require(bool(spec.reference.strip()), "ModelSpec.reference is empty: name the paper, or say 'none'")
    require(bool(spec.licence.strip()), "ModelSpec.licence is empty")
    known = ("image", "gaze_map", "gaze", "header")
    require(set(spec.inputs) <= set(known), f"ModelSpec.inputs {spec.inputs}: only {', '.join(known)} are known")
    require(
        ("image" in spec.inputs) == (spec.preprocess is not None),
        "ModelSpec.preprocess must be given exactly when inputs has 'image'",
    )
    for name, weights in spec.backbone_weights.items():
        require(len(weights.sha256) == 64, f"backbone weights {name!r}: sha256 must have 64 hexadecimal digits")
        require(bool(weights.licence and weights.training_data), f"backbone weights {name!r}: say licence and data")
    require(
        not spec.backbone_weights or spec.load_backbone is not None,
        "ModelSpec.load_backbone must be given where there are backbone_weights",
    )
    require("none" not in spec.backbone_weights, "backbone weights may not be named 'none': that is random weights")
    require(
        spec.default_backbone_weights in ("none", *spec.backbone_weights)
        or (spec.default_backbone_weights == BY_PATH and spec.load_backbone is not None),
        f"default_backbone_weights {spec.default_backbone_weights!r} is neither 'none' nor one of backbone_weights, "
        f"nor {BY_PATH!r} beside a load_backbone",
    )


def _check_preprocess(spec: ModelSpec, face_size: int) -> None:
    if spec.preprocess is None:
        return
    transform = spec.preprocess
    try:
        pickle.dumps(transform)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(f"preprocess cannot be sent to a worker process: {error}") from None
    face = np.random.default_rng(0).integers(0, 256, (face_size, face_size, 3), dtype=np.uint8)
    before = face.copy()
    once, again, training = transform(face, None), transform(face, None), transform(face, np.random.default_rng(1))
    require(np.array_equal(face, before), "preprocess changes the face it is given")
    require(
        once.dtype == np.float32 and once.ndim == 3 and once.shape[0] == 3,
        f"preprocess must return [3, h, w] float32, it returns {list(once.shape)} {once.dtype}",
    )
    require(bool(np.isfinite(once).all()), "preprocess returns values that are not finite")
    require(np.array_equal(once, again), "preprocess must not be random in evaluation, where rng is None")
    require(once.shape == training.shape, "preprocess must return one shape in training and in evaluation")


def _check_options(spec: ModelSpec, face_size: int) -> None:
    """Every option has a default that can be typed, and all of them together are the model itself."""
    for option in options_of(spec):
        by_name = option.kind in (option.POSITIONAL_OR_KEYWORD, option.KEYWORD_ONLY)
        require(by_name, f"configure: {option} cannot be given by name")
        has_default = option.default is not inspect.Parameter.empty
        require(has_default, f"configure: option {option.name} has no default, so MODEL does not say what it is there")
        require(
            type(option.default) in (bool, int, float, str),
            f"configure: the default of {option.name} is a {type(option.default).__name__}: bool, int, float and str "
            "can be typed",
        )
        choices = get_args(option.annotation) if get_origin(option.annotation) is Literal else (option.default,)
        require(option.default in choices, f"configure: the default of {option.name} is not among its choices")
    assert spec.configure is not None
    other = spec.configure()
    for name in (
        "inputs",
        "reference",
        "licence",
        "recipe",
        "backbone_weights",
        "default_backbone_weights",
        "trained_on",
    ):
        require(
            getattr(other, name) == getattr(spec, name),
            f"configure() returns another {name} than MODEL has: the defaults of its options must be what MODEL is",
        )
    if spec.preprocess is not None and other.preprocess is not None:
        face = np.random.default_rng(0).integers(0, 256, (face_size, face_size, 3), dtype=np.uint8)
        same = np.array_equal(spec.preprocess(face, None), other.preprocess(face, None))
        require(same, "configure() returns another preprocess than MODEL has")


def _random_batch(spec: ModelSpec, classes: int, faces: int, face_size: int, seed: int = 0) -> Batch:
    """Return random faces as the model would get them, the last one's gaze unknown; all inputs it did not ask for None."""
    rng = np.random.default_rng(seed)
    image = gaze_map = gaze = header = None
    if spec.preprocess is not None:
        pixels = rng.integers(0, 256, (faces, face_size, face_size, 3), dtype=np.uint8)
        image = torch.from_numpy(np.stack([spec.preprocess(face, None) for face in pixels]))
    if "gaze_map" in spec.inputs:
        gaze_map = torch.from_numpy(rng.random((faces, 2, HEIGHT, WIDTH), dtype=np.float32))
        gaze_map[-1] = 0
    if "gaze" in spec.inputs:
        gaze = torch.from_numpy(rng.uniform(-0.8, 0.8, (faces, 2)).astype(np.float32))
        gaze[-1] = torch.nan
    if "header" in spec.inputs:
        header = torch.from_numpy(rng.random((faces, len(HEADER_FEATURES)), dtype=np.float32))
    target = torch.from_numpy(rng.permutation(np.arange(faces) % classes))
    return Batch(faces, image, gaze_map, gaze, header, target)


def _check_output(module: nn.Module, batch: Batch, classes: int) -> None:
    output = _answer(module, batch)
    scores = output.fake_score
    require(
        list(scores.shape) == [batch.size],
        f"fake_score must be [B] = [{batch.size}], it is {list(scores.shape)}",
    )
    require(bool(scores.isfinite().all()), "fake_score is not finite (one face's gaze is unknown: NaN, empty map)")
    if output.logits is not None:
        expected = [batch.size, classes]
        require(
            list(output.logits.shape) == expected,
            f"logits must be [B, C] = {expected}, they are {list(output.logits.shape)}",
        )
        require(bool(output.logits.isfinite().all()), "logits are not finite")


def _check_evaluation(module: nn.Module, batch: Batch, classes: int) -> None:
    """In evaluation, an answer depends on the face alone: not on chance, on the batch, or on the label."""
    output = _answer(module, batch)
    require(_difference(output, _answer(module, batch)) == 0, "two passes over one batch differ in eval mode")
    assert batch.target is not None
    unlabelled = _answer(module, replace(batch, target=None))
    mislabelled = _answer(module, replace(batch, target=(batch.target + 1) % classes))
    require(
        _difference(output, unlabelled) == 0 and _difference(output, mislabelled) == 0,
        "the answer depends on the labels",
    )
    apart = [_answer(module, _rows(batch, row, row + 1)) for row in range(batch.size)]
    alone = Output(
        None if output.logits is None else torch.cat([each.logits for each in apart if each.logits is not None]),
        torch.cat([each.fake_score for each in apart]),
    )
    worst = _difference(output, alone)
    require(worst <= _TOLERANCE, f"a face's answer depends on its batch: it moves by {worst:.2g} in eval mode")


def _check_round_trip(module: nn.Module, spec: ModelSpec, classes: Sequence[Leaf], batch: Batch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(module, path, {})
        other = spec.build(classes).eval()
        load_weights(other, path)
    require(
        _difference(_answer(module, batch), _answer(other, batch)) == 0,
        "saving and loading the state dict changes the answer: something it needs is in no parameter and no buffer",
    )


def _check_training(module: nn.Module, spec: ModelSpec, classes: Sequence[Leaf], face_size: int) -> None:
    """The loss is a finite scalar, and within three steps its gradient has reached every trainable parameter.

    Three, because a layer that starts at zero lets nothing through to those before it until it has moved.
    """
    loss_of: Callable[[Batch], torch.Tensor] = getattr(module, "loss")  # noqa: B009  # nn.Module types it as a Tensor
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    require(bool(trainable), "the module has a loss but no trainable parameter")
    _check_backbone(module)
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-3)
    unreached = set(trainable)
    module.train()
    for step in range(3):
        loss = loss_of(_random_batch(spec, len(classes), faces=len(classes) + 1, face_size=face_size, seed=step + 1))
        require(loss.ndim == 0 and bool(loss.isfinite()), f"loss must be a finite scalar, it is {loss}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in trainable.items():
            if parameter.grad is not None:
                require(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")
                unreached -= {name} if bool(parameter.grad.any()) else set()
        optimizer.step()
    require(not unreached, f"no gradient reaches {', '.join(sorted(unreached))}; freeze them or use them")


def _check_backbone(module: nn.Module) -> None:
    method: Callable[[], Iterable[nn.Parameter]] | None = getattr(module, "backbone_parameters", None)
    if method is not None:
        own = set(module.parameters())
        require(set(method()) <= own, "backbone_parameters() yields what is no parameter of the module")


def _answer(module: nn.Module, batch: Batch) -> Output:
    with torch.no_grad():
        output = module(batch)
    require(isinstance(output, Output), f"the module must return an Output, it returns {type(output).__name__}")
    assert isinstance(output, Output)
    return output


def _difference(one: Output, other: Output) -> float:
    """Return the largest difference between two answers, relative to the largest value where that exceeds 1."""
    parts = [(one.fake_score, other.fake_score)]
    if one.logits is not None and other.logits is not None:
        parts.append((one.logits, other.logits))
    return max(float(((a - b).abs().max() / a.abs().max().clamp(min=1)).detach()) for a, b in parts)


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    def cut(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[start:stop]

    return Batch(
        stop - start,
        cut(batch.image),
        cut(batch.gaze_map),
        cut(batch.gaze),
        cut(batch.header),
        cut(batch.target),
    )
