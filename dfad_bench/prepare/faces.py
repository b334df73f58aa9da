"""One stage of preparation: raw images in, face crops with their gaze maps and manifest rows out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import DataError
from dfad_bench.interfaces import FaceDetector, GazeEstimator
from dfad_bench.prepare.choose import choose, cut_off
from dfad_bench.prepare.crop import Crop, align_face, check_box, crop_face, in_reduced, perceptual_hash, sharpness
from dfad_bench.prepare.decode import DecodedImage, EncodedImage, SkippedInput
from dfad_bench.prepare.gaze_map import encode_gaze_map, render_gaze_map
from dfad_bench.prepare.reading import Opened, open_images, open_payload
from dfad_bench.types import Annotation, Detection, Gaze, RawImage

BATCH = 8
"""Images held decoded at a time; it bounds memory, whatever the number of faces."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """What to do with each image; ``detector`` and ``estimator`` are registered names or paths of plugin files.

    align: turn the face upright by its landmarks; full_decode: never decode a JPEG at reduced scale; min_face: pixels of
    the box's longer side; max_cut_off: share of the box outside the image, 0..1; min_sharpness: see ``crop.sharpness``;
    max_faces: an image with more has no face that is surely meant. Whatever fails a threshold is a row of the ledger.
    """

    detector: str
    estimator: str
    margin: float
    size: int
    align: bool = False
    full_decode: bool = False
    min_face: float = 20.0
    max_cut_off: float = 0.3
    min_sharpness: float = 0.0
    max_faces: int | None = None


@dataclass(frozen=True, slots=True)
class PreparedFace:
    """A face ready to be written: PNG bytes of crop and gaze map, its row without file names, its gaze features [D]."""

    png: bytes
    gaze_png: bytes | None
    row: dict[str, Any]
    features: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Skip:
    """An input that did not become a face."""

    id: str
    generator: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Found:
    """An image with its faces; boxes and landmarks are in pixels of the original."""

    image: RawImage
    decoded: DecodedImage
    faces: Sequence[Detection]


@dataclass(frozen=True, slots=True)
class _Cropped:
    """An image with the face that was chosen."""

    image: RawImage
    decoded: DecodedImage
    faces_found: int
    face: Detection
    crop: Crop
    cut_off: float
    sharpness: float


@dataclass
class FaceMaker:
    """Turns raw images of one source into prepared faces. Built once per worker, since detectors hold weights."""

    source: str
    recipe: CropRecipe
    seconds: dict[str, float] = field(default_factory=dict)
    """What each stage took so far: read, decode, detect, crop, gaze, encode."""
    detector: FaceDetector = field(init=False)
    estimator: GazeEstimator = field(init=False)
    _previous: tuple[str, Box] | None = field(init=False, default=None)
    """The clip of the image before, and where its face was."""

    def __post_init__(self) -> None:
        cv2.setNumThreads(1)  # workers are processes; threads inside them would only compete
        self.detector = registry.get("face_detectors", self.recipe.detector)()
        self.estimator = registry.get("gaze_estimators", self.recipe.estimator)()

    def make(self, images: Sequence[RawImage]) -> Iterator[tuple[list[PreparedFace], list[Skip]]]:
        """Yield the prepared faces and the skips of BATCH images at a time, in order; every image is in one of the two."""
        self._previous = None  # so that a part is the same whatever was made before it
        opened = open_images(images)
        while batch := self._next_batch(opened):
            skips: list[Skip] = []
            cropped = [each for found in self._find(batch, skips) if (each := self._cut(found, skips)) is not None]
            yield self._with_gaze(cropped), skips

    def identifier(self, image: RawImage) -> str:
        """Return the id of an image's face."""
        return f"{self.source}/{image.generator}/{image.key}"

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def _next_batch(self, opened: Iterator[tuple[RawImage, Opened]]) -> list[tuple[RawImage, Opened]]:
        with self._timed("read"):
            return list(islice(opened, BATCH))

    def _skip(self, image: RawImage, skipped: SkippedInput, skips: list[Skip]) -> None:
        skips.append(Skip(self.identifier(image), image.generator, skipped.reason, skipped.detail))

    # --- faces in images -------------------------------------------------------------------------------------------

    def _find(self, batch: Sequence[tuple[RawImage, Opened]], skips: list[Skip]) -> Iterator[_Found]:
        """Detect the faces of a batch. A detector that does not look at pixels goes first: then the box says at what
        scale a JPEG need be decoded, and it is decoded once."""
        looks = getattr(self.detector, "looks_at_pixels", True)
        ready: list[tuple[RawImage, DecodedImage | EncodedImage, NDArray[np.uint8]]] = []
        for image, opened in batch:
            try:
                if isinstance(opened, SkippedInput):
                    raise opened
                if looks or not isinstance(opened, EncodedImage) or opened.jpeg is None:
                    opened = self._decode(opened, 1)
                    ready.append((image, opened, opened.pixels))
                else:
                    unseen = np.broadcast_to(np.uint8(0), (opened.height, opened.width, 3))
                    ready.append((image, opened, unseen))
            except SkippedInput as skipped:
                self._skip(image, skipped, skips)
        with self._timed("detect"):
            found = self.detector.detect([pixels for *_, pixels in ready], [image.annotation for image, *_ in ready])
        for (image, opened, _), faces in zip(ready, found, strict=True):
            try:
                yield _Found(image, self._decode(opened, self._reduction(opened, faces)), faces)
            except SkippedInput as skipped:
                self._skip(image, skipped, skips)

    def _decode(self, opened: DecodedImage | EncodedImage, reduction: int) -> DecodedImage:
        if isinstance(opened, DecodedImage):
            return opened
        with self._timed("decode"):
            return opened.decode(reduction)

    def _reduction(self, opened: DecodedImage | EncodedImage, faces: Sequence[Detection]) -> int:
        """Return the largest of 1, 2, 4, 8 at which the cut of the smallest face still has the crop's size."""
        if isinstance(opened, DecodedImage) or self.recipe.full_decode or not faces:
            return 1
        longest = min(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (face.box for face in faces))
        return max((r for r in (1, 2, 4, 8) if longest * self.recipe.margin / r >= self.recipe.size), default=1)

    # --- the face in question --------------------------------------------------------------------------------------

    def _cut(self, found: _Found, skips: list[Skip]) -> _Cropped | None:
        with self._timed("crop"):
            try:
                return self._crop(found)
            except SkippedInput as skipped:
                self._skip(found.image, skipped, skips)
                return None

    def _crop(self, found: _Found) -> _Cropped:
        recipe, decoded = self.recipe, found.decoded
        if not found.faces:
            raise SkippedInput("no_face", f"{recipe.detector} finds no face")
        if recipe.max_faces is not None and len(found.faces) > recipe.max_faces:
            raise SkippedInput("multiple_faces", f"{len(found.faces)} faces, at most {recipe.max_faces} are allowed")
        face = self._chosen(found)
        try:
            check_box(face.box, decoded.width, decoded.height)
        except ValueError as error:
            raise SkippedInput("bad_box", str(error)) from None
        outside = cut_off(face.box, decoded.width, decoded.height)
        longest = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
        if longest < recipe.min_face:
            raise SkippedInput("small_face", f"{longest:.0f} px, at least {recipe.min_face:g} are wanted")
        if outside > recipe.max_cut_off:
            raise SkippedInput("cut_off_face", f"{outside:.0%} of the face lies outside the image")
        try:
            crop = self._cropped(decoded, face)
        except ValueError as error:
            raise SkippedInput("bad_box", str(error)) from None
        clear = sharpness(crop.face)
        if clear < recipe.min_sharpness:
            raise SkippedInput("blurred_face", f"sharpness {clear:.1f}, at least {recipe.min_sharpness:g} is wanted")
        return _Cropped(found.image, decoded, len(found.faces), face, crop, outside, clear)

    def _chosen(self, found: _Found) -> Detection:
        """Return the face that is meant: the masked one, the one at the previous frame's place, or the largest."""
        clip = found.image.video
        previous = self._previous[1] if self._previous is not None and self._previous[0] == clip else None
        mask = None
        if len(found.faces) > 1 and previous is None and found.image.mask is not None:
            mask = _read_mask(found.image, found.decoded)
        face = choose(found.faces, previous, mask)
        self._previous = None if clip is None else (clip, face.box)
        return face

    def _cropped(self, decoded: DecodedImage, face: Detection) -> Crop:
        reduction = decoded.reduction
        if self.recipe.align:
            if face.landmarks is None:
                raise SkippedInput("no_landmarks", f"{self.recipe.detector} gives no landmarks to align by")
            crop = align_face(
                decoded.pixels, in_reduced(face.landmarks, reduction), self.recipe.margin, self.recipe.size
            )
        else:
            x0, y0, x1, y1 = (float(each) / reduction for each in face.box)
            crop = crop_face(decoded.pixels, (x0, y0, x1, y1), self.recipe.margin, self.recipe.size)
        return crop if reduction == 1 else crop.of_reduced(reduction)

    # --- its gaze, its row, its files ------------------------------------------------------------------------------

    def _with_gaze(self, cropped: Sequence[_Cropped]) -> list[PreparedFace]:
        if not cropped:
            return []
        with self._timed("gaze"):
            landmarks = np.full((len(cropped), 5, 2), np.nan, np.float32)
            for row, each in enumerate(cropped):
                if each.face.landmarks is not None:
                    landmarks[row] = each.crop.to_crop(each.face.landmarks)
            faces = np.stack([each.crop.face for each in cropped])
            notes = [_turned(each.image.annotation, each.crop.roll) for each in cropped]
            gaze = self.estimator.estimate(faces, landmarks, notes)
        with self._timed("encode"):
            return [self._prepared(each, gaze, row) for row, each in enumerate(cropped)]

    def _prepared(self, each: _Cropped, gaze: Gaze, index: int) -> PreparedFace:
        pitch, yaw = _angle(gaze.pitch, index), _angle(gaze.yaw, index)
        row = self._source_columns(each.image) | _image_columns(each) | _gaze_columns(gaze, index)
        gaze_png = None if pitch is None or yaw is None else encode_gaze_map(render_gaze_map(pitch, yaw))
        return PreparedFace(
            _png(each.crop.face), gaze_png, row, None if gaze.features is None else gaze.features[index]
        )

    def _source_columns(self, image: RawImage) -> dict[str, Any]:
        return {
            "id": self.identifier(image),
            "source": self.source,
            "generator": image.generator,
            "family": image.family,
            "forgery_type": image.forgery_type,
            "generator_version": image.generator_version,
            "domain": image.domain,
            "source_split": image.source_split,
            "video": None if image.video is None else f"{self.source}/{image.generator}/{image.video}",
            "identities": [who if "/" in who else f"{image.domain}/{who}" for who in image.identities],
            "licence": image.licence,
        }


