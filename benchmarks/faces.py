"""Speed of cutting faces out of video frames on one core: our way with YuNet against dlib's HOG detector in the same run.

Both read the same JPEG frames from disk, decode them with OpenCV, detect, take the largest face, cut the square of margin
1.3 around its box, bring it to 256 px, and write it as PNG. Theirs is the detector of DeepfakeBench's preprocessing, called
as it calls it (``get_frontal_face_detector()`` on the RGB frame, upsampled once); its 81-point landmarks and the alignment
by them are left out, to its advantage. Ours gives five landmarks as well, and reads and checks the header of every file.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measure import record
from numpy.typing import NDArray

from dfad_bench.prepare.choose import choose, overlap
from dfad_bench.prepare.crop import crop_face
from dfad_bench.prepare.decode import decode
from dfad_bench.prepare.demo_faces.casting import DemoPayload, cast
from dfad_bench.prepare.demo_faces.geometry import Head
from dfad_bench.prepare.face_detectors.yunet import YuNet
from dfad_bench.types import REAL, Detection

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
SCENES = 16
MARGIN, FACE = 1.3, 256
REPEATS = 5
"""Times that our way runs over the frames; theirs, twenty times slower, runs once."""

Pixels = NDArray[np.uint8]
Way = Callable[[bytes], Iterator[tuple[str, Any]]]
"""What is done to a file's bytes, stage by stage: the stage's name after it is done, and its answer."""


def scene(index: int) -> Pixels:
    """Return a 1080p frame of one rendered person, 35 % of the frame's height from brow to chin, before a blurred room."""
    width, height = SIZES["1080p"]
    portrait = decode(DemoPayload(0, REAL, index).read()).pixels
    x0, y0, x1, y1 = Head(cast(0, REAL, index).scene).box()
    scale = 0.35 * height / max(x1 - x0, y1 - y0)
    person = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[:height]
    rng = np.random.default_rng(index)
    room = cv2.resize(rng.integers(60, 190, (9, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(room + rng.normal(0, 4, room.shape), 0, 255).astype(np.uint8)
    left = int(rng.integers(0, width - person.shape[1]))
    noisy[height - person.shape[0] :, left : left + person.shape[1]] = person
    return noisy


def write_frames(folder: Path) -> None:
    """Write every scene at every size as a JPEG of quality 90."""
    for index in range(SCENES):
        full = cv2.cvtColor(scene(index), cv2.COLOR_RGB2BGR)
        for name, size in SIZES.items():
            (folder / name).mkdir(exist_ok=True)
            frame = full if size == SIZES["1080p"] else cv2.resize(full, size, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / name / f"{index:02d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 90])


def ours() -> Way:
    """Return our way, through the functions that ``prepare`` calls."""
    detector = YuNet()

    def way(data: bytes) -> Iterator[tuple[str, Any]]:
        pixels = decode(data).pixels
        yield "decode", pixels
        (faces,) = detector.detect([pixels], [None])
        face = choose(faces, None, None) if faces else None
        yield "detect", face
        if face is not None:
            yield from cut_and_encode(pixels, face)

    return way


def theirs() -> Way | None:
    """Return the way of DeepfakeBench's preprocessing, or None where dlib is not installed."""
    try:
        import dlib
    except ImportError:
        print("dlib is not installed, so there is no comparison: pip install dlib compiles for about 12 minutes.")
        return None
    detector = dlib.get_frontal_face_detector()

    def way(data: bytes) -> Iterator[tuple[str, Any]]:
        pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        yield "decode", pixels
        boxes = [(float(b.left()), float(b.top()), float(b.right()), float(b.bottom())) for b in detector(pixels, 1)]
        face = max(map(Detection, boxes), key=lambda d: (d.box[2] - d.box[0]) * (d.box[3] - d.box[1]), default=None)
        yield "detect", face
        if face is not None:
            yield from cut_and_encode(pixels, face)

    return way


def cut_and_encode(pixels: Pixels, face: Detection) -> Iterator[tuple[str, Any]]:
    """Cut the face out and encode it as PNG."""
    crop = crop_face(pixels, face.box, MARGIN, FACE).face
    yield "crop", crop
    _, png = cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
    yield "encode", png


def run(way: Way, path: Path, out: Path) -> tuple[dict[str, float], Detection | None]:
    """Return the seconds of each stage for one frame, reading and writing included, and the face."""
    seconds: dict[str, float] = {}
    face, png = None, None
    before = time.perf_counter()
    data = path.read_bytes()
    for stage, answer in way(data):
        now = time.perf_counter()
        seconds[stage], before = now - before, now
        face, png = (answer if stage == "detect" else face), (answer if stage == "encode" else png)
    if png is not None:
        out.write_bytes(png)
        seconds["encode"] += time.perf_counter() - before
    return seconds, face


def measure(way: Way, frames: list[Path], out: Path, repeats: int) -> tuple[dict[str, float], list[Detection | None]]:
    """Return the median seconds of each stage and of the whole over all frames, and each frame's face."""
    run(way, frames[0], out)
    taken: dict[str, list[float]] = {}
    faces: list[Detection | None] = []
    for _ in range(repeats):
        faces = []
        for frame in frames:
            seconds, face = run(way, frame, out)
            faces.append(face)
            for stage, spent in (seconds | {"all": sum(seconds.values())}).items():
                taken.setdefault(stage, []).append(spent)
    return {stage: statistics.median(spent) for stage, spent in taken.items()}, faces


def main() -> None:
    """Measure and record."""
    cv2.setNumThreads(1)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_frames(folder)
        our_way, their_way = ours(), theirs()
        for name, (width, height) in SIZES.items():
            frames = sorted((folder / name).iterdir())
            seconds, faces = measure(our_way, frames, folder / "ours.png", REPEATS)
            row: dict[str, object] = {
                "frames": f"{name}, {width}x{height}",
                "scenes": len(frames),
                "found": sum(face is not None for face in faces),
                "frames_per_second": 1 / seconds["all"],
                **{f"{stage}_ms": 1000 * spent for stage, spent in seconds.items() if stage != "all"},
            }
            if their_way is not None:
                their_seconds, their_faces = measure(their_way, frames, folder / "theirs.png", 1)
                pairs = zip(faces, their_faces, strict=True)
                row |= {
                    "dlib_found": sum(face is not None for face in their_faces),
                    "both_found_the_same_face": sum(
                        one is not None and other is not None and overlap(one.box, other.box) > 0.3
                        for one, other in pairs
                    ),
                    "dlib_frames_per_second": 1 / their_seconds["all"],
                    "times_faster": their_seconds["all"] / seconds["all"],
                }
            rows.append(row)
    record("faces", rows)


if __name__ == "__main__":
    main()
