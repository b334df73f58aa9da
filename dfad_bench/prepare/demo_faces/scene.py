"""What a demo face is before anything is drawn: a person's appearance, and how one photograph shows them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import radians

from dfad_bench.prepare.demo_faces.draws import Draws, stream

Colour = tuple[float, float, float]
"""Linear-light red, green, blue; 1 is a perfect white."""

CROP = 256
"""Side in pixels of the benchmark's crop."""
SMALLEST_SIDE, LARGEST_SIDE = 288, 352

_PALE, _DARK = (0.78, 0.50, 0.39), (0.13, 0.063, 0.04)
_HAIR: tuple[Colour, ...] = (
    (0.012, 0.010, 0.009),
    (0.035, 0.020, 0.012),
    (0.10, 0.052, 0.026),
    (0.24, 0.085, 0.03),
    (0.42, 0.28, 0.13),
    (0.34, 0.33, 0.32),
)
_IRIS: tuple[Colour, ...] = (
    (0.050, 0.022, 0.010),
    (0.095, 0.045, 0.018),
    (0.10, 0.085, 0.032),
    (0.065, 0.11, 0.17),
    (0.10, 0.12, 0.13),
)


@dataclass(frozen=True, slots=True)
class Person:
    """Everything that stays the same between photographs of one identity; lengths in mm, in a head-fixed frame."""

    half_width: float
    half_height: float
    half_depth: float
    jaw: float
    """Relative widening of the lower face; negative narrows the chin."""
    skin: Colour
    age: float
    freckles: int
    beard: float
    hair: Colour
    hair_length: float
    """How far hair hangs at the sides: 0 ends above the ears, 1 reaches the shoulders."""
    hair_volume: float
    hairline: float
    parting: float
    wave: float
    brow_thickness: float
    brow_tilt: float
    iris: Colour
    eye_distance: float
    """Half the distance between the eyeballs' centres."""
    eye_opening: float
    nose_length: float
    nose_width: float
    mouth_half_width: float
    lips: float
    lip_redness: float
    wears_glasses: bool

    def on_head_of(self, other: Person) -> Person:
        """Return this person's inner face on the other's head: what a face swap keeps of its source."""
        return replace(
            other,
            skin=self.skin,
            age=self.age,
            freckles=self.freckles,
            beard=self.beard,
            brow_thickness=self.brow_thickness,
            brow_tilt=self.brow_tilt,
            iris=self.iris,
            eye_opening=self.eye_opening,
            nose_length=self.nose_length,
            nose_width=self.nose_width,
            lips=self.lips,
            lip_redness=self.lip_redness,
        )


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph: pose, gaze, expression, light, surroundings and camera. Angles in radians.

    Head yaw > 0 and gaze yaw > 0 turn towards image right, pitch > 0 up; roll > 0 turns clockwise in the image. Gaze is
    in the camera's frame, (pitch, yaw) of the eye at image left and of the eye at image right. The crop is the
    256 × 256 px square at (left, top) of the width × height canvas; (dx, dy) px is how far the face is off its centre.
    """

    name: str
    """Names the random numbers of everything that is drawn: textures, strands, background, noise."""
    yaw: float
    pitch: float
    roll: float
    gaze: tuple[tuple[float, float], tuple[float, float]]
    light_yaw: float
    light_pitch: float
    light: float
    ambient: float
    smile: float
    mouth_open: float
    pupil: float
    glasses: bool
    clothes: Colour
    backdrop: Colour
    width: int
    height: int
    left: int
    top: int
    dx: float
    dy: float
    blur: float
    """Standard deviation of the optics' point spread, px."""
    noise: float
    """Gain of the sensor: variance of the shot noise at full signal, in units of full signal squared."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A person in a photograph: all that the renderer needs."""

    person: Person
    photo: Photo

    @property
    def gaze(self) -> tuple[float, float]:
        """Mean (pitch, yaw) of both eyes in radians."""
        (left_pitch, left_yaw), (right_pitch, right_yaw) = self.photo.gaze
        return (left_pitch + right_pitch) / 2, (left_yaw + right_yaw) / 2

    def looking(self, left: tuple[float, float], right: tuple[float, float] | None = None) -> Scene:
        """Return the scene with other gazes (pitch, yaw), the same for both eyes unless the right one's is given."""
        return replace(self, photo=replace(self.photo, gaze=(left, right or left)))


