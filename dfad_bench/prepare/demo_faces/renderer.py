"""Renders a scene in linear light, from the backdrop forwards to the glasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dfad_bench.prepare.demo_faces.canvas import Raster, paint, soften, thrice
from dfad_bench.prepare.demo_faces.draws import stream
from dfad_bench.prepare.demo_faces.eyes import draw_eye
from dfad_bench.prepare.demo_faces.features import paint_brows, paint_lips, paint_nostrils, put_glasses
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.prepare.demo_faces.scene import Scene
from dfad_bench.prepare.demo_faces.skin import Surface, light_on, relief_of, texture
from dfad_bench.prepare.demo_faces.surroundings import Hair, draw_backdrop, draw_body


@dataclass(frozen=True)
class Rendering:
    """image [H, W, 3] float32 linear light, before any camera; hair [H, W] in 0..1: where hair is seen."""

    image: Raster
    hair: Raster


def render(scene: Scene) -> Rendering:
    """Render a scene; the same scene gives the same pixels in every process."""
    name = scene.photo.name
    head = Head(scene)
    surface = Surface.of(head)
    image = draw_backdrop(scene, stream(name, "backdrop"))
    hair = Hair(scene, surface, stream(name, "hair"))

    skin, fine = texture(scene, head, surface, stream(name, "skin"))
    paint_nostrils(skin, scene, head)
    paint_lips(skin, scene, head, stream(name, "lips"))
    paint_brows(skin, scene, head, stream(name, "brows"))
    relief = relief_of(head).map
    irradiance, gloss = light_on(scene, surface, relief + fine)

    behind = hair.behind()
    paint(image, hair.shade(irradiance, 0.55), behind)
    draw_body(image, scene, head, surface, stream(name, "body"))
    in_front = hair.in_front()
    shaded = irradiance * thrice(1 - np.float32(0.35) * soften(in_front, 5.0))
    face = skin * shaded + thrice(np.float32(0.09) * gloss * (1 + 5 * fine))
    paint(image, face, surface.cover)
    for eye in head.eyes:
        draw_eye(image, scene, head, eye, shaded, stream(name, "eye", eye.side))
    paint(image, hair.shade(irradiance, 1.0), in_front)
    if scene.photo.glasses:
        put_glasses(image, scene, head)
    np.clip(image, 0, 1, out=image)
    return Rendering(image, np.maximum(in_front, behind * (1 - surface.cover)))
