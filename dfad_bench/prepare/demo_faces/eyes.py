"""Draws eyes that look where the scene says: ball, iris, pupil, lids, lashes and catch-light, at three times the size."""

from __future__ import annotations

from math import atan2, cos, sin

import cv2
import numpy as np

from dfad_bench.prepare.demo_faces.canvas import Raster, coloured, filled, paint, smoothstep, soften, stroked, thrice
from dfad_bench.prepare.demo_faces.geometry import EYEBALL_RADIUS, IRIS_RADIUS, PX_PER_MM, Eye, Head, Points
from dfad_bench.prepare.demo_faces.scene import Scene

FINE = 3
"""Sub-pixels per pixel and direction inside the patch around an eye."""
_HALF_WIDTH, _HALF_HEIGHT = 30, 22


def draw_eye(image: Raster, scene: Scene, head: Head, eye: Eye, irradiance: Raster, rng: np.random.Generator) -> None:
    """Draw one eye into an image [H, W, 3], in place. irradiance [H, W, 3] is the light on the skin around it."""
    corner = np.round(eye.middle).astype(int) - (_HALF_WIDTH, _HALF_HEIGHT)
    left, top = int(corner[0]), int(corner[1])
    window = np.s_[top : top + 2 * _HALF_HEIGHT, left : left + 2 * _HALF_WIDTH]
    shape = (2 * _HALF_HEIGHT * FINE, 2 * _HALF_WIDTH * FINE)

    def fine(points: Points) -> Points:
        """Map image pixels to sub-pixels of the patch, centres at integers in both."""
        return (points - corner) * FINE + (FINE - 1) / 2

    upper, lower = fine(eye.upper), fine(eye.lower)
    opening = filled(shape, np.concatenate([upper, lower[::-1]]))
    centre = fine(eye.centre)
    x = (np.arange(shape[1], dtype=np.float32) - float(centre[0])) / np.float32(FINE * PX_PER_MM)
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - float(centre[1])) / np.float32(FINE * PX_PER_MM)
    ball = _ball(scene, eye, x, y, rng)
    ball *= thrice(_shadow_of_lid(shape, upper, opening))
    light = irradiance[window].mean(axis=(0, 1)) * np.float32(0.45) + np.float32(0.5 * scene.photo.light)
    ball *= light
    _add_catch_light(ball, scene, eye, x, y)

    small = (2 * _HALF_WIDTH, 2 * _HALF_HEIGHT)
    cover = cv2.resize(opening, small, interpolation=cv2.INTER_AREA)
    seen = cv2.resize(ball * thrice(opening), small, interpolation=cv2.INTER_AREA)
    patch = image[window]
    _draw_folds(patch, shape, upper, lower, small)
    patch *= thrice(1 - cover)
    patch += seen
    lashes = cv2.resize(_lashes(shape, upper, lower, eye.side, rng), small, interpolation=cv2.INTER_AREA)
    paint(patch, (0.012, 0.009, 0.008), lashes)


def _ball(scene: Scene, eye: Eye, x: Raster, y: Raster, rng: np.random.Generator) -> Raster:
    """Return the eyeball's own colours [h, w, 3] at x [w], y [h, 1] mm from its centre."""
    pitch, yaw = eye.gaze
    round_off = np.sqrt(np.maximum(1 - (x * x + y * y) / np.float32(18.0**2), 0.05))
    white = coloured(round_off, (0.66, 0.61, 0.58))
    ox, oy = EYEBALL_RADIUS * sin(yaw) * cos(pitch), -EYEBALL_RADIUS * sin(pitch)
    dx, dy = x - np.float32(ox), y - np.float32(oy)
    # The disc is seen at the angle between gaze and line of sight, so it is foreshortened along the gaze.
    facing, direction = cos(yaw) * cos(pitch), atan2(oy, ox)
    along = (dx * np.float32(cos(direction)) + dy * np.float32(sin(direction))) / np.float32(facing)
    across = dy * np.float32(cos(direction)) - dx * np.float32(sin(direction))
    radius = np.sqrt(along * along + across * across).astype(np.float32) / np.float32(IRIS_RADIUS)
    angle = np.arctan2(dy, dx)
    rays = np.interp(angle, np.linspace(-np.pi, np.pi, 61), rng.uniform(0.55, 1.25, 61), period=2 * np.pi)
    pupil = scene.photo.pupil
    value = rays * (0.75 + 0.6 * smoothstep(0.95, pupil, radius)) * (1 - 0.75 * smoothstep(0.78, 1.0, radius))
    paint(white, coloured(value.astype(np.float32), scene.person.iris), smoothstep(1.06, 0.96, radius))
    paint(white, (0.004, 0.004, 0.004), smoothstep(pupil + 0.05, pupil - 0.03, radius))
    return white


def _add_catch_light(ball: Raster, scene: Scene, eye: Eye, x: Raster, y: Raster) -> None:
    """Add the lamp's mirror image: the cornea bulges, so it lies between the iris's centre and the lamp's side."""
    pitch, yaw = eye.gaze
    photo = scene.photo
    cx = 8.0 * sin(yaw) * cos(pitch) + 3.2 * sin(photo.light_yaw)
    cy = -8.0 * sin(pitch) - 3.2 * sin(photo.light_pitch)
    distance = np.sqrt((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2)
    ball += thrice(np.float32(0.8) * smoothstep(1.15, 0.75, distance))


def _shadow_of_lid(shape: tuple[int, int], upper: Points, opening: Raster) -> Raster:
    """Return how much light the lids let through [h, w]: less below the upper one and in the corners."""
    edge = stroked(shape, [upper], thickness=6 * FINE // 2)
    return (1 - np.float32(0.45) * soften(edge, 1.5 * FINE)) * (0.55 + 0.45 * soften(opening, 1.7 * FINE))


def _draw_folds(patch: Raster, shape: tuple[int, int], upper: Points, lower: Points, small: tuple[int, int]) -> None:
    """Darken the fold above the upper lid and brighten the wet rim of the lower one."""
    centre = (upper[0] + upper[-1]) / 2
    crease = (upper - centre) * np.array([1.04, 1.0]) - np.array([0.0, 3.6 * FINE])
    line = soften(stroked(shape, [crease[3:-3]], thickness=FINE), 0.5 * FINE)
    bag = soften(stroked(shape, [lower[6:-6] + np.array([0.0, 1.4 * FINE])], thickness=FINE), 0.4 * FINE)
    cover = cv2.resize(line, small, interpolation=cv2.INTER_AREA)
    paint(patch, patch * np.float32(0.45), np.minimum(cover * np.float32(1.1), 1))
    paint(patch, patch * np.float32(1.25), cv2.resize(bag, small, interpolation=cv2.INTER_AREA))


def _lashes(shape: tuple[int, int], upper: Points, lower: Points, side: int, rng: np.random.Generator) -> Raster:
    """Return the coverage [h, w] of the lash line and of single lashes."""
    line = stroked(shape, [upper], thickness=FINE + 1) * np.float32(0.85)
    thin = stroked(shape, [lower], thickness=FINE - 1) * np.float32(0.35)
    centre = (upper[0] + upper[-1]) / 2
    roots = upper[2:-2]
    length = rng.uniform(0.6, 1.1, len(roots))
    outwards = np.stack([(roots[:, 0] - centre[0]) * 0.13 + side * 0.6, -2.2 * FINE * length], axis=1)
    hairs = np.stack([roots, roots + outwards * (0.5, 0.6), roots + outwards], axis=1)
    single = stroked(shape, hairs, thickness=1) * np.float32(0.7)
    return np.maximum(np.maximum(line, thin), single)
