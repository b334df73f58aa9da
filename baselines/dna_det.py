"""DNA-Det: what every patch of a picture has in common, since a generator's architecture marks the whole of it alike.

Yang, Huang, Cao, Li & Li, "Deepfake Network Architecture Attribution", AAAI 2022, arXiv:2202.13843: the weights of a
generator leave traces that differ from region to region, its architecture leaves the same one everywhere. A shallow CNN
of eight layers is pre-trained to tell transformations of natural images apart (compression, blur, resampling, noise),
then trained by cross-entropy and patchwise contrastive learning: patches of one image, and of images of one class, are
pulled together, all others pushed apart, so that what is learned is neither content nor place.

Changed for attribution: the classes are the leaf classes here, and a fake's score is 1 − P(real). The pre-training is left
out, since training has one stage here and its compressions cannot be drawn in a tensor: this is the paper's second stage
from random weights, weaker than the paper's whole. Both terms are added up in every step: the cross-entropy of a 128 px
window at full resolution, which is all that is looked at in evaluation, and the contrast of two patches cut from it.

Written from the abstract and from memory, the paper's text and code were not at hand: eight layers, patches and the two
losses are the paper's; widths, strides, patch size, the projection (Khosla et al., NeurIPS 2020, arXiv:2004.11362, whose
loss equation 2 this is), temperature, weights of the losses and the recipe are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.image_classifier import ImageClassifier
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch, Leaf, ModelSpec, Recipe

WINDOW = 128
LEAST_PATCH = 8
"""Pixels: eight layers make one point of it."""
PATCHES = 2
"""Of each face, so that every patch has one to be pulled to even where its face is the only one of its class."""

_WIDTHS = (32, 32, 64, 64, 96, 96, 128, 128)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1)
_PROJECTED = 64
_TEMPERATURE = 0.1


class DnaDet(ImageClassifier):
    """A linear layer on the mean over all places of what eight convolutions see of a window [B, 3, 128, 128]."""

    def __init__(self, classes: int, patch: int, contrastive_weight: float) -> None:
        width = _WIDTHS[-1]
        super().__init__(network(), width, classes)
        self.patch, self.contrastive_weight = patch, contrastive_weight
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the windows' mean cross-entropy plus the patches' contrast, which is new at every call, both in nats."""
        return super().loss(batch) + self.contrastive_weight * self.contrast(batch)

    def contrast(self, batch: Batch) -> torch.Tensor:
        """Return the contrastive loss of two random patches of each face, in nats."""
        assert batch.image is not None and batch.target is not None
        patches = random_patches(batch.image, self.patch, PATCHES).flatten(0, 1)
        embedding = self.backbone(patches.contiguous(memory_format=torch.channels_last))
        return contrastive_loss(self.projection(embedding), batch.target.repeat_interleave(PATCHES))


def network() -> nn.Sequential:
    """Return eight convolutions of 3 x 3 with batch norm and ReLU, then the mean over places: [B, 3, H, W] to [B, 128]."""
    layers: list[nn.Module] = []
    for (before, after), stride in zip(itertools.pairwise((3, *_WIDTHS)), _STRIDES, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def random_patches(image: torch.Tensor, side: int, count: int) -> torch.Tensor:
    """Cut ``count`` squares out of every image [B, 3, H, W], each at a place of its own: [B, count, 3, side, side]."""
    faces, _, height, width = image.shape
    tops = torch.randint(height - side + 1, (faces, count)).tolist()
    lefts = torch.randint(width - side + 1, (faces, count)).tolist()
    cut = [
        face[:, top : top + side, left : left + side]
        for face, *places in zip(image, tops, lefts, strict=True)
        for top, left in zip(*places, strict=True)
    ]
    return torch.stack(cut).reshape(faces, count, -1, side, side)


def contrastive_loss(features: torch.Tensor, target: torch.Tensor, temperature: float = _TEMPERATURE) -> torch.Tensor:
    """Return the supervised contrastive loss in nats of N patches (Khosla et al., equation 2), their mean.

    features [N, d] of any length, compared by their cosine; target [N]: the classes of their faces, each at least twice.
    """
    # Half precision would round away the small differences of cosines near 1, which the temperature enlarges.
    with torch.autocast(features.device.type, enabled=False):
        normal = F.normalize(features.float(), dim=1)
        itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
        log_share = (normal @ normal.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
        positive = (target[:, None] == target) & ~itself
        of_positives = log_share.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1)
        return -of_positives.mean()


def build(classes: Sequence[Leaf], patch: int = 64, contrastive_weight: float = 1.0) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return DnaDet(len(classes), patch, contrastive_weight)


def configure(patch: int = 64, contrastive_weight: float = 1.0) -> ModelSpec:
    """Return the model with other patches; raise ValueError for a side or a weight that makes no sense.

    patch: the side in pixels of the patches that are contrasted, 8 to 128; contrastive_weight: of their loss beside the
    cross-entropy's 1, 0 or more.
    """
    if not LEAST_PATCH <= patch <= WINDOW:
        raise ValueError(f"patch is {patch}: it must be {LEAST_PATCH} to {WINDOW}")
    if contrastive_weight < 0:
        raise ValueError(f"contrastive_weight is {contrastive_weight}: it must be 0 or more")
    return ModelSpec(
        build=partial(build, patch=patch, contrastive_weight=contrastive_weight),
        inputs=("image",),
        preprocess=Preprocess(size=None, crop=WINDOW),
        reference="Yang et al., AAAI 2022, arXiv:2202.13843",
        licence="Apache-2.0 (this file)",
        recipe=Recipe(epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=1e-4),
        configure=configure,
    )


MODEL = configure()
