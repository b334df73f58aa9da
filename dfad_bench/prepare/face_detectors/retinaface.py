"""RetinaFace with a MobileNetV2 backbone (Deng et al., CVPR 2020), run by ONNX Runtime and decoded here.

uniface publishes the weights, but importing it loads torch and torchvision into every worker, and fails beside a CPU torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import UsageError
from dfad_bench.types import Annotation, Detection, WeightsFile
from dfad_bench.weights import fetch

WEIGHTS = WeightsFile(
    name="retinaface_mv2.onnx",
    url="https://github.com/yakhyo/uniface/releases/download/weights/retinaface_mv2.onnx",
    sha256="3ca44c045651cabeed1193a1fae8946ad1f3a55da8fa74b341feab5a8319f757",
    bytes=None,
    licence="MIT",
    training_data="WIDER FACE (terms: research; the images are the web's)",
)

SIDE = 640
"""Pixels of the square input, where the graph leaves it free; the network was trained at this size."""
SCORE = 0.5
_OVERLAP = 0.4
"""Intersection over union above which the weaker of two boxes is dropped, as published."""
_MEAN_BGR = (104.0, 117.0, 123.0)
_ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
"""Stride of each feature map in pixels, and the sides of the two square anchors in each of its cells."""
_OFFSET, _SIZE = 0.1, 0.2
"""The variances of SSD's box encoding (Liu et al., ECCV 2016)."""


class RetinaFace:
    """Brings each image to the network's square, whatever its size, and fills the rest of the square with black.

    One image at a time: on a processor batches gain nothing, and no image's faces can then depend on its neighbours.
    """

    default_margin: ClassVar[float] = 1.3
    weights: ClassVar[tuple[WeightsFile, ...]] = (WEIGHTS,)
    weights_sha256: str | None

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UsageError("retinaface needs ONNX Runtime. Install it: pip install 'dfad-bench[onnx]'.") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        (published,) = self.weights
        self._session: Any = onnxruntime.InferenceSession(
            str(fetch(published)), options, providers=["CPUExecutionProvider"]
        )
        self.weights_sha256 = published.sha256
        self._input = self._session.get_inputs()[0]
        height, width = (side if isinstance(side, int) else SIDE for side in self._input.shape[2:])
        self._width, self._height = width, height
        self._anchors = anchors(width, height)

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each RGB image [H, W, 3] with a score of at least ``SCORE``, best first."""
        return [self._faces(image) for image in images]

    def _faces(self, image: NDArray[np.uint8]) -> list[Detection]:
        height, width = image.shape[:2]
        scale = min(self._width / width, self._height / height)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        square = np.zeros((self._height, self._width, 3), np.uint8)
        square[: size[1], : size[0]] = cv2.resize(image, size, interpolation=shrinks)
        blob = cv2.dnn.blobFromImage(square, mean=_MEAN_BGR, swapRB=True)
        offsets, scores, points = (each[0] for each in self._session.run(None, {self._input.name: blob}))
        back = np.array([width / size[0], height / size[1]])
        return _detections(self._anchors, offsets, scores[:, 1], points, back)


def anchors(width: int, height: int) -> NDArray[np.float64]:
    """Return the anchors of a width × height input as [P, 4] centres and sides in pixels, in the network's order.

    The order is stride, row, column, side; a map's cells begin at the top left and the last may reach out of the input.
    """
    found = []
    for stride, sides in _ANCHORS.items():
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, side = np.meshgrid(np.arange(rows), np.arange(columns), np.array(sides, float), indexing="ij")
        found.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, side, side], axis=-1).reshape(-1, 4))
    return np.concatenate(found)


def _detections(
    anchor: NDArray[np.float64],
    offsets: NDArray[np.float32],
    scores: NDArray[np.float32],
    points: NDArray[np.float32],
    back: NDArray[np.float64],
) -> list[Detection]:
    """Decode offsets [P, 4], scores [P] and points [P, 10] of those anchors that see a face.

    ``back`` (x, y): image pixels per network pixel.
    """
    sure = np.flatnonzero(scores >= SCORE)
    centre, side = anchor[sure, :2], anchor[sure, 2:]
    middle = centre + offsets[sure, :2] * _OFFSET * side
    half = side * np.exp(offsets[sure, 2:] * _SIZE) / 2
    boxes = np.hstack([(middle - half) * back, (middle + half) * back])
    landmarks = (centre[:, None] + points[sure].reshape(-1, 5, 2) * _OFFSET * side[:, None]) * back
    usable = np.isfinite(boxes).all(axis=1) & (half > 0).all(axis=1)
    boxes, landmarks, likely = boxes[usable], landmarks[usable].astype(np.float32), scores[sure][usable]
    corner_and_size = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), likely.tolist(), SCORE, _OVERLAP) if len(boxes) else []
    best_first = sorted((int(index) for index in kept), key=lambda index: -float(likely[index]))
    return [
        Detection((*map(float, boxes[index]),), min(float(likely[index]), 1.0), landmarks[index])  # type: ignore[arg-type]
        for index in best_first
    ]


FACE_DETECTOR = RetinaFace
