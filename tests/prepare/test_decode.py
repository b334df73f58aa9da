"""Decoding gives upright RGB pixels of the whole image, or says in one word why not."""

from __future__ import annotations

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from dfad_bench.prepare.decode import JpegCoding, SkippedInput, decode
from tests.prepare.builders import encoded, pixels, png_of_size

RED = np.array([220, 20, 30])
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
PICTURE = pixels(7, 200, 160)


def reason(data: bytes) -> str:
    with pytest.raises(SkippedInput) as caught:
        decode(data)
    assert caught.value.detail
    return caught.value.reason


def coding(data: bytes) -> JpegCoding:
    found = decode(data).jpeg
    assert found is not None
    return found


def red(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (40, 30), tuple(RED.tolist())).convert(mode)


@pytest.mark.parametrize("quality", range(30, 99))
def test_the_jpeg_quality_is_read_back(quality: int) -> None:
    assert coding(encoded(PICTURE, "JPEG", quality=quality)).quality == quality


def test_the_jpeg_quality_of_a_grey_image_is_read_back() -> None:
    assert coding(encoded(red("L"), "JPEG", quality=83)).quality == 83


def test_a_foreign_quantisation_table_gives_the_nearest_quality() -> None:
    tables = Image.open(io.BytesIO(encoded(PICTURE, "JPEG", quality=70))).quantization  # type: ignore[attr-defined]
    near = {number: [max(1, value + (index == 5)) for index, value in enumerate(t)] for number, t in tables.items()}
    assert coding(encoded(PICTURE, "JPEG", qtables=near)).quality == 70


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [40, 75, 95])
def test_chroma_coding_is_read_back(subsampling: str, quality: int) -> None:
    found = coding(encoded(PICTURE, "JPEG", quality=quality, subsampling=subsampling))
    assert (found.chroma_quality, found.subsampling) == (quality, subsampling)


def test_a_grey_jpeg_has_no_chroma() -> None:
    found = coding(encoded(red("L"), "JPEG"))
    assert (found.chroma_quality, found.subsampling) == (None, None)


def test_equal_tables_have_equal_digests_and_other_tables_others() -> None:
    seventy, again, eighty = (coding(encoded(pixels(n), "JPEG", quality=q)) for n, q in ((1, 70), (2, 70), (1, 80)))
    assert seventy.tables == again.tables != eighty.tables


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_jpeg_is_the_picture_made_smaller_and_still_knows_its_size(reduction: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PICTURE, "JPEG", quality=95, exif=exif)
    whole, small = decode(data), decode(data, reduction)
    height, width = whole.pixels.shape[:2]
    assert (small.width, small.height, small.reduction) == (width, height, reduction)
    assert small.pixels.shape[:2] == (-(-height // reduction), -(-width // reduction))
    shrunk = cv2.resize(whole.pixels, small.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.pixels.astype(int) - shrunk).mean() < 3


def test_only_a_jpeg_is_decoded_at_reduced_scale() -> None:
    small = decode(encoded(PICTURE, "PNG"), 4)
    assert small.reduction == 1
    assert small.pixels.shape == PICTURE.shape


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "JPEG"])
def test_only_jpeg_has_a_quality(format: str) -> None:
    decoded = decode(encoded(PICTURE, format))
    assert (decoded.format, decoded.jpeg) == (format, None)


@pytest.mark.parametrize("format", FORMATS)
def test_red_stays_red_in_every_format(format: str) -> None:
    decoded = decode(encoded(red(), format))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == (30, 40, 3)
    assert np.abs(decoded.pixels[15, 20].astype(int) - RED).max() <= 8


def test_png_pixels_are_exact() -> None:
    np.testing.assert_array_equal(decode(encoded(PICTURE, "PNG")).pixels, PICTURE)


