"""Directions of gaze and of heads: vectors and angles, the head's own frame, and a head's pose by five landmarks.

Vectors point away from the face, in the camera's frame: x to image right, y up, z towards the camera.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfad_bench.prepare.eye_patches import Floats, eye_distances, rolls

EYE_DISTANCE = 63.0
"""mm between the eyes of an adult (Dodgson, SPIE 5291, 2004)."""
_FACE = np.array(
    [
        [-EYE_DISTANCE / 2, 0.0, 0.0],
        [EYE_DISTANCE / 2, 0.0, 0.0],
        [0.0, 42.0, 30.0],
        [-26.0, 68.0, -2.0],
        [26.0, 68.0, -2.0],
    ]
)
"""The five landmarks in mm: x to image right, y down, z forward, from the middle of the eyes. Round figures of an adult
face: the mouth 52 mm wide (Farkas, Anthropometry of the Head and Face, 1994), the nose's tip 3 cm in front of the eyes."""
_FIT = np.linalg.pinv(np.column_stack([_FACE, np.ones(5)]))


def vectors(pitch: Floats, yaw: Floats) -> Floats:
    """Return unit vectors [N, 3] of angles in radians, pitch > 0 up and yaw > 0 towards image right."""
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=-1)


def angles(directions: Floats) -> tuple[Floats, Floats]:
    """Return pitch and yaw [N] in radians of vectors [N, 3] of any length."""
    x, y, z = np.moveaxis(directions, -1, 0)
    return np.arctan2(y, np.hypot(x, z)), np.arctan2(x, z)


def turn(directions: Floats, roll: Floats) -> Floats:
    """Return vectors [N, 3] turned clockwise in the image by ``roll`` [N] in radians."""
    c, s = np.cos(roll), np.sin(roll)
    x, y, z = np.moveaxis(directions, -1, 0)
    return np.stack([c * x + s * y, c * y - s * x, z], axis=-1)


def seen_from_head(directions: Floats, pitch: Floats, yaw: Floats, roll: Floats) -> Floats:
    """Return vectors [N, 3] of the camera's frame in the frame of heads of that pose; all angles [N] in radians.

    A head gets into its pose by a nod (pitch, up), then a turn (yaw, towards image right), then a tilt in the image
    plane (roll, clockwise); they are undone in the opposite order. A gaze along the head's own direction comes out as
    (0, 0, 1), and a head that faces the camera leaves everything as it is.
    """
    x, y, z = np.moveaxis(turn(directions, -roll), -1, 0)
    c, s = np.cos(yaw), np.sin(yaw)
    x, z = c * x - s * z, s * x + c * z
    c, s = np.cos(pitch), np.sin(pitch)
    return np.stack([x, c * y - s * z, s * y + c * z], axis=-1)


def frontal_landmarks(eyes: Floats) -> NDArray[np.float32]:
    """Return the five landmarks [5, 2] that a generic face has whose eyes are at [2, 2], if it faces the camera."""
    middle, (across, down) = eyes.mean(axis=0), (eyes[1] - eyes[0]) / EYE_DISTANCE
    placed = middle + _FACE[:, :2] @ np.array([[across, down], [-down, across]])
    return np.asarray(placed, np.float32)


def head_angles(landmarks: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return pitch and yaw [N] in radians of heads with landmarks [N, 5, 2], before their roll, by weak perspective.

    An affine camera is fitted to a generic face by least squares; its third column, where the direction out of the face
    lands in the image, is hung on the nose. Exact for a face of those proportions; a nose 4 mm longer than the generic
    one looks like a head that is bowed by about 7 degrees, so pitch is rough.
    """
    roll = rolls(landmarks)
    c, s = np.cos(roll), np.sin(roll)
    points = np.asarray(landmarks, np.float64)
    upright = np.stack(
        [
            c[:, None] * points[..., 0] + s[:, None] * points[..., 1],
            c[:, None] * points[..., 1] - s[:, None] * points[..., 0],
        ],
        axis=-1,
    )
    camera = np.einsum("kp,npi->nik", _FIT, upright)[..., :3]
    outwards = camera[..., 2] / np.linalg.norm(camera, axis=2).mean(axis=1)[:, None]
    down = np.clip(outwards[:, 1], -0.99, 0.99)
    yaw = np.arcsin(np.clip(outwards[:, 0] / np.sqrt(1 - down**2), -1, 1))
    return -np.arcsin(down), yaw


def pixels_per_mm(landmarks: NDArray[np.float32], yaw: Floats) -> Floats:
    """Return the scale [N] of faces by the distance of their eyes, which a turn of ``yaw`` radians has shortened."""
    return eye_distances(landmarks) / (EYE_DISTANCE * np.cos(yaw))
