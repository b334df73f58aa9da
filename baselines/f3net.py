"""F3-Net: two Xceptions, one on the face split into bands of frequency, one on how strong each band is at each place.

Qian, Yin, Sheng, Chen & Shao, "Thinking in Frequency: Face Forgery Detection by Mining Frequency-aware Clues", ECCV 2020,
arXiv:2007.09355. Frequency-aware decomposition (FAD) filters the face's cosine transform by three fixed bands, each plus
a learned filter, and transforms back; local frequency statistics (LFS) are the log of a band's strength in windows that
slide over the face; MixBlocks let the streams attend to each other after blocks 7 and 12. Forgeries and compression show
in bands that a network of colours overlooks. A linear closed-set head over the leaf classes is added beside the paper's
real-or-fake one.

Only the abstract and summaries were at hand, which give the bands (the first 1/16 of the spectrum, the next up to 1/8,
the rest); windows of 10 px every 2 px with 6 bands, and where the MixBlocks are, are from memory. Ours to choose were the
MixBlock's layers (one attention between places, from both streams' features, whose share starts at 0), statistics of
the mean of the colours, and their mean over a band's frequencies where the paper has a sum: white noise is flat so. The
paper's recipe is not taken: size, learning rate, weight decay, batch and epochs are those that DeepfakeBench
(arXiv:2307.01426) trains its detectors with, with AdamW where it has Adam; schedule, early stopping and flips are
dfad-bench's, and its other augmentation is not done.

Both streams start from Xception's ImageNet weights, given by path: ``--backbone-weights xception-43020ad28.pth``, see
``baselines/xception.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.modelling.xception import load_xception, xception, xception_spec
from dfad_bench.types import Batch, Leaf, ModelSpec, Output

SHARES = (1 / 16, 1 / 8)
"""Of the face's spectrum: where its low and its middle band end."""
WINDOW, STRIDE, BANDS = 10, 2, 6
"""Of the local statistics: side and step of the windows in pixels, and their bands of equal width."""
FLOOR = 1e-3
"""Added to a band's strength before its logarithm: about what one pixel that is one grey level off gives a window."""
MIXED = {7: 728, 12: 1024}
"""The blocks after which the streams are mixed, and the widths there."""


