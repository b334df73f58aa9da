"""Less contrast about the face's mean, and brighter or darker: which of the two is drawn once per face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels


@dataclass(frozen=True, slots=True)
class Change:
    """contrast: the share of each pixel's distance from the face's mean that is kept; shift: up or down, white being 1."""

    contrast: float
    shift: float


def _apply(face: Pixels, change: Change, rng: np.random.Generator) -> Pixels:
    direction = 1 if rng.random() < 0.5 else -1
    mean = face.mean(dtype=np.float64)
    values = mean + change.contrast * (np.arange(256) - mean) + direction * 255 * change.shift
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(face, table), np.uint8)


PERTURBATION = Perturbation(
    _apply,
    severities=(
        Change(contrast=0.85, shift=0.05),
        Change(contrast=0.725, shift=0.1),
        Change(contrast=0.6, shift=0.15),
        Change(contrast=0.475, shift=0.2),
        Change(contrast=0.35, shift=0.25),
    ),
    unit="share of the contrast that is kept, and shift of the brightness, white being 1",
    reference="contrast: the levels of DeeperForensics-1.0 (arXiv:2001.03024), there about black; shift: ours",
)
