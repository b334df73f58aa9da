"""A folder per generator: ``<root>/<generator>/…``, with an optional YAML that says what the folders mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dfad_bench.errors import UsageError
from dfad_bench.prepare.folder_map import declared, image_below, labelled_folders, read_folder_map
from dfad_bench.prepare.listing import IMAGE_SUFFIXES, files_below
from dfad_bench.taxonomy import Generator
from dfad_bench.types import Defect, OnDefect, RawImage


@dataclass(frozen=True)
class FolderSource:
    """Option: ``map``, a YAML file; without it every folder must carry a known generator's name or ``real``.

    In the YAML, ``generators`` maps folders to generators, ``ignore`` lists folders to leave out, and ``identity``,
    ``video``, ``source_split`` and ``frame`` are regular expressions on the path relative to the root. Several groups
    of ``identity`` are several people (a swap has two). A folder may be a path: then its neighbours are folders of
    generators too, and those that the YAML does not name must carry known names. So is a copy of GenFace read, which has
    no public layout (its DDPM is the model of Ho et al., ``ddpm``, where DF40's folder of that name is DDIM)::

        generators:
          EFS/DDPM: {name: ddpm, domain: celeba-hq}
          EFS/StyleGAN3: {name: stylegan3, domain: ffhq}
          AM/IA-FaceS: {name: ia_faces, domain: celeba-hq}
          Real/FFHQ: {name: real, domain: ffhq, licence: CC-BY-NC-SA-4.0}
          Real/CelebA-HQ: {name: real, domain: celeba-hq}
        source_split: "/(train|val|test)/"
    """

    map: Path | None = None

    title: ClassVar[str] = "A folder per generator"
    homepage: ClassVar[str] = "files of the user's own"
    licence: ClassVar[str] = "as the folder's YAML says"
    instructions: ClassVar[str] = (
        "Give --root FOLDER with one sub-folder per generator (and one called 'real'); "
        "describe other names in a YAML file given by --set map=FILE."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators that the YAML declares and the taxonomy does not know."""
        return declared(list(read_folder_map(self.map, root).generators.values()), str(self.map))

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield the images of every folder in order of their paths.

        Tells of an ``empty_folder`` and of ``loose_images`` beside nested folders; raises UsageError where nothing is left.
        """
        assert root is not None
        folder_map = read_folder_map(self.map, root)
        folders, loose = labelled_folders(root, folder_map, self.map)
        for folder in loose:
            on_defect(
                Defect("loose_images", f"{folder} holds images beside its generators' folders; they are left out")
            )
        nothing = True
        for folder, meaning, label in folders:
            empty = True
            for relative in files_below(root, folder, IMAGE_SUFFIXES):
                empty = nothing = False
                yield image_below(root, relative, folder_map, meaning, label)
            if empty:
                on_defect(Defect("empty_folder", f"{folder} holds no image"))
        if nothing:
            raise UsageError(f"No folder of {root} holds an image ({', '.join(sorted(IMAGE_SUFFIXES))}).")


SOURCE = FolderSource
