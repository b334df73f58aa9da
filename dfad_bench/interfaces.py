"""What a plugin must look like: structural types without base classes, so that a plugin imports nothing to comply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dfad_bench.taxonomy import Generator
from dfad_bench.types import Annotation, Detection, Gaze, OnDefect, RawImage, WeightsFile

Task = TypeVar("Task")
Result = TypeVar("Result")


@runtime_checkable
class Source(Protocol):
    """A dataset's layout, read into rows. A plugin module exposes the class as ``SOURCE``.

    The class is a dataclass: its fields are the options of ``prepare --set name=value``. Where the data come with terms of
    use, a file ``<module>.terms.md`` lies beside the module: it is shown once, and ``--accept-terms`` accepts it.
    """

    title: ClassVar[str]
    homepage: ClassVar[str]
    """Where the data come from: an address, or a few words where there is none."""
    licence: ClassVar[str]
    instructions: ClassVar[str]
    """Printed when the root is missing: how to get the data and what the tree must look like."""
    needs_root: ClassVar[bool]
    default_face_detector: ClassVar[str]
    default_gaze_estimator: ClassVar[str]

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators this source declares, ``real`` excepted; those of the taxonomy as they stand there."""
        ...

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield every image the source lists, present on disk or not, in an order that never changes.

        Images of one video follow each other. What is wrong with the dataset itself is told to ``on_defect``. Raises
        UsageError within seconds for a wrong root, an unknown label or a missing column.
        """
        ...


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces. Built once per worker. A plugin module exposes the class as ``FACE_DETECTOR``.

    A class whose ``looks_at_pixels`` is False gets JPEGs before they are decoded, as images of the right size that say
    nothing: the box then decides at what scale they are decoded.
    """

    default_margin: ClassVar[float]
    """Side of the square crop divided by the longer side of the box, unless the user says otherwise."""
    weights: ClassVar[tuple[WeightsFile, ...]]
    """The published files it may need; empty where it needs none. Fetched by ``dfad_bench.weights.fetch``."""
    weights_sha256: str | None
    """Of the files in use: their hash, or where there are several, the sha256 of their hashes joined by line breaks."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation | None]
    ) -> list[list[Detection]]:
        """Return the faces of each upright RGB image [H, W, 3], best first; an empty list where there is none."""
        ...


@runtime_checkable
class GazeEstimator(Protocol):
    """Estimates where faces look. Built once per worker. A plugin module exposes the class as ``GAZE_ESTIMATOR``.

    A class whose ``needs_annotations`` is True is refused by ``prepare --only-gaze``, which has crops and no source to ask.
    """

    weights: ClassVar[tuple[WeightsFile, ...]]
    weights_sha256: str | None
    feature_dim: int
    """D of ``Gaze.features``, 0 where it gives none."""

    def estimate(
        self,
        faces: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        annotations: Sequence[Annotation | None],
    ) -> Gaze:
        """Return the gaze of crops [N, S, S, 3] RGB with landmarks [N, 5, 2] in crop pixels (NaN where unknown)."""
        ...


class Engine(Protocol):
    """Where the tasks of a pipeline are done. It knows nothing of faces, and a pipeline's stage nothing of engines.

    A stage is a plain callable: it is built once per worker, since it may hold a network, and is given one task after the
    other. What it writes and returns must depend on the task alone, so that it is the same whichever engine, and however
    often, a task is done.
    """

    @property
    def is_here(self) -> bool:
        """Whether tasks are done in this process, so that ``build`` may return a stage that is there already."""
        ...

    def size(self) -> int:
        """Return how many stages are built."""
        ...

    def ranks(self) -> int:
        """Return how many processes ``together`` takes."""
        ...

    def together(self, work: Callable[[], None]) -> None:
        """Do work in several processes at once that form a ``torch.distributed`` group, or alone.

        ``work`` must go on from what it has kept itself where a process is lost and all begin again. It is pickled unless
        ``is_here``; a DfadError of a rank is raised as it is.
        """
        ...

    def map(
        self,
        tasks: Callable[[], Iterator[Task]],
        build: Callable[[], Callable[[Task], Result]],
        *,
        in_order: bool = False,
    ) -> Iterator[Result]:
        """Yield what each task comes to, in whatever order they are finished, or ``in_order``.

        tasks: called once, perhaps elsewhere, and read as work goes on, so that memory does not grow with them. ``tasks``,
        ``build``, the tasks and the results are pickled unless ``is_here``. A DfadError of a stage is raised as it is.
        """
        ...
