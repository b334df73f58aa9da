"""Writes small clips in which every frame shows its own number, and damages them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BLOCK, BITS = 16, 9
WIDTH, HEIGHT = BLOCK * BITS, 64


def numbered(number: int) -> NDArray[np.uint8]:
    """A picture [HEIGHT, WIDTH, 3] of BITS bright or dark blocks: the number in binary, lowest bit at the left.

    Its lower half is a gradient that moves with the number, so that no frame is a copy of its predecessor.
    """
    bits = np.array([40 + 160 * (number >> bit & 1) for bit in range(BITS)], np.uint8)
    picture = np.repeat(np.repeat(bits, BLOCK)[None], HEIGHT, axis=0)
    picture[HEIGHT // 2 :] = (np.arange(WIDTH) * 2 + 7 * number) % 200
    return np.ascontiguousarray(np.repeat(picture[..., None], 3, axis=2))


def number_in(pixels: NDArray[np.uint8]) -> int:
    """Read the number back from an upright picture."""
    blocks = pixels[: HEIGHT // 2, :, 1].mean(axis=0).reshape(BITS, BLOCK)[:, 4:-4].mean(axis=1)
    return int(sum(1 << bit for bit, level in enumerate(blocks) if level > 120))


def clip(path: Path, frames: int, codec: str = "libx264", *, gop: int = 12, b_frames: int = 2, **options: str) -> Path:
    """Write a clip; further options go to the encoder. The header stands before the pictures in an MP4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ahead = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=ahead) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, b_frames
        stream.options = ({"preset": "ultrafast", "bf": str(b_frames)} if codec == "libx264" else {}) | options
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets(path: Path) -> list[Any]:
    """The packets of a clip in the order of decoding."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def overwrite(path: Path, position: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)
    return path


def break_packet(path: Path, order: int) -> int:
    """Overwrite a packet with zeros; return the number of the frame it held."""
    found = packets(path)
    overwrite(path, found[order].pos, bytes(found[order].size))
    return sorted(packet.pts for packet in found).index(found[order].pts)


def show_turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Set the a, b, c, d of an MP4's display matrix (ISO/IEC 14496-12, 8.3.2)."""
    a, b, c, d = (value << 16 for value in matrix)
    # within 'tkhd' of version 0: flags, two times, id, reserved, duration, reserved, layer and volume come first
    start = path.read_bytes().index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    return overwrite(path, start, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
