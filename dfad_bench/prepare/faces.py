"""One stage of preparation: a few raw images in, face crops with their gaze maps and manifest rows out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import DataError
from dfad_bench.interfaces import FaceDetector, GazeEstimator
from dfad_bench.prepare.crop import Crop, crop_face, perceptual_hash
from dfad_bench.prepare.decode import DecodedImage, SkippedInput, decode
from dfad_bench.prepare.gaze_map import encode_gaze_map, render_gaze_map
from dfad_bench.types import Detection, RawImage

UNREADABLE = "unreadable"
"""The reason of a skip that may pass: the disk or the permissions refused the file, not its contents."""
BATCH = 8
"""Images held decoded at a time; it bounds memory, whatever the number of faces."""


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """What to do with each image; ``detector`` and ``estimator`` are registered names or paths of plugin files."""

    detector: str
    estimator: str
    margin: float
    size: int


@dataclass(frozen=True, slots=True)
class PreparedFace:
    """A face ready to be written: PNG bytes of crop and gaze map, and its row without file names."""

    png: bytes
    gaze_png: bytes | None
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Skip:
    """An input that did not become a face."""

    id: str
    generator: str
    reason: str
    detail: str


@dataclass
class FaceMaker:
    """Turns raw images of one source into prepared faces. Built once per worker, since detectors hold weights."""

    source: str
    recipe: CropRecipe
    _detector: FaceDetector = field(init=False)
    _estimator: GazeEstimator = field(init=False)

    def __post_init__(self) -> None:
        cv2.setNumThreads(1)  # workers are processes; threads inside them would only compete
        self._detector = registry.get("face_detectors", self.recipe.detector)()
        self._estimator = registry.get("gaze_estimators", self.recipe.estimator)()

    def make(self, images: Sequence[RawImage]) -> tuple[list[PreparedFace], list[Skip]]:
        """Return the prepared faces and the skips of up to BATCH images, in order; every image is in one of the two."""
        decoded: list[tuple[RawImage, DecodedImage]] = []
        skips: list[Skip] = []
        for image in images:
            try:
                decoded.append((image, decode(_read(image))))
            except SkippedInput as skipped:
                skips.append(self._skip(image, skipped))
        if not decoded:
            return [], skips
        found = self._detector.detect([d.pixels for _, d in decoded], [i.annotation for i, _ in decoded])
        cropped: list[tuple[RawImage, DecodedImage, Detection, Crop]] = []
        for (image, pixels), detections in zip(decoded, found, strict=True):
            try:
                cropped.append((image, pixels, *self._crop(pixels, detections)))
            except SkippedInput as skipped:
                skips.append(self._skip(image, skipped))
        return self._with_gaze(cropped), skips

    def _crop(self, image: DecodedImage, detections: Sequence[Detection]) -> tuple[Detection, Crop]:
        if not detections:
            raise SkippedInput("no_face", f"{self.recipe.detector} finds no face")
        try:
            return detections[0], crop_face(image.pixels, detections[0].box, self.recipe.margin, self.recipe.size)
        except ValueError as error:
            raise SkippedInput("bad_box", str(error)) from None

    def _with_gaze(self, cropped: Sequence[tuple[RawImage, DecodedImage, Detection, Crop]]) -> list[PreparedFace]:
        if not cropped:
            return []
        landmarks = np.full((len(cropped), 5, 2), np.nan, np.float32)
        for row, (_, _, detection, crop) in enumerate(cropped):
            if detection.landmarks is not None:
                landmarks[row] = crop.to_crop(detection.landmarks)
        faces = np.stack([crop.face for *_, crop in cropped])
        gaze = self._estimator.estimate(faces, landmarks, [image.annotation for image, *_ in cropped])
        return [
            self._prepared(*parts, float(p), float(y))
            for parts, p, y in zip(cropped, gaze.pitch, gaze.yaw, strict=True)
        ]

    def _prepared(
        self, image: RawImage, decoded: DecodedImage, detection: Detection, crop: Crop, pitch: float, yaw: float
    ) -> PreparedFace:
        has_gaze = bool(np.isfinite(pitch) and np.isfinite(yaw))
        height, width = decoded.pixels.shape[:2]
        row = {
            "id": self.identifier(image),
            "source": self.source,
            "generator": image.generator,
            "family": image.family,
            "forgery_type": image.forgery_type,
            "generator_version": image.generator_version,
            "domain": image.domain,
            "source_split": image.source_split,
            "video": None if image.video is None else f"{self.source}/{image.generator}/{image.video}",
            "frame": image.frame,
            "identities": [who if "/" in who else f"{image.domain}/{who}" for who in image.identities],
            "box": list(detection.box),
            "landmarks": None if detection.landmarks is None else detection.landmarks.ravel().tolist(),
            "detection_score": detection.score,
            "crop_scale": crop.scale,
            "gaze_pitch": pitch if has_gaze else None,
            "gaze_yaw": yaw if has_gaze else None,
            "original_width": width,
            "original_height": height,
            "original_format": decoded.format,
            "jpeg_quality": decoded.jpeg_quality,
            "sha256": pixel_sha256(crop.face),
            "perceptual_hash": perceptual_hash(crop.face),
            "licence": image.licence,
        }
        gaze_png = encode_gaze_map(render_gaze_map(pitch, yaw)) if has_gaze else None
        return PreparedFace(_png(crop.face), gaze_png, row)

    def identifier(self, image: RawImage) -> str:
        """Return the id of an image's face."""
        return f"{self.source}/{image.generator}/{image.key}"

    def _skip(self, image: RawImage, skipped: SkippedInput) -> Skip:
        return Skip(self.identifier(image), image.generator, skipped.reason, skipped.detail)


def _read(image: RawImage) -> bytes:
    try:
        return image.payload.read()
    except FileNotFoundError as error:
        raise SkippedInput("missing_file", str(error)) from None
    except OSError as error:
        raise SkippedInput(UNREADABLE, str(error)) from None


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
