"""Draws what is around the face: backdrop, shoulders, neck, ears and hair."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dfad_bench.prepare.demo_faces.canvas import (
    Raster,
    cloudy,
    coloured,
    filled,
    paint,
    smoothstep,
    soften,
    white_noise,
)
from dfad_bench.prepare.demo_faces.geometry import EYE_Y, PX_PER_MM, Head, Points
from dfad_bench.prepare.demo_faces.scene import Scene
from dfad_bench.prepare.demo_faces.skin import Surface

_STRANDS = 2048
"""Columns of the strand texture around the crown."""


def draw_backdrop(scene: Scene, rng: np.random.Generator) -> Raster:
    """Return a wall or a blurred room [H, W, 3]: a gradient, soft lights out of focus, and a fine grain."""
    photo = scene.photo
    shape = (photo.height, photo.width)
    slope = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.6, 1.3), photo.width, dtype=np.float32)
    fall = np.linspace(rng.uniform(0.8, 1.3), rng.uniform(0.5, 1), photo.height, dtype=np.float32)[:, None]
    clouds = cloudy(rng, shape, 60) * np.float32(rng.uniform(0.02, 0.3))
    value = slope * fall * np.exp(clouds) * (1 + np.float32(0.02) * white_noise(rng, shape))
    if rng.random() < 0.4:
        small = np.zeros((shape[0] // 2, shape[1] // 2), np.uint8)
        for _ in range(12):
            at = (int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0])))
            level = int(rng.integers(25, 150))
            cv2.circle(small, at, int(rng.integers(4, 16)), level, -1, cv2.LINE_AA)
        lights = cv2.resize(soften(small.astype(np.float32), 2.0), shape[::-1], interpolation=cv2.INTER_LINEAR)
        value = value + lights * np.float32(1 / 255)
    return coloured(value, photo.backdrop)


def draw_body(image: Raster, scene: Scene, head: Head, surface: Surface, rng: np.random.Generator) -> None:
    """Draw shoulders, neck and ears into the image [H, W, 3], in place."""
    person, photo = scene.person, scene.photo
    shape, height = image.shape, person.half_height
    light = photo.ambient + photo.light
    side = np.float32(0.35 * np.sin(photo.light_yaw)) * surface.x * np.float32(1 / 70)
    skin = [part * light for part in person.skin]

    def torso(*corners: tuple[float, float]) -> Points:
        """Map mm below and beside the head's centre to pixels; the body keeps upright when the head turns."""
        base = head.to_pixels(np.array([0.0, 0.0]))
        placed: Points = base + np.array(corners) * PX_PER_MM
        return placed

    neck_half = 0.72 * person.half_width
    shadow = 0.25 + 0.55 * smoothstep(height * 0.85, height * 1.35, surface.y)
    bottom = height + 130
    neck = torso((-neck_half, 20), (neck_half, 20), (neck_half + 4, height + 60), (-neck_half - 4, height + 60))
    paint(image, coloured(shadow * (0.8 + side), skin), soften(filled(shape, neck), 0.8))
    collar = [(x, height + 46 - 18 * (abs(x) / 60) ** 1.3) for x in np.linspace(-neck_half - 6, neck_half + 6, 15)]
    shoulders = torso(
        (-175, bottom),
        (-165, height + 70),
        (-110, height + 45),
        *collar,
        (110, height + 45),
        (165, height + 70),
        (175, bottom),
    )
    cloth = [part * light * 0.8 for part in photo.clothes]
    _dress(image, cloth, side, soften(filled(shape, shoulders), 0.8), rng)
    for ear in (-1, 1):
        angle = np.linspace(0, 2 * np.pi, 33)
        x = ear * (person.half_width + 1.5 + 7 * np.cos(angle))
        rim = head.project(np.stack([x, EYE_Y + 14 + 26 * np.sin(angle), -10 - 6 * np.cos(angle)], axis=-1))
        hollow = (rim - rim.mean(axis=0)) * 0.55 + rim.mean(axis=0)
        paint(image, coloured(0.62 + side, skin), soften(filled(shape, rim), 0.7))
        paint(image, [0.38 * part for part in skin], soften(filled(shape, hollow), 2.0) * np.float32(0.8))


