"""The contract of a perturbation."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dfad_bench.modelling.perturb import SEVERITIES, Perturbation, Pixels
from dfad_bench.testing.contract import require


def check_perturbation(perturbation: Perturbation[Any]) -> None:
    """Check that faces come out in shape, the same for the same seed, and no less changed at a higher severity.

    Raises ContractError for the first promise that is broken.
    """
    require(isinstance(perturbation, Perturbation), "PERTURBATION must be a Perturbation")
    require(bool(perturbation.unit.strip()), "Perturbation.unit is empty: say what a strength is")
    require(bool(perturbation.reference.strip()), "Perturbation.reference is empty: name the paper, or say 'ours'")
    severities = len(perturbation.severities)
    require(severities == len(SEVERITIES), f"Perturbation.severities must be five strengths, there are {severities}")
    faces = [
        _face(seed, height, width) for seed, (height, width) in enumerate([(96, 96), (96, 128), (97, 131), (128, 96)])
    ]
    changes = [
        float(np.mean([_change(perturbation, strength, face, seed) for seed, face in enumerate(faces)]))
        for strength in perturbation.severities
    ]
    require(changes[0] > 0, "severity 1 changes nothing")
    require(changes == sorted(changes), f"a face must change no less with severity, the mean changes are {changes}")
    for shade in (0, 128, 255):
        for strength in perturbation.severities:
            _change(perturbation, strength, np.full((97, 131, 3), shade, np.uint8), 0)


def _face(seed: int, height: int, width: int) -> Pixels:
    """Return coloured shades, an oval with sharp edges and fine grain: something to lose for every perturbation."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (6, 6, 3), np.uint8)
    shades = np.ascontiguousarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    centre, axes = (width // 2, height // 2), (width // 3, height // 3)
    cv2.ellipse(shades, centre, axes, 20.0 * seed, 0, 360, (210, 150, 120), thickness=3)
    grain = rng.normal(0, 6, shades.shape)
    return np.asarray(np.clip(shades + grain, 0, 255), np.uint8)


def _change(perturbation: Perturbation[Any], strength: Any, face: Pixels, seed: int) -> float:
    """Return the mean absolute change of a pixel, 0..255."""
    before = face.copy()
    disturbed = perturbation.apply(face, strength, np.random.default_rng(seed))
    require(np.array_equal(face, before), "apply() changes the face it is given")
    require(
        isinstance(disturbed, np.ndarray) and disturbed.shape == face.shape and disturbed.dtype == np.uint8,
        f"apply() must return {list(face.shape)} uint8, it returns "
        f"{list(getattr(disturbed, 'shape', ()))} {getattr(disturbed, 'dtype', type(disturbed).__name__)}",
    )
    perturbation.apply(face, strength, np.random.default_rng(seed + 1))
    again = perturbation.apply(face, strength, np.random.default_rng(seed))
    require(np.array_equal(disturbed, again), "apply() must return the same for the same face, strength and seed")
    return float(np.abs(disturbed.astype(np.int16) - face).mean())
