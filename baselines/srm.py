"""SRM: two Xceptions, one on the face and one on its high-frequency noise, which has no colour texture to overfit to.

Luo, Zhang, Yan & Liu, "Generalizing Face Forgery Detection with High-frequency Features", CVPR 2021, arXiv:2103.12376.
Noise is what three fixed high-pass kernels of the spatial rich model leave (Fridrich & Kodovský, IEEE TIFS 2012; the
choice of Zhou et al., CVPR 2018, arXiv:1805.04953). It is taken from the face and again from low-level features of the
colour stream, at several scales; a spatial attention that is read from the residuals tells the colour stream where to
look; dual cross-modality attention lets either stream add what it finds at the places that resemble its own. A linear
closed-set head over the leaf classes is added beside the paper's real-or-fake one.

Only the abstract was at hand, not the paper's text; the rest is from memory. Ours to choose were where the features'
noise is taken (at 1/2, 1/4 and 1/8 of the resolution), the attention's layers, that it amplifies and never mutes, and
where the streams meet (after blocks 3 and 7); both heads read the pooled features of both streams side by side, and
learn by cross-entropy where, to our memory, the paper has a fusion module and a loss with an angular margin. Size,
learning rate, weight decay, batch and epochs are those that DeepfakeBench (arXiv:2307.01426) trains its detectors with,
with AdamW where it has Adam; schedule, early stopping and flips are dfad-bench's, and its other augmentation is not done.

Both streams start from Xception's ImageNet weights, given by path: ``--backbone-weights xception-43020ad28.pth``, see
``baselines/xception.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.modelling.xception import load_xception, xception, xception_spec
from dfad_bench.types import Batch, Leaf, ModelSpec, Output

SECOND_ORDER = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
SQUARE_3 = [[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]]
SQUARE_5 = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
"""The kernels, which predict a pixel from its neighbours; each is divided by the weight of the pixel, 2, 4 and 12."""
LOW_LEVEL = (64, 128, 256)
"""The widths of the features of which noise is taken: after the stem, block 1 and block 2."""
MEETINGS = (3, 7)
"""The blocks after which the streams meet."""
WIDTH = 728
"""Of the features there."""
KEYS = WIDTH // 8


class HighPass(nn.Module):
    """Maps planes [B, C, H, W] to their three residuals [B, 3C, H, W], those of one plane side by side; nothing learns."""

    def __init__(self) -> None:
        super().__init__()
        kernels = [torch.tensor(each, dtype=torch.float32) for each in (SECOND_ORDER, SQUARE_3, SQUARE_5)]
        self.kernels: torch.Tensor
        self.register_buffer("kernels", torch.stack([each / each[2, 2].abs() for each in kernels])[:, None])

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Return the residuals, 0 wherever a plane is flat, at its borders too."""
        channels = planes.shape[1]
        # Half precision rounds by more than the noise of a smooth face.
        with torch.autocast(planes.device.type, enabled=False):
            padded = F.pad(planes.float(), (2, 2, 2, 2), mode="reflect")
            return F.conv2d(padded, self.kernels.repeat(channels, 1, 1, 1), groups=channels)


class ResidualAttention(nn.Module):
    """Amplifies colour features [B, 64, h, w] where the residuals [B, 3, H, W] of the face say so."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(  # the strides and borders of Xception's stem
            nn.Conv2d(3, 16, 3, stride=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.where = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, colour: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        """Return the features, each place times 1 to 2; the map is CBAM's (Woo et al., ECCV 2018, arXiv:1807.06521)."""
        read = self.features(residuals)
        pooled = torch.cat([read.mean(dim=1, keepdim=True), read.amax(dim=1, keepdim=True)], dim=1)
        amplified: torch.Tensor = colour * (1 + self.where(pooled).sigmoid())
        return amplified


class CrossModality(nn.Module):
    """Adds to either stream [B, 728, h, w] the other's values, weighted by how alike the places of both are."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = nn.ModuleList(nn.Conv2d(WIDTH, KEYS, 1) for _ in range(2))
        self.values = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(2))
        # At 0 the streams start as two whole Xceptions.
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, colour: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both streams."""
        key, other_key = (layer(each).flatten(2) for layer, each in zip(self.keys, (colour, noise), strict=True))
        value, other_value = (layer(each).flatten(2) for layer, each in zip(self.values, (colour, noise), strict=True))
        alike = key.transpose(1, 2) @ other_key / KEYS**0.5  # [B, places of colour, places of noise]
        for_colour = other_value @ alike.softmax(dim=2).transpose(1, 2)
        for_noise = value @ alike.softmax(dim=1)
        return (
            colour + self.gates[0] * for_colour.view_as(colour),
            noise + self.gates[1] * for_noise.view_as(noise),
        )


class Srm(nn.Module):
    """Answers faces [B, 3, H, W] from their colours and their noise."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.high_pass = HighPass()
        colour, width = xception()
        noise, _ = xception()
        self.colour = colour.to(memory_format=torch.channels_last)
        self.noise = noise.to(memory_format=torch.channels_last)
        self.of_features = nn.ModuleList(
            nn.Sequential(HighPass(), nn.Conv2d(3 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
            for channels in LOW_LEVEL
        )
        self.attention = ResidualAttention()
        self.cross = nn.ModuleList(CrossModality() for _ in MEETINGS)
        self.heads = TwoHeads(2 * width, classes)

    def forward(self, batch: Batch) -> Output:
        """Return the detector's score and the logits of B faces, and the embedding [B, 4096] that both read."""
        output: Output = self.heads(self._embed(batch))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum of both heads' cross-entropies."""
        return self.heads.loss(self._embed(batch), batch)

    def _embed(self, batch: Batch) -> torch.Tensor:
        assert batch.image is not None
        # The kernels are linear: this is the mean of the three colours' residuals.
        residuals = self.high_pass(batch.image.mean(dim=1, keepdim=True))
        colour, noise = _stem(self.colour, batch.image), _stem(self.noise, residuals)
        noise = noise + self.of_features[0](colour)
        colour = self.attention(colour, residuals)
        for number in range(1, 12):
            block = f"block{number}"
            colour, noise = getattr(self.colour, block)(colour), getattr(self.noise, block)(noise)
            if number < len(LOW_LEVEL):
                noise = noise + self.of_features[number](colour)
            elif number in MEETINGS:
                colour, noise = self.cross[MEETINGS.index(number)](colour, noise)
        return torch.cat([_exit(self.colour, colour), _exit(self.noise, noise)], dim=1)


def _stem(network: Any, planes: torch.Tensor) -> torch.Tensor:
    """Return Xception's features [B, 64, h, w] before its first block."""
    features = network.act1(network.bn1(network.conv1(planes)))
    stem: torch.Tensor = network.act2(network.bn2(network.conv2(features)))
    return stem


def _exit(network: Any, features: torch.Tensor) -> torch.Tensor:
    """Return Xception's embedding [B, 2048] of what block 11 gave."""
    features = network.act3(network.bn3(network.conv3(network.block12(features))))
    embedding: torch.Tensor = network.forward_head(network.act4(network.bn4(network.conv4(features))))
    return embedding


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return Srm(len(classes))


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill both streams with Cadène's or timm's weights; raise DataError unless every name but the head's fits."""
    assert isinstance(module, Srm)
    load_xception(module.colour, path)
    load_xception(module.noise, path)


def configure(size: int = 256) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where the last feature map is one point.

    size: the side in pixels that faces are resized to.
    """
    return xception_spec(
        build, load_backbone, configure, size=size, reference="Luo et al., CVPR 2021, arXiv:2103.12376"
    )


MODEL = configure()
