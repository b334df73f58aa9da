"""One face is chosen, judged by thresholds, cut at the right scale, and its gaze goes where the crop goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench.prepare.crop import align_face, crop_face
from dfad_bench.prepare.decode import DecodedImage, SkippedInput
from dfad_bench.prepare.faces import CropRecipe, FaceMaker, PreparedFace, Skip
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.types import Annotation, Gaze, RawImage
from tests.prepare.builders import encoded, pixels, write

DETECTOR = """
from dfad_bench.types import Detection

class Planted:
    default_margin = 1.0
    weights = ()
    weights_sha256 = None
    boxes = {boxes!r}

    def detect(self, images, annotations):
        return [[Detection(tuple(box), 0.9) for box in self.boxes] for _ in images]

FACE_DETECTOR = Planted
"""
LANDMARKS = np.array([[60, 70], [100, 70], [80, 95], [65, 115], [95, 115]], np.float32)


def planted(folder: Path, *boxes: Sequence[float]) -> str:
    return str(write(folder / "planted.py", DETECTOR.format(boxes=boxes).encode()))


def image(root: Path, data: bytes, name: str = "a.png", **changes: Any) -> RawImage:
    write(root / name, data)
    return RawImage(name, "real", "real", "real", "d", "CC0-1.0", FilePayload(root, name), **changes)


def made(detector: str, images: Sequence[RawImage], **recipe: Any) -> tuple[list[PreparedFace], list[Skip]]:
    options = {"margin": 1.0, "size": 32} | recipe
    maker = FaceMaker("s", CropRecipe(detector, "annotated", **options))
    faces, skips = [], []
    for some, others in maker.make(images):
        faces += some
        skips += others
    return faces, skips


def pixels_of(face: PreparedFace) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(face.png, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


PICTURE = encoded(pixels(3, 160, 160), "PNG")


@pytest.mark.parametrize(
    ("boxes", "recipe", "reason"),
    [
        ([(10, 10, 40, 40)], {"min_face": 31}, "small_face"),
        ([(-30, 10, 30, 70)], {"max_cut_off": 0.4}, "cut_off_face"),
        ([(10, 10, 80, 80)], {"min_sharpness": 1e9}, "blurred_face"),
        ([(10, 10, 80, 80), (90, 90, 150, 150)], {"max_faces": 1}, "multiple_faces"),
        ([], {}, "no_face"),
        ([(10, 10, 80, 80)], {"align": True}, "no_landmarks"),
        ([(200, 200, 280, 280)], {}, "bad_box"),
    ],
)
def test_what_fails_a_threshold_is_a_row_of_the_ledger(
    tmp_path: Path, boxes: list[tuple[float, ...]], recipe: dict[str, Any], reason: str
) -> None:
    faces, (skip,) = made(planted(tmp_path, *boxes), [image(tmp_path, PICTURE)], **recipe)
    assert (faces, skip.reason) == ([], reason)


@pytest.mark.parametrize(
    ("box", "recipe"),
    [
        ((10, 10, 40, 40), {"min_face": 30}),
        ((-30, 10, 30, 70), {"max_cut_off": 0.5}),
        ((10, 10, 80, 80), {"min_sharpness": 0.01, "max_faces": 1}),
    ],
)
def test_what_meets_a_threshold_exactly_is_kept(tmp_path: Path, box: tuple[float, ...], recipe: dict[str, Any]) -> None:
    (face,), skips = made(planted(tmp_path, box), [image(tmp_path, PICTURE)], **recipe)
    assert skips == []
    assert face.row["box"] == list(box)


def test_the_row_says_how_many_faces_there_were_and_what_was_cut_off(tmp_path: Path) -> None:
    detector = planted(tmp_path, (-20, 10, 60, 90), (90, 90, 130, 130))
    (face,), _ = made(detector, [image(tmp_path, PICTURE)])
    assert (face.row["faces_found"], face.row["cut_off"]) == (2, pytest.approx(0.25))
    assert face.row["sharpness"] > 0
    mean = pixels(3, 160, 160).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(face.row["original_mean_color"], mean, atol=1e-3)


LEFT, RIGHT = (10, 40, 60, 90), (85, 40, 150, 105)


def test_the_largest_face_is_taken_unless_a_mask_says_which(tmp_path: Path) -> None:
    detector = planted(tmp_path, LEFT, RIGHT)
    mask = np.zeros((80, 80, 3), np.uint8)
    mask[20:45, 5:30] = 255  # at half the size of the picture: the face at the left
    masked = image(tmp_path, PICTURE, mask=FilePayload(tmp_path, "mask.png"))
    write(tmp_path / "mask.png", encoded(mask, "PNG"))
    boxes = [made(detector, [each])[0][0].row["box"] for each in (image(tmp_path, PICTURE, "b.png"), masked)]
    assert boxes == [list(RIGHT), list(LEFT)]


def test_a_mask_that_cannot_be_read_leaves_the_largest_face(tmp_path: Path) -> None:
    masked = image(tmp_path, PICTURE, mask=FilePayload(tmp_path, "absent.png"))
    (face,), _ = made(planted(tmp_path, LEFT, RIGHT), [masked])
    assert face.row["box"] == list(RIGHT)


SWAPPING = """
from dfad_bench.types import Detection

