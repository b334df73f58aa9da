"""Where things of a head land in the image: an ellipsoid with features on it, seen by an orthographic camera.

Head frame and camera frame share their axes at rest: x to image right, y down, z towards the camera; millimetres, origin
at the head's centre. A point is turned by pitch and yaw, narrowed towards the chin, turned by roll, and scaled.
Eyeballs are spheres of 24 mm with an iris of 11.7 mm (Bekerman, Gottlieb & Vaiman, J. Ophthalmology 2014; Ruefer,
Schroeder & Erb, Cornea 2005), 63 mm apart on average (Dodgson, SPIE 5291, 2004), in openings 30 mm wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import cos, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfad_bench.prepare.demo_faces.scene import CROP, Scene

PX_PER_MM = 1.14
EYEBALL_RADIUS, IRIS_RADIUS = 12.0, 5.85
EYE_HALF_WIDTH = 15.0
EYE_Y, MOUTH_Y = -4.0, 68.0
FACE_BOX = 197.0
"""Side of the annotated box in pixels: with the benchmark's margin of 1.3 the crop is 256 px, so nothing is resampled."""
_CANTHUS_Z, _LID_Z, _CANTHUS_RISE = 4.5, 11.0, 0.9
"""mm from an eyeball's centre: corners and lids forward, and the outer corner up (the inner one as much down)."""
_ANCHOR = (0.0, 22.0, 58.0)
"""The point of the head that lies in the middle of the crop."""

Points = NDArray[Any]
"""Points [..., 2] in pixels (pixel centres at integers) or [..., 3] in mm."""


@dataclass(frozen=True)
class Eye:
    """One eye in the image: its ball's centre, its corners and its lids, all in pixels.

    side: -1 for the eye at image left, +1 for the one at image right; gaze (pitch, yaw) in radians;
    upper, lower [33, 2]: the edges of the lids from the corner at image left to the one at image right.
    """

    side: int
    centre: Points
    gaze: tuple[float, float]
    upper: Points
    lower: Points

    @property
    def middle(self) -> Points:
        """Halfway between the two corners [2]: the landmark of an eye."""
        corners: Points = (self.upper[0] + self.upper[-1]) / 2
        return corners

    @property
    def iris(self) -> Points:
        """The iris's centre [2]: the point of the ball that the gaze passes through."""
        centre: Points = self.centre + iris_offset(*self.gaze)
        return centre


def iris_offset(pitch: float, yaw: float) -> Points:
    """Return how far [2] in pixels the iris's centre lies from the eyeball's, for a gaze in radians."""
    radius = EYEBALL_RADIUS * PX_PER_MM
    return radius * np.array([sin(yaw) * cos(pitch), -sin(pitch)])


