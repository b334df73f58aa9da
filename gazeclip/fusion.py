"""Fusion of GIE's output with AGPM's into the visual counterfeit features."""

from __future__ import annotations

import torch
from torch import nn


class Fusion(nn.Module):
    """z = v + MLP([v; f_ag]), the visual counterfeit features.

    The paper's: GIE's output is fused with AGPM's. How is ours: a residual whose last layer is zero at first, so that
    training starts from CLIP's own embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width)
        )
        last = self.mix[3]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, image: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
        """Map image embeddings [B, d] and gaze-aware patterns [B, d] to visual counterfeit features [B, d]."""
        mixed: torch.Tensor = self.mix(torch.cat([image, pattern], dim=-1))
        return image + mixed
