"""The gaze injector (figure 4): the class token asks, the gaze features answer; patch tokens are not touched."""

from __future__ import annotations

import torch
from torch import nn


class GazeInjector(nn.Module):
    """cls ← cls + γ · Attention(query = cls, keys = values = gaze features).

    The paper's: class token and patch tokens are split, and the class token alone is the query. Ours: layer norms before
    both sides, and γ [w], zero at first, so that training starts from CLIP itself.
    """

    def __init__(self, width: int, gaze_width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, kdim=gaze_width, vdim=gaze_width, batch_first=True)
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, cls: torch.Tensor, gaze: torch.Tensor) -> torch.Tensor:
        """Map class tokens [B, 1, w] and gaze tokens [B, M, d] to class tokens [B, 1, w]."""
        heard: torch.Tensor = self.attention(self.norm(cls), gaze, gaze, need_weights=False)[0]
        return cls + self.gamma * heard

    def looked_at(self, cls: torch.Tensor, gaze: torch.Tensor) -> torch.Tensor:
        """Return how much each gaze token was attended to [B, M], the mean over heads; they sum to 1."""
        weights: torch.Tensor = self.attention(self.norm(cls), gaze, gaze, need_weights=True)[1]
        return weights.squeeze(1)
