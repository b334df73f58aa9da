"""Down and up again: what is finer than the smaller picture's pixels is lost."""

from __future__ import annotations

import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels
from dfad_bench.modelling.perturbations._resampling import resampled, scaled_size


def _apply(face: Pixels, scale: float, rng: np.random.Generator) -> Pixels:
    height, width = face.shape[:2]
    return resampled(resampled(face, *scaled_size(face, scale)), width, height)


PERTURBATION = Perturbation(
    _apply,
    severities=(0.6, 0.5, 0.4, 0.3, 0.25),
    unit="scale of each side",
    reference="the scales of ImageNet-C's pixelate (arXiv:1903.12261), which resamples by boxes; ours is bicubic",
)
