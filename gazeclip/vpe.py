"""VPE, the visual perception encoder: the gaze encoder and AGPM."""

from __future__ import annotations

import torch
from torch import nn

from gazeclip.agpm import AppearanceGazePatternModule
from gazeclip.gaze_encoder import GazeEncoder, GazeFeatures


class VisualPerceptionEncoder(nn.Module):
    """The paper's: VPE gives gaze features and global gaze-aware appearance forgery patterns. AGPM may be switched off.

    Ours: AGPM's appearance comes from an early block of the image tower, which is computed anyway.
    """

    def __init__(self, gaze_encoder: GazeEncoder, agpm: AppearanceGazePatternModule | None) -> None:
        super().__init__()
        self.gaze_encoder = gaze_encoder
        self.agpm = agpm

    def forward(
        self, image: torch.Tensor, gaze_map: torch.Tensor | None, patches: torch.Tensor
    ) -> tuple[GazeFeatures, torch.Tensor | None]:
        """Return gaze features, and patterns [B, d] where there is AGPM.

        image [B, 3, H, W]; gaze_map [B, 2, 72, 120] where the encoder reads it; patches [B, N, w]: early patch tokens.
        """
        gaze: GazeFeatures = self.gaze_encoder(image, gaze_map)
        return gaze, None if self.agpm is None else self.agpm(patches, gaze.tokens)