def _image_columns(each: _Cropped) -> dict[str, Any]:
    image, decoded, face = each.image, each.decoded, each.face
    jpeg = decoded.jpeg
    return {
        "frame": image.frame if image.frame is not None else decoded.frame,
        "box": list(face.box),
        "landmarks": None if face.landmarks is None else face.landmarks.ravel().tolist(),
        "detection_score": face.score,
        "faces_found": each.faces_found,
        "cut_off": each.cut_off,
        "sharpness": each.sharpness,
        "crop_scale": each.crop.scale,
        "crop_roll": each.crop.roll,
        "decode_reduction": decoded.reduction,
        "original_width": decoded.width,
        "original_height": decoded.height,
        "original_format": decoded.format,
        "jpeg_quality": jpeg and jpeg.quality,
        "jpeg_chroma_quality": jpeg and jpeg.chroma_quality,
        "jpeg_subsampling": jpeg and jpeg.subsampling,
        "jpeg_tables": jpeg and jpeg.tables,
        "original_mean_color": list(cv2.mean(decoded.pixels)[:3]),
        "sha256": pixel_sha256(each.crop.face),
        "perceptual_hash": perceptual_hash(each.crop.face),
    }


def _gaze_columns(gaze: Gaze, index: int) -> dict[str, Any]:
    return {
        "gaze_pitch": _angle(gaze.pitch, index),
        "gaze_yaw": _angle(gaze.yaw, index),
        "gaze_head_pitch": _angle(gaze.head_pitch, index),
        "gaze_head_yaw": _angle(gaze.head_yaw, index),
        "gaze_confidence": _angle(gaze.confidence, index),
        "gaze_flag": gaze.flags[index] if gaze.flags else None,
    }


