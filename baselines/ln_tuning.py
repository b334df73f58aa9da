"""LN-tuning (GenD): CLIP knows faces already, so only its LayerNorms learn to tell the fakes among them.

Yermakov, Cech, Matas, Fritz, WACV 2026, arXiv:2508.06248, "Deepfake Detection that Generalizes Across Benchmarks". Of
CLIP's image tower (ViT-L/14) only the scales and shifts of its LayerNorms are trained, 0.03 % of it, with a linear
layer on the class token. The token is brought to length 1, and two losses of Wang & Isola (ICML 2020, arXiv:2005.10242)
shape it on the sphere beside the cross-entropy: alignment draws faces of one class together, uniformity spreads all.

For attribution the linear detector gets a linear head over the leaf classes beside it, and alignment draws together
the faces of one leaf class: the paper's two classes, real and fake, would press all generators into one. The paper
also pairs each fake with the real video it was made from, as its data have both; here batches are drawn at random.

Re-implemented from the paper's abstract and from memory of its text: that the token is read after the last LayerNorm
and before CLIP's projection, the losses' weights (0.1 and 0.5) and the learning rate (3e-4, no weight decay) are
remembered. Batch size, epochs and augmentation are ours. It starts from OpenAI's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe


class LnTuning(nn.Module):
    """CLIP's class token [B, w] on the unit sphere, from a tower whose LayerNorms alone learn, and two heads on it."""

    def __init__(self, classes: int, backbone: str, alignment_weight: float, uniformity_weight: float) -> None:
        """Build it with random weights. backbone: open_clip's name. Raises UsageError for an unusable tower."""
        super().__init__()
        towers = clip.Towers(backbone)
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.alignment_weight, self.uniformity_weight = alignment_weight, uniformity_weight
        self.visual: Any = towers.visual.requires_grad_(False)
        for part in self.visual.modules():
            if isinstance(part, nn.LayerNorm):
                part.requires_grad_(True)
        self.heads = TwoHeads(towers.visual_width, classes)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Return the class tokens [B, w] float32 of faces [B, 3, H, W], each of length 1."""
        token = self.visual._pool(self.visual.transformer(self.visual._embeds(image)))[0]
        return F.normalize(token.float(), dim=1)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces; the embedding is the unit vector that both heads read."""
        assert batch.image is not None
        output: Output = self.heads(self.embed(batch.image))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return both heads' cross-entropies in nats, and alignment and uniformity with their weights."""
        assert batch.image is not None and batch.target is not None
        embedding = self.embed(batch.image)
        loss = self.heads.loss(embedding, batch)
        loss = loss + self.alignment_weight * alignment(embedding, batch.target)
        return loss + self.uniformity_weight * uniformity(embedding)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the scales and shifts of the tower's LayerNorms."""
        return (parameter for parameter in self.visual.parameters() if parameter.requires_grad)


def alignment(embedding: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance, in 0..4, of unit vectors [B, w] of one class; 0 where no two are of one."""
    first, second = torch.triu_indices(len(target), len(target), offset=1, device=target.device)
    same = (target[first] == target[second]).to(embedding.dtype)
    return (same * F.pdist(embedding).square()).sum() / same.sum().clamp(min=1)


def uniformity(embedding: torch.Tensor) -> torch.Tensor:
    """Return log mean exp(−2 d²), in −8..0, over the distances d of B unit vectors [B, w]; 0 for one that is alone."""
    if len(embedding) < 2:
        return embedding.new_zeros(())
    return F.pdist(embedding).square().mul(-2).exp().mean().log()


def build(
    classes: Sequence[Leaf], backbone: str, alignment_weight: float = 0.1, uniformity_weight: float = 0.5
) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return LnTuning(len(classes), backbone, alignment_weight, uniformity_weight)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the image tower with OpenAI's or open_clip's weights; raise DataError unless every name fits."""
    assert isinstance(module, LnTuning)
    clip.load_towers({"visual": module.visual}, module.backbone, module.quick_gelu, path)


def configure(
    backbone: str = "ViT-L-14-quickgelu", alignment_weight: float = 0.1, uniformity_weight: float = 0.5
) -> ModelSpec:
    """Return the model with other options; raise ValueError for a negative weight, UsageError for an unusable tower.

    backbone: open_clip's name; alignment_weight, uniformity_weight: what the two are multiplied by, 0 for none.
    """
    if min(alignment_weight, uniformity_weight) < 0:
        raise ValueError("alignment_weight and uniformity_weight must be 0 or more")
    return ModelSpec(
        build=partial(build, backbone=backbone, alignment_weight=alignment_weight, uniformity_weight=uniformity_weight),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Yermakov et al., WACV 2026, arXiv:2508.06248",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=Recipe(epochs=10, batch_size=32, learning_rate=3e-4, weight_decay=0.0),
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