class Decomposition(nn.Module):
    """FAD: maps faces [B, 3, S, S] to their low, middle and high frequencies [B, 9, S, S], a band's colours side by side."""

    def __init__(self, size: int) -> None:
        super().__init__()
        diagonal = _diagonals(size)
        edges = torch.tensor([size * (2 * share) ** 0.5 for share in SHARES])  # the area of a triangle is side² / 2
        self.dct: torch.Tensor
        self.bands: torch.Tensor
        self.register_buffer("dct", cosine_transform(size))
        self.register_buffer("bands", F.one_hot(torch.bucketize(diagonal, edges), 3).permute(2, 0, 1).float())
        self.learned = nn.Parameter(torch.zeros(3, size, size))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the bands, which add up to the face until the filters have learned."""
        # Half precision rounds by more than the high frequencies hold.
        with torch.autocast(image.device.type, enabled=False):
            spectrum = self.dct @ image.float() @ self.dct.T
            filtered = spectrum[:, None] * (self.bands + _squash(self.learned))[:, None]
            return (self.dct.T @ filtered @ self.dct).flatten(1, 2)


class LocalStatistics(nn.Module):
    """LFS: maps faces [B, 3, S, S] to the strength of six bands around each point of Xception's first features."""

    def __init__(self) -> None:
        super().__init__()
        rows = cosine_transform(WINDOW)
        band = _diagonals(WINDOW) * BANDS // (2 * WINDOW - 1)
        self.dct: torch.Tensor
        self.bands: torch.Tensor
        self.register_buffer("dct", torch.einsum("ki,lj->klij", rows, rows).reshape(-1, 1, WINDOW, WINDOW))
        self.register_buffer("bands", F.one_hot(band.flatten(), BANDS).T.float())
        # Not at 0, where the norm's gradient is 0: frequencies outside a band would never come in.
        self.learned = nn.Parameter(torch.randn(BANDS, WINDOW**2) * 0.1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return log10 of the mean magnitude [B, 6, s, s] of each band, s = (S - 1) // 2."""
        with torch.autocast(image.device.type, enabled=False):
            grey = image.float().mean(dim=1, keepdim=True)
            # As many windows as there are strides of Xception's first convolution, around the same places.
            grey = F.pad(grey, (3, 4, 3, 4), mode="reflect")
            magnitude = F.conv2d(grey, self.dct, stride=STRIDE).abs()
            filters = (self.bands + _squash(self.learned)).abs() / self.bands.sum(dim=1, keepdim=True)
            return (F.conv2d(magnitude, filters[:, :, None, None]) + FLOOR).log10()


class MixBlock(nn.Module):
    """Adds to either stream [B, width, h, w] what the other holds at the places that both together find alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(2 * width, width // 8, 1)
        self.key = nn.Conv2d(2 * width, width // 8, 1)
        self.values = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, bands: torch.Tensor, statistics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both streams."""
        both = torch.cat([bands, statistics], dim=1)
        query, key = self.query(both).flatten(2), self.key(both).flatten(2)
        attention = (query.transpose(1, 2) @ key / query.shape[1] ** 0.5).softmax(dim=2).transpose(1, 2)
        from_bands, from_statistics = (
            (layer(each).flatten(2) @ attention).view_as(each)
            for layer, each in zip(self.values, (bands, statistics), strict=True)
        )
        return bands + self.gates[0] * from_statistics, statistics + self.gates[1] * from_bands


class F3Net(nn.Module):
    """Answers faces [B, 3, size, size] from their bands and their local statistics."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.fad, self.lfs = Decomposition(size), LocalStatistics()
        bands, width = xception(9)
        statistics, _ = xception(BANDS)
        # The windows have taken the stride of the first convolution.
        statistics.conv1.stride, statistics.conv1.padding = (1, 1), (1, 1)
        self.bands = bands.to(memory_format=torch.channels_last)
        self.statistics = statistics.to(memory_format=torch.channels_last)
        self.mix = nn.ModuleDict({f"block{number}": MixBlock(wide) for number, wide in MIXED.items()})
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
        bands, statistics = _stem(self.bands, self.fad(batch.image)), _stem(self.statistics, self.lfs(batch.image))
        for number in range(1, 13):
            block = f"block{number}"
            bands, statistics = getattr(self.bands, block)(bands), getattr(self.statistics, block)(statistics)
            if number in MIXED:
                bands, statistics = self.mix[block](bands, statistics)
        return torch.cat([_exit(self.bands, bands), _exit(self.statistics, statistics)], dim=1)


def cosine_transform(size: int) -> torch.Tensor:
    """Return the orthonormal DCT-II [size, size], a frequency a row: the spectrum of X is D X Dᵀ."""
    places = torch.arange(size, dtype=torch.float64)
    rows: torch.Tensor = (2 / size) ** 0.5 * torch.cos(torch.pi / size * places[:, None] * (places + 0.5))
    rows[0] /= 2**0.5
    return rows.float()


def _diagonals(size: int) -> torch.Tensor:
    """Return the sum [size, size] of the vertical and the horizontal frequency's number, by which bands are cut."""
    return torch.arange(size)[:, None] + torch.arange(size)


def _squash(learned: torch.Tensor) -> torch.Tensor:
    """Return (1 - exp(-x)) / (1 + exp(-x)), which keeps a learned filter in -1..1."""
    return (learned / 2).tanh()


def _stem(network: Any, planes: torch.Tensor) -> torch.Tensor:
    """Return Xception's features [B, 64, h, w] before its first block."""
    features = network.act1(network.bn1(network.conv1(planes)))
    stem: torch.Tensor = network.act2(network.bn2(network.conv2(features)))
    return stem


def _exit(network: Any, features: torch.Tensor) -> torch.Tensor:
    """Return Xception's embedding [B, 2048] of what block 12 gave."""
    features = network.act3(network.bn3(network.conv3(features)))
    embedding: torch.Tensor = network.forward_head(network.act4(network.bn4(network.conv4(features))))
    return embedding


def build(classes: Sequence[Leaf], size: int = 256) -> nn.Module:
    """Return the model for these leaf classes and faces of size x size pixels, with random weights."""
    return F3Net(size, len(classes))


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill both streams with Cadène's or timm's weights; raise DataError unless every name but the head's fits."""
    assert isinstance(module, F3Net)
    load_xception(module.bands, path)
    load_xception(module.statistics, path)


def configure(size: int = 256) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where the last feature map is one point.

    size: the side in pixels that faces are resized to.
    """
    return xception_spec(
        partial(build, size=size),
        load_backbone,
        configure,
        size=size,
        reference="Qian et al., ECCV 2020, arXiv:2007.09355",
    )


MODEL = configure()
