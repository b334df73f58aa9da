"""FreqNet: what is left of a face, and of its features, without low frequencies, and convolutions of their spectra.

Tan, Zhao, Wei, Gu, Liu & Wei, "Frequency-Aware Deepfake Detection: Improving Generalizability through Frequency Space
Learning", AAAI 2024, arXiv:2403.07240. A network that is shown the frequencies of one generator learns that generator's.
FreqNet is made to keep to high ones: they alone are left of the image, and again of the features between its layers, in
space and along the channels; and some of its convolutions work on the amplitude and on the phase of the features'
spectrum, between a Fourier transform and its inverse. Around them stand the first two stages of ResNet-50; with 1.9
million parameters it is trained from random weights.

For attribution a linear head over the leaf classes stands beside the paper's detector, on the same embedding.

The phase's angle jumps by 2π where it wraps, and where the amplitude vanishes, as in all that was just filtered away, it is
the angle of rounding errors: a convolution of angles would give a face another answer in another batch. So the phase is
convolved as the point on the unit circle that it is, without a bias, and shrinks to 0 where the amplitude falls below
what 8-bit pixels can tell. This is ours; so is that filters are symmetric about frequency 0, whose results are real.

Re-implemented from the paper's abstract, from summaries and from memory of its text: that the low frequencies are the
inner half of the spectrum in each direction, that the spectrum's convolutions are 1×1, and the layers' order are
remembered, and the order in detail is ours. The window of 128 px is ours, as for NPR; the paper's is ``--set size=224``.
Batch and learning rate are those of the same authors' NPR; the rest is dfad-bench's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.image_classifier import ImageDetector, timm_network
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Leaf, ModelSpec, Recipe

WIDTH = 512
"""Of the embedding: what the second stage of ResNet-50 gives."""
FASTEST_LOW = 0.25
"""In cycles per pixel or channel: what is slower in all directions is filtered away; 0.5 is the fastest that there is."""
LEAST_AMPLITUDE = 1e-3
"""Of a spectrum with orthonormal scaling, below which the phase fades. Rounding to 8 bits moves ImageNet-normalised pixels,
and so each amplitude, by 1 / (255 · 0.226 · √12) = 5e-3."""


class SpectrumConv(nn.Module):
    """Map features [B, C, H, W] to [B, D, H, W] by 1×1 convolutions of their spectra's amplitude and phase."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv2d(channels, width, 1)
        # A bias would add the same phase to all frequencies: a spike at the top left pixel, whatever the face.
        self.phase = nn.Conv2d(channels, width, 1, bias=False)
        _initialise(self.amplitude)
        nn.init.kaiming_normal_(self.phase.weight, nonlinearity="linear")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the inverse transform of the new amplitude times the new phase; that of unit weights is the input."""
        with torch.autocast(features.device.type, enabled=False):
            spectrum = torch.view_as_real(torch.fft.rfft2(features.float(), norm="ortho"))
            amplitude = (spectrum.square().sum(dim=-1) + LEAST_AMPLITUDE**2).sqrt()
            real, imaginary = (spectrum / amplitude.unsqueeze(-1)).unbind(dim=-1)
            phase = torch.stack([self.phase(real), self.phase(imaginary)], dim=-1)
            spectrum = self.amplitude(amplitude).unsqueeze(-1) * phase
            convolved: torch.Tensor = torch.fft.irfft2(
                torch.view_as_complex(spectrum), s=features.shape[-2:], norm="ortho"
            )
        return convolved


class FrequencyBlock(nn.Module):
    """High frequencies in space, a 1×1 convolution, high frequencies along the channels, a convolution of the spectrum.

    Maps features [B, C, H, W] to [B, D, H / stride, W / stride], rounded up.
    """

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1, stride)
        _initialise(self.conv)
        self.spectrum_conv = SpectrumConv(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features after both rectifications."""
        features = F.relu(self.conv(high_frequencies(features)))
        return F.relu(self.spectrum_conv(high_frequencies_along_channels(features)))


def _initialise(conv: nn.Conv2d) -> None:
    """Start it as rectified layers start, its bias at 0: high frequencies are faint, and torch's own would drown them."""
    assert conv.bias is not None
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)


def high_frequencies(image: torch.Tensor) -> torch.Tensor:
    """Return [B, C, H, W] float32 without what is slower than 1/4 cycle per pixel both down and across."""
    height, width = image.shape[-2:]
    with torch.autocast(image.device.type, enabled=False):
        spectrum = torch.fft.rfft2(image.float())
        rows = torch.fft.fftfreq(height, device=image.device).abs() >= FASTEST_LOW
        columns = torch.fft.rfftfreq(width, device=image.device) >= FASTEST_LOW
        filtered: torch.Tensor = torch.fft.irfft2(spectrum * (rows[:, None] | columns), s=(height, width))
    return filtered


def high_frequencies_along_channels(features: torch.Tensor) -> torch.Tensor:
    """Return [B, C, H, W] float32 without what varies slower than by 1/4 cycle per channel, at each pixel."""
    channels = features.shape[1]
    with torch.autocast(features.device.type, enabled=False):
        spectrum = torch.fft.rfft(features.float(), dim=1)
        high = torch.fft.rfftfreq(channels, device=features.device) >= FASTEST_LOW
        filtered: torch.Tensor = torch.fft.irfft(spectrum * high[:, None, None], n=channels, dim=1)
    return filtered


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return frequency blocks around ResNet-50's first two stages, and two heads on the mean over places; random weights."""
    network: Any = timm_network("resnet50")[0]
    backbone = nn.Sequential(
        FrequencyBlock(3, 64),
        FrequencyBlock(64, 64, stride=2),
        nn.MaxPool2d(3, 2, 1),
        network.layer1,
        FrequencyBlock(256, 256),
        FrequencyBlock(256, 256, stride=2),
        network.layer2,
        network.global_pool,
    )
    return ImageDetector(backbone, WIDTH, len(classes))


def configure(size: int = 128) -> ModelSpec:
    """Return the model with another window; raise ValueError below 32 px, where the last feature map is 2×2.

    size: the side in pixels of the window that is cut from a face at its own resolution.
    """
    if size < 32:
        raise ValueError(f"size is {size}: it must be 32 or more")
    return ModelSpec(
        build=build,
        inputs=("image",),
        preprocess=Preprocess(size=None, crop=size),
        reference="Tan et al., AAAI 2024, arXiv:2403.07240",
        licence="Apache-2.0 (this file, timm)",
        recipe=Recipe(epochs=50, batch_size=32, learning_rate=2e-4, weight_decay=0.0, patience=10),
        configure=configure,
    )


MODEL = configure()
