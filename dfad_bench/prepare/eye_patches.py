"""Cuts eyes out of faces by five landmarks, turned upright by the line through the eyes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIRRORED = (1, 0, 2, 4, 3)
"""The order in which the landmarks of a face come once the image is flipped."""
_LEAST_DISTANCE = 10.0
"""Pixels between the eyes below which an iris is less than two pixels wide (11.7 mm of 63 mm)."""
_STEEPEST = np.radians(60.0)
"""A roll beyond this means that the eyes were taken for something else, or that nobody turned the image upright."""


def usable(landmarks: NDArray[np.float32], side: int) -> NDArray[np.bool_]:
    """Return for landmarks [N, 5, 2] in pixels of a ``side`` px crop whether they can be those of a face.

    All are known, both eyes lie in the crop and far enough apart, the first at image left, and the mouth lies below.
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:, :2], points[:, 3:].mean(axis=1)
    known = np.isfinite(points).all(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        inside = ((eyes >= 0) & (eyes <= side - 1)).all(axis=(1, 2))
        across = eyes[:, 1] - eyes[:, 0]
        wide = np.linalg.norm(across, axis=1) >= _LEAST_DISTANCE
        level = np.abs(np.arctan2(across[:, 1], across[:, 0])) <= _STEEPEST
        below = np.einsum("ni,ni->n", mouth - eyes.mean(axis=1), across[:, ::-1] * (-1, 1)) > 0
    result: NDArray[np.bool_] = known & inside & wide & level & below
    return result


def eye_distances(landmarks: NDArray[np.float32]) -> Floats:
    """Return the distance [N] in pixels between the eyes of landmarks [N, 5, 2]."""
    across = np.asarray(landmarks[:, 1] - landmarks[:, 0], np.float64)
    return np.hypot(across[:, 0], across[:, 1])


def rolls(landmarks: NDArray[np.float32]) -> Floats:
    """Return how far [N] the line through the eyes is turned clockwise in the image, in radians."""
    across = np.asarray(landmarks[:, 1] - landmarks[:, 0], np.float64)
    return np.arctan2(across[:, 1], across[:, 0])


def mirror(faces: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return faces [N, S, S, 3] flipped horizontally, and their landmarks [N, 5, 2] in the order they then have."""
    flipped = landmarks[:, MIRRORED].copy()
    flipped[..., 0] = faces.shape[2] - 1 - flipped[..., 0]
    return np.ascontiguousarray(faces[:, :, ::-1]), flipped


def upright_patch(
    face: NDArray[np.uint8], centre: Sequence[float] | Floats, width: float, size: tuple[int, int], roll: float = 0.0
) -> NDArray[np.uint8]:
    """Return the patch [h, w, 3] around a point of a face [S, S, 3], turned so that ``roll`` (radians) is gone.

    centre (x, y) and width in pixels of the face; size (w, h) in pixels of the patch, ``width`` being w of them. Outside
    the face, its edge is repeated. A patch smaller than what it shows is made from areas, so that nothing is aliased.
    """
    x, y = float(centre[0]), float(centre[1])
    scale = width / size[0]
    if scale > 1.1:
        smaller = max(round(face.shape[0] / scale), 1)
        ratio = smaller / face.shape[0]
        face = np.asarray(cv2.resize(face, (smaller, smaller), interpolation=cv2.INTER_AREA), np.uint8)
        x, y, scale = (x + 0.5) * ratio - 0.5, (y + 0.5) * ratio - 0.5, scale * ratio
    c, s = scale * np.cos(roll), scale * np.sin(roll)
    right, down = (size[0] - 1) / 2, (size[1] - 1) / 2
    back = np.array([[c, -s, x - c * right + s * down], [s, c, y - s * right - c * down]])
    return np.asarray(
        cv2.warpAffine(
            face, back, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )
