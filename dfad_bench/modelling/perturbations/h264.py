"""H.264 compression: the face as the one key frame of a clip, by libx264 at a constant rate factor."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from dfad_bench.modelling.perturb import Perturbation, Pixels

_ACCURATE_RND, _BITEXACT, _FULL_CHROMA = 0x40000, 0x80000, 0x2000 | 0x4000
_CONVERSION = {
    "src_colorspace": Colorspace.ITU601,
    "dst_colorspace": Colorspace.ITU601,
    # libswscale's flags by number: PyAV names them from version 18
    "interpolation": int(Interpolation.BICUBIC) | _ACCURATE_RND | _BITEXACT | _FULL_CHROMA,
    "threads": 1,
}
"""Between RGB and Y'CbCr without the short cuts that differ between processors."""


def _apply(face: Pixels, crf: int, rng: np.random.Generator) -> Pixels:
    height, width = face.shape[:2]
    even = np.pad(face, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # 4:2:0 has no half pixels
    frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p", **_CONVERSION)
    decoded = _compressed(frame, crf).reformat(format="rgb24", **_CONVERSION)
    return np.ascontiguousarray(decoded.to_ndarray()[:height, :width], np.uint8)


def _compressed(frame: av.VideoFrame, crf: int) -> av.VideoFrame:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "medium"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    (decoded,) = (each for packet in (*packets, None) for each in decoder.decode(packet))
    return decoded


PERTURBATION = Perturbation(
    _apply,
    severities=(23, 26, 29, 32, 35),
    unit="constant rate factor (CRF)",
    reference="ours, from libx264's default in steps that coarsen the quantiser by the square root of 2; "
    "FaceForensics++ (arXiv:1901.08971) has 23 and 40 for videos, and 40 leaves little of a lone key frame",
)
