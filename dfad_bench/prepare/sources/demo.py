"""Rendered faces and five imitated generators, to walk through everything without a download.

They demonstrate the tool and prove nothing about real generators: the faces are drawn by ``prepare.demo_faces``, and the
generators imitate what their families are known to leave in pixels and in gaze.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dfad_bench.errors import UsageError
from dfad_bench.prepare.demo_faces.casting import DemoPayload, cast
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.taxonomy import Generator
from dfad_bench.types import REAL, Annotation, OnDefect, RawImage

FEWEST, MOST = 60, 100_000
"""Below the first, a split would lack a generator; above the second, names would run out of digits."""

_REFERENCE = "dfad-bench demo, not a real generator"
GENERATORS = (
    Generator("demo_gan", "Demo: GAN-like upsampling, frontal gaze", "gan", "efs", 2026, _REFERENCE),
    Generator("demo_diffusion", "Demo: diffusion-like blur, eyes disagree", "diffusion", "efs", 2026, _REFERENCE),
    Generator("demo_flow", "Demo: flow-like smoothing, gaze drifts", "flow", "efs", 2026, _REFERENCE),
    Generator("demo_swap", "Demo: blended face swap, the source's gaze", "autoencoder", "fs", 2026, _REFERENCE),
    Generator("demo_edit", "Demo: edit within a region, gaze not kept", "gan", "am", 2026, _REFERENCE),
)


@dataclass(frozen=True)
class DemoSource:
    """Options: ``faces``, how many images in all (a third of them pristine), and ``seed``.

    Every image is a JPEG with 4:2:0 colour whose size and quality are drawn alike for all classes; the face box is a
    square of 197 px, so that the crop is 256 px without resampling. Gaze and landmarks are those that were drawn.
    """

    faces: int = 720
    seed: int = 0

    title: ClassVar[str] = "Rendered demo faces (they demonstrate the tool and prove nothing about real generators)"
    homepage: ClassVar[str] = "dfad-bench, which renders it"
    licence: ClassVar[str] = "CC0-1.0"
    instructions: ClassVar[str] = "The demo needs no data: its faces are rendered. Set their number by --set faces=720."
    needs_root: ClassVar[bool] = False
    default_gaze_estimator: ClassVar[str] = "annotated"
    default_face_detector: ClassVar[str] = "annotated"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the five imitated generators."""
        return GENERATORS

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the faces generator by generator; nothing is rendered until a payload is read.

        Raises UsageError where ``faces`` is too small for every split to have every generator, or above 100,000.
        """
        if not FEWEST <= self.faces <= MOST:
            raise UsageError(f"--set faces={self.faces}: the demo has {FEWEST} to {MOST:,} faces.")
        fakes = 2 * self.faces // 15  # of each generator: two thirds of all faces among five
        yield from self._images(Generator(REAL, REAL, REAL, REAL, 2026, ""), self.faces - fakes * len(GENERATORS))
        for generator in GENERATORS:
            yield from self._images(generator, fakes)

    def _images(self, generator: Generator, number: int) -> Iterator[RawImage]:
        for index in range(number):
            face = cast(self.seed, generator.name, index)
            head = Head(face.scene)
            yield RawImage(
                key=f"{index:05d}",
                generator=generator.name,
                family=generator.family,
                forgery_type=generator.forgery_type,
                domain="demo",
                licence=self.licence,
                payload=DemoPayload(self.seed, generator.name, index),
                annotation=Annotation(box=head.box(), landmarks=head.landmarks(), gaze=face.scene.gaze),
                source_split=face.split,
                identities=face.identities,
            )


SOURCE = DemoSource
