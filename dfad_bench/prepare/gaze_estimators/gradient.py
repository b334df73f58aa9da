"""Finds the iris by image gradients and reads the gaze off an eyeball model; needs no weights.

Eye centres after Timm & Barth, "Accurate eye centre localisation by means of gradients" (VISAPP 2011), with changes: a
gradient keeps its sign instead of being squared, since an iris is darker than what is around it; it counts for centres
about an iris's radius away only, since landmarks tell the scale; its vertical part counts less, since lids draw
horizontal edges; each eye's choice is guided by the other's, since both look the same way; and the search stays where a
gaze can put the iris.

The eyeball is a sphere whose centre lies behind the middle of the canthi, which is the landmark; the head's turn, by
the five landmarks, says where that is in the image. A millimetre on the face is 5 degrees, and detectors put an eye 2 mm
to this or that side of it, so both landmarks are moved most of the way to where the edges of lids, lashes and iris
gather. On rendered faces that halves the error with landmarks that YuNet finds (median 10.8° to 5.8°), at the price of
1.1° with those that were drawn; as lids go along with the eye, pitch comes out smaller than it is.

Where no landmark is known, OpenCV's cascade looks for the eyes, and the head is taken to face the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dfad_bench.config import file_sha256
from dfad_bench.prepare.eye_cascade import EyeCascade, cascade_path
from dfad_bench.prepare.eye_patches import Floats, rolls, upright_patch, usable
from dfad_bench.prepare.head_pose import (
    EYE_DISTANCE,
    angles,
    frontal_landmarks,
    head_angles,
    pixels_per_mm,
    seen_from_head,
    turn,
)
from dfad_bench.types import Annotation, Gaze, WeightsFile

EYEBALL_RADIUS, IRIS_RADIUS = 12.0, 5.85
"""mm (Bekerman, Gottlieb & Vaiman, J. Ophthalmology 2014; Ruefer, Schroeder & Erb, Cornea 2005)."""
CANTHI_BEFORE_CENTRE = 4.5
"""mm from the eyeball's centre forward to the middle between its two canthi: a round figure."""
PROFILE = np.radians(40.0)
"""A head turned further hides so much of one eye that its iris is a guess."""
LEAST_CONTRAST = 0.12
"""An iris is darker than the skin and white around it by this share at least; of a closed eye only the lashes are."""

_WIDTH, _HEIGHT = 48, 32
_SHOWN = 0.62 * EYE_DISTANCE
"""mm across the eye patch: 1.3 times an opening of 30 mm."""
_PX = _WIDTH / _SHOWN
"""Patch pixels per mm."""
_RING = (0.7 * IRIS_RADIUS * _PX, 1.25 * IRIS_RADIUS * _PX)
_VERTICAL = 0.5
_STRONG = 0.3
"""Gradients count above the mean magnitude plus this many standard deviations (the paper's own threshold)."""
_REACH = (7.0, 4.5)
"""mm beside and above the landmark that an iris goes to: 35 and 22 degrees."""
_ALIKE = 1.0
"""mm by which the iris's places in the two eyes differ."""
_EDGES = (12.0, 4.5)
"""mm: standard deviations, across and down, of the window in which the edges of an eye are gathered."""
_TRUST = 0.7
"""How far a landmark is moved to the middle of those edges. The edges' middle is off by 0.8 mm (standard deviation, on
rendered faces), YuNet's landmarks by 2.1 mm, a drawn landmark by nothing."""
_SEARCH = 2
_MARGIN = _SEARCH + 2
_STEEPEST = 0.95
"""Sine of the largest angle between gaze and camera that the model gives."""


