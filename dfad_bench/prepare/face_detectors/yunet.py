"""YuNet, a face detector of 75,000 parameters with five landmarks (Wu et al., Machine Intelligence Research 20(5), 2023).

Its published graph is run by OpenVINO, in a third of the time that OpenCV's FaceDetectorYN takes for the same faces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError
from dfad_bench.prepare.openvino_runtime import compile_graph, read_graph
from dfad_bench.types import Annotation, Detection, WeightsFile
from dfad_bench.weights import fetch_any

_WIDER_FACE = "WIDER FACE (terms: research; the images are the web's)"
WEIGHTS = (
    WeightsFile(
        name="face_detection_yunet_2023mar.onnx",
        url="https://huggingface.co/opencv/face_detection_yunet/resolve/3cc26e7/face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        bytes=232_589,
        licence="MIT",
        training_data=_WIDER_FACE,
    ),
    WeightsFile(
        name="yunet_n_dynamic.onnx",
        url="https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/master/onnx/yunet_n_dynamic.onnx",
        sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        bytes=322_906,
        licence="Apache-2.0",
        training_data=_WIDER_FACE,
    ),
)
"""Two exports of the network; either will do."""

LONGER_SIDES = (320, 960)
"""Pixels to which a larger image is brought; the second only where the first shows no face. YuNet knows faces of 10 to 300 px:
at 320 it finds those above 8 % of the image's longer side, which a frame of a talking person holds, at a tenth of the cost."""
SCORE = 0.6
"""Least score of a face: one face or more in all of 969 portraits of 23 kinds, a second one in ten; at 0.7 one is missed."""
_OVERLAP = 0.3
"""Intersection over union above which the weaker of two boxes is dropped; FaceDetectorYN's default."""
_STRIDES = (8, 16, 32)
"""Pixels between the places of the network's three grids of candidates."""
_STEPS = 5
"""Images are padded to multiples of a fifth of ``LONGER_SIDES`` (64 and 192 px), so that few shapes need be compiled."""


class YuNet:
    """Scales large images down, never up: small faces are found as they are, and enlarging costs time and finds fewer."""

    default_margin: ClassVar[float] = 1.3
    weights: ClassVar[tuple[WeightsFile, ...]] = WEIGHTS
    weights_sha256: str | None

    def __init__(self) -> None:
        try:
            path, chosen = fetch_any(self.weights)
        except DataError as error:
            raise DataError(f"{error} Or use --face-detector haar, which needs no weights.") from None
        self.weights_sha256 = chosen.sha256
        self._graph = read_graph(path)
        self._networks: dict[tuple[int, int], Any] = {}

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each RGB image [H, W, 3] with a score of at least ``SCORE``, best first."""
        return [self._faces(image) for image in images]

    def _faces(self, image: NDArray[np.uint8]) -> list[Detection]:
        longer = max(image.shape[:2])
        for side in LONGER_SIDES:
            faces = self._faces_at(image, min(side / longer, 1), side // _STEPS)
            if faces or side >= longer:
                return faces
        return []

    def _faces_at(self, image: NDArray[np.uint8], scale: float, step: int) -> list[Detection]:
        small, back = _shrunk(image, scale)
        height, width = small.shape[:2]
        padded = (-(-height // step) * step, -(-width // step) * step)
        tensor = np.zeros((1, 3, *padded), np.float32)
        tensor[0, :, :height, :width] = small[..., ::-1].transpose(2, 0, 1)  # blue first, 0..255
        outputs = self._network(padded)([tensor])
        candidates = np.concatenate(list(_candidates({name: outputs[name] for name in _names()}, padded[1])))
        return [_detection(row, back) for row in _distinct(candidates)]

    def _network(self, shape: tuple[int, int]) -> Any:
        if shape not in self._networks:
            self._networks[shape] = compile_graph(self._graph, (1, 3, *shape))
        return self._networks[shape]


def _shrunk(image: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return an image made smaller, and original pixels per pixel of it in x and y.

    By a whole factor first, whose average over areas takes OpenCV a tenth of the time that any other takes; the border
    pixels that the factor leaves over are not seen.
    """
    height, width = image.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    factor = max(min(int(1 / scale), height, width), 1)
    across, down = width // factor, height // factor
    if factor > 1:
        image = _resized(image[: down * factor, : across * factor], (across, down), cv2.INTER_AREA)
    back = np.array([across * factor / size[0], down * factor / size[1]])
    return (image if size == (across, down) else _resized(image, size, cv2.INTER_LINEAR)), back


def _resized(image: NDArray[np.uint8], size: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _names() -> list[str]:
    return [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES]


def _candidates(outputs: Mapping[str, NDArray[np.float32]], width: int) -> Iterator[NDArray[np.float64]]:
    """Yield candidates [K, 15] of a score of at least ``SCORE``: x, y, width, height, five points, score, in pixels.

    A candidate's score is the geometric mean of its class and its objectness (section 3 of the paper). Centre and points
    are offsets from the candidate's place, and sizes are exponents, both in strides.
    """
    for stride in _STRIDES:
        cls, obj, box, points = (
            outputs[f"{kind}_{stride}"][0].astype(np.float64) for kind in ("cls", "obj", "bbox", "kps")
        )
        score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        (index,) = np.nonzero(score >= SCORE)
        place = np.stack([index % (width // stride), index // (width // stride)], axis=1)
        size = np.exp(box[index, 2:])
        corner = place + box[index, :2] - size / 2
        found = points[index].reshape(-1, 5, 2) + place[:, None]
        yield np.concatenate([np.hstack([corner, size, found.reshape(-1, 10)]) * stride, score[index, None]], axis=1)


def _distinct(candidates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the candidates that no better one overlaps, best first."""
    sound = candidates[np.isfinite(candidates).all(axis=1) & (candidates[:, 2:4] > 0).all(axis=1)]
    if not len(sound):
        return sound
    kept = np.asarray(cv2.dnn.NMSBoxes(sound[:, :4].tolist(), sound[:, 14].tolist(), 0.0, _OVERLAP), np.intp)
    return np.asarray(sound[kept])


def _detection(row: NDArray[np.float64], back: NDArray[np.float64]) -> Detection:
    """Read a candidate's row; the first of its points is the person's right eye, at image left."""
    (x, y), (width, height) = row[:2] * back, row[2:4] * back
    points = (row[4:14].reshape(5, 2) * back).astype(np.float32)
    return Detection((float(x), float(y), float(x + width), float(y + height)), float(row[14]), points)


FACE_DETECTOR = YuNet
