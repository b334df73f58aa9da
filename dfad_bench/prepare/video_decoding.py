"""Decodes chosen frames of one clip in one pass, and knows which of them a damaged packet may have spoilt."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dfad_bench.prepare.decode import MAX_PIXELS, DecodedImage, SkippedInput
from dfad_bench.prepare.reading import UNREADABLE

log = logging.getLogger(__name__)

_OPTIONS = {
    # A file called .mp4 may be a play list that names other files or addresses; FFmpeg would follow it.
    "format_whitelist": "mov,avi,matroska,mpeg,mpegts,asf,flv",
    "protocol_whitelist": "",
    "max_pixels": str(MAX_PIXELS),
}
_BUFFER = 1 << 20
"""Bytes read at a time: FFmpeg asks through Python, which is slow in small pieces."""
_UNTIMED = {("avi", "h264"), ("avi", "hevc")}
"""Where the time of a packet tells its place in the file, not the time at which its frame is shown."""


@dataclass(frozen=True, slots=True)
class ClipIndex:
    """What a clip's packets tell without being decoded; each list has one item per packet, in the order of decoding.

    count: the frames F to be shown; numbers: the number of the packet's frame in order of presentation, from 0, or -1
    where it is not to be shown; due: the highest number up to here, once it has come out all that the frame may rest on
    has; first: where the chain of predictions that leads to the frame begins; lone: the packets on which no other frame
    rests; at: the packet of each presentation time, empty where the container has no such times.
    """

    count: int
    numbers: list[int]
    due: list[int]
    first: list[int]
    lone: frozenset[int]
    at: dict[int, int]

    def is_spoilt(self, order: int, damaged: set[int]) -> bool:
        """Return whether the frame of a packet is damaged or may rest on one that is."""
        since = self.first[order]
        return any(since <= other <= order and (other == order or other not in self.lone) for other in damaged)


def read_index(file: BinaryIO, name: str) -> ClipIndex:
    """Count a clip's frames and put them in order of presentation, decoding nothing.

    Raises SkippedInput with reason ``empty_file``, ``not_a_video``, ``too_large`` or ``unreadable``.
    """
    try:
        if not file.read(1):
            raise SkippedInput("empty_file", "the file has no bytes")
        with _video(file) as (container, stream):
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > MAX_PIXELS:
                raise SkippedInput("too_large", f"{width}x{height} px is more than {MAX_PIXELS} pixels")
            untimed = (container.format.name, stream.codec_context.codec.canonical_name) in _UNTIMED
            packets = [
                (packet.pts, packet.is_keyframe, packet.is_disposable, packet.is_discard)
                for packet in _packets(container, stream)
            ]
            promised = stream.frames
    except av.FFmpegError as error:
        raise SkippedInput("not_a_video", f"FFmpeg: {error.strerror}") from None
    except OSError as error:
        raise SkippedInput(UNREADABLE, str(error)) from None
    index = _index(packets, untimed)
    if not index.count:
        raise SkippedInput("not_a_video", "it has no picture")
    if index.count < promised:
        log.warning(
            "%s ends after %d of the %d frames that its header promises; the frames are spread over those.",
            *(name, index.count, promised),
        )
    return index


def _index(packets: Sequence[tuple[int | None, bool, bool, bool]], untimed: bool) -> ClipIndex:
    shown = [order for order, (*_, discarded) in enumerate(packets) if not discarded]
    times = [packets[order][0] for order in shown]
    if untimed or None in times or len(set(times)) < len(times):
        at: dict[int, int] = {}
        presented = shown
    else:
        at = {time: order for time, order in zip(times, shown, strict=True) if time is not None}
        presented = [at[time] for time in sorted(at)]
    numbers = [-1] * len(packets)
    for number, order in enumerate(presented):
        numbers[order] = number
    due: list[int] = []
    first: list[int] = []
    keys = [0]
    for order, (_, is_key, *_) in enumerate(packets):
        number = numbers[order]
        if is_key:
            keys.append(order)
        due.append(max(number, due[-1]) if due else number)
        # a picture shown before the key frame it follows in the file rests on what came before that, too
        first.append(next(key for key in reversed(keys) if key == 0 or numbers[key] <= number))
    lone = frozenset(order for order, (_, _, disposable, _) in enumerate(packets) if disposable)
    return ClipIndex(len(shown), numbers, due, first, lone, at)


def decode_frames(
    file: BinaryIO, index: ClipIndex, wanted: Sequence[int | None]
) -> Iterator[DecodedImage | SkippedInput]:
    """Yield the frames with these numbers, which must not descend, or why there is none; None is beyond the last.

    It decodes up to the last of them and converts no other frame to RGB.
    """
    frames = _whole_frames(file, index, {number for number in wanted if number is not None})
    at: int = -1
    image: DecodedImage | None = None
    lost = SkippedInput("broken_frame", "it cannot be decoded, or rests on a frame that cannot")
    for number in wanted:
        if number is None:
            yield SkippedInput("no_such_frame", f"the clip has only {index.count} frames")
            continue
        try:
            while at < number:
                at, image = next(frames, (index.count, None))
        except (av.FFmpegError, OSError) as error:
            lost, at, image = SkippedInput(UNREADABLE, str(error)), index.count, None
        yield image if at == number and image is not None else lost


def _whole_frames(file: BinaryIO, index: ClipIndex, wanted: set[int]) -> Iterator[tuple[int, DecodedImage]]:
    """Decode the clip from its start up to the last wanted frame; yield the wanted ones that are whole, ascending."""
    damaged: set[int] = set()
    held: deque[tuple[int, VideoFrame]] = deque()
    last = max(wanted, default=-1)
    with _video(file) as (container, stream):
        codec = stream.codec_context.codec.canonical_name.upper()
        for order, frame in _decoded(container, stream, index, damaged):
            number = index.numbers[order]
            if number in wanted:
                held.append((order, frame))
            while held and (index.due[held[0][0]] <= number):
                yield from _released(held.popleft(), index, damaged, codec)
            if number >= last and not held:
                return
        while held:
            yield from _released(held.popleft(), index, damaged, codec)


def _decoded(
    container: InputContainer, stream: VideoStream, index: ClipIndex, damaged: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the frames as the decoder gives them, each with its packet, adding to ``damaged`` the packets that are."""
    shown = [order for order, number in enumerate(index.numbers) if number >= 0]
    given = failed = 0
    for order, packet in enumerate(chain(_packets(container, stream), (None,))):
        if packet is not None and packet.is_corrupt:  # the file ends in it
            damaged.add(order)
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError:
            damaged.add(order)
            failed += 1
            continue
        for frame in frames:
            nth = given + failed
            of_packet = index.at.get(frame.pts) if index.at else shown[nth] if nth < len(shown) else None  # type: ignore[arg-type]
            given += 1
            if of_packet is None:
                continue
            if frame.is_corrupt:
                damaged.add(of_packet)
            yield of_packet, frame


