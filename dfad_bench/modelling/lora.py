"""Low-rank adaptation (Hu et al., ICLR 2022, arXiv:2106.09685) of the linear layers and attention of a network.

Through torch's own parametrisation, since open_clip's attention keeps its three projections in one tensor, which PEFT
reaches by a wrapper only.
"""

from __future__ import annotations

import math
import re

import torch
from torch import nn
from torch.nn.utils import parametrize

_ORIGINAL = re.compile(r"\.?parametrizations\.(\w+)\.original$")
_ADAPTER = re.compile(r"\.?parametrizations\.\w+\.0\.(up|down)$")


class LowRank(nn.Module):
    """W + (alpha / rank) · up · down, with up [out, rank] zero at first and down [rank, in] (section 4.1)."""

    def __init__(self, out_features: int, in_features: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight [out, in]."""
        return weight + self.scale * (self.up @ self.down)


def add_lora(module: nn.Module, rank: int = 8, alpha: float = 16.0) -> None:
    """Freeze a module and give every linear layer and attention in it a low-rank part that learns.

    The module computes the same until it is trained. Raises ValueError for a rank below 1, and where nothing can be adapted.
    """
    if rank < 1:
        raise ValueError(f"a rank of {rank} adapts nothing; give 1 or more")
    module.requires_grad_(False)
    found = [
        (part, name)
        for part in module.modules()
        for name in ("in_proj_weight", "weight")
        if isinstance(part, nn.Linear | nn.MultiheadAttention) and getattr(part, name, None) is not None
    ]
    if not found:
        raise ValueError(f"{type(module).__name__} has neither a linear layer nor an attention to adapt")
    for part, name in found:
        shape = getattr(part, name).shape
        parametrize.register_parametrization(part, name, LowRank(shape[0], shape[1], rank, alpha))


def plain_names(module: nn.Module) -> tuple[dict[str, str], set[str]]:
    """Return how a module's adapted weights are called in its state, by the name they had before, and the adapters' keys."""
    keys = list(module.state_dict())
    renamed = {}
    for key in keys:
        match = _ORIGINAL.search(key)
        if match is not None:
            prefix = key[: match.start()]
            renamed[f"{prefix}.{match[1]}" if prefix else match[1]] = key
    return renamed, {key for key in keys if _ADAPTER.search(key)}
