"""Frames are spread over the whole clip, come out as what they are, and a broken one takes no other with it."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from dfad_bench.errors import DataError
from dfad_bench.prepare import video_decoding
from dfad_bench.prepare.decode import DecodedImage, SkippedInput
from dfad_bench.prepare.payloads import MISSING
from dfad_bench.prepare.video import VideoFrame, frame_number
from tests.prepare.clips import HEIGHT, WIDTH, break_packet, clip, number_in, overwrite, packets, show_turned


def frames(path: Path, of: int, positions: list[int] | None = None) -> list[DecodedImage | SkippedInput]:
    wanted = range(of) if positions is None else positions
    return list(VideoFrame.stream([VideoFrame(path.parent, path.name, position, of) for position in wanted]))


def whole(found: list[DecodedImage | SkippedInput]) -> list[DecodedImage]:
    return [each for each in found if isinstance(each, DecodedImage)]


def reasons(found: list[DecodedImage | SkippedInput]) -> list[str]:
    return [each.reason for each in found if isinstance(each, SkippedInput)]


def test_frames_are_spread_over_the_whole_clip_and_not_its_first_ones() -> None:
    numbers = [frame_number(position, 32, 270) for position in range(32)]
    steps = np.diff(numbers)
    assert (numbers[0], numbers[-1]) == (4, 265)
    assert set(steps.tolist()) == {8, 9}


@pytest.mark.parametrize(("of", "count"), [(1, 1), (1, 100), (4, 4), (32, 33), (7, 1000), (500, 501)])
def test_the_spread_is_the_same_from_both_ends_and_repeats_no_frame(of: int, count: int) -> None:
    numbers = [number for position in range(of) if (number := frame_number(position, of, count)) is not None]
    assert len(set(numbers)) == of
    assert numbers[0] >= 0 and numbers[-1] < count
    assert abs(numbers[0] - (count - 1 - numbers[-1])) <= 1


def test_a_frame_is_the_one_whose_number_it_carries(tmp_path: Path) -> None:
    found = whole(frames(clip(tmp_path / "clip.mp4", 270), 32))
    assert [number_in(frame.pixels) for frame in found] == [frame.frame for frame in found]
    assert [frame.frame for frame in found] == [frame_number(position, 32, 270) for position in range(32)]
    assert {(frame.format, frame.width, frame.height, frame.pixels.shape) for frame in found} == {
        ("H264", WIDTH, HEIGHT, (HEIGHT, WIDTH, 3))
    }


@pytest.mark.parametrize(
    ("name", "codec", "format"),
    [
        ("c.mp4", "mpeg4", "MPEG4"),
        ("c.avi", "mpeg4", "MPEG4"),
        ("c.avi", "libx264", "H264"),
        ("c.mkv", "libx264", "H264"),
        ("c.ts", "libx264", "H264"),
        ("c.mpg", "mpeg1video", "MPEG1VIDEO"),
    ],
)
def test_every_frame_of_every_container_has_its_number(tmp_path: Path, name: str, codec: str, format: str) -> None:
    found = whole(frames(clip(tmp_path / name, 30, codec), 30))
    assert [number_in(frame.pixels) for frame in found] == list(range(30)) == [frame.frame for frame in found]
    assert found[0].format == format


def test_colours_are_those_that_opencv_gives(tmp_path: Path) -> None:
    import cv2

    path = clip(tmp_path / "clip.mp4", 3)
    reader = cv2.VideoCapture(str(path))
    for frame in whole(frames(path, 3)):
        assert np.array_equal(frame.pixels, reader.read()[1][..., ::-1])


def test_ten_bits_become_eight(tmp_path: Path) -> None:
    deep = whole(frames(clip(tmp_path / "deep.mp4", 4, pix_fmt="yuv420p10le"), 4))
    plain = whole(frames(clip(tmp_path / "plain.mp4", 4), 4))
    for one, other in zip(deep, plain, strict=True):
        assert one.pixels.dtype == np.uint8
        assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 3


def test_a_clip_shorter_than_asked_gives_each_frame_once(tmp_path: Path) -> None:
    found = frames(clip(tmp_path / "short.mp4", 5), 8)
    assert [frame.frame for frame in whole(found)] == [0, 1, 2, 3, 4]
    assert reasons(found) == ["no_such_frame"] * 3
    assert isinstance(found[7], SkippedInput) and found[7].detail == "the clip has only 5 frames"


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda upright: np.rot90(upright, -1)),
        ((-1, 0, 0, -1), lambda upright: np.rot90(upright, 2)),
        ((0, -1, 1, 0), lambda upright: np.rot90(upright, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((0, 1, 1, 0), lambda upright: upright.transpose(1, 0, 2)),
    ],
    ids=["quarter", "half", "three quarters", "mirrored", "transposed"],
)
def test_a_turned_clip_comes_out_upright(tmp_path: Path, matrix: tuple[int, int, int, int], expected: Any) -> None:
    path = clip(tmp_path / "clip.mp4", 3)
    stored = whole(frames(path, 3))
    turned = whole(frames(show_turned(path, matrix), 3))
    for before, after in zip(stored, turned, strict=True):
        assert np.array_equal(after.pixels, expected(before.pixels))
        assert (after.height, after.width) == after.pixels.shape[:2]


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [12, 13, 14, 15, 20, 23])
def test_a_broken_packet_loses_its_frame_and_none_that_can_be_decoded_without_it(tmp_path: Path, order: int) -> None:
    path = clip(tmp_path / "clip.mp4", 48, gop=12)
    intact = whole(frames(path, 48))
    broken = break_packet(path, order)
    found = frames(path, 48)
    assert isinstance(found[broken], SkippedInput) and found[broken].reason == "broken_frame"
    kept = {frame.frame for frame in whole(found)}
    assert kept >= set(range(12)) | set(range(24, 48))
    assert all(np.array_equal(frame.pixels, intact[frame.frame or 0].pixels) for frame in whole(found))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_frame_that_the_decoder_patched_up_is_not_handed_out(tmp_path: Path, codec: str) -> None:
    path = clip(tmp_path / "clip.mp4", 36, codec, gop=12)
    intact, written = whole(frames(path, 36)), path.read_bytes()
    for packet in packets(path)[12:24]:
        half = packet.size // 2
        overwrite(path, packet.pos + half, bytes(packet.size - half))
        found = frames(path, 36)
        assert "broken_frame" in reasons(found)
        assert all(np.array_equal(frame.pixels, intact[frame.frame or 0].pixels) for frame in whole(found))
        path.write_bytes(written)


def test_a_truncated_clip_gives_frames_from_all_of_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip(tmp_path / "clip.mp4", 100)
    cut = packets(path)[60].pos + 3
    path.write_bytes(path.read_bytes()[:cut])
    found = frames(path, 100)
    kept = [frame.frame for frame in whole(found)]
    assert 55 <= len(kept) <= 61
    assert all(number_in(frame.pixels) == frame.frame for frame in whole(found))
    assert "of the 100 frames that its header promises" in caplog.text


def test_a_header_that_lies_about_the_number_of_frames_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip(tmp_path / "clip.avi", 40, "mpeg4")
    header = path.read_bytes()
    overwrite(path, header.index(b"avih") + 8 + 16, (4000).to_bytes(4, "little"))
    overwrite(path, header.index(b"strh") + 8 + 32, (4000).to_bytes(4, "little"))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 4000
    assert [frame.frame for frame in whole(frames(path, 4))] == [5, 15, 25, 35]
    assert "40 of the 4000 frames" in caplog.text


def test_frames_of_different_clips_do_not_mix_and_a_lost_clip_costs_only_itself(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", 10)
    clip(tmp_path / "c.mp4", 20)
    payloads = [VideoFrame(tmp_path, name, position, 2) for name in ("a.mp4", "b.mp4", "c.mp4") for position in (0, 1)]
    found = list(VideoFrame.stream(payloads))
    assert [each.frame if isinstance(each, DecodedImage) else each.reason for each in found] == [
        *(2, 7, "missing_file", "missing_file", 5, 15)
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"no video" * 100, "not_a_video"),
        (bytes(5000), "not_a_video"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "not_a_video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.mp4\n#EXT-X-ENDLIST\n", "not_a_video"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", "not_a_video"),
    ],
    ids=["empty", "text", "zeros", "concat list", "play list", "session description"],
)
def test_what_is_no_video_is_named_and_no_other_file_is_opened_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    clip(tmp_path / "other.mp4", 5)
    (tmp_path / "clip.mp4").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert reasons(frames(tmp_path / "clip.mp4", 3)) == [reason] * 3


def test_the_list_of_formats_is_what_keeps_a_play_list_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "other.mp4", 5)
    (tmp_path / "clip.mp4").write_bytes(b"ffconcat version 1.0\nfile other.mp4\n")
    monkeypatch.chdir(tmp_path)
    with av.open("clip.mp4") as container:  # as it would be read without the list
        assert container.format.name == "concat"


def test_a_clip_behind_a_link_out_of_the_root_is_not_opened(tmp_path: Path) -> None:
    clip(tmp_path / "elsewhere" / "clip.mp4", 3)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "clip.mp4").symlink_to(tmp_path / "elsewhere" / "clip.mp4")
    assert reasons(frames(tmp_path / "root" / "clip.mp4", 2)) == ["outside_root"] * 2


def test_a_root_that_has_gone_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="disappeared"):
        frames(tmp_path / "gone" / "clip.mp4", 2)


def test_a_header_that_promises_a_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoding, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    assert reasons(frames(clip(tmp_path / "clip.mp4", 3), 2)) == ["too_large"] * 2


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert reasons(frames(tmp_path / "clip.mp4", 2)) == ["not_a_video"] * 2


class _Failing(io.BytesIO):
    """A disk that fails after some bytes."""

    def __init__(self, data: bytes, works: int) -> None:
        super().__init__(data)
        self._works = works

    def read(self, size: int | None = -1) -> bytes:
        self._works -= 1
        if self._works < 0:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("works", [0, 1, 2, 5, 20, 40])
def test_a_disk_that_fails_is_unreadable_and_not_a_broken_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: int
) -> None:
    data = clip(tmp_path / "clip.mp4", 60, gop=1).read_bytes()
    monkeypatch.setattr(video_decoding, "_BUFFER", len(data) // 35)  # so that the last 25 reads are of the second pass
    monkeypatch.setattr("dfad_bench.prepare.payloads.FilePayload.open", lambda _: _Failing(data, works))
    assert set(reasons(frames(tmp_path / "clip.mp4", 60))) == {"unreadable"}


# --- cost ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips opened by the decoder, one entry per opening."""
    seen: list[str] = []
    original = av.open

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(file, str):  # as the tests themselves write clips
            seen.append(file.name)
        return original(file, *arguments, **options)

    monkeypatch.setattr(video_decoding.av, "open", counting)
    return seen


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The packets whose frames the decoder gave, one entry per frame."""
    seen: list[int] = []
    original = video_decoding._decoded

    def counting(*arguments: Any) -> Iterator[Any]:
        for order, frame in original(*arguments):
            seen.append(order)
            yield order, frame

    monkeypatch.setattr(video_decoding, "_decoded", counting)
    return seen


def test_a_clip_is_counted_once_and_decoded_once(tmp_path: Path, opened: list[str], decoded: list[int]) -> None:
    frames(clip(tmp_path / "clip.mp4", 100), 10)
    assert len(opened) == 2
    assert len(decoded) == 96  # number 95 is the last that is wanted


def test_frames_asked_for_backwards_are_right_too(tmp_path: Path, opened: list[str]) -> None:
    found = whole(frames(clip(tmp_path / "clip.mp4", 40), 4, [3, 3, 1, 2, 0]))
    assert [number_in(frame.pixels) for frame in found] == [35, 35, 15, 25, 5]
    assert len(opened) == 1 + 3


def test_only_wanted_frames_become_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[Any] = []
    original = video_decoding._upright_pixels
    monkeypatch.setattr(video_decoding, "_upright_pixels", lambda frame: turned.append(frame) or original(frame))
    frames(clip(tmp_path / "clip.mp4", 60), 5)
    assert len(turned) == 5


def test_frames_come_one_by_one(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", 300, gop=250)
    tracemalloc.start()
    stream = VideoFrame.stream([VideoFrame(path.parent, path.name, position, 300) for position in range(300)])
    most = 0
    for frame in stream:
        assert isinstance(frame, DecodedImage)
        most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert most < 20 * frame.pixels.nbytes


def test_a_listing_opens_no_clip(tmp_path: Path, opened: list[str]) -> None:
    payload = VideoFrame(tmp_path, "clip.mp4", 0, 2)
    assert payload.stamp() == MISSING
    before = VideoFrame(tmp_path, clip(tmp_path / "clip.mp4", 3).name, 0, 2).stamp()
    clip(tmp_path / "clip.mp4", 9)
    assert before not in (MISSING, payload.stamp())
    assert pickle.loads(pickle.dumps(payload)) == payload
    assert opened == []


def test_one_frame_can_be_read_as_a_picture_file(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", 40)
    picture = np.asarray(Image.open(io.BytesIO(VideoFrame(tmp_path, path.name, 1, 2).read())))
    assert number_in(picture) == 30
    with pytest.raises(SkippedInput, match="missing_file"):
        VideoFrame(tmp_path, "other.mp4", 0, 2).read()
