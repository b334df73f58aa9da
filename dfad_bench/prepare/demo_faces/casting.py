"""Who is in which demo face: split, identities, scene, and what the generator did to the gaze.

A face depends on (seed, generator, index) alone, so asking for more faces leaves the first ones as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import radians

from dfad_bench.prepare.demo_faces import camera, forgeries
from dfad_bench.prepare.demo_faces.draws import Draws, stream
from dfad_bench.prepare.demo_faces.scene import Person, Photo, Scene, person, photo
from dfad_bench.types import REAL

VERSION = 1
"""Raised whenever the same seed gives other pixels or labels."""

PHOTOS = 3
"""Pristine photographs of each identity."""

_FIRST = ("train", "val", "test", "train", "val", "test", "train")
_REST = ("train", "train", "test", "train", "train", "test", "train", "train", "val", "train", "train", "test", "train")
_SPLITS = (*_FIRST, *_REST)
"""Splits of twenty identities in a row: 60 % train, 15 % val, 25 % test. The first seven hold two of each, so that the
smallest demo has every split and two people of one split to swap."""

ATTRIBUTES = ("eyes", "hair", "glasses", "mouth")
"""What ``demo_edit`` changes, in turn."""


@dataclass(frozen=True, slots=True)
class Face:
    """One demo face. ``scene`` is what is shown; ``photographed`` is the pristine scene under a swap or an edit.

    identities: everyone in it, a swap's target before its source; attribute: what an edit changes, else None.
    """

    split: str
    identities: tuple[str, ...]
    scene: Scene
    quality: int
    photographed: Scene | None = None
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class DemoPayload:
    """A demo face that is rendered when it is read."""

    seed: int
    generator: str
    index: int

    def read(self) -> bytes:
        """Return the face as a JPEG file."""
        face = cast(self.seed, self.generator, self.index)
        return camera.jpeg(draw(self.generator, face), face.quality)

    def stamp(self) -> str:
        """Return the renderer's version and the seed: together with the face's key they decide every byte."""
        return f"demo:{VERSION}:{self.seed}"


def cast(seed: int, generator: str, index: int) -> Face:
    """Return the face of that index; nothing is rendered. Raises KeyError for a generator that is not ours."""
    low, high = camera.QUALITIES
    quality = Draws(stream(seed, "quality", generator, index), 1).integer(low, high)
    return _CASTS[generator](seed, index, quality)


def draw(generator: str, face: Face) -> camera.Pixels:
    """Return the uint8 pixels [H, W, 3] of a face before its JPEG."""
    if face.photographed is None:
        return _WHOLE[generator](face.scene)
    if face.attribute is None:
        return forgeries.swap(face.photographed, face.scene)
    return forgeries.edit(face.photographed, face.scene, face.attribute)


_WHOLE = {
    REAL: forgeries.pristine,
    "demo_gan": forgeries.synthesise_gan,
    "demo_diffusion": forgeries.synthesise_diffusion,
    "demo_flow": forgeries.synthesise_flow,
}


def _split(number: int) -> str:
    return _SPLITS[number % len(_SPLITS)]


def _name(number: int) -> str:
    return f"person-{number:05d}"


def _pristine(seed: int, index: int) -> Scene:
    who = person(seed, _name(index // PHOTOS))
    return Scene(who, photo(seed, f"{REAL}-{index}", who))


def _real(seed: int, index: int, quality: int) -> Face:
    number = index // PHOTOS
    return Face(_split(number), (_name(number),), _pristine(seed, index), quality)


def _synthetic(seed: int, generator: str, index: int) -> tuple[str, Scene, Draws]:
    """Return a person who does not exist, photographed, and the draws of what the generator does to the gaze."""
    identity = f"synthetic-{generator}-{index:05d}"
    who = person(seed, identity)
    return (
        identity,
        Scene(who, photo(seed, f"{generator}-{index}", who)),
        Draws(stream(seed, "gaze", generator, index), 8),
    )


def _gan(seed: int, index: int, quality: int) -> Face:
    """Gaze collapses to the mode of the training data: nearly everyone looks straight into the camera."""
    identity, scene, draw = _synthetic(seed, "demo_gan", index)
    gaze = draw.normal(0, radians(2), radians(5)), draw.normal(0, radians(2.5), radians(6))
    return Face(_split(index), (identity,), scene.looking(gaze), quality)


def _diffusion(seed: int, index: int, quality: int) -> Face:
    """The eyes disagree: each is denoised on its own and errs by a few degrees."""
    identity, scene, draw = _synthetic(seed, "demo_diffusion", index)
    left, right = (
        (pitch + draw.normal(0, radians(2.5), radians(5)), yaw + draw.normal(0, radians(6), radians(11)))
        for pitch, yaw in scene.photo.gaze
    )
    return Face(_split(index), (identity,), scene.looking(left, right), quality)


def _flow(seed: int, index: int, quality: int) -> Face:
    """Gaze drifts: the few steps overshoot upwards and exaggerate how far the eyes turn sideways."""
    identity, scene, draw = _synthetic(seed, "demo_flow", index)
    pitch, yaw = scene.gaze
    drift = draw.normal(radians(7), radians(2), radians(4))
    return Face(_split(index), (identity,), scene.looking((pitch + drift, 1.25 * yaw)), quality)


def _swap(seed: int, index: int, quality: int) -> Face:
    """The face, and with it the gaze, is the source's; the head and its pose are the target's."""
    target_index = 5 * index // 2 + 1
    target_number = target_index // PHOTOS
    pick = Draws(stream(seed, "swap", index), 2)
    source_number = _partner(target_number, pick)
    target = _pristine(seed, target_index)
    source = _pristine(seed, PHOTOS * source_number + pick.integer(0, PHOTOS - 1))
    expression = replace(target.photo, gaze=source.photo.gaze, pupil=source.photo.pupil)
    inner = Scene(source.person.on_head_of(target.person), expression)
    identities = _name(target_number), _name(source_number)
    return Face(_split(target_number), identities, inner, quality, photographed=target)


def _partner(number: int, pick: Draws) -> int:
    """Return another identity of the same split, among those that come before (or among the first seven)."""
    nearby = range(max(number - len(_SPLITS), 0), max(number, len(_FIRST)))
    others = [other for other in nearby if other != number and _split(other) == _split(number)]
    return others[pick.integer(0, len(others) - 1)]


def _edit(seed: int, index: int, quality: int) -> Face:
    """Where the edited region holds the eyes, the person's gaze is not kept: it loses more than half of its angle."""
    original_index = 5 * index // 2
    number = original_index // PHOTOS
    original = _pristine(seed, original_index)
    attribute = ATTRIBUTES[index % len(ATTRIBUTES)]
    draw = Draws(stream(seed, "edit", index), 12)
    scene = Scene(*_EDITS[attribute](original.person, original.photo, draw))
    if attribute in ("eyes", "glasses"):
        (pitch, yaw), keep = original.gaze, draw.uniform(0.2, 0.5)
        scene = scene.looking((keep * pitch, keep * yaw + draw.normal(0, radians(2), radians(4))))
    return Face(_split(number), (_name(number),), scene, quality, photographed=original, attribute=attribute)