class Gradient:
    """Reads the gaze off both irises.

    features: iris offsets from the eyeball's centre in eyeball radii (x, y down; eye at image left, then right), head
    pitch and yaw in radians, both peaks' sharpness and both irises' contrast. confidence: the lesser sharpness, times
    exp(-(d / 3 mm)²) of the distance d between the two offsets.
    """

    weights: ClassVar[tuple[WeightsFile, ...]] = ()
    weights_sha256: str | None
    """Of OpenCV's cascade of eyes; None where OpenCV ships none, and faces without landmarks are then flagged."""
    feature_dim: int = 10

    def __init__(self) -> None:
        path = cascade_path()
        self._cascade = None if path is None else EyeCascade(path)
        self.weights_sha256 = None if path is None else file_sha256(path)

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return the gaze of crops [N, S, S, 3] RGB by landmarks [N, 5, 2] in crop pixels; annotations are not looked at.

        Flags ``no_landmarks`` where they are impossible, or unknown and no eyes are found; ``profile`` where the head is
        turned too far, and ``closed_eyes`` where neither eye holds anything as dark as an iris.
        """
        count = len(faces)
        landmarks = self._completed(faces, landmarks)
        flags: list[str | None] = ["no_landmarks"] * count
        columns = {name: np.full(count, np.nan, np.float32) for name in ("pitch", "yaw", "head_pitch", "head_yaw")}
        features = np.full((count, self.feature_dim), np.nan, np.float32)
        confidence = np.zeros(count, np.float32)
        rows = np.flatnonzero(usable(landmarks, faces.shape[2] if count else 0))
        if len(rows):
            found = _measure(faces[rows], landmarks[rows])
            for row, reason in zip(rows, found.reasons, strict=True):
                flags[row] = reason
            seen = np.array([reason is None for reason in found.reasons])
            for name, values in zip(columns, found.angles, strict=True):
                columns[name][rows[seen]] = values[seen]
            features[rows], confidence[rows] = found.features, np.where(seen, found.confidence, 0)
        return Gaze(**columns, features=features, confidence=confidence, flags=tuple(flags))

    def _completed(self, faces: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return landmarks [N, 5, 2] with those of frontal faces where none is known and both eyes are found."""
        if self._cascade is None:
            return landmarks
        completed = landmarks.copy()
        for row in np.flatnonzero(np.isnan(landmarks).all(axis=(1, 2))):
            eyes = self._cascade.find(faces[row])
            if eyes is not None:
                completed[row] = frontal_landmarks(eyes)
        return completed


@dataclass(frozen=True, slots=True)
class _Measured:
    """angles: pitch, yaw, and both seen from the head, each [N] radians; the rest as ``Gradient`` tells."""

    angles: tuple[Floats, Floats, Floats, Floats]
    features: Floats
    confidence: Floats
    reasons: list[str | None]


