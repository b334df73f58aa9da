"""Paints lips, nostrils and brows onto the skin, and puts glasses on the face."""

from __future__ import annotations

from math import sin

import numpy as np

from dfad_bench.prepare.demo_faces.canvas import Raster, coloured, filled, paint, soften, stroked, thrice, tint
from dfad_bench.prepare.demo_faces.geometry import EYE_Y, Head, Points
from dfad_bench.prepare.demo_faces.scene import Scene


def paint_lips(skin: Raster, scene: Scene, head: Head, rng: np.random.Generator) -> None:
    """Paint lips, and teeth where the mouth is open, onto the skin's colour [H, W, 3], in place."""
    person, photo = scene.person, scene.photo
    left, right = head.mouth_corners
    t = np.linspace(-1, 1, 41)
    bow = 1 - t * t
    x = (left[0] + right[0]) / 2 + t * (right[0] - left[0]) / 2
    seam = left[1] + (3.5 * photo.smile + 1.2) * bow
    dent = 1 - 0.3 * np.exp(-0.5 * (t / 0.12) ** 2)
    rise = 6.6 * person.lips * bow**0.85 * dent * (1 - 0.2 * max(photo.smile, 0))
    drop = 8.2 * person.lips * bow**0.65 * (1 - 0.15 * max(photo.smile, 0))
    gap = photo.mouth_open * bow**0.6

    def outline(upper: Points, lower: Points) -> Points:
        return np.concatenate([head.on_skin(x, upper, 2.5), head.on_skin(x, lower, 2.5)[::-1]])

    shape = skin.shape
    red, green, blue = person.skin
    warm = person.lip_redness
    colour = (red * (0.88 - 0.1 * warm), green * (0.74 - 0.32 * warm), blue * (0.8 - 0.28 * warm))
    lips = soften(filled(shape, outline(seam - rise, seam + gap + drop)), 0.8)
    streaks = 1 + np.float32(0.10) * rng.standard_normal(shape[1], dtype=np.float32)
    paint(skin, coloured(np.broadcast_to(streaks, shape[:2]), colour), lips * np.float32(0.88))
    tint(skin, (0.82, 0.76, 0.76), filled(shape, outline(seam - rise, seam)) * np.float32(0.7))
    if photo.mouth_open > 0.5:
        paint(skin, (0.045, 0.012, 0.010), filled(shape, outline(seam, seam + gap)))
        inner = np.clip(1.15 * np.abs(t), 0, 1)
        teeth = filled(shape, outline(seam + 0.15 * gap, seam + gap * (0.75 - 0.4 * inner)))
        paint(skin, (0.62, 0.57, 0.50), teeth * np.float32(0.8))
    seams = [head.on_skin(x, seam, 2.5)] + ([head.on_skin(x, seam + gap, 2.5)] if photo.mouth_open > 0.5 else [])
    tint(skin, (0.28, 0.2, 0.2), soften(stroked(shape, seams), 0.5) * np.float32(0.95))
    corners = stroked(shape, [head.on_skin(x[part], seam[part], 2.5) for part in (slice(0, 3), slice(-3, None))], 2)
    tint(skin, (0.4, 0.3, 0.3), soften(corners, 1.2))


def paint_nostrils(skin: Raster, scene: Scene, head: Head) -> None:
    """Darken the nostrils and the crease around each wing, in place."""
    tip, broad = head.nose_tip, scene.person.nose_width
    angle = np.linspace(0, 2 * np.pi, 17)
    dark, creases = [], []
    for side in (-1, 1):
        x, y = (
            side * 6.3 * broad + 3.0 * np.cos(angle),
            tip[1] + 5.5 + 1.5 * np.sin(angle) - 0.12 * side * 3 * np.cos(angle),
        )
        dark.append(head.on_skin(x, y, 11))
        arc = np.linspace(-0.9, 1.1, 12)
        creases.append(head.on_skin(side * (10 + 5.5 * np.cos(arc)) * broad, tip[1] + 1 + 6.5 * np.sin(arc), 6))
    tint(skin, (0.22, 0.13, 0.12), soften(filled(skin.shape, *dark), 0.9))
    tint(skin, (0.6, 0.5, 0.5), soften(stroked(skin.shape, creases, 2), 1.2) * np.float32(0.75))
    under = head.on_skin(np.linspace(-4, 4, 9) * broad, tip[1] + 7.5 + 0 * angle[:9], 10)
    tint(skin, (0.6, 0.5, 0.5), soften(stroked(skin.shape, [under], 2), 1.3))


