"""The DFAD head: attribution over the leaf classes, and detection, from the visual counterfeit features."""

from __future__ import annotations

import torch
from torch import nn


class DFADHead(nn.Module):
    """The paper's: a DFAD module takes the visual counterfeit embeddings, and no text at test time.

    Ours: one layer norm, then a linear layer for the C leaf classes and one for "fake", which is learned by itself instead
    of being read off the attribution.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attribution = nn.Linear(width, classes)
        self.detection = nn.Linear(width, 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map features [B, d] to attribution logits [B, C] and the logit of being fake [B], both float32."""
        normal = self.norm(features)
        return self.attribution(normal).float(), self.detection(normal).squeeze(-1).float()
