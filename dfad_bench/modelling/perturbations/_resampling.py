"""Resampling that several perturbations share."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dfad_bench.modelling.perturb import Pixels


def resampled(face: Pixels, width: int, height: int, window: tuple[float, float, float, float] | None = None) -> Pixels:
    """Return a window of a face [H, W, 3] (x0, y0, x1, y1; None: all of it) as [height, width, 3].

    Bicubic, and widened to the target's pixel where it shrinks, so that nothing aliases (Parmar et al., CVPR 2022,
    arXiv:2104.11222); in Pillow's fixed-point arithmetic, which is the same on every machine.
    """
    picture = Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC, box=window)
    return np.array(picture)


def scaled_size(face: Pixels, scale: float) -> tuple[int, int]:
    """Return (width, height) of a face [H, W, 3] scaled by ``scale``, at least one pixel each."""
    height, width = face.shape[:2]
    return max(1, round(width * scale)), max(1, round(height * scale))
