"""What a plugin must look like: structural types without base classes, so that a plugin imports nothing to comply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dfad_bench.taxonomy import Generator
from dfad_bench.types import Annotation, Detection, Gaze, RawImage


@runtime_checkable
class Source(Protocol):
    """A dataset's layout, read into rows. A plugin module exposes the class as ``SOURCE``.

    The class is a dataclass: its fields are the options of ``prepare --set name=value``.
    """

    title: ClassVar[str]
    homepage: ClassVar[str]
    """Where the data come from: an address, or a few words where there is none."""
    licence: ClassVar[str]
    instructions: ClassVar[str]
    """Printed when the root is missing: how to get the data and what the tree must look like."""
    needs_root: ClassVar[bool]
    default_face_detector: ClassVar[str]

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators this source declares beyond the taxonomy, ``real`` excepted."""
        ...

    def images(self, root: Path | None) -> Iterator[RawImage]:
        """Yield every image the source lists, present on disk or not, in an order that never changes.

        Raises UsageError within seconds for a wrong root, an unknown label or a missing column.
        """
        ...


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces. Built once per worker. A plugin module exposes the class as ``FACE_DETECTOR``."""

    default_margin: ClassVar[float]
    """Side of the square crop divided by the longer side of the box, unless the user says otherwise."""
    weights_sha256: str | None

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each upright RGB image [H, W, 3], best first; an empty list where there is none."""
        ...


@runtime_checkable
class GazeEstimator(Protocol):
    """Estimates where faces look. Built once per worker. A plugin module exposes the class as ``GAZE_ESTIMATOR``."""

    weights_sha256: str | None

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return the gaze of crops [N, S, S, 3] RGB with landmarks [N, 5, 2] in crop pixels (NaN where unknown)."""
        ...