def test_opencv_alone_would_make_up_the_lost_half_of_a_jpeg() -> None:
    data = encoded(PICTURE, "JPEG", quality=90)
    padded = data[: len(data) // 2] + bytes(100_000)
    half = cv2.imdecode(np.frombuffer(padded, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert half is not None
    assert half.shape == PICTURE.shape
    assert np.abs(half[-16:].astype(int) - PICTURE[-16:]).mean() > 20


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "WEBP"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_a_truncated_image_is_refused(format: str, fraction: float) -> None:
    data = encoded(PICTURE, format)
    assert reason(data[: int(len(data) * fraction)]) in {"truncated", "undecodable"}


def test_a_truncated_jpeg_is_called_truncated() -> None:
    data = encoded(PICTURE, "JPEG")
    assert {reason(data[: len(data) * part // 10]) for part in (5, 7, 9)} == {"truncated"}
    assert reason(data[:-2]) == "truncated"


def test_a_truncated_png_is_called_truncated() -> None:
    data = encoded(PICTURE, "PNG")
    assert {reason(data[: len(data) * part // 10]) for part in (5, 7, 9)} == {"truncated"}


def test_a_truncated_progressive_jpeg_is_called_truncated() -> None:
    data = encoded(PICTURE, "JPEG", progressive=True)
    assert reason(data[: len(data) * 6 // 10]) == "truncated"


def test_a_truncated_jpeg_padded_with_zeros_is_still_truncated() -> None:
    data = encoded(PICTURE, "JPEG")
    assert reason(data[: len(data) // 2] + bytes(100_000)) == "truncated"


def test_a_thumbnail_does_not_hide_that_a_jpeg_is_truncated() -> None:
    data = encoded(PICTURE, "JPEG", exif=b"Exif\0\0" + encoded(red(), "JPEG"))
    assert decode(data).pixels.shape == PICTURE.shape
    assert reason(data[: len(data) * 6 // 10] + bytes(100_000)) == "truncated"


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("tail", [b"junk" * 100, bytes(5000), b"\xff\xda after all"])
def test_bytes_after_the_end_of_an_image_do_no_harm(format: str, tail: bytes) -> None:
    data = encoded(PICTURE, format)
    np.testing.assert_array_equal(decode(data + tail).pixels, decode(data).pixels)


def test_a_damaged_png_is_refused() -> None:
    data = bytearray(encoded(PICTURE, "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == "undecodable"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty_file"),
        (b"this is a text named .png\n" * 20, "not_an_image"),
        (b"\x89PNG\r\n\x1a\n", "not_an_image"),
        (b"\xff\xd8\xff", "undecodable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n", "not_an_image"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data: bytes, expected: str) -> None:
    assert reason(data) in {expected, "not_an_image"} if expected == "undecodable" else reason(data) == expected


@pytest.mark.parametrize("side", [9_000, 12_000, 50_000])
def test_a_header_that_promises_too_much_is_refused_without_allocating(side: int) -> None:
    tracemalloc.start()
    try:
        assert reason(png_of_size(side, side)) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_cmyk_jpeg_comes_out_in_its_colours() -> None:
    decoded = decode(encoded(red("CMYK"), "JPEG", quality=95)).pixels
    assert np.abs(decoded[15, 20].astype(int) - RED).max() <= 8


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_to_eight_not_clipped(suffix: str) -> None:
    deep = np.zeros((20, 20, 3), np.uint16)
    deep[...] = np.array([25, 50, 100]) * 257
    data = cv2.imencode(suffix, deep)[1].tobytes()
    assert decode(data).pixels[5, 5].tolist() == [100, 50, 25]


def test_sixteen_bit_grey_is_scaled_too() -> None:
    data = cv2.imencode(".png", np.full((20, 20), 257 * 100, np.uint16))[1].tobytes()
    assert decode(data).pixels[5, 5].tolist() == [100, 100, 100]


def test_a_palette_png_comes_out_in_its_colours() -> None:
    image = red().quantize(4)
    assert image.mode == "P"
    assert np.abs(decode(encoded(image, "PNG")).pixels[15, 20].astype(int) - RED).max() <= 2


def test_alpha_is_dropped_and_the_colour_kept() -> None:
    image = Image.new("RGBA", (40, 30), (*RED.tolist(), 0))
    assert decode(encoded(image, "PNG")).pixels[15, 20].tolist() == RED.tolist()


def test_grey_becomes_three_equal_channels() -> None:
    decoded = decode(encoded(Image.new("L", (40, 30), 77), "PNG")).pixels
    assert decoded.shape == (30, 40, 3)
    assert (decoded == 77).all()


def test_the_first_picture_of_an_animation_is_taken() -> None:
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert decode(data).pixels[15, 20].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_turned_by_exif_comes_out_upright(format: str) -> None:
    upright = Image.new("RGB", (30, 40), "blue")
    upright.paste("red", (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    decoded = decode(encoded(stored, format, exif=exif)).pixels
    assert decoded.shape == (40, 30, 3)
    assert decoded[5, 15, 0] > 200
    assert decoded[35, 15, 2] > 200


def test_a_camera_s_multi_picture_file_counts_as_jpeg() -> None:
    data = encoded(PICTURE, "MPO", save_all=True, append_images=[red()], quality=80)
    decoded = decode(data)
    assert (decoded.format, decoded.jpeg and decoded.jpeg.quality, decoded.pixels.shape) == ("JPEG", 80, PICTURE.shape)


@pytest.mark.parametrize("format", [*FORMATS, "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on odd TIFF tags
def test_no_damage_to_a_file_raises_anything_but_a_reason(format: str) -> None:
    random = np.random.default_rng(0)
    data = encoded(pixels(3, 40, 30), format)
    outcomes = set()
    for number in range(150):
        damaged = bytearray(data)
        for _ in range(random.integers(1, 6)):
            reach = len(damaged) if number % 2 else min(len(damaged), 300)
            damaged[int(random.integers(0, reach))] = int(random.integers(256))
        try:
            assert decode(
                bytes(damaged[: int(random.integers(1, len(damaged))) if number % 5 == 0 else None])
            ).pixels.ndim
            outcomes.add("decoded")
        except SkippedInput as skipped:
            outcomes.add(skipped.reason)
    assert outcomes - {"decoded"}
