"""White Gaussian noise, independent for every pixel and channel; a face's severities scale one pattern."""

from __future__ import annotations

import math

import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels


def _apply(face: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    noisy = rng.standard_normal(face.shape, dtype=np.float32)
    noisy *= np.float32(255 * math.sqrt(variance))
    noisy += face
    return np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8)


PERTURBATION = Perturbation(
    _apply,
    severities=(0.001, 0.002, 0.005, 0.01, 0.05),
    unit="variance, white being 1",
    reference="the levels of DeeperForensics-1.0 (arXiv:2001.03024), there added to Y'CbCr, here to RGB",
)
