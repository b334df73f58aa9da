"""Less colour: every pixel moves towards the grey of its own luma (ITU-R BT.601)."""

from __future__ import annotations

import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _apply(face: Pixels, kept: float, rng: np.random.Generator) -> Pixels:
    luma = (face @ LUMA)[..., None] * np.float32(1 - kept)
    return np.rint(luma + face * np.float32(kept)).astype(np.uint8)


PERTURBATION = Perturbation(
    _apply,
    severities=(0.8, 0.6, 0.4, 0.2, 0.0),
    unit="share of the chroma that is kept",
    reference="ours; DeeperForensics-1.0 (arXiv:2001.03024) has five steps from 0.4 to 0, which look much the same",
)
