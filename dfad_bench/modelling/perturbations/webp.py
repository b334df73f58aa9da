"""Lossy WebP compression (the intra frames of VP8)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dfad_bench.modelling.perturb import Perturbation, Pixels


def _apply(face: Pixels, quality: int, rng: np.random.Generator) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(face).save(file, "WEBP", quality=quality, method=4)
    with Image.open(file) as picture:
        return np.array(picture)


PERTURBATION = Perturbation(_apply, severities=(80, 60, 40, 20, 5), unit="libwebp quality", reference="ours")
