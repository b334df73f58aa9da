"""CLIP with LoRA: how far the whole of CLIP's image tower gets when it may move a little everywhere, and no text helps.

Hu et al., ICLR 2022, arXiv:2106.09685: weights stay as they are, and each learns a difference of low rank, up · down,
which starts at zero. For language models, on the attention; Tan et al. (C2P-CLIP, AAAI 2025, arXiv:2408.09647) adapt
CLIP's image tower so for finding generated images, beside prompts and a contrastive loss that are left out here. This
is the plain baseline that a method on CLIP has to beat: linear layers on CLIP's image embedding, which is its projected
class token, and nothing else. It is one model with a detector of its own and a closed-set head over the leaf classes.

Ours: that the attention's projections and both layers of every MLP are adapted, rank 8 with alpha twice the rank,
and the recipe. It starts from OpenAI's weights, where it is CLIP itself under untrained heads; random ones
(``--backbone-weights none``) would stay random but for the adapters. Hu et al. from memory, C2P-CLIP after its abstract.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dfad_bench.modelling import clip
from dfad_bench.modelling.lora import add_lora
from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe


class LoraClip(nn.Module):
    """CLIP's image tower with adapters, and linear heads on its projected class token [B, d]."""

    def __init__(self, classes: int, backbone: str, rank: int) -> None:
        """Build it with random weights; raise UsageError for towers that cannot be used."""
        super().__init__()
        towers = clip.Towers(backbone)
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.visual = towers.visual
        add_lora(self.visual, rank, alpha=2 * rank)
        self.heads = TwoHeads(towers.width, classes)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W], normalised as for CLIP; the embedding is the adapted tower's."""
        assert batch.image is not None
        output: Output = self.heads(self.visual(batch.image))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return attribution + detection in nats."""
        assert batch.image is not None
        return self.heads.loss(self.visual(batch.image), batch)


def build(classes: Sequence[Leaf], backbone: str, rank: int) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return LoraClip(len(classes), backbone, rank)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the image tower but for its adapters with OpenAI's or open_clip's weights; raise DataError unless all fits."""
    assert isinstance(module, LoraClip)
    clip.load_towers({"visual": module.visual}, module.backbone, module.quick_gelu, path)


def configure(backbone: str = clip.DEFAULT, rank: int = 8) -> ModelSpec:
    """Return the model with other options; raise UsageError for towers that cannot be used, ValueError for no rank.

    backbone: open_clip's name of the towers; rank: of every adapter.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}: it must be 1 or more")
    return ModelSpec(
        build=partial(build, backbone=backbone, rank=rank),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Hu et al., ICLR 2022, arXiv:2106.09685 (LoRA), on Radford et al., ICML 2021, arXiv:2103.00020 (CLIP)",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=Recipe(epochs=10, batch_size=32, learning_rate=3e-4, weight_decay=1e-3, clip_norm=1.0, patience=3),
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
