"""JPEG compression with chroma at half resolution (4:2:0)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dfad_bench.modelling.perturb import Perturbation, Pixels


def compressed(face: Pixels, quality: int) -> Pixels:
    """Return a face [H, W, 3] as it comes out of a JPEG of a libjpeg quality (1..100) and 4:2:0."""
    file = io.BytesIO()
    Image.fromarray(face).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as picture:
        return np.array(picture)


def _apply(face: Pixels, quality: int, rng: np.random.Generator) -> Pixels:
    return compressed(face, quality)


PERTURBATION = Perturbation(
    _apply,
    severities=(80, 60, 40, 25, 15),
    unit="libjpeg quality",
    reference="ours; ImageNet-C (arXiv:1903.12261), made for objects, has 25, 18, 15, 10 and 7",
)
