"""Where a video's frames come from: evenly spaced over the whole clip, and read in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import cv2

from dfad_bench.prepare.decode import DecodedImage, SkippedInput
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.prepare.reading import UNREADABLE


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """The ``position``-th (from 0) of ``of`` frames evenly spaced over the clip ``relative`` below ``root``.

    Of F frames it is number floor((position + 1/2) F / of), counted from 0 in order of presentation: the middle of the
    position-th of ``of`` equal stretches. F is the number of the file's video packets that are meant to be shown, counted
    without decoding them, because headers lie. Where F < ``of``, positions below F are all the frames there are, and the
    others are skipped as ``no_such_frame``.
    """

    root: Path
    relative: str
    position: int
    of: int

    @property
    def container(self) -> str:
        """The clip: frames of one clip that follow each other are decoded in one pass."""
        return str(self.root / self.relative)

    def stamp(self) -> str:
        """Return the clip's size and modification time, or ``missing``."""
        return FilePayload(self.root, self.relative).stamp()

    def read(self) -> bytes:
        """Return the frame as a PNG; raise SkippedInput where there is none. For many frames, ``stream`` is faster."""
        (frame,) = self.stream([self])
        if isinstance(frame, SkippedInput):
            raise frame
        encoded, data = cv2.imencode(".png", cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR))
        assert encoded
        return bytes(data)

    @staticmethod
    def stream(payloads: Sequence[VideoFrame]) -> Iterator[DecodedImage | SkippedInput]:
        """Yield each payload's frame, upright and 8-bit RGB, or why there is none; one frame is held at a time.

        Frames of one clip that are asked for in ascending order cost one pass over it. Reasons: ``missing_file``,
        ``empty_file``, ``not_a_file``, ``outside_root``, ``bad_path``, ``not_a_video``, ``too_large`` and ``unreadable`` of
        all frames of a clip; ``no_such_frame`` and ``broken_frame`` of one. A frame is broken where the decoder says so, and
        where it may have been predicted from one that is. Raises DataError where the root itself has gone.
        """
        for _, group in groupby(payloads, key=lambda payload: payload.container):
            yield from _clip(list(group))


def frame_number(position: int, of: int, count: int) -> int | None:
    """Return which of ``count`` frames is the position-th of ``of`` evenly spaced ones; None beyond the last."""
    if of <= count:
        return (2 * position + 1) * count // (2 * of)
    return position if position < count else None


def _clip(payloads: Sequence[VideoFrame]) -> Iterator[DecodedImage | SkippedInput]:
    """Yield the frames of one clip; where one lies before its predecessor, the clip is decoded again from its start."""
    from dfad_bench.prepare.video_decoding import decode_frames, read_index  # what loads FFmpeg

    try:
        with _opened(payloads[0]) as file:
            index = read_index(file, payloads[0].relative)
            numbers = [frame_number(payload.position, payload.of, index.count) for payload in payloads]
            for run in _ascending(numbers):
                yield from decode_frames(file, index, run)
    except SkippedInput as skipped:  # before the first frame: decode_frames yields what it skips
        yield from (skipped for _ in payloads)


@contextmanager
def _opened(payload: VideoFrame) -> Iterator[BinaryIO]:
    try:
        file = FilePayload(payload.root, payload.relative).open()
    except FileNotFoundError as error:
        raise SkippedInput("missing_file", str(error)) from None
    except OSError as error:
        raise SkippedInput(UNREADABLE, str(error)) from None
    with file:
        yield file


def _ascending(numbers: Sequence[int | None]) -> Iterator[list[int | None]]:
    """Cut the numbers into runs that do not descend."""
    run: list[int | None] = []
    highest = -1
    for number in numbers:
        if number is not None and number < highest:
            yield run
            run, highest = [], -1
        run.append(number)
        highest = highest if number is None else number
    yield run
