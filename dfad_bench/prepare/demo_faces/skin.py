"""The head's surface: where each pixel meets it, what colour skin has there, and how it is lit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import cos, sin

import cv2
import numpy as np

from dfad_bench.prepare.demo_faces.canvas import Raster, cloudy, paint, smoothstep, soften, stroked, tint, white_noise
from dfad_bench.prepare.demo_faces.geometry import EYE_Y, MOUTH_Y, PX_PER_MM, Head
from dfad_bench.prepare.demo_faces.scene import Scene

_SCATTER = (0.42, 0.26, 0.20)
"""How far light wraps around the terminator per channel: skin scatters red the furthest."""
_GRID = 209
"""Points per side of the grid on which bumps are added up, 1.25 mm apart."""


@dataclass
class Surface:
    """The head's surface under every pixel.

    x, y [H, W]: the upright image plane in mm; hx, hy [H, W]: head coordinates in mm of the point seen there;
    normal: its three components [H, W] in the camera's frame; cover [H, W]: 1 on the head, 0 beside it.
    """

    x: Raster
    y: Raster
    hx: Raster
    hy: Raster
    normal: tuple[Raster, Raster, Raster]
    cover: Raster

    @classmethod
    def of(cls, head: Head) -> Surface:
        """Intersect every pixel's line of sight with the head; pixels beside it take the nearest point of its outline."""
        x, y = head.plane()
        straight = x / head.taper(y).astype(np.float32)
        person = head.person
        scale = np.array([1 / person.half_width, 1 / person.half_height, 1 / person.half_depth])
        into = head.rotation.T * scale[:, None]  # camera to head frame, in units of the semi-axes
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = into.astype(np.float32).tolist()
        u, v, w = (ax * straight + ay * y, bx * straight + by * y, cx * straight + cy * y)
        length = az * az + bz * bz + cz * cz
        along = u * az + v * bz + w * cz
        outline = u * u + v * v + w * w - along * along / length
        depth = (np.sqrt(np.maximum(length * (1 - outline), 0)) - along) / length
        shrink = 1 / np.sqrt(np.maximum(outline, 1))
        u, v, w = ((u + depth * az) * shrink, (v + depth * bz) * shrink, (w + depth * cz) * shrink)
        gradient = [part * s for part, s in zip((u, v, w), scale.astype(np.float32), strict=True)]
        norm = 1 / np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
        turn = head.rotation.astype(np.float32)
        normal = [
            (turn[i, 0] * gradient[0] + turn[i, 1] * gradient[1] + turn[i, 2] * gradient[2]) * norm for i in range(3)
        ]
        radius = np.sqrt(straight * straight + y * y) * np.float32(PX_PER_MM)
        cover = np.clip((1 / np.sqrt(np.maximum(outline, 1e-3)) - 1) * radius * np.float32(0.7) + 0.5, 0, 1)
        hx, hy = u * np.float32(person.half_width), v * np.float32(person.half_height)
        return cls(straight, y, hx, hy, (normal[0], normal[1], normal[2]), cover)


def blob(surface: Surface, x: float, y: float, width: float, height: float) -> Raster:
    """Return a Gaussian [H, W] around head coordinates (x, y); width and height are standard deviations in mm."""
    return np.exp(-0.5 * (((surface.hx - x) / width) ** 2 + ((surface.hy - y) / height) ** 2))


