"""A folder of videos per generator: ``<root>/<generator>/….mp4``, with an optional YAML that says what the folders mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import PositiveInt

from dfad_bench.errors import UsageError, shorten
from dfad_bench.prepare.clip_listing import Clip, is_empty
from dfad_bench.prepare.folder_map import declared, image_below, labelled_folders, read_folder_map
from dfad_bench.prepare.listing import VIDEO_SUFFIXES, files_below
from dfad_bench.prepare.video import VideoFrame
from dfad_bench.taxonomy import Generator
from dfad_bench.types import Defect, OnDefect, RawImage


@dataclass(frozen=True)
class VideoSource:
    """Options: ``frames``, how many to take from each clip, evenly spaced over it; and ``map``, a YAML file.

    The YAML is that of the source ``folder``. What it does not say of ``video`` is the clip's path without its suffix, and
    of ``frame`` it may say nothing: the decoder knows.
    """

    map: Path | None = None
    frames: PositiveInt = 32

    title: ClassVar[str] = "A folder of videos per generator"
    homepage: ClassVar[str] = "files of the user's own"
    licence: ClassVar[str] = "as the folder's YAML says"
    instructions: ClassVar[str] = (
        "Give --root FOLDER with one sub-folder of videos per generator (and one called 'real'); "
        "describe other names in a YAML file given by --set map=FILE."
    )
    needs_root: ClassVar[bool] = True
    default_face_detector: ClassVar[str] = "yunet"
    default_gaze_estimator: ClassVar[str] = "openvino_adas"

    def generators(self, root: Path | None) -> Sequence[Generator]:
        """Return the generators that the YAML declares and the taxonomy does not know."""
        return declared(list(read_folder_map(self.map, root).generators.values()), str(self.map))

    def images(self, root: Path | None, on_defect: OnDefect) -> Iterator[RawImage]:
        """Yield ``frames`` images of every clip, in order of the clips' paths.

        Tells of an ``empty_folder`` and of an ``empty_clip``; raises UsageError where no folder holds a video.
        """
        assert root is not None
        folder_map = read_folder_map(self.map, root)
        if folder_map.frame is not None:
            raise UsageError(f"{self.map}: 'frame' has no meaning for videos, whose frames are counted. Remove it.")
        nothing = True
        for folder, meaning, label in labelled_folders(root, folder_map, self.map)[0]:
            files = list(files_below(root, folder, VIDEO_SUFFIXES))
            stems = Counter(_without_suffix(file) for file in files)
            self._tell(root, folder, files, on_defect)
            for relative in files:
                nothing = False
                clip = _without_suffix(relative)
                image = image_below(root, relative, folder_map, meaning, label)
                video = image.video or (clip if stems[clip] == 1 else relative)
                for position in range(self.frames):
                    payload = VideoFrame(root, relative, position, self.frames)
                    yield replace(image, key=f"{relative}#{position:03d}", payload=payload, video=video)
        if nothing:
            raise UsageError(f"No folder of {root} holds a video ({', '.join(sorted(VIDEO_SUFFIXES))}).")

    def _tell(self, root: Path, folder: str, files: Sequence[str], on_defect: OnDefect) -> None:
        if not files:
            on_defect(Defect("empty_folder", f"{folder} holds no video"))
        empty = [file for file in files if is_empty(root, Clip(file, file))]
        if empty:
            on_defect(Defect("empty_clip", f"{shorten(empty)} hold no byte"))


def _without_suffix(relative: str) -> str:
    return PurePosixPath(relative).with_suffix("").as_posix()


SOURCE = VideoSource
