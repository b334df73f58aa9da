"""The gaze encoder of VPE: a convolutional network that reads gaze from the face, its last feature map taken as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.preprocess import IMAGENET_MEAN, IMAGENET_STD
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.modelling.weights import load_state
from dfad_bench.prepare.gaze_estimators.l2cs import L2CS, read_state
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.weights import fetch

Trunk = Literal["convnet", "resnet18", "l2cs"]
"""Ours for tiny faces; torchvision's ResNet-18; L2CS-Net's ResNet-50 with the authors' weights, frozen."""

_MAP_PATCH = 12
"""Side in pixels of the squares that a 72 × 120 gaze map is cut into: 6 × 10 tokens."""


@dataclass(frozen=True, slots=True)
class GazeFeatures:
    """What the gaze encoder saw.

    tokens [B, M, d]: the feature map row by row, then the gaze map's tokens where it is used; grid: rows and columns of
    the feature map; angles [B, 2]: pitch and yaw in radians, None where the network is frozen.
    """

    tokens: torch.Tensor
    grid: tuple[int, int]
    angles: torch.Tensor | None


class GazeEncoder(nn.Module):
    """The paper's: a gaze encoder that yields gaze features from the face, its gaze estimator pre-trained.

    Ours: which network, and that one without weights learns the manifest's gaze as a second task, so that its features
    mean gaze even from scratch. With ``l2cs`` it is frozen and reads the face at CLIP's size, half of what L2CS-Net was
    trained at. ``gaze_map`` adds tokens of the manifest's gaze map, a second input.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        trunk: Trunk,
        width: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        gaze_map: bool = False,
    ) -> None:
        """Build it. width: d of its tokens; mean, std: by which the faces it gets were normalised."""
        super().__init__()
        self.trunk, channels = _trunk(trunk)
        self.frozen = trunk == "l2cs"
        self.tokens = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.angles = None if self.frozen else nn.Linear(channels, 2)
        self.map_tokens = GazeMapTokens(width) if gaze_map else None
        # From the faces' normalisation to ImageNet's, by which published networks were trained.
        ours, theirs = torch.tensor([mean, std]), torch.tensor([IMAGENET_MEAN, IMAGENET_STD])
        self.register_buffer("scale", (ours[1] / theirs[1])[:, None, None], persistent=False)
        self.register_buffer("mean", ((ours[0] - theirs[0]) / theirs[1])[:, None, None], persistent=False)
        if self.frozen:
            self.trunk.requires_grad_(False)

    def load_published(self) -> None:
        """Fill the frozen network from its authors' weights; raise DataError where they cannot be had or do not fit."""
        path = fetch(L2CS.weights[0])
        load_state(self.trunk, _trunk_state(read_state(path)), path, but_for=_counters(self.trunk))

    def train(self, mode: bool = True) -> GazeEncoder:
        """Set the mode; a frozen network stays in evaluation, or its running statistics would move."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, image: torch.Tensor, gaze_map: torch.Tensor | None = None) -> GazeFeatures:
        """Read faces [B, 3, H, W], and gaze maps [B, 2, 72, 120] where they are used."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: torch.Tensor = self.trunk(image * self.scale + self.mean)
        flat = features.flatten(2).transpose(1, 2)
        tokens = self.tokens(flat)
        if self.map_tokens is not None:
            assert gaze_map is not None, "this gaze encoder reads gaze maps"
            tokens = torch.cat([tokens, self.map_tokens(gaze_map)], dim=1)
        angles = None if self.angles is None else self.angles(flat.mean(dim=1))
        return GazeFeatures(tokens, (features.shape[2], features.shape[3]), angles)


class GazeMapTokens(nn.Module):
    """Tokens of the manifest's gaze map: squares of it, embedded, with their places; one token says that it is unknown."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, width, _MAP_PATCH, _MAP_PATCH)
        self.place = nn.Parameter(torch.randn(HEIGHT // _MAP_PATCH * (WIDTH // _MAP_PATCH), width) * width**-0.5)
        self.unknown = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, gaze_map: torch.Tensor) -> torch.Tensor:
        """Map gaze maps [B, 2, 72, 120] in 0..1, all 0 where the gaze is unknown, to tokens [B, 60, d]."""
        known = gaze_map.flatten(1).any(dim=1)[:, None, None]
        seen = self.embed(gaze_map).flatten(2).transpose(1, 2)
        return torch.where(known, seen, self.unknown.to(seen.dtype)) + self.place


def gaze_loss(angles: torch.Tensor, gaze: torch.Tensor) -> torch.Tensor:
    """Return the smooth L1 distance (knee at 0.1 rad) of predicted to known pitch and yaw [B, 2], in radians.

    Faces whose gaze is unknown (NaN) do not count; where all are, it is 0.
    """
    known = gaze.isfinite().all(dim=1)
    each = F.smooth_l1_loss(angles.float(), gaze.nan_to_num(), beta=0.1, reduction="none").mean(dim=1)
    return (each * known).sum() / known.sum().clamp(min=1)


# --- networks ------------------------------------------------------------------------------------------------------


def _convnet() -> tuple[nn.Module, int]:
    """Return a network that makes faces sixteen times smaller."""
    widths = (3, 32, 64, 128)
    steps: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        steps += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.GELU()]
    return nn.Sequential(*steps, nn.Conv2d(128, 128, 3, 2, 1), nn.GroupNorm(8, 128), nn.GELU()), 128


class ResNetTrunk(nn.Module):
    """A torchvision ResNet without its pooling and its head: faces [B, 3, H, W] to [B, c, H / 32, W / 32]."""

    def __init__(self, name: Literal["resnet18", "resnet50"]) -> None:
        super().__init__()
        declare_missing_operators()
        from torchvision import models

        network = getattr(models, name)().to(memory_format=torch.channels_last)
        for part, child in network.named_children():
            if part not in ("avgpool", "fc"):
                self.add_module(part, child)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the last feature map."""
        x = image.contiguous(memory_format=torch.channels_last)
        for part in self.children():
            x = part(x)
        return x


def _trunk(name: Trunk) -> tuple[nn.Module, int]:
    """Return a network and the channels of its last feature map."""
    if name == "convnet":
        return _convnet()
    return (ResNetTrunk("resnet18"), 512) if name == "resnet18" else (ResNetTrunk("resnet50"), 2048)


def _trunk_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc_")}


def _counters(trunk: nn.Module) -> set[str]:
    return {key for key in trunk.state_dict() if key.endswith("num_batches_tracked")}
