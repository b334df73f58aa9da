"""UnivFD: reads fake or real off CLIP's image features, which were learned for other ends and favour no known generator.

Ojha, Li & Lee, CVPR 2023, arXiv:2302.10174: a network trained to tell fakes apart learns one generator's traces and calls
all else real, so the paper learns no features. CLIP's ViT-L/14 stays frozen, and fakes are found either by a linear
layer with a sigmoid on its image embedding (``head=linear``) or by whether the nearest neighbour of that embedding, by
cosine, lies in a bank of real or of fake training faces (``head=nearest``).

Changed for attribution: beside the linear detector, a linear layer over the leaf classes; for the nearest neighbour, a
bank per leaf class, of which the nearest member gives the logit. The fake score then is how much nearer the nearest
fake is than the nearest real face. Two things of ``nearest`` are ours: a class's bank holds its first ``capacity`` faces
of one shuffled epoch, so that its size does not grow with the data, and a temperature is learned, which makes cosines
into probabilities and changes the order neither of classes nor of fake scores. Each face is compared with the bank
before it enters it; a second epoch would meet every face's own copy, so the recipe is one.

It starts from OpenAI's weights. Written after the abstract and from memory, not from the paper's text: the projected
embedding as the feature, the cosine, and that the authors augment with blur and JPEG, which is not done here; epochs,
batch and rates are ours. Faces are resized whole to 224 px, as for CLIP; the authors cut a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.nn import TwoHeads, attribution_loss, detection_loss, detector_output
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

Head = Literal["linear", "nearest"]
_START = math.log(1 / 0.07)
"""CLIP's initial temperature (Radford et al., ICML 2021, section 2.5)."""


class FrozenClip(nn.Module):
    """CLIP's image tower: maps faces [B, 3, H, W] to its projected embedding [B, width], and never learns."""

    def __init__(self, name: str) -> None:
        """Build it with random weights; raise UsageError for towers that cannot be used."""
        super().__init__()
        towers = clip.Towers(name)
        self.visual = towers.visual.requires_grad_(False)
        self.name, self.quick_gelu, self.width = name, towers.quick_gelu, towers.width

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embedding of faces of the side that the tower reads."""
        with torch.no_grad():
            embedding: torch.Tensor = self.visual(image)
            return embedding


class NearestNeighbour(nn.Module):
    """Compares a face with the nearest of the training faces that a bank [C, capacity, width] holds of each class.

    held [C]: how many of a class's places are taken; what has none yet is as far away as a cosine allows, -1.
    """

    bank: torch.Tensor
    held: torch.Tensor

    def __init__(self, width: int, classes: int, capacity: int) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(classes, capacity, width))
        self.register_buffer("held", torch.zeros(classes, dtype=torch.int64))
        self.log_scale = nn.Parameter(torch.tensor(_START))

    def forward(self, embedding: torch.Tensor) -> Output:
        """Answer for embeddings [B, width]: logit = cosine to the nearest of a class, times the learned scale."""
        return self._answer(self._best(embedding), embedding)

    def loss(self, embedding: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of both cross-entropies in nats, each a mean over faces; in training, remember the faces then."""
        assert batch.target is not None
        best = self._best(embedding)
        loss = attribution_loss(self._answer(best, embedding), batch) + detection_loss(self._fake_logit(best), batch)
        if self.training:
            self._remember(F.normalize(embedding.float(), dim=1), batch.target)
        return loss

    def _answer(self, best: torch.Tensor, embedding: torch.Tensor) -> Output:
        return detector_output(self._fake_logit(best), self.log_scale.exp() * best, embedding)

    def _fake_logit(self, best: torch.Tensor) -> torch.Tensor:
        return self.log_scale.exp() * (best[:, 1:].amax(dim=1) - best[:, 0])

    def _best(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the highest cosine to a member of each class [B, C]."""
        # In bfloat16 whatever lies near would be equally near.
        with torch.autocast(embedding.device.type, enabled=False):
            cosine = F.normalize(embedding.float(), dim=1) @ self.bank.flatten(0, 1).T
        is_empty = torch.arange(self.bank.shape[1], device=self.held.device) >= self.held[:, None]
        return cosine.view(-1, *is_empty.shape).masked_fill(is_empty, -1).amax(dim=2)

    def _remember(self, normal: torch.Tensor, target: torch.Tensor) -> None:
        """Put unit vectors [B, width] into the next places of their classes, in their order, as long as there are any."""
        of_class = F.one_hot(target, len(self.held))
        place = self.held[target] + (of_class.cumsum(dim=0) - 1).gather(1, target[:, None]).squeeze(1)
        fits = place < self.bank.shape[1]
        self.bank[target[fits], place[fits]] = normal[fits]
        self.held.copy_((self.held + of_class.sum(dim=0)).clamp(max=self.bank.shape[1]))


class UnivFD(nn.Module):
    """A frozen image tower, and one of two heads on its embedding."""

    def __init__(self, classes: int, backbone: str, head: Head, capacity: int) -> None:
        super().__init__()
        self.backbone = FrozenClip(backbone)
        width = self.backbone.width
        self.head = TwoHeads(width, classes) if head == "linear" else NearestNeighbour(width, classes, capacity)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W], normalised as for CLIP; the embedding is CLIP's."""
        assert batch.image is not None
        output: Output = self.head(self.backbone(batch.image))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return attribution + detection in nats."""
        assert batch.image is not None
        return self.head.loss(self.backbone(batch.image), batch)


def build(classes: Sequence[Leaf], backbone: str, head: Head, capacity: int) -> nn.Module:
    """Return the model for these leaf classes, with random weights and empty banks."""
    return UnivFD(len(classes), backbone, head, capacity)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the image tower with OpenAI's or open_clip's weights; raise DataError unless every name fits."""
    assert isinstance(module, UnivFD)
    tower = module.backbone
    clip.load_towers({"visual": tower.visual}, tower.name, tower.quick_gelu, path)


def configure(backbone: str = "ViT-L-14-quickgelu", head: Head = "linear", capacity: int = 1000) -> ModelSpec:
    """Return the model with other options; raise UsageError for towers that cannot be used, ValueError for no capacity.

    backbone: open_clip's name of the towers; head: what reads the features; capacity: faces that ``nearest`` keeps of
    each class.
    """
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}: it must be 1 or more")
    linear = Recipe(epochs=10, batch_size=64, learning_rate=1e-3, weight_decay=1e-4)
    nearest = Recipe(epochs=1, batch_size=64, learning_rate=1e-2, horizontal_flip=False)
    return ModelSpec(
        build=partial(build, backbone=backbone, head=head, capacity=capacity),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Ojha, Li & Lee, CVPR 2023, arXiv:2302.10174",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=linear if head == "linear" else nearest,
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