def _angle(values: NDArray[np.float32] | None, index: int) -> float | None:
    """Return a number of a manifest, None where the estimator does not know it."""
    return None if values is None or not np.isfinite(values[index]) else float(values[index])


def _turned(annotation: Annotation | None, roll: float) -> Annotation | None:
    """Return the source's own gaze as it is seen in a crop that was turned clockwise by ``roll`` radians."""
    if annotation is None or annotation.gaze is None or roll == 0:
        return annotation
    pitch, yaw = annotation.gaze
    right, down, front = np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)
    right, down = np.cos(roll) * right - np.sin(roll) * down, np.sin(roll) * right + np.cos(roll) * down
    return replace(annotation, gaze=(float(-np.arcsin(down)), float(np.arctan2(right, front))))


def _read_mask(image: RawImage, decoded: DecodedImage) -> NDArray[np.uint8] | None:
    """Return an image's mask [H, W] in its own pixels, or None where it cannot be had: then the largest face is taken."""
    assert image.mask is not None
    opened = open_payload(image.mask)
    try:
        if isinstance(opened, SkippedInput):
            raise opened
        pixels = (opened if isinstance(opened, DecodedImage) else opened.decode()).pixels
    except SkippedInput:
        return None
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    resized = cv2.resize(grey, (decoded.width, decoded.height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def pixel_sha256(face: NDArray[np.uint8]) -> str:
    """Return the hexadecimal sha256 of a face's shape and RGB pixels, so that it does not depend on the file format."""
    digest = hashlib.sha256(repr(face.shape).encode())
    digest.update(np.ascontiguousarray(face).data)
    return digest.hexdigest()


def _png(face: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".png", cv2.cvtColor(face, cv2.COLOR_RGB2BGR))
    if not ok:
        raise DataError("OpenCV cannot encode a PNG; its build lacks the codec. Reinstall opencv-python.")
    return bytes(data)