class Swapping:
    '''Two people: the one at the left is larger in the first frame only.'''
    default_margin = 1.0
    weights = ()
    weights_sha256 = None
    seen = 0

    def detect(self, images, annotations):
        found = []
        for _ in images:
            grow = 20 if self.seen == 0 else 0
            self.seen += 1
            left, right = (10, 40, 60 + grow, 90 + grow), (95, 40, 155, 100)
            found.append([Detection(right, 0.9), Detection(left, 0.8)])
        return found

FACE_DETECTOR = Swapping
"""


def test_one_person_is_followed_through_a_clip_and_forgotten_after_it(tmp_path: Path) -> None:
    detector = str(write(tmp_path / "swapping.py", SWAPPING.encode()))
    clip = [image(tmp_path, PICTURE, f"{n}.png", video="clip", frame=n) for n in range(12)]
    still = image(tmp_path, PICTURE, "still.png")
    faces, _ = made(detector, [*clip, still])
    lefts = [face.row["box"][0] for face in faces]
    assert lefts == [10] * 12 + [95], "twelve frames are more than one batch"


# --- decoding at reduced scale -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "reduction"), [(63, 1), (64, 2), (127, 2), (128, 4), (256, 8), (600, 8)])
def test_a_jpeg_is_decoded_as_small_as_the_face_allows(tmp_path: Path, side: int, reduction: int) -> None:
    data = encoded(pixels(5, side, side), "JPEG", quality=95)
    (face,), _ = made("whole_image", [image(tmp_path, data, "a.jpg")])
    assert face.row["decode_reduction"] == reduction
    assert (face.row["original_width"], face.row["box"]) == (side, [0, 0, side, side])
    assert face.row["crop_scale"] == pytest.approx(32 / side, rel=0.05)
    (whole,), _ = made("whole_image", [image(tmp_path, data, "a.jpg")], full_decode=True)
    assert whole.row["decode_reduction"] == 1
    assert np.abs(pixels_of(face).astype(int) - pixels_of(whole)).mean() < 4


def test_a_png_and_a_detector_that_looks_are_given_every_pixel(tmp_path: Path) -> None:
    png = image(tmp_path, encoded(pixels(5, 400, 400), "PNG"))
    jpeg = image(tmp_path, encoded(pixels(5, 400, 400), "JPEG"), "a.jpg")
    looked, _ = made(planted(tmp_path, (0, 0, 400, 400)), [png, jpeg])
    unseen, _ = made("whole_image", [png])
    assert [face.row["decode_reduction"] for face in (*looked, *unseen)] == [1, 1, 1]


def test_landmarks_and_boxes_of_a_reduced_image_are_in_pixels_of_the_original(tmp_path: Path) -> None:
    note = Annotation(box=(100, 100, 300, 300), landmarks=LANDMARKS + 100, gaze=(0.1, 0.2))
    seen: list[NDArray[np.float32]] = []

    def remember(faces: Any, landmarks: NDArray[np.float32], annotations: Any) -> Gaze:
        seen.append(landmarks[0].copy())
        angle = np.zeros(len(faces), np.float32)
        return Gaze(angle, angle)

    for full_decode in (False, True):
        maker = FaceMaker("s", CropRecipe("annotated", "annotated", 1.0, 32, full_decode=full_decode))
        maker.estimator.estimate = remember  # type: ignore[method-assign]
        jpeg = image(tmp_path, encoded(pixels(5, 400, 400), "JPEG", quality=95), "a.jpg", annotation=note)
        ((faces, _),) = maker.make([jpeg])
        assert faces[0].row["box"] == [100, 100, 300, 300]
        np.testing.assert_array_equal(faces[0].row["landmarks"], (LANDMARKS + 100).ravel())
    np.testing.assert_allclose(seen[0], seen[1], atol=0.6)


# --- alignment -----------------------------------------------------------------------------------------------------


def turned(degrees: float, scale: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A picture with a face's landmarks, turned clockwise about its centre and enlarged."""
    matrix = cv2.getRotationMatrix2D((80, 80), -degrees, scale)
    matrix[:, 2] += 80 * scale * 1.5 - 80
    side = round(160 * scale * 1.5)
    picture = cv2.warpAffine(pixels(8, 160, 160), matrix, (side, side), flags=cv2.INTER_CUBIC)
    return np.asarray(picture, np.uint8), (LANDMARKS @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("degrees", [-40, 0, 25])
def test_alignment_brings_a_turned_face_to_the_same_pixels(degrees: float, scale: float) -> None:
    upright = align_face(*turned(0, 1.0), 1.3, 64)
    crop = align_face(*turned(degrees, scale), 1.3, 64)
    assert np.degrees(crop.roll - upright.roll) == pytest.approx(-degrees, abs=0.01)
    assert crop.scale * scale == pytest.approx(upright.scale, rel=1e-4)
    np.testing.assert_allclose(crop.to_crop(turned(degrees, scale)[1]), upright.to_crop(turned(0, 1.0)[1]), atol=0.01)
    inner = (slice(8, 56), slice(8, 56))
    assert np.abs(crop.face[inner].astype(int) - upright.face[inner]).mean() < 4


def test_alignment_of_an_upright_face_puts_the_eyes_on_the_template() -> None:
    template = np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    crop = align_face(pixels(1, 112, 112), template.astype(np.float32), 1.0, 112)
    np.testing.assert_allclose(crop.to_crop(template.astype(np.float32)), template, atol=1e-3)
    np.testing.assert_array_equal(crop.face, pixels(1, 112, 112))


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 7.0), np.full((5, 2), np.nan), LANDMARKS + 1e5, LANDMARKS * 1e4])
def test_landmarks_that_make_no_sense_are_refused(landmarks: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="the landmarks"):
        align_face(pixels(1), landmarks.astype(np.float32), 1.3, 64)


