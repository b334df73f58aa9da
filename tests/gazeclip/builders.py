"""GazeCLIP in its tiny size, and faces for it."""

from __future__ import annotations

import numpy as np
import torch

from dfad_bench.modelling.clip import TINY
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.types import Batch, Leaf
from gazeclip.model import Design, GazeCLIP

CLASSES = (
    Leaf("real", "real", "real"),
    Leaf("ddim", "diffusion", "efs"),
    Leaf("stylegan3", "gan", "efs"),
    Leaf("simswap", "gan", "fs"),
)
SIDE = 96
SMALL = Design(gaze_network="convnet", blocks=2)


def tiny(design: Design = SMALL, seed: int = 0) -> GazeCLIP:
    """Return a tiny GazeCLIP with random weights."""
    torch.manual_seed(seed)
    return GazeCLIP(CLASSES, TINY, design)


def awake(design: Design = SMALL, seed: int = 0) -> GazeCLIP:
    """Return one in which what starts at zero (γ, the last layers of fusion, AWS and adapters) does not."""
    module = tiny(design, seed)
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5)
    return module


def faces(number: int, seed: int = 0) -> Batch:
    """Return random faces with gaze, gaze maps and targets; the last one's gaze is unknown."""
    rng = np.random.default_rng(seed)
    gaze = rng.normal(0, 0.2, (number, 2)).astype(np.float32)
    maps = rng.random((number, 2, HEIGHT, WIDTH), dtype=np.float32)
    gaze[-1], maps[-1] = np.nan, 0
    return Batch(
        number,
        image=torch.from_numpy(rng.normal(0, 1, (number, 3, SIDE, SIDE)).astype(np.float32)),
        gaze=torch.from_numpy(gaze),
        gaze_map=torch.from_numpy(maps),
        target=torch.arange(number) % len(CLASSES),
    )