def person(seed: int, identity: str) -> Person:
    """Return the appearance of an identity."""
    draw = Draws(stream(seed, "person", identity), 40)
    melanin = draw.uniform(0, 1) ** 1.3
    skin = tuple(p * (d / p) ** melanin * draw.uniform(0.93, 1.07) for p, d in zip(_PALE, _DARK, strict=True))
    age = draw.uniform(0, 1)
    shade = draw.integer(0, 5)
    if melanin > 0.55 or (shade == 5 and age < 0.5):
        shade = draw.integer(0, 1)
    long_hair = draw.chance(0.5)
    eyes = 0 if melanin > 0.6 else draw.integer(0, len(_IRIS) - 1)
    return Person(
        half_width=draw.uniform(69, 77),
        half_height=draw.uniform(106, 116),
        half_depth=draw.uniform(88, 96),
        jaw=draw.uniform(-0.06, 0.16),
        skin=(skin[0], skin[1], skin[2]),
        age=age,
        freckles=draw.integer(0, 60) if melanin < 0.4 and draw.chance(0.4) else draw.integer(0, 5),
        beard=0.0 if long_hair else max(draw.uniform(-0.6, 1), 0),
        hair=_varied(_HAIR[shade], draw),
        hair_length=draw.uniform(0.55, 1.0) if long_hair else draw.uniform(0, 0.25),
        hair_volume=draw.uniform(6, 15),
        hairline=draw.uniform(-82, -62),
        parting=draw.uniform(-30, 30),
        wave=draw.uniform(0, 0.09),
        brow_thickness=draw.uniform(2.6, 5.2),
        brow_tilt=draw.uniform(-0.10, 0.12),
        iris=_varied(_IRIS[eyes], draw),
        eye_distance=draw.uniform(30, 33),
        eye_opening=draw.uniform(0.9, 1.12),
        nose_length=draw.uniform(36, 44),
        nose_width=draw.uniform(0.85, 1.25),
        mouth_half_width=draw.uniform(22.5, 27.5),
        lips=draw.uniform(0.75, 1.35),
        lip_redness=draw.uniform(0.3, 1.0),
        wears_glasses=draw.chance(0.25),
    )


def _varied(colour: Colour, draw: Draws) -> Colour:
    gain = draw.uniform(0.8, 1.25)
    return (colour[0] * gain * draw.uniform(0.94, 1.06), colour[1] * gain, colour[2] * gain * draw.uniform(0.94, 1.06))


def photo(seed: int, name: str, of: Person) -> Photo:
    """Return a photograph of a person: everything that differs between two photographs of them.

    Eyes follow the head in part, and stay within ±25° (yaw) and ±14° (pitch) of it, as they do when nobody strains.
    """
    draw = Draws(stream(seed, "photo", name), 40)
    yaw, pitch = draw.normal(0, radians(9), radians(20)), draw.normal(0, radians(5), radians(15))
    gaze_yaw = draw.normal(0.5 * yaw, radians(10), radians(25) - 0.5 * abs(yaw))
    gaze_pitch = draw.normal(0.5 * pitch, radians(6), radians(14) - 0.5 * abs(pitch))
    width, height = 2 * draw.integer(SMALLEST_SIDE // 2, LARGEST_SIDE // 2), 2 * draw.integer(144, 176)
    tint, strength = draw.uniform(-1, 1), draw.uniform(0.03, 0.5)
    cloth = draw.uniform(0.02, 0.5)
    return Photo(
        name=f"{seed}/{name}",
        yaw=yaw,
        pitch=pitch,
        roll=draw.normal(0, radians(3.5), radians(10)),
        gaze=((gaze_pitch, gaze_yaw), (gaze_pitch, gaze_yaw)),
        light_yaw=draw.uniform(-0.95, 0.95),
        light_pitch=draw.uniform(0.15, 0.8),
        light=draw.uniform(0.62, 0.95),
        ambient=draw.uniform(0.22, 0.42),
        smile=draw.uniform(-0.25, 1),
        mouth_open=max(draw.uniform(-4, 4.5), 0),
        pupil=draw.uniform(0.3, 0.48),
        glasses=of.wears_glasses and draw.chance(0.8),
        clothes=(cloth * draw.uniform(0.4, 1.1), cloth * draw.uniform(0.4, 1.1), cloth * draw.uniform(0.4, 1.1)),
        backdrop=(strength * (1 + 0.3 * tint), strength, strength * (1 - 0.3 * tint)),
        width=width,
        height=height,
        left=draw.integer(0, width - CROP),
        top=draw.integer(0, height - CROP),
        dx=draw.normal(0, 3, 7),
        dy=draw.normal(0, 3, 7),
        blur=draw.uniform(0.45, 0.75),
        noise=draw.uniform(0.0003, 0.0016),
    )