class Relief:
    """Bumps and hollows on the ellipsoid, as a height in mm over the upright image plane, drawn all at once."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._bumps: list[tuple[float, float, float, float, float]] = []

    def add(self, x: float, y: float, width: float, height: float, rise: float, lift: float = 0.0) -> None:
        """Add a Gaussian bump at head coordinates x, y, drawn where a point ``lift`` mm above the skin is seen."""
        point = np.array([x, y, float(self._head.depth(x, y)) + lift])
        at = self._head.flatten(point)
        self._bumps.append((float(at[0]), float(at[1]), width * cos(self._head.photo.yaw), height, rise))

    @cached_property
    def map(self) -> Raster:
        """The height [H, W] in mm. A Gaussian is an outer product, so all of them are one matrix product."""
        span = np.linspace(-130, 130, _GRID, dtype=np.float32)
        x, y, width, height, rise = (np.array(part, np.float32)[:, None] for part in zip(*self._bumps, strict=True))
        across = np.exp(-0.5 * ((span - x) / width) ** 2)
        down = rise * np.exp(-0.5 * ((span - y) / height) ** 2)
        plane = cv2.gemm(down, across, 1.0, np.zeros((_GRID, _GRID), np.float32), 0.0, flags=cv2.GEMM_1_T)
        photo = self._head.photo
        corners = np.array([[-130.0, -130], [130, -130], [-130, 130]])
        warp = cv2.getAffineTransform(
            np.array([[0, 0], [_GRID - 1, 0], [0, _GRID - 1]], np.float32),
            self._head.to_pixels(corners).astype(np.float32),
        )
        return cv2.warpAffine(plane, warp, (photo.width, photo.height), flags=cv2.INTER_CUBIC)


def relief_of(head: Head) -> Relief:
    """Return the bumps of a face: brow ridge, sockets, lids, nose, cheeks, lips, chin, folds of age."""
    person, smile = head.person, head.photo.smile
    relief = Relief(head)
    tip, broad = head.nose_tip, person.nose_width
    bottom = float(tip[1])
    for part, rise, width in ((0.1, 2.0, 5.0), (0.4, 4.5, 5.5), (0.7, 7.0, 6.5)):
        relief.add(0, part * bottom, width * broad, 8, rise, lift=13 * part)
    relief.add(0, bottom - 1, 7.5 * broad, 7.0, 10.5, lift=17)
    relief.add(0, bottom + 9, 9, 4, -2.5, lift=5)
    for side in (-1, 1):
        relief.add(side * 11 * broad, bottom + 2, 5, 5, 5.0, lift=7)
        eye = side * person.eye_distance
        relief.add(side * 27, EYE_Y - 16, 16, 5.5, 3.0)
        relief.add(eye - side * 4, EYE_Y, 17, 11, -5.5)
        relief.add(eye, EYE_Y, 12, 7.5, 4.5)
        relief.add(eye, EYE_Y + 12, 11, 3.0, 1.0 + person.age)
        relief.add(side * 37, 30 - 3 * smile, 17, 14, 3.5 + 1.5 * max(smile, 0))
        relief.add(side * (20 + 4 * smile), 51, 3.0 + person.age, 11, -0.6 - 1.0 * person.age - 0.8 * max(smile, 0))
        relief.add(side * (person.mouth_half_width + 3), MOUTH_Y - 2, 4, 5, -1.6)
        relief.add(side * 52, 62, 12, 20, -2.5)
    relief.add(0, MOUTH_Y - 11, 2.6, 5, -0.9)
    relief.add(0, MOUTH_Y - 4, 15, 3.5, 2.6 * person.lips, lift=3)
    relief.add(0, MOUTH_Y + 6, 13, 4.5, 3.2 * person.lips, lift=3)
    relief.add(0, MOUTH_Y + 15, 14, 4, -2.6)
    relief.add(0, 94, 13, 9, 5.0)
    for wrinkle in range(4):
        relief.add(0, -30 - 8 * wrinkle, 30, 1.3, -0.75 * max(person.age - 0.35, 0))
    return relief


def texture(scene: Scene, head: Head, surface: Surface, rng: np.random.Generator) -> tuple[Raster, Raster]:
    """Return the skin's colour [H, W, 3] and its fine relief [H, W] in mm: pores, blotches, freckles, stubble."""
    person, shape = scene.person, surface.x.shape
    fine, coarse = white_noise(rng, shape), cloudy(rng, shape, 2.6)
    pores = np.minimum(soften(fine, 0.7) * np.float32(2.2) + coarse * np.float32(0.5), 1)
    blotches, patches = cloudy(rng, shape, 9), cloudy(rng, shape, 34)
    value = 1 + np.float32(0.035) * pores + np.float32(0.022) * blotches + np.float32(0.02) * fine
    redness = np.float32(0.03) * patches + np.float32(0.02) * blotches
    for x, y, width, height, rise in ((-36, 34, 18, 15, 0.09), (36, 34, 18, 15, 0.09), (0, 38, 11, 10, 0.10)):
        redness = redness + np.float32(rise) * blob(surface, x, y, width, height)
    red, green, blue = person.skin
    colour = cv2.merge([red * value * (1 + 0.4 * redness), green * value * (1 - redness), blue * value * (1 - redness)])
    if person.freckles:
        _add_freckles(colour, person.freckles, head, rng)
    if person.beard:
        _grow_beard(colour, scene, surface, fine)
    return colour, pores * np.float32(0.035 + 0.03 * person.age)