def _measure(faces: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> _Measured:
    """Return the gaze of faces [N, S, S, 3] whose landmarks [N, 5, 2] are usable."""
    roll = rolls(landmarks)
    head_pitch, head_yaw = head_angles(landmarks)
    scale = pixels_per_mm(landmarks, head_yaw)
    grey = _eyes(faces, landmarks, scale, roll)
    smooth = _smoothed(grey)
    irises, sharpness = _irises(smooth)
    middle = _TRUST * _edges_middle(smooth).mean(axis=1, keepdims=True)
    contrast = _contrast(grey, irises)
    outwards = np.stack([np.sin(head_yaw) * np.cos(head_pitch), -np.sin(head_pitch)], axis=-1)
    offsets = (irises / _PX - middle + CANTHI_BEFORE_CENTRE * outwards[:, None]) / EYEBALL_RADIUS
    mean = offsets.mean(axis=1)
    mean *= np.minimum(1, _STEEPEST / np.maximum(np.linalg.norm(mean, axis=1), 1e-9))[:, None]
    upright = np.stack([mean[:, 0], -mean[:, 1], np.sqrt(1 - np.square(mean).sum(axis=1))], axis=-1)
    gaze = turn(upright, roll)
    apart = np.linalg.norm(offsets[:, 0] - offsets[:, 1], axis=1) * EYEBALL_RADIUS
    profile, closed = np.abs(head_yaw) > PROFILE, contrast.max(axis=1) < LEAST_CONTRAST
    return _Measured(
        (*angles(gaze), *angles(seen_from_head(gaze, head_pitch, head_yaw, roll))),
        np.column_stack([offsets.reshape(-1, 4), head_pitch, head_yaw, sharpness, contrast]),
        sharpness.min(axis=1) * np.exp(-np.square(apart / 3)),
        ["profile" if p else "closed_eyes" if c else None for p, c in zip(profile, closed, strict=True)],
    )


def _eyes(faces: NDArray[np.uint8], landmarks: NDArray[np.float32], scale: Floats, roll: Floats) -> NDArray[np.float32]:
    """Return grey upright eyes [N, 2, h, w] around the eye landmarks, all at one scale."""
    width = _SHOWN * scale
    patches = np.stack(
        [
            [upright_patch(face, points[eye], wide, (_WIDTH, _HEIGHT), tilt) for eye in (0, 1)]
            for face, points, wide, tilt in zip(faces, landmarks, width, roll, strict=True)
        ]
    )
    return np.asarray(patches.mean(axis=-1, dtype=np.float32))


_REACHED = int(np.ceil(_RING[1]))
_FOURIER = (scipy.fft.next_fast_len(_HEIGHT + _REACHED, True), scipy.fft.next_fast_len(_WIDTH + _REACHED, True))
"""Large enough that what wraps around falls outside the patch."""


def _kernels() -> NDArray[np.complex64]:
    """Return the transforms [2, ...] of the unit vectors, x and y, from a ring to its middle; 0 off the ring."""
    lines = (np.fft.fftfreq(length, 1 / length).astype(np.float32) for length in _FOURIER)
    y, x = np.meshgrid(*lines, indexing="ij")
    radius = np.maximum(np.hypot(x, y), 1)
    ring = (radius >= _RING[0]) & (radius <= _RING[1])
    return np.asarray(scipy.fft.rfft2((np.stack([-x, -y]) / radius * ring).astype(np.float32)))


_KERNELS = _kernels()
_Y, _X = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
_DOWN, _RIGHT = (_Y - (_HEIGHT - 1) / 2) / _PX, (_X - (_WIDTH - 1) / 2) / _PX
_WITHIN = np.exp(-((_RIGHT / _REACH[0]) ** 4) - (_DOWN / _REACH[1]) ** 4).astype(np.float32)


def _smoothed(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return eyes [N, 2, h, w] as maps [2N, h, w] without the finest noise."""
    return np.stack([cv2.GaussianBlur(each, (0, 0), 1.0) for each in grey.reshape(-1, _HEIGHT, _WIDTH)])


def _slopes(smooth: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the gradient of maps [M, h, w], across and down."""
    across, down = np.zeros_like(smooth), np.zeros_like(smooth)
    across[:, :, 1:-1] = (smooth[:, :, 2:] - smooth[:, :, :-2]) / 2
    down[:, 1:-1] = (smooth[:, 2:] - smooth[:, :-2]) / 2
    return across, down


def _edges_middle(smooth: NDArray[np.float32]) -> Floats:
    """Return the middle [N, 2, 2] of the edges of eyes [2N, h, w] in mm from the landmark, by three steps of mean shift."""
    magnitude = np.hypot(*_slopes(smooth)).astype(np.float64)
    x, y = np.zeros((2, len(magnitude)))
    for _ in range(3):
        columns = np.exp(-(((_RIGHT[0] - x[:, None]) / _EDGES[0]) ** 2) / 2)
        rows = np.exp(-(((_DOWN[:, 0] - y[:, None]) / _EDGES[1]) ** 2) / 2)
        across = np.einsum("mhw,mh->mw", magnitude, rows) * columns
        total = np.maximum(across.sum(axis=1), 1e-9)
        down = np.einsum("mhw,mw->mh", magnitude, columns) * rows
        x, y = (across * _RIGHT[0]).sum(axis=1) / total, (down * _DOWN[:, 0]).sum(axis=1) / total
    return np.stack([x, y], axis=-1).reshape(-1, 2, 2)


def _objective(smooth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how well each pixel of eyes [M, h, w] does as an iris's centre [M, h, w].

    At c it is the darkness of c times the mean, over pixels with a strong gradient, of d · g where the pixel lies on the
    ring around c: d the unit vector from c to the pixel, g the unit gradient there. That is a sum of two convolutions.
    """
    across, down = _slopes(smooth)
    magnitude = np.hypot(across, down)
    strong = magnitude > magnitude.mean((1, 2), keepdims=True) + _STRONG * magnitude.std((1, 2), keepdims=True)
    length = np.where(strong, magnitude, np.float32(np.inf))
    gradients = np.stack([across / length, np.float32(_VERTICAL) * down / length], axis=1)
    spectrum = (scipy.fft.rfft2(gradients, _FOURIER) * _KERNELS).sum(axis=1)
    rings = np.maximum(scipy.fft.irfft2(spectrum, _FOURIER)[:, :_HEIGHT, :_WIDTH], 0)
    darkness = smooth.max((1, 2), keepdims=True) - smooth
    darkness = darkness / np.maximum(darkness.max((1, 2), keepdims=True), 1)
    return np.asarray(rings * darkness / np.maximum(strong.sum((1, 2)), 1)[:, None, None], np.float32)


def _irises(smooth: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return the irises' centres [N, 2, 2] of eyes [2N, h, w] in patch pixels from the landmark, and their sharpness [N, 2].

    Sharpness is 1 minus the objective's mean over where an iris may be, relative to its peak.
    """
    objective = _objective(smooth)
    blurred = np.stack([cv2.GaussianBlur(each, (0, 0), _ALIKE * _PX) for each in objective])
    other = blurred.reshape(-1, 2, _HEIGHT, _WIDTH)[:, ::-1].reshape(objective.shape)
    row, column = _peaks(objective * other * _WITHIN)
    every, (dy, dx) = np.arange(len(objective))[:, None], np.mgrid[-_SEARCH : _SEARCH + 1, -_SEARCH : _SEARCH + 1]
    dy, dx = dy.ravel(), dx.ravel()
    # What guided the choice must not pull the answer: climb to the eye's own peak, then take its centroid.
    best = objective[every, row[:, None] + dy, column[:, None] + dx].argmax(axis=1)
    row, column = row + dy[best], column + dx[best]
    around = objective[every, row[:, None] + dy, column[:, None] + dx].astype(np.float64)
    peak = around.max(axis=1)
    weight = around - around.min(axis=1, keepdims=True)
    total = np.maximum(weight.sum(axis=1), 1e-12)
    x = column + (weight * dx).sum(axis=1) / total - (_WIDTH - 1) / 2
    y = row + (weight * dy).sum(axis=1) / total - (_HEIGHT - 1) / 2
    level = (objective * _WITHIN).sum((1, 2), dtype=np.float64) / _WITHIN.sum()
    sharpness = np.clip(1 - level / np.maximum(peak, 1e-12), 0, 1)
    return np.stack([x, y], axis=-1).reshape(-1, 2, 2), sharpness.reshape(-1, 2)


def _peaks(objective: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return row and column [M] of the largest value of maps [M, h, w] that is far enough from their edges."""
    inner = objective[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    row, column = np.unravel_index(inner.reshape(len(inner), -1).argmax(axis=1), inner.shape[1:])
    return row + _MARGIN, column + _MARGIN


def _contrast(grey: NDArray[np.float32], irises: Floats) -> Floats:
    """Return by which share [N, 2] an iris's disc is darker than what lies beside it, on both sides, at its height."""
    at = irises[:, :, None, None, :] + ((_WIDTH - 1) / 2, (_HEIGHT - 1) / 2)
    x, y = np.abs(_X - at[..., 0]) / (_PX * IRIS_RADIUS), np.abs(_Y - at[..., 1]) / (_PX * IRIS_RADIUS)
    disc, beside = np.hypot(x, y) < 0.8, (y < 0.8) & (x > 1.2) & (x < 2.2)
    inside = (grey * disc).sum((2, 3)) / np.maximum(disc.sum((2, 3)), 1)
    outside = (grey * beside).sum((2, 3)) / np.maximum(beside.sum((2, 3)), 1)
    return np.asarray(1 - inside / np.maximum(outside, 1), np.float64)


GAZE_ESTIMATOR = Gradient
