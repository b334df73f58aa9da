"""DeepFakeFace: celebrity photographs of IMDB-WIKI and three forgeries of each, read from the four zips or from folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dfad_bench.errors import UsageError, shorten
from dfad_bench.prepare.archive import ZipMember, zip_images
from dfad_bench.prepare.labels import Labeller
from dfad_bench.prepare.listing import IMAGE_SUFFIXES, files_below
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.taxonomy import Generator, known
from dfad_bench.types import REAL, Defect, OnDefect, Payload, RawImage

PARTS = {"wiki": REAL, "text2img": "sd15", "inpainting": "sd15_inpaint", "insight": "inswapper"}
"""Part (a zip, or the folder it unpacks to) → generator, as the dataset's card names them."""
IMAGES = 30_000
"""Images of each part, as published."""
DOMAIN = "imdb-wiki"
_REVISION = "eb2a54fbf2567790bd3dc61d09fdaade6bb6c31c"
_PERSON = re.compile(r"(nm\d+|\d+)_")
"""What IMDB-WIKI's file names begin with: the person's number on Wikipedia or on IMDb."""


@dataclass(frozen=True)
class DeepFakeFaceSource:
    """No options. A photograph has one name, ``NN/<person>_<birth>_<year>.jpg``, in all four parts.

    ``identities`` is the person whose photograph it is; whose face ``insight`` puts in, the dataset does not say.
    The text-to-image faces carry the person too, with whose photograph the dataset pairs them.
    """

    title: ClassVar[str] = "DeepFakeFace (Song et al., 2023, arXiv:2309.02218)"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/OpenRL/DeepFakeFace"
    licence: ClassVar[str] = "contradictory: openrail in the card's header, apache-2.0 in its text"
    instructions: ClassVar[str] = (
        "Download it (5 GB): hf download OpenRL/DeepFakeFace --repo-type dataset "
        f"--revision {_REVISION} --local-dir FOLDER. Then give --root FOLDER, "
        "which holds wiki.zip, text2img.zip, inpainting.zip and insight.zip, or the folders they unpack to."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the taxonomy's entries of the three generators."""
        return tuple(known().get(name) for name in PARTS.values() if name != REAL)

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images part by part, in order of their names.

        Tells of a ``missing_part``, a ``part_incomplete`` (fewer images than published, or not those of the other parts),
        a ``hostile_path`` or ``repeated_member`` in a zip, a ``repeated_image`` and an ``odd_name`` that names no person.
        """
        assert root is not None
        found = {part: _listed(root, part, on_defect) for part in PARTS}
        if not any(found.values()):
            raise UsageError(f"{root} holds no part of DeepFakeFace. {self.instructions}")
        _tell_differences(found, on_defect)
        labeller = Labeller()
        for part, generator in PARTS.items():
            label = labeller.label(generator, None, None, part)
            for key, payload in found[part].items():
                yield RawImage(
                    key=key,
                    generator=label.generator,
                    family=label.family,
                    forgery_type=label.forgery_type,
                    domain=DOMAIN,
                    licence=self.licence,
                    payload=payload,
                    identities=(match[1],) if (match := _PERSON.match(key.rpartition("/")[2])) else (),
                )


def _listed(root: Path, part: str, on_defect: OnDefect) -> dict[str, Payload]:
    """Return a part's images by key, which is the same whether they lie in the zip or in a folder; the zip comes first."""
    archive = f"{part}.zip"
    payloads: Iterator[tuple[str, Payload]]
    if (root / archive).exists():
        payloads = ((n, ZipMember(root, archive, n)) for n in zip_images(root, archive, IMAGE_SUFFIXES, on_defect))
    else:
        payloads = ((n, FilePayload(root, n)) for n in files_below(root, part, IMAGE_SUFFIXES))
    listed: dict[str, Payload] = {}
    repeated = []
    for name, payload in payloads:
        key = "/".join(name.split("/")[-2:])  # whatever folders the unzipping put above
        if listed.setdefault(key, payload) is not payload:
            repeated.append(name)
    if repeated:
        on_defect(Defect("repeated_image", f"{part} holds {shorten(repeated)} once more; the first is taken"))
    odd = [key for key in listed if not _PERSON.match(key.rpartition("/")[2])]
    if odd:
        on_defect(Defect("odd_name", f"{part}: {len(odd)} names begin with no person's number: {shorten(odd)}"))
    return dict(sorted(listed.items()))


def _tell_differences(found: dict[str, dict[str, Payload]], on_defect: OnDefect) -> None:
    photographs = set().union(*found.values())
    for part, listed in found.items():
        if not listed:
            on_defect(Defect("missing_part", f"there is no image of {part}, neither in {part}.zip nor in {part}/"))
            continue
        absent = sorted(photographs - listed.keys())
        if absent or len(listed) != IMAGES:
            told = f"; it lacks {len(absent)} that another part has: {shorten(absent)}" if absent else ""
            on_defect(Defect("part_incomplete", f"{part} holds {len(listed)} of {IMAGES} published images{told}"))


SOURCE = DeepFakeFaceSource
