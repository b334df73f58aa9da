"""Uses the face boxes that the source itself gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dfad_bench.types import Annotation, Detection, WeightsFile


class Annotated:
    """Returns the source's box and landmarks; an image without a box has no face, and the ledger says so."""

    default_margin: ClassVar[float] = 1.3
    looks_at_pixels: ClassVar[bool] = False
    weights: ClassVar[tuple[WeightsFile, ...]] = ()
    weights_sha256: str | None = None

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the annotated face of each image, or none."""
        return [
            [Detection(annotation.box, None, annotation.landmarks)] if annotation and annotation.box else []
            for annotation in annotations
        ]


FACE_DETECTOR = Annotated
