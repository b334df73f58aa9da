"""The demo source: honest ground truth, honest splits, no shortcut, and generators told apart by their mechanism."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from itertools import islice
from math import degrees, radians

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfad_bench.errors import UsageError
from dfad_bench.prepare.crop import crop_face
from dfad_bench.prepare.decode import decode
from dfad_bench.prepare.demo_faces import forgeries
from dfad_bench.prepare.demo_faces.camera import QUALITIES
from dfad_bench.prepare.demo_faces.casting import ATTRIBUTES, cast, draw
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.prepare.demo_faces.renderer import render
from dfad_bench.prepare.demo_faces.scene import LARGEST_SIDE, SMALLEST_SIDE, Scene, person, photo
from dfad_bench.prepare.sources.demo import GENERATORS, DemoSource
from dfad_bench.types import REAL, RawImage
from tests.prepare.builders import no_defect

NAMES = (REAL, *(generator.name for generator in GENERATORS))
MARGIN = 1.3


@cache
def listing(faces: int = 720) -> dict[str, list[RawImage]]:
    images: dict[str, list[RawImage]] = defaultdict(list)
    for image in DemoSource(faces=faces).images(None, no_defect):
        images[image.generator].append(image)
    return images


@cache
def luminance(generator: str, number: int = 8) -> list[NDArray[np.float32]]:
    """The first crops of a generator as the benchmark would cut them out of their files."""
    crops = []
    for image in listing()[generator][:number]:
        assert image.annotation is not None and image.annotation.box is not None
        face = crop_face(decode(image.payload.read()).pixels, image.annotation.box, MARGIN, 256).face
        crops.append(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32))
    return crops


@cache
def spectrum(generator: str) -> NDArray[np.float64]:
    """The mean power spectrum [256, 256] of a generator's crops."""
    window = np.outer(np.hanning(256), np.hanning(256))
    powers = [np.abs(np.fft.fft2(crop * window)) ** 2 for crop in luminance(generator)]
    return np.mean(powers, axis=0)


def plain_scene(pitch: float, yaw: float) -> Scene:
    """A wide-eyed face without glasses under even light, looking where we say; angles in degrees."""
    who = replace(person(0, "someone"), eye_opening=1.1, age=0.0, hair_length=0.1, hairline=-80.0)
    gaze = radians(pitch), radians(yaw)
    return Scene(
        who,
        replace(photo(0, "plain", who), yaw=0.0, pitch=0.0, roll=0.0, glasses=False, light_yaw=0.2, gaze=(gaze, gaze)),
    )


def drawn_iris(scene: Scene, side: int) -> NDArray[np.float64]:
    """Where the iris's centre is in the picture [x, y]: the middle of what changes when the pupil widens."""
    narrow = render(replace(scene, photo=replace(scene.photo, pupil=0.3))).image
    wide = render(replace(scene, photo=replace(scene.photo, pupil=0.55))).image
    change = np.abs(wide - narrow).sum(axis=2)
    rows, columns = np.mgrid[0 : change.shape[0], 0 : change.shape[1]]
    change *= (columns > scene.photo.left + 127.5 + scene.photo.dx) == (side > 0)
    return np.array([(columns * change).sum(), (rows * change).sum()]) / change.sum()


# --- determinism ---------------------------------------------------------------------------------------------------


