"""Vision-language matching: a face's features against the texts of its classes, level by level."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from gazeclip.lre import ClassTexts

_START, _MOST = math.log(1 / 0.07), math.log(100)
"""CLIP's initial temperature and its bound (Radford et al., ICML 2021, section 2.5)."""


class Matching(nn.Module):
    """Cross-entropy of the cosine similarities to a level's texts, averaged over the four levels.

    The paper's: visual and language embeddings are matched. Ours: faces are matched to the *distinct texts of a level*
    rather than to each other's captions, since many faces share one text, which one-to-one InfoNCE would push apart. The
    temperature is learned, and never below 0.01.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(_START))

    def forward(self, features: torch.Tensor, texts: ClassTexts, target: torch.Tensor) -> torch.Tensor:
        """Return the loss in nats of features [B, d] whose leaf classes are ``target`` [B]."""
        normal = F.normalize(features.float(), dim=-1)
        scale = self.log_scale.clamp(max=_MOST).exp()
        losses = [
            F.cross_entropy(scale * normal @ level.T, value_of[target])
            for level, value_of in zip(texts.levels, texts.value_of, strict=True)
        ]
        return torch.stack(losses).mean()
