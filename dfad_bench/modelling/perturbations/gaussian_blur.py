"""Blur with a Gaussian whose standard deviation is a sixth of its kernel, so that the kernel ends at three of them."""

from __future__ import annotations

import cv2
import numpy as np

from dfad_bench.modelling.perturb import Perturbation, Pixels


def _apply(face: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(face, (size, size), size / 6), np.uint8)


PERTURBATION = Perturbation(
    _apply,
    severities=(7, 9, 13, 17, 21),
    unit="side of the kernel in pixels, six standard deviations",
    reference="the levels of DeeperForensics-1.0 (arXiv:2001.03024), there applied to whole frames",
)
