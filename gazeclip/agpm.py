"""AGPM: appearance and gaze look at each other; what comes of it is the face's gaze-aware forgery pattern."""

from __future__ import annotations

import torch
from torch import nn


class AppearanceGazePatternModule(nn.Module):
    """Maps early appearance tokens and gaze tokens to one vector per face.

    The paper's: the name, and that it gives "global gaze-aware appearance forgery patterns". What the letters stand for and
    the block itself are ours: cross-attention both ways, each side added to itself and averaged, then two layers.
    """

    def __init__(self, appearance_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.appearance = nn.Sequential(nn.LayerNorm(appearance_width), nn.Linear(appearance_width, width))
        self.gaze = nn.LayerNorm(width)
        self.appearance_asks = nn.MultiheadAttention(width, heads, batch_first=True)
        self.gaze_asks = nn.MultiheadAttention(width, heads, batch_first=True)
        self.pattern = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, patches: torch.Tensor, gaze: torch.Tensor) -> torch.Tensor:
        """Map patch tokens [B, N, w] of an early block and gaze tokens [B, M, d] to patterns [B, d]."""
        seen, looked = self.appearance(patches), self.gaze(gaze)
        with_gaze = seen + self.appearance_asks(seen, looked, looked, need_weights=False)[0]
        with_appearance = looked + self.gaze_asks(looked, seen, seen, need_weights=False)[0]
        pattern: torch.Tensor = self.pattern(torch.cat([with_gaze.mean(dim=1), with_appearance.mean(dim=1)], dim=-1))
        return pattern
