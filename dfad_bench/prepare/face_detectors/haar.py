"""Viola and Jones' cascade of Haar features (CVPR 2001) as OpenCV 4 ships it: a face detector that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfad_bench.config import file_sha256
from dfad_bench.errors import UsageError
from dfad_bench.types import Annotation, Detection, WeightsFile

CASCADE = "haarcascade_frontalface_alt2.xml"
"""Of the frontal cascades the one that is right most often on 969 portraits: it finds as many as ``default`` with a fifth
of its second, false faces, in half the time of ``alt``."""
LONGER_SIDES = (320, 640)
"""Pixels to which a larger image is brought; the second only where the first shows no face."""
_SMALLEST = 20
"""Pixels: the cascade's own window, below which it knows nothing."""
_STEP = 1.1
"""Ratio of one window size to the next; at 1.2 a twentieth of the faces is lost."""
_NEIGHBOURS = 3
"""Overlapping hits that make a face; OpenCV's default."""


class Haar:
    """Frontal faces only, without landmarks or scores: the cascade gives no probability. YuNet finds more, and faster.

    Its box reaches from brows to chin, 0.87 of YuNet's, so that a margin of 1.5 gives the crop that YuNet's 1.3 gives.
    """

    default_margin: ClassVar[float] = 1.5
    weights: ClassVar[tuple[WeightsFile, ...]] = ()
    weights_sha256: str | None

    def __init__(self) -> None:
        path = _cascade()
        self.weights_sha256 = file_sha256(path)
        self._cascade: Any = cv2.CascadeClassifier(str(path))

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each RGB image [H, W, 3], the one that passes the cascade most clearly first."""
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
        small = image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        boxes, _, weights = self._cascade.detectMultiScale3(
            cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), _STEP, _NEIGHBOURS, 0, (_SMALLEST, _SMALLEST), (0, 0), True
        )
        across, down = width / size[0], height / size[1]
        order = np.argsort(-np.ravel(weights), kind="stable")
        return [
            Detection((x * across, y * down, (x + w) * across, (y + h) * down))
            for x, y, w, h in np.reshape(boxes, (-1, 4))[order].tolist()
        ]


def _cascade() -> Path:
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    if not hasattr(cv2, "CascadeClassifier") or folder is None or not (Path(folder) / CASCADE).is_file():
        raise UsageError(
            f"OpenCV {cv2.__version__} has no Haar cascades, which haar needs. "
            "Install OpenCV 4: pip install 'opencv-python<5'."
        )
    return Path(folder) / CASCADE


FACE_DETECTOR = Haar
