from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import norm

from dfad_bench import registry
from dfad_bench.errors import UnknownName, UsageError
from dfad_bench.modelling.data import Batches, FaceDataset, Request
from dfad_bench.modelling.perturb import (
    Level,
    Perturbation,
    check_perturbable,
    generator_for,
    parse_perturbations,
)
from dfad_bench.modelling.perturbations.saturation import LUMA
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.testing import ContractError, check_perturbation
from tests.modelling.builders import SHADE, Shade, make_faces

CPU = torch.device("cpu")
NAMES = list(registry.entries("perturbations"))
RAW = replace(SHADE, preprocess=Preprocess(size=None, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)))

Pixels = NDArray[np.uint8]


def picture(height: int = 96, width: int = 112, seed: int = 0) -> Pixels:
    """Coloured shades with fine grain, [height, width, 3]."""
    rng = np.random.default_rng(seed)
    shades = cv2.resize(rng.integers(40, 216, (6, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(shades + rng.normal(0, 5, shades.shape), 0, 255).astype(np.uint8)


def grey(shade: int, side: int = 128) -> Pixels:
    return np.full((side, side, 3), shade, np.uint8)


def five(name: str) -> list[Level]:
    levels = parse_perturbations([name])
    assert [level.severity for level in levels] == [1, 2, 3, 4, 5]
    return levels


# --- jpeg, webp ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", five("jpeg"), ids=str)
def test_jpeg_is_what_opencv_makes_of_that_quality(level: Level) -> None:
    face = picture()
    options = [cv2.IMWRITE_JPEG_QUALITY, level.strength]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    file = cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), options)[1]
    expected = cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_allclose(level.disturb(face, "a").astype(int), expected, atol=1)


@pytest.mark.parametrize("level", five("webp"), ids=str)
def test_webp_is_what_opencv_makes_of_that_quality(level: Level) -> None:
    face = picture()
    file = cv2.imencode(".webp", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, level.strength])[1]
    expected = cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert (
        np.abs(level.disturb(face, "a").astype(int) - expected).mean()
        < 0.25 * np.abs(face.astype(int) - expected).mean()
    )


@pytest.mark.parametrize("name", ["jpeg", "h264", "webp"])
def test_colour_that_changes_from_pixel_to_pixel_is_lost_at_half_resolution(name: str) -> None:
    striped = grey(120)
    striped[:, ::2, 0] += 60
    striped[:, 1::2, 2] += 60
    stripes = five(name)[0].disturb(striped, "a").astype(int)
    red_over_blue = stripes[..., 0] - stripes[..., 2]
    assert np.ptp(striped[..., 0].astype(int) - striped[..., 2]) == 120 and np.ptp(red_over_blue) < 40


# --- blur, noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", five("gaussian_blur"), ids=str)
def test_a_blurred_edge_is_a_gaussians_integral(level: Level) -> None:
    edge = grey(0)
    edge[:, 64:] = 200
    profile = level.disturb(edge, "a")[64, :, 1]
    expected = 200 * norm.cdf((np.arange(128) - 63.5) / (level.strength / 6))
    np.testing.assert_allclose(profile, expected, atol=2.5)


def test_blur_takes_sharpness_and_keeps_the_mean() -> None:
    face = cv2.resize(picture(12, 12), (96, 96), interpolation=cv2.INTER_NEAREST)
    blurred = [face, *(level.disturb(face, "a") for level in five("gaussian_blur"))]
    sharpness = [cv2.Laplacian(each, cv2.CV_64F).var() for each in blurred]
    assert all(more > 1.1 * less for more, less in itertools.pairwise(sharpness))
    assert all(abs(each.mean() - face.mean()) < 0.5 for each in blurred)


@pytest.mark.parametrize("level", five("gaussian_noise"), ids=str)
def test_noise_has_the_stated_variance_and_no_mean(level: Level) -> None:
    noise = level.disturb(grey(128), "a") / 255 - 128 / 255
    deviates = norm.ppf((np.arange(10_000) + 0.5) / 10_000) * level.strength**0.5
    black, white = -128 / 255, 127 / 255
    assert noise.var() == pytest.approx(np.clip(deviates, black, white).var(), rel=0.02)
    assert abs(noise.mean()) < 4 * (level.strength / noise.size) ** 0.5


