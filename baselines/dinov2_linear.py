"""DINOv2 linear: what a linear layer reads off features that were learned without labels, generators or faces.

Oquab et al., TMLR 2024, arXiv:2304.07193: a vision transformer that learned by itself, from 142 million images, to give
two views of an image the same features. Its ViT-B/14 stays frozen; only a linear layer over the leaf classes is learned,
on the class token beside the mean of the patch tokens after the last norm, as the authors' own linear classifiers
read one layer. They choose learning rate and number of layers on ImageNet; here both are fixed, and the recipe is ours.

It starts from the authors' weights: random ones (``--backbone-weights none``) make another model of it, random features.
Faces are resized to 224 px, the resolution of their linear evaluation, and normalised as for ImageNet; the position
embedding of the published 518 px is resampled as timm does it, which differs from the authors' code by antialiasing.
``--set size=518`` is what the last phase of their pre-training saw, at nine times the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier, load_network, timm_network
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.weights import read_state
from dfad_bench.types import Leaf, ModelSpec, Recipe, WeightsFile

PATCH = 14


class FrozenDinov2(nn.Module):
    """ViT-B/14 that maps faces [B, 3, H, W] to the class token and the mean patch token [B, 1536], and never learns."""

    def __init__(self, size: int) -> None:
        super().__init__()
        network, width = timm_network("vit_base_patch14_dinov2", img_size=size)
        self.network: Any = network.requires_grad_(False)
        self.width = 2 * width

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embedding of faces of the side that it was built for."""
        with torch.no_grad():
            tokens: torch.Tensor = self.network.forward_features(image)
            return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


def build(classes: Sequence[Leaf], size: int = 224) -> nn.Module:
    """Return the model for these leaf classes and faces of size x size pixels, with random weights."""
    backbone = FrozenDinov2(size)
    return ImageClassifier(backbone, backbone.width, len(classes))


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the frozen part with the authors' or timm's weights; raise DataError unless every name fits."""
    assert isinstance(module, ImageClassifier) and isinstance(module.backbone, FrozenDinov2)
    # The authors' file has the token that stood for hidden patches in pre-training.
    load_network(module.backbone.network, read_state(path), path, but_for=("mask_token",))


def configure(size: int = 224) -> ModelSpec:
    """Return the model at another resolution; raise ValueError for one that is not made of whole patches.

    size: the side in pixels that faces are resized to, a multiple of 14.
    """
    if size < PATCH or size % PATCH:
        raise ValueError(f"size is {size}: it must be a multiple of {PATCH}")
    return ModelSpec(
        build=partial(build, size=size),
        inputs=("image",),
        preprocess=Preprocess(size=size),
        reference="Oquab et al., TMLR 2024, arXiv:2304.07193",
        licence="Apache-2.0 (this file, timm)",
        recipe=Recipe(epochs=20, batch_size=64, learning_rate=1e-3, weight_decay=1e-4),
        backbone_weights={
            "lvd142m": WeightsFile(
                name="dinov2_vitb14_pretrain.pth",
                url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
                sha256="0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
                bytes=346_378_731,
                licence="Apache-2.0",
                training_data="LVD-142M: images from the web, chosen for their likeness to public datasets, not published",
            )
        },
        default_backbone_weights="lvd142m",
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