def _add_freckles(colour: Raster, number: int, head: Head, rng: np.random.Generator) -> None:
    x, y = rng.normal(0, 30, number).clip(-50, 50), rng.normal(22, 18, number).clip(-30, 70)
    dots = head.on_skin(x, y)[:, None] + rng.uniform(-0.4, 0.4, (number, 2, 2))
    tint(colour, (0.66, 0.54, 0.46), soften(stroked(colour.shape, dots), 0.6))


def _grow_beard(colour: Raster, scene: Scene, surface: Surface, fine: Raster) -> None:
    hx, hy = np.abs(surface.hx), surface.hy
    chin = smoothstep(46, 62, hy + np.maximum(hx - 30, 0) * np.float32(0.55 if scene.person.beard > 0.4 else 0.3))
    mouth = blob(surface, 0, MOUTH_Y + 1, 20, 6.5)
    cover = chin * (1 - np.clip(1.3 * mouth, 0, 1)) * np.clip(0.55 + 0.3 * fine, 0, 1)
    paint(
        colour, scene.person.hair, (cover * np.float32(min(0.25 + 0.75 * scene.person.beard, 0.9))).astype(np.float32)
    )


def light_on(scene: Scene, surface: Surface, height: Raster) -> tuple[Raster, Raster]:
    """Return irradiance [H, W, 3] and gloss [H, W] of a surface with a relief ``height`` [H, W] in mm.

    Lambert's law from one distant lamp, wrapped around the terminator per channel, on top of light from the sky; gloss
    after Blinn (SIGGRAPH 1977).
    """
    photo = scene.photo
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=PX_PER_MM / 8)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=PX_PER_MM / 8)
    x, y, z = surface.normal
    x, y = x - across * np.float32(0.9), y - down * np.float32(0.9)
    norm = 1 / np.sqrt(x * x + y * y + z * z)
    lamp = np.array([sin(photo.light_yaw) * cos(photo.light_pitch), -sin(photo.light_pitch), 0], np.float32)
    lamp[2] = np.sqrt(1 - lamp[0] ** 2 - lamp[1] ** 2)
    facing = (x * lamp[0] + y * lamp[1] + z * lamp[2]) * norm
    sky = np.float32(photo.ambient) * (np.float32(0.8) - np.float32(0.25) * y * norm)
    hollow = np.clip(1 + np.float32(0.05) * soften(np.minimum(height, 0), 2.0), 0.5, 1)
    channels = [
        (sky + np.float32(photo.light / (1 + wrap)) * np.maximum(facing + np.float32(wrap), 0)) * hollow
        for wrap in _SCATTER
    ]
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    mirrored = np.maximum((x * half[0] + y * half[1] + z * half[2]) * norm, 0)
    eighth = np.square(np.square(np.square(mirrored)))
    gloss = eighth * eighth * eighth  # many times faster than a power of 24
    return cv2.merge(channels), gloss * np.float32(photo.light)