def test_the_severities_of_one_face_scale_one_pattern_of_noise() -> None:
    patterns = [
        (level.disturb(grey(128), "a") - 128.0) / (255 * level.strength**0.5) for level in five("gaussian_noise")[:4]
    ]
    for pattern in patterns[1:]:
        np.testing.assert_allclose(pattern, patterns[0], atol=1 / (255 * 0.001**0.5) + 1e-6)


# --- geometry ------------------------------------------------------------------------------------------------------


def contrast_of_a_grating(level: Level, cycles_per_pixel: float) -> float:
    """The share of a grating's contrast that is left, away from the border."""
    wave = 100 * np.cos(2 * np.pi * cycles_per_pixel * np.arange(256))
    grating = np.broadcast_to(np.rint(128 + wave)[None, :, None], (32, 256, 3)).astype(np.uint8)
    after = level.disturb(grating, "a")[16, 32:-32, 0].astype(float)
    return float(after.std() / grating[16, 32:-32, 0].std())


@pytest.mark.parametrize("level", five("resize"), ids=str)
def test_resize_loses_what_is_finer_than_the_small_pictures_pixels_and_keeps_what_is_coarser(level: Level) -> None:
    nyquist = level.strength / 2
    assert contrast_of_a_grating(level, min(1.6 * nyquist, 0.48)) < 0.15
    assert contrast_of_a_grating(level, 0.25 * nyquist) > 0.9


def ramps(side: int = 200) -> Pixels:
    """Red rises from left to right, green from top to bottom, by one a pixel."""
    steps = np.arange(side, dtype=np.uint8)
    return np.stack(
        [np.tile(steps, (side, 1)), np.tile(steps[:, None], (1, side)), np.zeros((side, side), np.uint8)], 2
    )


@pytest.mark.parametrize("face_id", ["a", "b", "c"])
def test_a_crop_shows_the_stated_share_of_the_face_and_its_windows_lie_in_each_other(face_id: str) -> None:
    outer = np.array([[0, 199], [0, 199]])
    for level in five("crop_resize"):
        shown = level.disturb(ramps(), face_id)
        window = np.array([[shown[..., axis].min(), shown[..., axis].max()] for axis in (0, 1)])
        np.testing.assert_allclose(np.diff(window)[:, 0] + 1, 200 * level.strength, atol=2)
        assert (window[:, 0] >= outer[:, 0]).all() and (window[:, 1] <= outer[:, 1]).all()
        outer = window


def test_crops_of_many_faces_lie_everywhere() -> None:
    level = five("crop_resize")[4]
    corners = np.array([level.disturb(ramps(), f"face {number}")[0, 0, :2] for number in range(60)])
    room = 200 * (1 - level.strength)
    assert (corners.min(axis=0) < 0.15 * room).all() and (corners.max(axis=0) > 0.85 * room).all()


# --- colour --------------------------------------------------------------------------------------------------------


def faint() -> Pixels:
    """A face whose values leave room for every shift."""
    return np.random.default_rng(0).integers(100, 156, (64, 64, 3), np.uint8)


@pytest.mark.parametrize("level", five("brightness_contrast"), ids=str)
def test_brightness_moves_by_the_stated_shift_and_contrast_shrinks_to_the_stated_share(level: Level) -> None:
    face = faint()
    changed = level.disturb(face, "a")
    assert abs(changed.mean() - face.mean()) == pytest.approx(255 * level.strength.shift, abs=0.2)
    assert changed.std() / face.std() == pytest.approx(level.strength.contrast, rel=0.02)


def test_a_face_goes_one_way_at_every_severity_and_faces_go_both_ways() -> None:
    ways = {}
    for number in range(30):
        brighter = {
            level.disturb(faint(), f"{number}").mean() > faint().mean() for level in five("brightness_contrast")
        }
        assert len(brighter) == 1
        ways[number] = brighter.pop()
    assert 5 < sum(ways.values()) < 25


@pytest.mark.parametrize("level", five("saturation"), ids=str)
def test_saturation_keeps_luma_and_the_stated_share_of_the_chroma(level: Level) -> None:
    face = picture()
    changed = level.disturb(face, "a")
    np.testing.assert_allclose(changed @ LUMA, face @ LUMA, atol=0.51)
    before, after = face - (face @ LUMA)[..., None], changed - (changed @ LUMA)[..., None]
    np.testing.assert_allclose(after, before * level.strength, atol=1.01)


