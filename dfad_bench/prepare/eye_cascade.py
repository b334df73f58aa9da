"""Finds the eyes of a face whose landmarks are unknown, by the cascade that OpenCV 4 ships: no weights, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CASCADE = "haarcascade_eye.xml"
_SIDE = 160
"""Pixels to which a larger crop is brought: an eye is then 25 to 45 px wide, the cascade's own window being 20."""
_ROWS = (0.15, 0.62)
"""Share of the crop, from its top, in which eyes are looked for: below lie nostrils and the corners of the mouth."""
_SIZES = (0.1, 0.35)
"""Least and largest width of an eye's box, as a share of the crop's side."""
_STEP, _NEIGHBOURS = 1.1, 3
_BELOW = 0.545
"""Where the middle of the canthi lies in the height of the cascade's box, which takes in the brow: by 1.6 mm below its middle
on rendered faces, by 2.3 mm on real ones."""
_DISTANCE = (0.18, 0.6)
"""Least and largest distance of two eyes, as a share of the crop's side."""
_LEVEL = np.radians(25.0)
_OFF_CENTRE = 0.2
"""How far the middle of two eyes may lie beside the crop's, as a share of its side."""

_ALIKE = 0.25
"""Eye distances by which the eyes of a crop and of its mirror image may differ; more says that one pair is wrong."""


class EyeCascade:
    """Viola and Jones' cascade of Haar features (CVPR 2001) for single eyes, and a choice of the likeliest pair."""

    def __init__(self, path: Path) -> None:
        self._cascade: Any = cv2.CascadeClassifier(str(path))

    def find(self, face: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Return the middles [2, 2] of both eyes in pixels of a crop [S, S, 3], the one at image left first, or None.

        The cascade is not symmetric, so the crop and its mirror image are both looked at, and what is found is averaged.
        """
        straight, mirrored = self._find(face), self._find(np.ascontiguousarray(face[:, ::-1]))
        if mirrored is not None:
            mirrored = mirrored[::-1] * (-1, 1) + (face.shape[1] - 1, 0)
        if straight is None or mirrored is None:
            return mirrored if straight is None else straight
        alike = np.linalg.norm(straight - mirrored, axis=1).max() < _ALIKE * np.linalg.norm(straight[1] - straight[0])
        return (straight + mirrored) / 2 if alike else None

    def _find(self, face: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        side = face.shape[0]
        scale = min(_SIDE / side, 1)
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        small = grey.shape[0]
        top, bottom = (round(share * small) for share in _ROWS)
        least, largest = (round(share * small) for share in _SIZES)
        boxes, _, weights = self._cascade.detectMultiScale3(
            grey[top:bottom], _STEP, _NEIGHBOURS, 0, (least, least), (largest, largest), True
        )
        if len(boxes) < 2:
            return None
        found = np.reshape(boxes, (-1, 4)).astype(float)
        middles = found[:, :2] + found[:, 2:] * (0.5, _BELOW) + (-0.5, top - 0.5)
        pair = _likeliest_pair(middles, np.ravel(weights), small)
        return None if pair is None else (middles[list(pair)] + 0.5) / scale - 0.5


def _likeliest_pair(middles: NDArray[np.float64], weights: NDArray[np.float64], side: int) -> tuple[int, int] | None:
    """Return which two middles [M, 2] lie as eyes do in a crop and have the largest weights [M] together."""
    across = middles[None] - middles[:, None]
    distance = np.hypot(across[..., 0], across[..., 1]) / side
    tilt = np.abs(np.arctan2(across[..., 1], across[..., 0]))
    off = np.abs((middles[None, :, 0] + middles[:, None, 0]) / 2 - (side - 1) / 2) / side
    plausible = (distance > _DISTANCE[0]) & (distance < _DISTANCE[1]) & (tilt < _LEVEL) & (off < _OFF_CENTRE)
    if not plausible.any():
        return None
    score = np.where(plausible, weights[None] + weights[:, None], -np.inf)
    left, right = np.unravel_index(score.argmax(), score.shape)
    return int(left), int(right)


def cascade_path() -> Path | None:
    """Return where OpenCV keeps the cascade of eyes, or None where it ships none (from version 5 on)."""
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    if not hasattr(cv2, "CascadeClassifier") or folder is None or not (Path(folder) / CASCADE).is_file():
        return None
    return Path(folder) / CASCADE
