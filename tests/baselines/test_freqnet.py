"""FreqNet sees high frequencies alone, and convolves amplitude and phase so that rounding cannot turn an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from dfad_bench.baselines.freqnet import (
    LEAST_AMPLITUDE,
    MODEL,
    SpectrumConv,
    configure,
    high_frequencies,
    high_frequencies_along_channels,
)
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES

SIZE = 32


def _wave(cycles: float, side: int = SIZE) -> torch.Tensor:
    """Return a picture [1, 3, side, side] that varies across by so many cycles per pixel."""
    return torch.sin(2 * torch.pi * cycles * torch.arange(side) + 0.3).expand(1, 3, side, side).clone()


def _unit(channels: int) -> SpectrumConv:
    """Return a convolution that hands each channel's amplitude and phase on."""
    conv = SpectrumConv(channels, channels)
    with torch.no_grad():
        for part in (conv.amplitude, conv.phase):
            part.weight.copy_(torch.eye(channels)[:, :, None, None])
    return conv


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 32), (33, 30)])
def test_slow_frequencies_are_gone_and_fast_ones_are_as_they_were(height: int, width: int) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, height, width) + 5
    before, after = torch.fft.fft2(image), torch.fft.fft2(high_frequencies(image))
    slow = (torch.fft.fftfreq(height).abs() < 0.25)[:, None] & (torch.fft.fftfreq(width).abs() < 0.25)
    assert slow[0, 0] and 0.2 < slow.float().mean() < 0.3
    assert after[..., slow].abs().max() < 1e-3 < before[..., slow].abs().mean()
    torch.testing.assert_close(after[..., ~slow], before[..., ~slow], atol=1e-3, rtol=0)


def test_nothing_is_left_of_a_flat_picture_or_a_slow_wave_and_all_of_a_fast_one() -> None:
    for image in (torch.full((1, 3, 32, 32), 2.7), _wave(7 / 32), _wave(1 / 32)):
        assert high_frequencies(image).abs().max() < 1e-5
    torch.testing.assert_close(high_frequencies(_wave(9 / 32)), _wave(9 / 32), atol=1e-5, rtol=0)


def test_along_the_channels_only_what_alternates_fast_is_left_at_each_pixel() -> None:
    torch.manual_seed(0)
    shade, channel = torch.randn(1, 1, 4, 4), torch.arange(64.0)[:, None, None]
    slow, fast = torch.cos(2 * torch.pi * channel * 15 / 64), torch.cos(2 * torch.pi * channel * 17 / 64)
    assert high_frequencies_along_channels(shade.expand(1, 64, 4, 4)).abs().max() < 1e-5
    left = high_frequencies_along_channels(shade * (1 + slow + fast))
    torch.testing.assert_close(left, shade * fast, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [16, 15])
def test_unit_weights_hand_the_features_on(side: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, side, side)
    features[1, 2] = 0
    torch.testing.assert_close(_unit(4)(features), features, atol=1e-5, rtol=0)