class Head:
    """The geometry of a scene's head."""

    def __init__(self, scene: Scene) -> None:
        self.person, self.photo = scene.person, scene.photo
        p, y = self.photo.pitch, self.photo.yaw
        tilt = np.array([[1, 0, 0], [0, cos(p), -sin(p)], [0, sin(p), cos(p)]])
        turn = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
        self.rotation: Points = turn @ tilt
        r = self.photo.roll
        self.roll: Points = np.array([[cos(r), -sin(r)], [sin(r), cos(r)]])
        self._origin: Points = np.zeros(2)
        middle = np.array(
            [self.photo.left + CROP / 2 - 0.5 + self.photo.dx, self.photo.top + CROP / 2 - 0.5 + self.photo.dy]
        )
        self._origin = middle - self.project(np.array(_ANCHOR))

    def depth(self, x: Points | float, y: Points | float) -> Points:
        """Return z in mm of the front surface at head coordinates x, y."""
        person = self.person
        inside = 1 - np.square(x / person.half_width) - np.square(y / person.half_height)
        z: Points = person.half_depth * np.sqrt(np.maximum(inside, 0.02))
        return z

    def on_skin(self, x: Points | float, y: Points | float, lift: float = 0.0) -> Points:
        """Return the pixels [..., 2] of surface points at head coordinates x, y, ``lift`` mm in front of the skin."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        return self.project(np.stack([x, y, self.depth(x, y) + lift], axis=-1))

    def project(self, points: Points) -> Points:
        """Return the pixels [..., 2] of points [..., 3] in mm of the head frame."""
        return self.to_pixels(self.flatten(points))

    def flatten(self, points: Points) -> Points:
        """Return where points [..., 3] fall in the upright image plane [..., 2], mm from the head's centre."""
        turned = points @ self.rotation.T
        return np.stack([turned[..., 0] * self.taper(turned[..., 1]), turned[..., 1]], axis=-1)

    def to_pixels(self, plane: Points) -> Points:
        """Return the pixels of points [..., 2] of the upright image plane."""
        pixels: Points = plane @ self.roll.T * PX_PER_MM + self._origin
        return pixels

    def taper(self, y: Points) -> Points:
        """Return the relative width of the head at height y (mm, in the image plane): 1 down to the cheeks."""
        t = np.minimum(np.maximum((y / self.person.half_height - 0.15) / 0.7, 0), 1)
        width: Points = 1 + self.person.jaw * t * t * (3 - 2 * t)
        return width

    def plane(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x and y [H, W] float32 of every pixel in the upright image plane, before the taper is undone."""
        columns = (np.arange(self.photo.width, dtype=np.float32) - float(self._origin[0])) / PX_PER_MM
        rows = (np.arange(self.photo.height, dtype=np.float32)[:, None] - float(self._origin[1])) / PX_PER_MM
        c, s = float(self.roll[0, 0]), float(self.roll[1, 0])
        x = (columns * c + rows * s).astype(np.float32)
        return x, (rows * c - columns * s).astype(np.float32)

    @cached_property
    def eyes(self) -> tuple[Eye, Eye]:
        """The eye at image left and the eye at image right."""
        return self._eye(-1), self._eye(1)

    def _eye(self, side: int) -> Eye:
        ball = self._ball(side)
        gaze = self.photo.gaze[(side + 1) // 2]
        rise = EYEBALL_RADIUS * sin(gaze[0] - self.photo.pitch)
        # A lid goes along with the eye: the upper one most of the way, the lower one a little.
        above = min(max(5.0 * self.person.eye_opening + 0.7 * rise, 2.2), 8.0)
        below = min(max(4.9 * self.person.eye_opening - 0.35 * rise, 2.6), 6.5)
        return Eye(side, self.project(ball), gaze, self._lid(ball, side, -above), self._lid(ball, side, below))

    def _ball(self, side: int) -> Points:
        x = side * self.person.eye_distance
        return np.array([x, EYE_Y, float(self.depth(x, EYE_Y)) - EYEBALL_RADIUS - 3])

    def _lid(self, ball: Points, side: int, height: float) -> Points:
        t = np.linspace(-1, 1, 33)
        bow = (1 - np.abs(t) ** 2.3) ** 0.85
        skew = 1 - 0.12 * side * t if height < 0 else 1 + 0.10 * side * t  # the upper lid peaks towards the nose
        lid = np.stack(
            [
                EYE_HALF_WIDTH * t,
                height * bow * skew - _CANTHUS_RISE * side * t,
                _CANTHUS_Z + (_LID_Z - _CANTHUS_Z) * bow,
            ],
            axis=-1,
        )
        return self.project(ball + lid)

    @property
    def mouth_corners(self) -> Points:
        """The mouth's corners [2, 2] in mm of the head frame (x, y), the one at image left first."""
        smile = self.photo.smile
        half = self.person.mouth_half_width * (1 + 0.13 * smile)
        return np.array([[-half, MOUTH_Y - 3.5 * smile], [half, MOUTH_Y - 3.5 * smile]])

    @property
    def nose_tip(self) -> Points:
        """The nose's tip [3] in mm of the head frame."""
        y = self.person.nose_length + EYE_Y + 2
        return np.array([0.0, y, float(self.depth(0.0, y)) + 17])

    def landmarks(self) -> NDArray[np.float32]:
        """Return the five landmarks [5, 2] float32 in pixels, in the order of ``types.Annotation``."""
        canthi = [
            self._ball(side) + np.array([end * EYE_HALF_WIDTH, -end * side * _CANTHUS_RISE, _CANTHUS_Z])
            for side in (-1, 1)
            for end in (-1, 1)
        ]
        mouth = [(x, y, float(self.depth(x, y))) for x, y in self.mouth_corners]
        points = self.project(np.array([*canthi, self.nose_tip, *mouth]))
        eyes = (points[0:4:2] + points[1:4:2]) / 2
        return np.concatenate([eyes, points[4:]]).astype(np.float32)

    def box(self) -> tuple[float, float, float, float]:
        """Return the face box in pixels; its centre is that of the crop."""
        x, y = self.photo.left + CROP / 2, self.photo.top + CROP / 2
        return x - FACE_BOX / 2, y - FACE_BOX / 2, x + FACE_BOX / 2, y + FACE_BOX / 2