def paint_brows(skin: Raster, scene: Scene, head: Head, rng: np.random.Generator) -> None:
    """Paint the brows hair by hair, in place."""
    person = scene.person
    hairs, bodies = [], []
    for side in (-1, 1):
        t = np.linspace(0, 1, 46)
        x = 10 + 42 * t
        y = EYE_Y - 17.5 - 5.5 * np.sin(np.pi * t**0.8) + 6 * t**2.5 - 30 * person.brow_tilt * (t - 0.5)
        thick = person.brow_thickness * (0.65 + 0.9 * np.sin(np.pi * (0.12 + 0.82 * t))) * 0.75
        lower, upper = head.on_skin(side * x, y + thick / 2), head.on_skin(side * x, y - thick / 2)
        bodies.append(np.concatenate([lower, upper[::-1]]))
        for repeat in range(3):
            across = rng.uniform(-0.55, 0.55, 46)
            root_y, length = y + thick * across, rng.uniform(3.5, 6.5, 46)
            lean = np.clip(0.25 + 0.9 * t + 0.15 * (repeat - 1), 0, 1.15)
            tip_x, tip_y = x + length * lean, root_y - length * (1.05 - lean) * 0.75 + length * 0.35 * (across < 0) * t
            roots, tips = head.on_skin(side * x, root_y), head.on_skin(side * tip_x, tip_y)
            hairs.append(np.stack([roots, tips], axis=1))
    colour = [0.6 * part for part in person.hair]
    paint(skin, colour, soften(filled(skin.shape, *bodies), 1.6) * np.float32(0.5))
    paint(skin, colour, stroked(skin.shape, np.concatenate(hairs)) * np.float32(0.62))


def put_glasses(image: Raster, scene: Scene, head: Head) -> None:
    """Put glasses with reflections of the lamp into the image [H, W, 3], in place."""
    photo = scene.photo
    angle = np.linspace(0, 2 * np.pi, 49)
    rims = []
    for side in (-1, 1):
        x = side * (scene.person.eye_distance + 1) + 24 * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75
        y = EYE_Y + 3 + 18 * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75
        z = head.depth(x * 0.55, EYE_Y) + 9 - 0.004 * x * x
        rims.append(head.project(np.stack([x, y, z], axis=-1)))
    ahead = float(head.depth(0, EYE_Y)) + 11
    bridge = head.project(np.array([[-8.5, EYE_Y - 2, ahead], [0, EYE_Y - 5, ahead + 2], [8.5, EYE_Y - 2, ahead]]))
    temples = [
        head.project(np.array([[side * 55, EYE_Y, 62], [side * 74, EYE_Y - 1, 20], [side * 76, EYE_Y, -8]]))
        for side in (-1, 1)
    ]
    shape = image.shape
    frame = stroked(shape, [*rims, bridge, *temples], 3)
    shadow = soften(stroked(shape, [rim + np.array([0, 3.5]) for rim in rims], 3), 1.8)
    tint(image, (0.72, 0.68, 0.68), shadow * np.float32(0.8) * (1 - frame))
    glare = np.zeros(shape[:2], np.float32)
    for rim in rims:
        middle = rim.mean(axis=0)
        x, y = (middle + np.array([15 * sin(photo.light_yaw) + 4, -14.5])).tolist()
        streak = np.array([[x - 5, y + 3.5], [x + 4, y - 2], [x + 7, y - 2], [x - 2, y + 3.5]])
        glare = np.maximum(glare, filled(shape, streak) * filled(shape, rim))
    image += thrice(np.float32(0.35 * photo.light) * soften(glare, 0.6))
    paint(image, (0.018, 0.016, 0.016), frame)
    light = soften(stroked(shape, [rim[26:46] - np.array([0, 0.7]) for rim in rims], 1), 0.5)
    image += thrice(np.float32(0.16 * photo.light) * light)