@pytest.mark.parametrize("level", five("saturation"), ids=str)
def test_a_grey_face_has_no_saturation_to_lose(level: Level) -> None:
    face = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None], 3, axis=2)
    assert np.array_equal(level.disturb(face, "a"), face)


# --- codecs and chains ---------------------------------------------------------------------------------------------


def test_h264_loses_more_the_higher_the_rate_factor_and_moves_nothing() -> None:
    face = cv2.GaussianBlur(picture(131, 97), (0, 0), 2)
    changes = []
    for level in five("h264"):
        changed = level.disturb(face, "a").astype(int)
        changes.append(float(((changed - face) ** 2).mean()))
        shifted = np.abs(changed[2:-2, 2:-2] - np.roll(face, 1, axis=1)[2:-2, 2:-2].astype(int)).mean()
        assert np.abs(changed[2:-2, 2:-2] - face[2:-2, 2:-2]).mean() < shifted
        assert np.abs(changed.mean(axis=(0, 1)) - face.mean(axis=(0, 1))).max() < 1.5
    assert changes == sorted(changes) and changes[0] < 30


@pytest.mark.parametrize("level", five("social_media"), ids=str)
def test_social_media_is_the_chain_of_its_parts(level: Level) -> None:
    def as_jpeg(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=level.strength.quality, subsampling=2)
        return Image.open(file)

    face = picture(100, 120)
    small = (round(120 * level.strength.scale), round(100 * level.strength.scale))
    uploaded = as_jpeg(Image.fromarray(face).resize(small, Image.Resampling.BICUBIC))
    shared = as_jpeg(uploaded.resize((120, 100), Image.Resampling.BICUBIC))
    assert np.array_equal(level.disturb(face, "a"), np.asarray(shared))


# --- every one -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 5), st.integers(8, 70), st.integers(8, 70), st.integers(0, 99))
def test_a_face_of_any_size_keeps_it(name: str, severity: int, height: int, width: int, seed: int) -> None:
    face = picture(height, width, seed)
    disturbed = Level(name, severity, name).disturb(face, "a")
    assert disturbed.shape == face.shape and disturbed.dtype == np.uint8


@pytest.mark.parametrize("name", sorted({*NAMES} - {"crop_resize"}))  # whose window is elsewhere by intention
def test_no_severity_leaves_nothing_of_a_face(name: str) -> None:
    """Seen from afar, the worst is nearer to its own face, up to brightness and contrast, than to another."""

    def afar(face: Pixels) -> NDArray[np.float64]:
        small = (cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA) @ LUMA).ravel()
        return (small - small.mean()) / small.std()

    disturbed = afar(Level(name, 5, name).disturb(picture(96, 96), "a"))
    assert disturbed @ afar(picture(96, 96)) / disturbed.size > 0.9
    assert disturbed @ afar(picture(96, 96, seed=1)) / disturbed.size < 0.5