def _released(
    held: tuple[int, VideoFrame], index: ClipIndex, damaged: set[int], codec: str
) -> Iterator[tuple[int, DecodedImage]]:
    order, frame = held
    if not index.is_spoilt(order, damaged):
        number = index.numbers[order]
        pixels = _upright_pixels(frame)
        yield number, DecodedImage(pixels, codec, pixels.shape[1], pixels.shape[0], frame=number)


def _upright_pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return [H, W, 3] RGB, turned and mirrored as the display matrix says (ISO/IEC 14496-12, 6.2.2), to right angles."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24", threads=1), np.uint8)
    side_data = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # PyAV's stub says str
    if side_data is None:
        return pixels
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()  # (x, y) is shown at (ax + cy, bx + dy)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


@contextmanager
def _video(file: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the clip from its start, on one thread: workers are processes."""
    file.seek(0)
    with av.open(
        file, "r", options=dict(_OPTIONS), metadata_errors="replace", buffer_size=_BUFFER, io_open=_refuse
    ) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise SkippedInput("not_a_video", "it has no video stream")
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def _refuse(url: str, flags: int, options: object) -> BinaryIO:
    raise PermissionError(f"a video may not name another file, and this one names {url}")


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets that hold something, up to the end of the file or to where it is no longer a container."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.FFmpegError as error:
        log.debug("demuxing ended early: %s", error)
