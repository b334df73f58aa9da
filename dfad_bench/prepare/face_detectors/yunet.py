"""YuNet: a face detector of 75,000 parameters with five landmarks, run by OpenCV (Wu et al., Mach. Intell. Res. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError
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
"""Least score of a face: one face or more in all of 969 portraits of 21 kinds, a second one in ten; at 0.7 one is missed."""
_OVERLAP = 0.3
"""Intersection over union above which the weaker of two boxes is dropped; OpenCV's default."""
_CANDIDATES = 5000
"""Boxes considered before that; OpenCV's default."""


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
        self._size = (320, 320)
        self._network = _network(path, self._size)

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each RGB image [H, W, 3] with a score of at least ``SCORE``, best first."""
        return [self._faces(image) for image in images]

    def _faces(self, image: NDArray[np.uint8]) -> list[Detection]:
        longer = max(image.shape[:2])
        for side in LONGER_SIDES:
            faces = self._faces_at(image, min(side / longer, 1))
            if faces or side >= longer:
                return faces
        return []

    def _faces_at(self, image: NDArray[np.uint8], scale: float) -> list[Detection]:
        height, width = image.shape[:2]
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        if size != self._size:
            self._network.setInputSize(size)
            self._size = size
        small = image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        _, rows = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if rows is None:
            return []
        back = np.array([width / size[0], height / size[1]])
        found = [_detection(row, back) for row in rows.astype(float) if np.isfinite(row).all() and row[2:4].min() > 0]
        return sorted(found, key=lambda each: -(each.score or 0))


def _detection(row: NDArray[np.float64], back: NDArray[np.float64]) -> Detection:
    """Read OpenCV's row: corner, width and height, five points (the person's right eye first: image left), score."""
    (x, y), (width, height) = row[:2] * back, row[2:4] * back
    points = (row[4:14].reshape(5, 2) * back).astype(np.float32)
    return Detection((float(x), float(y), float(x + width), float(y + height)), float(min(row[14], 1)), points)


def _network(path: Path, size: tuple[int, int]) -> Any:
    graph = np.frombuffer(_with_numbered_sizes(path.read_bytes()), np.uint8)
    return cv2.FaceDetectorYN.create("onnx", graph, np.empty(0, np.uint8), size, SCORE, _OVERLAP, _CANDIDATES)


def _with_numbered_sizes(graph: bytes) -> bytes:
    """Return an ONNX graph whose free batch, height and width are numbers, in as many bytes as before.

    OpenCV 4 refuses a graph with free sizes (opencv_zoo issue 44), though YuNet runs at any size it is then told. A named
    size is field 2 of its message, ONNX's ``TensorShapeProto.Dimension``, and a number is field 1; Protocol Buffers allow
    a number to be padded.
    """
    for name, number in ((b"batch", 1), (b"height", 320), (b"width", 320)):
        message = bytes([0x0A, len(name) + 2])
        digits = [number >> 7 * place & 0x7F for place in range(len(name) + 1)]
        padded = bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])
        graph = graph.replace(message + bytes([0x12, len(name)]) + name, message + b"\x08" + padded)
    return graph


FACE_DETECTOR = YuNet
