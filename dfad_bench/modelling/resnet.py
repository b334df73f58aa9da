"""ResNets as torchvision builds and publishes them (He et al., CVPR 2016, arXiv:1512.03385), without their heads."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.types import WeightsFile

_LICENCE = "BSD-3-Clause code; weights trained on ImageNet (non-commercial research terms)"
PUBLISHED_HEAD = ("fc.",)
"""How the names of the published head begin, which none of these networks has."""

RESNET18 = WeightsFile(
    name="resnet18-f37072fd.pth",
    url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
    sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    bytes=46_830_571,
    licence=_LICENCE,
    training_data="ImageNet-1k",
)
RESNET50 = WeightsFile(
    name="resnet50-0676ba61.pth",
    url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
    sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    bytes=102_530_333,
    licence=_LICENCE,
    training_data="ImageNet-1k",
)


def resnet(name: Literal["resnet18", "resnet50"]) -> tuple[nn.Module, int]:
    """Return the network with random weights, which maps images [B, 3, H, W] to embeddings [B, d], and d."""
    declare_missing_operators()
    from torchvision import models

    network: Any = getattr(models, name)()
    width: int = network.fc.in_features
    network.fc = nn.Identity()
    # Convolutions are up to 1.7 times as fast so.
    return network.to(memory_format=torch.channels_last), width
