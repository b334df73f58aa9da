"""Xception with any number of input planes, and its published weights: the trunk of many face-forgery detectors.

Chollet, CVPR 2017, arXiv:1610.02357, as timm's ``legacy_xception`` implements it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dfad_bench.modelling.image_classifier import load_network, timm_network
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.weights import BY_PATH, read_state
from dfad_bench.types import Leaf, ModelSpec, Recipe

MEAN = STD = (0.5, 0.5, 0.5)
"""By which the images of its published weights are normalised, in units of 0..1."""
LEAST_SIZE = 32
"""The side in pixels at which its last feature map is one point."""


def xception(planes: int = 3) -> tuple[Any, int]:
    """Return the network for images [B, planes, H, W], random weights and no head, and its embedding's width, 2048."""
    return timm_network("legacy_xception", in_chans=planes)


def xception_spec(
    build: Callable[[Sequence[Leaf]], nn.Module],
    load_backbone: Callable[[nn.Module, Path], None],
    configure: Callable[..., ModelSpec],
    *,
    size: int,
    reference: str,
) -> ModelSpec:
    """Return a baseline on these trunks as DeepfakeBench (arXiv:2307.01426) trains its detectors, with AdamW for its Adam.

    size: the side in pixels that faces are resized to. Raises ValueError below 32 px, where the last feature map is one
    point.
    """
    if size < LEAST_SIZE:
        raise ValueError(f"size is {size}: it must be {LEAST_SIZE} or more")
    return ModelSpec(
        build=build,
        inputs=("image",),
        preprocess=Preprocess(size=size, mean=MEAN, std=STD),
        reference=reference,
        licence="Apache-2.0 (this file, timm)",
        recipe=Recipe(epochs=10, batch_size=32, learning_rate=2e-4, weight_decay=5e-4),
        default_backbone_weights=BY_PATH,
        load_backbone=load_backbone,
        configure=configure,
    )


def load_xception(network: nn.Module, path: Path) -> None:
    """Fill the network with Cadène's or timm's weights; raise DataError unless every name but the head's fits.

    Where the network reads other planes than red, green and blue, each plane's first filters start as the mean of those of
    the three colours times 3 / planes, so that grey images give what they gave before.
    """
    state = read_state(path)
    for key, tensor in state.items():
        if key.endswith("pointwise.weight") and tensor.ndim == 2:  # a 1x1 convolution, as a matrix in b5690688
            state[key] = tensor[:, :, None, None]
    planes = network.get_parameter("conv1.weight").shape[1]
    first = state.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3 != planes:
        state["conv1.weight"] = (first.mean(dim=1, keepdim=True) * 3 / planes).repeat(1, planes, 1, 1)
    load_network(network, state, path, but_for=("fc.",))