MINE = """
import numpy as np
from dfad_bench.modelling.perturb import Perturbation

def darker(face, amount, rng):
    return face - np.minimum(face, rng.integers(amount // 2, amount + 1, face.shape, np.uint8))

PERTURBATION = Perturbation(darker, (10, 20, 30, 40, 50), "grey levels", "ours")
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_another_process_makes_the_same_of_a_face(mine: Path, repository: Path) -> None:
    levels = parse_perturbations(["all:3", f"{mine}:3"])
    assert len(levels) == len(NAMES) + 1
    face = cv2.GaussianBlur(picture(256, 256), (0, 0), 1)
    code = (
        "import hashlib, pickle, sys\n"
        "levels, face = pickle.load(sys.stdin.buffer)\n"
        "print(*(hashlib.sha256(level.disturb(face, 'toy/real/0').tobytes()).hexdigest() for level in levels))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((levels, face)),
        cwd=repository,
        capture_output=True,
        check=True,
    )
    here = [hashlib.sha256(level.disturb(face, "toy/real/0").tobytes()).hexdigest() for level in levels]
    assert answer.stdout.decode().split() == here


# --- chance --------------------------------------------------------------------------------------------------------


def test_a_faces_chance_is_pinned_for_ever() -> None:
    bits = generator_for("crop_resize", "demo/real/0001").bit_generator.random_raw(2)
    assert bits.tolist() == [2774849227720165182, 7166493276191994116]


@given(st.text(max_size=20), st.text(max_size=20))
def test_chance_depends_on_the_perturbation_and_the_face(one: str, other: str) -> None:
    def first(name: str, face_id: str) -> int:
        return int(generator_for(name, face_id).bit_generator.random_raw())

    assert (first("jpeg", one) == first("jpeg", other)) == (one == other)
    assert first("jpeg", one) != first("webp", one)


def disturbed_by_id(faces: Any, level: Level | None, batch_size: int, workers: int) -> dict[str, NDArray[np.float32]]:
    dataset = FaceDataset(RAW, faces, perturbation=level)
    found = {}
    for loaded in Batches(dataset, batch_size, seed=None, workers=workers, device=CPU).epoch():
        assert loaded.batch.image is not None
        for row, image in zip(loaded.rows.tolist(), loaded.batch.image.numpy(), strict=True):
            found[faces["id"][row].as_py()] = image
    return found


@pytest.mark.parametrize("name", ["gaussian_noise", "crop_resize", "h264"])
def test_a_face_is_disturbed_the_same_way_whatever_the_batch_the_worker_and_the_order(
    tmp_path: Path, name: str
) -> None:
    faces = make_faces(tmp_path, 3)
    level = Level(name, 3, name)
    alone = disturbed_by_id(faces, level, 1, 0)
    for table, batch_size, workers in ((faces, 9, 0), (faces, 4, 2), (faces.take([8, 3, 5, 0]), 3, 0)):
        for face_id, image in disturbed_by_id(table, level, batch_size, workers).items():
            assert np.array_equal(image, alone[face_id])
    file = tmp_path / faces["file_name"][4].as_py()
    stored = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    expected = level.disturb(stored, faces["id"][4].as_py()).transpose(2, 0, 1)
    np.testing.assert_allclose(alone[faces["id"][4].as_py()], expected, atol=1e-3)


def test_two_faces_of_the_same_pixels_are_disturbed_differently() -> None:
    for name in ("gaussian_noise", "crop_resize"):
        level = Level(name, 3, name)
        assert not np.array_equal(level.disturb(picture(), "a"), level.disturb(picture(), "b"))


def test_a_face_that_is_to_be_trained_on_is_not_disturbed(tmp_path: Path) -> None:
    dataset = FaceDataset(RAW, make_faces(tmp_path, 1), perturbation=Level("jpeg", 1, "jpeg"))
    with pytest.raises(ValueError, match="for evaluation"):
        dataset[Request(np.array([0]), (0, 0))]


# --- predictions ---------------------------------------------------------------------------------------------------


def scores(faces: Any, level: Level | None, batch_size: int = 5, workers: int = 0) -> NDArray[np.float32]:
    torch.manual_seed(0)
    answers = predict(Shade(3), SHADE, faces, batch_size=batch_size, device=CPU, workers=workers, perturbation=level)
    return np.concatenate([answer.fake_score for answer in answers])


def test_predictions_are_those_of_the_disturbed_faces_whatever_the_batch_size_and_the_workers(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 5)
    clean = scores(faces, None)
    level = Level("brightness_contrast", 4, "brightness_contrast")
    disturbed = scores(faces, level)
    assert (np.abs(disturbed - clean) > 1e-3).all()
    np.testing.assert_allclose(scores(faces, level, batch_size=15), disturbed, atol=1e-6)
    np.testing.assert_allclose(scores(faces, level, batch_size=2, workers=2), disturbed, atol=1e-6)


def test_a_face_that_cannot_be_read_is_reported_under_a_perturbation_too(tmp_path: Path) -> None:
    faces = make_faces(tmp_path, 2)
    (tmp_path / faces["file_name"][1].as_py()).write_bytes(b"")
    level = Level("jpeg", 3, "jpeg")
    (answer,) = predict(Shade(3), RAW, faces, batch_size=6, device=CPU, perturbation=level)
    assert answer.unreadable == ((faces["id"][1].as_py(), "unreadable face"),) and len(answer.fake_score) == 5


def test_a_model_that_sees_no_pixels_is_refused_and_one_that_sees_them_is_not() -> None:
    check_perturbable("shade", SHADE)
    with pytest.raises(UsageError) as error:
        check_perturbable("header_only", replace(SHADE, inputs=("header", "gaze"), preprocess=None))
    assert str(error.value) == (
        "header_only never looks at a face's pixels, so nothing can be disturbed. Run it without perturbations."
    )


# --- asking for them -----------------------------------------------------------------------------------------------


def test_a_name_stands_for_its_five_severities_and_all_for_every_one() -> None:
    assert [str(level) for level in parse_perturbations(["webp", "jpeg:2"])] == [
        *(f"webp:{severity}" for severity in range(1, 6)),
        "jpeg:2",
    ]
    assert [(level.name, level.severity) for level in parse_perturbations(["all"])] == [
        (name, severity) for name in NAMES for severity in range(1, 6)
    ]
    assert [str(level) for level in parse_perturbations(["all:4"])] == [f"{name}:4" for name in NAMES]
    assert parse_perturbations([]) == []


def test_what_is_asked_for_twice_comes_once_where_it_was_first() -> None:
    levels = parse_perturbations(["jpeg:5", "jpeg", "jpeg:5", "all:5"])
    assert [str(level) for level in levels[:5]] == ["jpeg:5", "jpeg:1", "jpeg:2", "jpeg:3", "jpeg:4"]
    assert len(levels) == len(set(levels)) == len(NAMES) + 4


def test_a_file_stands_for_what_it_exposes(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (level,) = parse_perturbations([f"{mine}:2"])
    assert (level.name, level.severity, level.strength, level.entry.is_local_file) == ("mine", 2, 20, True)
    monkeypatch.chdir(mine.parent)
    assert parse_perturbations(["./mine.py:2", "mine.py:2"]) == [level]
    assert len(parse_perturbations(["./mine.py"])) == 5


@pytest.mark.parametrize("text", ["jpeg:0", "jpeg:6", "jpeg:", "jpeg:3.0", "jpeg:high", "jpeg:-1", "jpeg: 3"])
def test_a_severity_that_is_none_is_told_what_one_is(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_perturbations([text])
    assert str(error.value) == (
        f"'{text}': a severity is a number from 1, mild, to 5, severe. Write jpeg:3, or jpeg for all five."
    )


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName) as error:
        parse_perturbations(["jpg:3"])
    assert str(error.value) == (
        "No perturbation is named 'jpg'. Did you mean 'jpeg'? See 'dfad-bench list perturbations'."
    )


@pytest.mark.parametrize("text", [r"C:\mine.py", "./gone:3/mine.py"])
def test_a_colon_before_a_folder_begins_no_severity(text: str) -> None:
    with pytest.raises(UsageError, match="There is no perturbation file") as error:
        parse_perturbations([text])
    assert repr(text) in str(error.value)


def test_a_file_of_a_taken_name_is_refused(mine: Path) -> None:
    path = mine.rename(mine.with_name("jpeg.py"))
    with pytest.raises(UsageError, match=r"jpeg and .*jpeg\.py are both named 'jpeg'\. Rename the file\."):
        parse_perturbations(["jpeg:1", f"{path}:1"])


def test_a_file_that_exposes_something_else_is_told_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text("PERTURBATION = 3\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"other\.py: PERTURBATION must be a dfad_bench"):
        parse_perturbations([str(path)])


# --- the contract --------------------------------------------------------------------------------------------------


def noisy(face: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return np.clip(face + rng.normal(0, amount, face.shape), 0, 255).astype(np.uint8)


def in_place(face: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    face += 1
    return face


def by_chance(face: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    return noisy(face, amount, np.random.default_rng())


SOUND = Perturbation(noisy, (2.0, 4.0, 6.0, 8.0, 10.0), "grey levels", "ours")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (replace(SOUND, unit=" "), "unit is empty"),
        (replace(SOUND, reference=""), "reference is empty"),
        (replace(SOUND, severities=(1.0, 2.0)), "must be five strengths, there are 2"),  # type: ignore[arg-type]
        (replace(SOUND, severities=(0.0, 0.0, 0.0, 0.0, 0.0)), "severity 1 changes nothing"),
        (replace(SOUND, severities=(2.0, 4.0, 3.0, 8.0, 10.0)), "must change no less with severity"),
        (replace(SOUND, apply=in_place), "changes the face it is given"),
        (replace(SOUND, apply=by_chance), "the same for the same face, strength and seed"),
        (replace(SOUND, apply=lambda face, amount, rng: face[:-1]), r"must return \[96, 96, 3\] uint8"),
        (replace(SOUND, apply=lambda face, amount, rng: face / 2), "it returns .* float64"),
    ],
)
def test_a_broken_promise_is_named(broken: Perturbation[float], told: str) -> None:
    check_perturbation(SOUND)
    with pytest.raises(ContractError, match=told):
        check_perturbation(broken)
