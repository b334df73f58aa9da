"""Uploaded and shared again: scaled down, JPEG, shown at the old size, JPEG once more.

No sharpening: nobody outside a platform knows whether and how much it sharpens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels
from dfad_bench.modelling.perturbations._resampling import resampled, scaled_size
from dfad_bench.modelling.perturbations.jpeg import compressed


@dataclass(frozen=True, slots=True)
class Upload:
    """scale: of each side; quality: libjpeg's, of both JPEGs."""

    scale: float
    quality: int


def _apply(face: Pixels, upload: Upload, rng: np.random.Generator) -> Pixels:
    height, width = face.shape[:2]
    uploaded = compressed(resampled(face, *scaled_size(face, upload.scale)), upload.quality)
    return compressed(resampled(uploaded, width, height), upload.quality)


PERTURBATION = Perturbation(
    _apply,
    severities=(Upload(0.9, 85), Upload(0.75, 75), Upload(0.6, 65), Upload(0.5, 50), Upload(0.4, 35)),
    unit="scale of each side, and libjpeg quality of both JPEGs",
    reference="ours",
)
