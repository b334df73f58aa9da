"""For images that are cropped faces already: the face is the largest centred square of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dfad_bench.types import Annotation, Detection, WeightsFile


class WholeImage:
    """Detects nothing. The square leaves out the ends of the longer side rather than mirroring borders into the crop,
    which would tell images of different shape apart."""

    default_margin: ClassVar[float] = 1.0
    looks_at_pixels: ClassVar[bool] = False
    weights: ClassVar[tuple[WeightsFile, ...]] = ()
    weights_sha256: str | None = None

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return one detection per image, without a score; landmarks are the source's own where it has them."""
        found = []
        for image, annotation in zip(images, annotations, strict=True):
            height, width = image.shape[:2]
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            landmarks = annotation.landmarks if annotation else None
            found.append([Detection((left, top, left + side, top + side), None, landmarks)])
        return found


FACE_DETECTOR = WholeImage
