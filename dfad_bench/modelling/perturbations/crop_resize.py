"""A window of the face, enlarged to the face's size; a face's windows lie in each other, around a point drawn once."""

from __future__ import annotations

import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels
from dfad_bench.modelling.perturbations._resampling import resampled


def _apply(face: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    height, width = face.shape[:2]
    x, y = rng.random(2) * (1 - share)
    window = (x * width, y * height, (x + share) * width, (y + share) * height)
    return resampled(face, width, height, window)


PERTURBATION = Perturbation(
    _apply,
    severities=(0.95, 0.9, 0.85, 0.8, 0.7),
    unit="share of each side that is kept",
    reference="ours",
)