def test_a_gaze_the_source_gives_is_turned_with_the_crop(tmp_path: Path) -> None:
    picture, landmarks = turned(90, 1.0)
    box = (float(landmarks[:, 0].min()), float(landmarks[:, 1].min()), *landmarks.max(axis=0).tolist())
    note = Annotation(box=box, landmarks=landmarks, gaze=(0.0, 0.4))  # to the right of a picture that lies on its side
    aligned, plain = (
        made("annotated", [image(tmp_path, encoded(picture, "PNG"), annotation=note)], align=align)[0][0].row
        for align in (True, False)
    )
    assert (plain["gaze_pitch"], plain["gaze_yaw"], plain["crop_roll"]) == (0.0, pytest.approx(0.4), 0.0)
    assert aligned["gaze_pitch"] == pytest.approx(0.4, abs=0.02)
    assert aligned["gaze_yaw"] == pytest.approx(0.0, abs=0.02)


def test_a_crop_knows_where_points_of_the_original_went_when_it_was_cut_out_of_a_reduced_image() -> None:
    point = np.array([[201.0, 157.0]], np.float32)
    whole = crop_face(pixels(1, 400, 400), (100, 100, 300, 300), 1.0, 50)
    half = crop_face(pixels(1, 200, 200), (50, 50, 150, 150), 1.0, 50).of_reduced(2)
    assert (whole.scale, half.scale) == (0.25, 0.25)
    np.testing.assert_allclose(half.to_crop(point), whole.to_crop(point), atol=1e-4)


# --- containers ----------------------------------------------------------------------------------------------------

PASSES: list[list[int]] = []


@dataclass(frozen=True)
class InReel:
    """A frame of a reel; the second cannot be read, the third is an encoded file."""

    reel: str
    number: int

    @property
    def container(self) -> str:
        return self.reel

    @staticmethod
    def stream(payloads: Sequence[InReel]) -> Iterator[bytes | DecodedImage | SkippedInput]:
        PASSES.append([payload.number for payload in payloads])
        for payload in payloads:
            if payload.number == 1:
                yield SkippedInput("broken_frame", "torn")
            elif payload.number == 2:
                yield PICTURE
            elif payload.number == 3:
                yield b"no picture"
            else:
                yield DecodedImage(pixels(payload.number, 160, 160), "H264", 160, 160, frame=10 * payload.number)

    def read(self) -> bytes:
        raise AssertionError("a container is streamed")

    def stamp(self) -> str:
        return ""


def test_what_lies_in_one_container_is_read_in_one_pass_and_a_broken_item_costs_itself(tmp_path: Path) -> None:
    PASSES.clear()
    reels = [
        RawImage(f"{reel}{n}", "real", "real", "real", "d", "CC0-1.0", InReel(reel, n), video=reel)
        for reel in "ab"
        for n in range(10)
    ]
    faces, skips = made("whole_image", reels)
    assert [list(range(10)), list(range(10))] == PASSES
    assert [(skip.id[-2:], skip.reason) for skip in skips] == [
        ("a1", "broken_frame"),
        ("a3", "not_an_image"),
        ("b1", "broken_frame"),
        ("b3", "not_an_image"),
    ]
    assert [face.row["frame"] for face in faces[:4]] == [0, None, 40, 50]
    assert [face.row["original_format"] for face in faces[:3]] == ["H264", "PNG", "H264"]


def test_the_seconds_of_each_stage_are_counted(tmp_path: Path) -> None:
    maker = FaceMaker("s", CropRecipe("whole_image", "annotated", 1.0, 32))
    list(maker.make([image(tmp_path, PICTURE)]))
    assert set(maker.seconds) == {"read", "decode", "detect", "crop", "gaze", "encode"}
    assert all(seconds > 0 for seconds in maker.seconds.values())