def test_the_same_face_has_the_same_bytes_in_another_process_and_with_other_thread_counts() -> None:
    payloads = [listing(60)[name][1].payload for name in NAMES]
    code = (
        "import sys, pickle, hashlib, cv2\n"
        "cv2.setNumThreads(1)\n"
        "for p in pickle.load(sys.stdin.buffer): print(hashlib.sha256(p.read()).hexdigest())\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(payloads), capture_output=True, check=True)
    assert answer.stdout.decode().split() == [hashlib.sha256(payload.read()).hexdigest() for payload in payloads]


def test_another_seed_gives_another_face_and_another_stamp() -> None:
    one, other = (next(iter(DemoSource(seed=seed).images(None, no_defect))).payload for seed in (0, 1))
    assert one.read() != other.read()
    assert one.stamp() != other.stamp()


def test_asking_for_more_faces_leaves_the_first_ones_as_they_were() -> None:
    for name in NAMES:
        for few, many in zip(listing(60)[name], listing()[name], strict=False):
            assert (few.payload, few.identities, few.source_split) == (many.payload, many.identities, many.source_split)


def test_a_payload_is_small_and_listing_renders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgeries, "render", None)
    first = list(islice(DemoSource(faces=100_000).images(None, no_defect), 3))
    assert len(pickle.dumps(first[0].payload)) < 300
    assert pickle.loads(pickle.dumps(first[0].payload)) == first[0].payload


@pytest.mark.parametrize("faces", [0, 59, 100_001])
def test_too_few_or_too_many_faces_are_refused(faces: int) -> None:
    with pytest.raises(UsageError, match="60 to 100,000"):
        next(iter(DemoSource(faces=faces).images(None, no_defect)))


# --- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faces", [60, 61, 720])
def test_every_class_is_in_every_split_and_the_number_of_faces_is_as_asked(faces: int) -> None:
    images = listing(faces)
    assert sum(len(of) for of in images.values()) == faces
    assert tuple(images) == NAMES
    for name in NAMES:
        assert {image.source_split for image in images[name]} == {"train", "val", "test"}, name


@pytest.mark.parametrize("faces", [60, 720, 3000])
def test_no_identity_stands_in_two_splits(faces: int) -> None:
    splits: dict[str, set[str | None]] = defaultdict(set)
    for image in DemoSource(faces=faces).images(None, no_defect):
        assert len(set(image.identities)) == (2 if image.generator == "demo_swap" else 1)
        for who in image.identities:
            splits[who].add(image.source_split)
    assert {who: split for who, split in splits.items() if len(split) > 1} == {}


def test_splits_of_the_default_demo_hold_about_60_15_and_25_percent() -> None:
    counts = Counter(image.source_split for images in listing().values() for image in images)
    assert counts["train"] / 720 == pytest.approx(0.60, abs=0.03)
    assert counts["val"] / 720 == pytest.approx(0.15, abs=0.03)


def test_an_edit_shows_the_person_of_a_pristine_photograph_and_a_synthetic_face_shows_nobody() -> None:
    real = {image.identities for image in listing()[REAL]}
    assert all(image.identities in real for image in listing()["demo_edit"])
    for name in ("demo_gan", "demo_diffusion", "demo_flow"):
        people = [image.identities[0] for image in listing()[name]]
        assert len(set(people)) == len(people)
        assert all(who.startswith("synthetic-") for who in people)


# --- no shortcut ---------------------------------------------------------------------------------------------------


def test_size_and_quality_are_drawn_alike_for_all_classes() -> None:
    drawn: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for name in NAMES:
        for index in range(500):
            face = cast(0, name, index)
            drawn[name].append((face.scene.photo.width, face.scene.photo.height, face.quality))
    for column, (low, high) in enumerate(((SMALLEST_SIDE, LARGEST_SIDE), (SMALLEST_SIDE, LARGEST_SIDE), QUALITIES)):
        for name in NAMES:
            values = np.array(drawn[name])[:, column]
            assert low <= values.min() and values.max() <= high
            # An edit's photographs repeat none, so a mean of 500 lies within 4 standard errors of the middle.
            error = (high - low) / np.sqrt(12 * 500)
            assert values.mean() == pytest.approx((low + high) / 2, abs=4 * error), (name, column)
            assert values.std() == pytest.approx((high - low) / np.sqrt(12), rel=0.12), (name, column)


