"""CAEL: what a face looks like against where its edges are, at two grains, since forged edges differ from real ones.

Zhang et al., "GenFace: A Large-Scale Fine-Grained Face Forgery Benchmark and Cross Appearance-Edge Learning", IEEE TIFS
2024, arXiv:2402.02003. Re-implemented from its abstract and public summaries: its text was not open to us, and its code,
whose licence we do not know, was not read. No number computed here is one of the paper's.

The paper's: an appearance branch on the face and an edge branch on its edges, a feature alignment module in front of
each, transformers that capture multi-grained (coarse and fine) appearance and edge global representations, and the
Appearance-Edge Cross-Attention (AECA) between the two domains. Ours: the edges (Sobel across and down and the Laplacian
of the luma), alignment by a convolutional stem in each branch that brings both to one grid of one width, tokens of 8 and
16 px, two transformer blocks per domain and grain, one AECA per grain in which either domain asks the other, and the
mean over tokens. The paper is of a detector; a binary head keeps its answer, and the closed-set head over the leaf
classes stands beside it on the same embedding.

All of it is trained from random weights: what the paper starts from is not known to us. The size of 224 px and the
recipe are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.modelling.preprocess import IMAGENET_STD, Preprocess
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

STEM_STRIDE, GRAINS = 4, (2, 4)
"""Pixels between the stem's features, and the features along the side of a fine and of a coarse token."""
LEAST_STEP = STEM_STRIDE * GRAINS[-1]
WIDTH, HEADS, DEPTH = 192, 6, 2


class Edges(nn.Module):
    """Maps faces [B, 3, H, W], normalised as for ImageNet, to edges [B, 3, H, W] of their luma in units of 0..1.

    The planes are Sobel across (which a vertical edge excites), Sobel down, and the Laplacian. Nothing in it learns.
    """

    luma: torch.Tensor
    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        laplacian = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        # The means by which faces were normalised cancel, since each filter sums to zero.
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]) * torch.tensor(IMAGENET_STD))
        self.register_buffer("filters", torch.stack([sobel, sobel.T, laplacian])[:, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the three planes; the border is repeated outwards, so that it is no edge."""
        luma = (image * self.luma[:, None, None]).sum(dim=1, keepdim=True)
        return F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), self.filters)


class Alignment(nn.Sequential):
    """Brings three planes [B, 3, H, W] of either domain to features [B, w, H/4, W/4]."""

    def __init__(self, width: int) -> None:
        half = width // 2
        super().__init__(
            nn.Conv2d(3, half, 3, 2, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.GELU(),
        )


class Encoder(nn.Module):
    """A transformer over the patches of one domain at one grain."""

    def __init__(self, patch: int, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, width, patch, patch)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(DEPTH)
            )
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features [B, w, h, h] to tokens [B, N, w], row by row."""
        embedded = self.embed(features).flatten(2).transpose(1, 2)
        return cast(torch.Tensor, self.blocks(embedded + self.positions))


class Asks(nn.Module):
    """One direction of AECA: the queries are one domain's, the keys and values the other's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.other_norm, self.mixed_norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return tokens [B, N, w] after they have asked the other domain's [B, M, w]."""
        heard = self.other_norm(other)
        tokens = tokens + self.attention(self.norm(tokens), heard, heard, need_weights=False)[0]
        return tokens + cast(torch.Tensor, self.mix(self.mixed_norm(tokens)))


class AppearanceEdge(nn.Module):
    """Both domains at one grain: two encoders, then AECA, in which both ask what the other was before."""

    def __init__(self, patch: int, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.appearance, self.edge = (Encoder(patch, tokens, width, heads) for _ in range(2))
        self.appearance_asks, self.edge_asks = Asks(width, heads), Asks(width, heads)

    def forward(self, appearance: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Map aligned features [B, w, h, h] of both domains to their mean tokens [B, 2 · w], appearance first."""
        seen, drawn = self.appearance(appearance), self.edge(edges)
        fused = (self.appearance_asks(seen, drawn), self.edge_asks(drawn, seen))
        return torch.cat([tokens.mean(dim=1) for tokens in fused], dim=1)


class CAEL(nn.Module):
    """Cross Appearance-Edge Learning on faces [B, 3, size, size], normalised as for ImageNet."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.edges = Edges()
        self.align_appearance, self.align_edges = Alignment(WIDTH), Alignment(WIDTH)
        side = size // STEM_STRIDE
        self.grains = nn.ModuleList(AppearanceEdge(patch, (side // patch) ** 2, WIDTH, HEADS) for patch in GRAINS)
        self.norm = nn.LayerNorm(2 * len(GRAINS) * WIDTH)
        self.heads = TwoHeads(2 * len(GRAINS) * WIDTH, classes)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embedding [B, 4 · w]: for each grain appearance, then edges."""
        appearance, edges = self.align_appearance(image), self.align_edges(self.edges(image))
        grained = torch.cat([grain(appearance, edges) for grain in self.grains], dim=1)
        return cast(torch.Tensor, self.norm(grained))

    def forward(self, batch: Batch) -> Output:
        """Answer B faces; the fake score is the detector's own."""
        assert batch.image is not None
        return cast(Output, self.heads(self.embed(batch.image)))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the mean cross-entropies of detection and of attribution, in nats."""
        assert batch.image is not None
        return self.heads.loss(self.embed(batch.image), batch)


def build(classes: Sequence[Leaf], size: int = 224) -> nn.Module:
    """Return the model for these leaf classes and faces of size x size pixels, with random weights."""
    return CAEL(size, len(classes))


def configure(size: int = 224) -> ModelSpec:
    """Return the model at another resolution; raise ValueError for one that is not made of whole coarse tokens.

    size: the side in pixels that faces are resized to, a multiple of 16.
    """
    if size < LEAST_STEP or size % LEAST_STEP:
        raise ValueError(f"size is {size}: it must be a multiple of {LEAST_STEP}")
    return ModelSpec(
        build=partial(build, size=size),
        inputs=("image",),
        preprocess=Preprocess(size=size),
        reference="Zhang et al., IEEE TIFS 2024, arXiv:2402.02003 (re-implemented from what is public of it)",
        licence="Apache-2.0 (this file)",
        recipe=Recipe(epochs=20, batch_size=32, learning_rate=3e-4, weight_decay=1e-2, clip_norm=1.0),
        configure=configure,
    )


MODEL = configure()