def test_amplitude_and_phase_are_convolved_apart() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 2, 16, 16)
    conv = SpectrumConv(2, 1)
    with torch.no_grad():
        conv.amplitude.weight.copy_(torch.tensor([3.0, 0.0])[None, :, None, None])
        conv.phase.weight.copy_(torch.tensor([0.0, 1.0])[None, :, None, None])
        made = torch.fft.rfft2(conv(features)[0, 0])
    first, second = torch.fft.rfft2(features[0])
    torch.testing.assert_close(made.abs(), 3 * first.abs(), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(made / made.abs(), second / second.abs(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["filtered away", "negative mean", "negative checkerboard"])
def test_an_error_of_rounding_cannot_turn_a_phase(kind: str) -> None:
    """Where the amplitude is nothing the angle is noise, and where a frequency is real and negative it may wrap."""
    torch.manual_seed(0)
    checkerboard = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    features = {
        "filtered away": high_frequencies(torch.randn(1, 8, 16, 16)),
        "negative mean": torch.full((1, 8, 16, 16), -1.0),
        "negative checkerboard": checkerboard.expand(1, 8, 16, 16).contiguous(),
    }[kind]
    moved = features + 1e-7 * torch.randn(1, 8, 16, 16)
    angles = torch.stack([torch.angle(torch.fft.fft2(each, norm="ortho")) for each in (features, moved)])
    assert (angles[0] - angles[1]).abs().max() > 1
    conv = SpectrumConv(8, 8)
    with torch.no_grad():
        assert (conv(features) - conv(moved)).abs().max() < 1e-5


def test_the_gradient_is_finite_where_there_is_no_amplitude() -> None:
    features = torch.zeros(1, 3, 8, 8, requires_grad=True)
    SpectrumConv(3, 3)(features).square().sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None and features.grad.isfinite().all()


def test_the_phase_fades_below_what_8_bits_can_tell() -> None:
    """Spectra of uniform noise as wide as one grey level keep their phases: the floor lies well below."""
    noise = (torch.rand(1, 3, 64, 64) - 0.5) / (255 * 0.226)
    amplitude = torch.fft.fft2(noise, norm="ortho").abs()
    assert 3 * LEAST_AMPLITUDE < amplitude.median() < 10 * LEAST_AMPLITUDE


def test_what_is_slow_in_a_face_does_not_reach_its_answer_and_what_is_fast_does() -> None:
    seed_everything(0, torch.device("cpu"))
    module = MODEL.build(CLASSES).eval()
    torch.manual_seed(1)
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        plain, brighter, slow, fast = (
            module(Batch(1, image=image + change)).embedding
            for change in (torch.zeros(1), torch.ones(1), _wave(3 / 32), _wave(13 / 32))
        )
    scale = plain.abs().max()
    for same in (brighter, slow):
        assert (same - plain).abs().max() < 1e-3 * scale
    assert (fast - plain).abs().max() > 5e-2 * scale


def test_flat_faces_have_the_same_answer_in_any_batch() -> None:
    seed_everything(0, torch.device("cpu"))
    module = MODEL.build(CLASSES).eval()
    image = torch.linspace(-2, 2, 6)[:, None, None, None].expand(6, 3, SIZE, SIZE).contiguous()
    with torch.no_grad():
        together = module(Batch(6, image=image)).logits
        alone = torch.cat([module(Batch(1, image=each[None])).logits for each in image])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_it_is_as_large_as_the_papers() -> None:
    assert round(sum(parameter.numel() for parameter in MODEL.build(CLASSES).parameters()) / 1e6, 1) == 1.9


def test_it_learns_fakes_by_a_trace_at_high_frequencies() -> None:
    """Pictures of any brightness, as coarse for all; real ones are noisy, fakes are without noise or have it in stripes."""
    transform = configure(size=SIZE).preprocess
    assert transform is not None

    def face(kind: int, rng: np.random.Generator) -> np.ndarray:
        coarse = cv2.GaussianBlur(rng.normal(rng.uniform(90, 160), 60, (48, 48, 3)), (0, 0), 2.0)
        trace = [rng.normal(0, 12, (48, 48, 1)), 0.0, rng.normal(0, 12, (1, 48, 1))][kind]
        pixels = coarse + rng.normal(0, 1, (48, 48, 3)) + trace
        return transform(np.clip(pixels, 0, 255).astype(np.uint8), rng)

    def faces(seed: int) -> Batch:
        rng = np.random.default_rng(seed)
        target = np.arange(18) % 3
        image = np.stack([face(int(kind), rng) for kind in target])
        return Batch(18, image=torch.from_numpy(image), target=torch.from_numpy(target))

    seed_everything(0, torch.device("cpu"))
    module: Any = MODEL.build(CLASSES).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.5  # 0.1 is for hundreds of steps: the variances would still be their start's
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for step in range(15):
        loss = module.loss(faces(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    batch = faces(1000)
    with torch.no_grad():
        output = module.eval()(batch)
    assert batch.target is not None
    assert (output.logits.argmax(dim=1) == batch.target).float().mean() > 0.8
    assert output.fake_score[batch.target > 0].mean() > output.fake_score[batch.target == 0].mean() + 0.4


def test_the_window_is_cut_at_the_faces_own_resolution() -> None:
    assert MODEL.preprocess == Preprocess(size=None, crop=128)
    other = replace(configure(size=224), configure=None)
    assert other.preprocess == Preprocess(size=None, crop=224)
    with pytest.raises(DataError, match=r"window of 224 px, which does not fit into faces of 64x64 px"):
        other.preprocess(np.zeros((64, 64, 3), np.uint8), None)


def test_a_window_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 16: it must be 32 or more"):
        configure(size=16)