def _edit_eyes(who: Person, shown: Photo, draw: Draws) -> tuple[Person, Photo]:
    older = who.age < 0.5
    age = min(who.age + 0.5, 1.0) if older else who.age - 0.5
    brows = who.brow_thickness * (1.35 if older else 0.75)
    return replace(who, age=age, brow_thickness=brows, eye_opening=who.eye_opening * (0.92 if older else 1.05)), shown


def _edit_hair(who: Person, shown: Photo, draw: Draws) -> tuple[Person, Photo]:
    pale = sum(who.hair) < 0.3
    hair = (0.45, 0.31, 0.15) if pale else (0.04, 0.022, 0.013)
    gain = draw.uniform(0.7, 1.2)
    return replace(who, hair=(gain * hair[0], gain * hair[1], gain * hair[2])), shown


def _edit_glasses(who: Person, shown: Photo, draw: Draws) -> tuple[Person, Photo]:
    return who, replace(shown, glasses=not shown.glasses)


def _edit_mouth(who: Person, shown: Photo, draw: Draws) -> tuple[Person, Photo]:
    if shown.smile < 0.45:
        return who, replace(shown, smile=draw.uniform(0.8, 1.1), mouth_open=draw.uniform(2.5, 5))
    return who, replace(shown, smile=draw.uniform(-0.4, -0.1), mouth_open=0.0)


_EDITS = {"eyes": _edit_eyes, "hair": _edit_hair, "glasses": _edit_glasses, "mouth": _edit_mouth}
_CASTS = {
    REAL: _real,
    "demo_gan": _gan,
    "demo_diffusion": _diffusion,
    "demo_flow": _flow,
    "demo_swap": _swap,
    "demo_edit": _edit,
}
