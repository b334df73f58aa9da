"""SCRFD with five landmarks (Guo et al., ICLR 2022), run by InsightFace's own class; its weights are not for commercial use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import UsageError
from dfad_bench.types import Annotation, Detection, WeightsFile
from dfad_bench.weights import fetch

log = logging.getLogger(__name__)

WEIGHTS = WeightsFile(
    name="scrfd_10g_kps.onnx",
    url="https://github.com/yakhyo/uniface/releases/download/weights/scrfd_10g_kps.onnx",
    sha256="5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
    bytes=None,
    licence="InsightFace model licence: non-commercial research only",
    training_data="WIDER FACE (terms: research; the images are the web's)",
    commercial_use="no",
)

SIDE = 640
"""Pixels of the square to which every image is brought. Fixed, since the faces found depend on it."""
SCORE = 0.5


class InsightFace:
    """Loads the detection model and no other: recognition has no place in a benchmark of forgeries."""

    default_margin: ClassVar[float] = 1.3
    weights: ClassVar[tuple[WeightsFile, ...]] = (WEIGHTS,)
    weights_sha256: str | None

    def __init__(self) -> None:
        try:
            import onnxruntime
            from insightface.model_zoo.scrfd import SCRFD
        except ImportError:
            raise UsageError(
                "insightface needs InsightFace 2.1 and ONNX Runtime. "
                "Install them: pip install 'dfad-bench[insightface]'."
            ) from None
        (published,) = self.weights
        path = str(fetch(published))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        # Without static_shape_sessions=False it would build a second session for the size, with threads of its own.
        self._model: Any = SCRFD(model_file=path, session=session, static_shape_sessions=False)
        self._model.prepare(-1, input_size=(SIDE, SIDE), det_thresh=SCORE)
        self.weights_sha256 = published.sha256
        log.warning("The weights of insightface (%s) are for non-commercial research only.", published.name)
        log.info("insightface runs on %s.", ", ".join(session.get_providers()))

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each RGB image [H, W, 3] with a score of at least ``SCORE``, best first."""
        return [self._faces(image) for image in images]

    def _faces(self, image: NDArray[np.uint8]) -> list[Detection]:
        rows, points = self._model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        found = []
        for row, five in zip(rows.astype(float), points, strict=True):
            x0, y0, x1, y1, score = row.tolist()
            if np.isfinite(row).all() and x0 < x1 and y0 < y1:
                found.append(Detection((x0, y0, x1, y1), min(score, 1.0), five.astype(np.float32)))
        return sorted(found, key=lambda each: -(each.score or 0))


FACE_DETECTOR = InsightFace
