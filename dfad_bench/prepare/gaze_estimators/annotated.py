"""Uses the gaze that the source itself gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dfad_bench.types import Annotation, Gaze, WeightsFile


class Annotated:
    """Returns the source's own gaze, NaN where it gives none."""

    weights: ClassVar[tuple[WeightsFile, ...]] = ()
    weights_sha256: str | None = None
    feature_dim: int = 0
    needs_annotations: ClassVar[bool] = True

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return pitch and yaw [N] in radians from the annotations; faces and landmarks are not looked at."""
        given = [a.gaze if a is not None and a.gaze is not None else (np.nan, np.nan) for a in annotations]
        angles = np.asarray(given, np.float32).reshape(-1, 2)
        return Gaze(pitch=angles[:, 0], yaw=angles[:, 1])


GAZE_ESTIMATOR = Annotated