def _dress(image: Raster, cloth: Sequence[float], side: Raster, cover: Raster, rng: np.random.Generator) -> None:
    """Lay woven cloth over the image where ``cover`` says, in place; its texture is made for those rows only."""
    rows = cover.any(axis=1)
    if rows.any():
        below = slice(int(rows.argmax()), None)
        shape = cover[below].shape
        weave = 1 + np.float32(0.07) * (white_noise(rng, shape) + cloudy(rng, shape, 30))
        paint(image[below], coloured(weave * (0.75 + side[below]), cloth), cover[below])


class Hair:
    """The hair of a scene: its strands, and where it lies behind and in front of the face."""

    def __init__(self, scene: Scene, surface: Surface, rng: np.random.Generator) -> None:
        self._scene, self._surface = scene, surface
        person = scene.person
        height = np.float32(person.half_height)
        x, y = surface.x - np.float32(person.parting), surface.y + height + np.float32(14)
        radius = np.sqrt(x * x + y * y)
        strands = np.stack([white_noise(rng, (48, _STRANDS)), cloudy(rng, (48, _STRANDS), 6)], axis=-1)
        bend = np.float32(person.wave) * np.sin(radius * np.float32(0.09) + np.float32(rng.uniform(0, 6)))
        column = (np.arctan2(x, y) + bend) * np.float32(_STRANDS / (2 * np.pi)) + _STRANDS // 2
        row = radius * np.float32(0.12)
        tangle = cloudy(rng, surface.x.shape, 14) * np.float32(4)
        tangled = cv2.remap(
            strands, (column + tangle).astype(np.float32), row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        fine, coarse = self._fine, self._coarse = cv2.split(tangled)
        self._value = np.clip(1 + np.float32(0.42) * fine + np.float32(0.35) * coarse, 0.15, 3)
        self._band = np.exp(-0.5 * ((radius - 42 - 5 * coarse) / 13) ** 2) * np.clip(1 + fine, 0, 3)

    def shade(self, irradiance: Raster, strength: float) -> Raster:
        """Return the hair's colour [H, W, 3] under ``strength`` × the light, with the bright band of shiny hair."""
        level = irradiance[..., 1] * np.float32(strength)
        gleam = np.float32(0.04 * self._scene.photo.light * strength) * self._band
        red, green, blue = (self._value * level * np.float32(part) + gleam for part in self._scene.person.hair)
        shaded: Raster = cv2.merge((red, green, blue))
        return shaded

    def _outside(self, grow: float) -> Raster:
        """Return about how far [H, W] in mm a pixel lies inside the head's outline grown by ``grow`` mm."""
        person = self._scene.person
        a, b = np.float32(person.half_width + grow), np.float32(person.half_height + grow)
        return (1 - np.sqrt((self._surface.x / a) ** 2 + (self._surface.y / b) ** 2)) * np.float32(person.half_width)

    def behind(self) -> Raster:
        """Return the coverage [H, W] of the hair behind neck and shoulders."""
        person = self._scene.person
        x, y = np.abs(self._surface.x), self._surface.y
        around = self._outside(person.hair_volume + 2)
        reach = np.float32(-30 + 190 * person.hair_length)
        width = np.float32(person.half_width + person.hair_volume + 8 * person.hair_length)
        hanging = np.minimum(width - x - np.maximum(y - 60, 0) * np.float32(0.05), np.minimum(reach - y, y + 20))
        ragged = self._fine * np.float32(1.0) + self._coarse * np.float32(1.3)
        cover: Raster = np.clip(np.maximum(np.minimum(around, reach - y), hanging) + ragged + 0.5, 0, 1)
        return cover

    def in_front(self) -> Raster:
        """Return the coverage [H, W] of the hair over forehead, temples and cheeks."""
        person = self._scene.person
        hx, hy = self._surface.hx, self._surface.hy
        ragged = self._fine * np.float32(0.8) + self._coarse * np.float32(1.4)
        from_parting = np.abs(hx - np.float32(person.parting)) / np.float32(person.half_width)
        line = np.float32(person.hairline) + np.float32(34) * from_parting**2
        above = line - hy
        reach = np.float32(-8 + 190 * person.hair_length)
        temple = np.float32(0.87 * person.half_width) + np.maximum(hy - 10, 0) * np.float32(0.02)
        beside = np.minimum(np.abs(hx) - temple, reach - self._surface.y) * np.float32(1.5)
        inside = self._outside(person.hair_volume)
        edge = np.minimum(np.maximum(above, beside), inside * 2) + ragged
        cover: Raster = np.clip(edge * np.float32(0.7) + 0.5, 0, 1)
        return cover
