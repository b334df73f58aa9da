"""Renders gaze as a picture: an eyeball disc and an iris disc (Park, Spurr & Hilliges, ECCV 2018, section 3.1)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 72, 120
"""Twice the 36 × 60 px of the paper."""
_RADIUS = 1.2 * HEIGHT / 2
_IRIS_DISTANCE = _RADIUS * np.cos(np.arcsin(0.5))


def render_gaze_map(pitch: float, yaw: float) -> NDArray[np.uint8]:
    """Return the gaze map [72, 120, 2] uint8 of a gaze in radians; channel 0 is the eyeball, channel 1 the iris.

    The eyeball's diameter is 1.2 × the map's height; the iris is a disc of the eyeball's radius in diameter, seen from
    the front, so an ellipse whose short axis lies along the gaze. Pitch > 0 moves it up, yaw > 0 to the right; the map
    of -yaw is the mirror image. Edges are antialiased.
    """
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    x, y = columns - (WIDTH - 1) / 2, rows - (HEIGHT - 1) / 2
    eyeball = np.clip(_RADIUS - np.hypot(x, y) + 0.5, 0, 1)
    right, down, front = np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)
    x, y = x - _IRIS_DISTANCE * right, y - _IRIS_DISTANCE * down
    length = np.hypot(right, down)
    along_x, along_y = (right / length, down / length) if length > 0 else (1.0, 0.0)
    long_axis = _RADIUS / 2
    short_axis = max(long_axis * abs(front), 0.5)
    along, across = x * along_x + y * along_y, y * along_x - x * along_y
    # Signed distance to an ellipse, to first order: exact on the axes, within a fraction of a pixel elsewhere.
    level = np.hypot(along / short_axis, across / long_axis)
    gradient = np.hypot(along / short_axis**2, across / long_axis**2) / np.maximum(level, 1e-6)
    iris = np.clip((1 - level) / np.maximum(gradient, 1e-6) + 0.5, 0, 1)
    gaze_map: NDArray[np.uint8] = np.rint(np.stack([eyeball, iris], axis=-1) * 255).astype(np.uint8)
    return gaze_map


def encode_gaze_map(gaze_map: NDArray[np.uint8]) -> bytes:
    """Return the map as PNG: red = eyeball, green = iris, blue = 0 (PNG has no two-channel colour)."""
    bgr = np.zeros((*gaze_map.shape[:2], 3), np.uint8)
    bgr[..., 2], bgr[..., 1] = gaze_map[..., 0], gaze_map[..., 1]
    ok, data = cv2.imencode(".png", bgr)
    assert ok
    return bytes(data)