def test_every_file_is_a_jpeg_of_the_announced_size_and_quality_with_the_same_colour_sampling() -> None:
    for name in NAMES:
        face, data = cast(0, name, 3), listing()[name][3].payload.read()
        image = decode(data)
        assert image.jpeg is not None and (image.format, image.jpeg.quality) == ("JPEG", face.quality)
        assert image.pixels.shape == (face.scene.photo.height, face.scene.photo.width, 3)
        with Image.open(io.BytesIO(data)) as header:
            assert [(each[1], each[2]) for each in header.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
            assert not set(header.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_the_box_gives_a_crop_of_256_pixels_inside_the_canvas_and_landmarks_inside_the_box() -> None:
    for image in DemoSource(faces=2000).images(None, no_defect):
        note, shape = image.annotation, cast(0, image.generator, int(image.key)).scene.photo
        assert note is not None and note.box is not None and note.landmarks is not None
        crop = crop_face(np.zeros((shape.height, shape.width, 3), np.uint8), note.box, MARGIN, 256)
        assert crop.scale == 1
        left, top = -crop.matrix[:, 2]
        assert 0 <= left <= shape.width - 256 and 0 <= top <= shape.height - 256
        x0, y0, x1, y1 = note.box
        assert note.landmarks.dtype == np.float32 and note.landmarks.shape == (5, 2)
        assert (note.landmarks > (x0, y0)).all() and (note.landmarks < (x1, y1)).all()
        left, right, nose, mouth_left, mouth_right = note.landmarks
        assert left[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < max(mouth_left[1], mouth_right[1])


# --- gaze ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pitch", "yaw"), [(0, 0), (0, 18), (0, -18), (8, 0), (-8, 10), (6, -14)])
def test_the_iris_is_drawn_where_the_gaze_says(pitch: float, yaw: float) -> None:
    scene = plain_scene(pitch, yaw)
    for side, eye in zip((-1, 1), Head(scene).eyes, strict=True):
        assert drawn_iris(scene, side) == pytest.approx(eye.iris, abs=1.0)


def test_yaw_moves_the_iris_to_image_right_and_pitch_moves_it_up() -> None:
    middle, right, up = (drawn_iris(plain_scene(*gaze), 1) for gaze in ((0, 0), (0, 15), (10, 0)))
    radius = 12 * 1.14
    assert right[0] - middle[0] == pytest.approx(radius * np.sin(radians(15)), abs=0.5)
    assert middle[1] - up[1] == pytest.approx(radius * np.sin(radians(10)), abs=0.7)


def test_the_annotated_eye_is_the_middle_of_the_drawn_eye_and_the_gaze_the_mean_of_both() -> None:
    for name in NAMES:
        image, face = listing()[name][5], cast(0, name, 5)
        assert image.annotation is not None and image.annotation.landmarks is not None
        for landmark, eye in zip(image.annotation.landmarks, Head(face.scene).eyes, strict=False):
            assert landmark == pytest.approx(eye.middle, abs=0.2)
        assert image.annotation.gaze == pytest.approx(np.mean(face.scene.photo.gaze, axis=0))


def test_turning_the_head_turns_the_nose_away_from_the_middle_of_the_eyes() -> None:
    straight = plain_scene(0, 0)
    for turn in (-15, 15):
        marks = Head(replace(straight, photo=replace(straight.photo, yaw=radians(turn)))).landmarks()
        assert (marks[2] - marks[:2].mean(axis=0))[0] * turn > 0


def test_a_gan_collapses_gaze_to_frontal() -> None:
    def spread(name: str) -> NDArray[np.float64]:
        gazes = np.array([image.annotation.gaze for image in listing()[name] if image.annotation])
        return np.hypot(gazes[:, 0], gazes[:, 1])

    assert spread("demo_gan").mean() < 0.5 * spread(REAL).mean()


def test_eyes_disagree_after_diffusion_and_agree_elsewhere() -> None:
    def disagreement(name: str) -> float:
        gazes = np.array([cast(0, name, index).scene.photo.gaze for index in range(50)])
        return float(degrees(np.abs(gazes[:, 0] - gazes[:, 1]).max(axis=1).mean()))

    assert disagreement("demo_diffusion") > 4
    assert all(disagreement(name) == 0 for name in NAMES if name != "demo_diffusion")


def test_flow_lets_gaze_drift_upwards() -> None:
    def mean_pitch(name: str) -> float:
        return float(np.mean([image.annotation.gaze[0] for image in listing()[name] if image.annotation]))  # type: ignore[index]

    assert degrees(mean_pitch("demo_flow") - mean_pitch(REAL)) > 4


def test_a_swap_shows_the_gaze_of_its_source_on_the_head_of_its_target() -> None:
    for index in range(30):
        face = cast(0, "demo_swap", index)
        assert face.photographed is not None
        target, source = face.identities
        number = int(source.removeprefix("person-"))
        assert face.scene.photo.gaze in [cast(0, REAL, 3 * number + shot).scene.photo.gaze for shot in range(3)]
        assert face.scene.photo.gaze != face.photographed.photo.gaze
        assert face.photographed.person == person(0, target)
        assert face.scene.photo.yaw == face.photographed.photo.yaw


def test_an_edit_loses_the_gaze_only_where_its_region_holds_the_eyes() -> None:
    for index in range(40):
        face = cast(0, "demo_edit", index)
        assert face.photographed is not None
        if face.attribute in ("hair", "mouth"):
            assert face.scene.gaze == face.photographed.gaze
        else:
            assert face.scene.gaze != face.photographed.gaze


# --- mechanisms ----------------------------------------------------------------------------------------------------


def test_zero_insertion_leaves_peaks_at_the_nyquist_frequency() -> None:
    def peak(name: str) -> float:
        power = spectrum(name)
        return float(power[128, :2].mean() / power[112:122, :2].mean())

    assert peak("demo_gan") > 20 * max(peak(name) for name in (REAL, "demo_diffusion", "demo_flow"))


def test_diffusion_and_flow_lose_high_frequencies() -> None:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    high = (frequency > 0.25) & (frequency < 0.45)
    assert spectrum("demo_diffusion")[high].mean() < 0.35 * spectrum(REAL)[high].mean()


def test_flow_smooths_areas_and_keeps_edges() -> None:
    def grain_and_edges(name: str) -> tuple[float, float]:
        detail = [np.abs(cv2.Laplacian(crop, cv2.CV_32F)) for crop in luminance(name)]
        return float(np.mean([np.median(d) for d in detail])), float(np.mean([np.percentile(d, 99) for d in detail]))

    (grain, edges), (real_grain, real_edges) = grain_and_edges("demo_flow"), grain_and_edges(REAL)
    assert grain < 0.5 * real_grain
    assert edges > 0.6 * real_edges


@pytest.mark.parametrize("index", range(len(ATTRIBUTES)))
def test_an_edit_changes_its_region_and_nothing_else(index: int) -> None:
    face = cast(0, "demo_edit", index)
    assert face.photographed is not None and face.attribute is not None
    before = forgeries.pristine(face.photographed).astype(int)
    after = draw("demo_edit", face).astype(int)
    mask = forgeries.region(face.scene, face.attribute, render(face.scene))
    difference = np.abs(after - before).max(axis=2)
    assert difference[mask == 0].max() == 0
    assert difference[mask > 0.9].mean() > 3
    assert 0.02 < (mask > 0).mean() < 0.7


def test_a_swap_keeps_the_targets_photograph_around_the_face() -> None:
    face = cast(0, "demo_swap", 0)
    assert face.photographed is not None
    before = forgeries.pristine(face.photographed).astype(int)
    difference = np.abs(draw("demo_swap", face).astype(int) - before).max(axis=2)
    corners = [difference[:30, :30], difference[:30, -30:], difference[-30:, :30], difference[-30:, -30:]]
    assert max(corner.max() for corner in corners) == 0
    x, y = Head(face.scene).landmarks()[2].astype(int)
    assert difference[y - 30 : y + 20, x - 30 : x + 30].mean() > 3
