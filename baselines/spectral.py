"""Spectral: logistic regression on the azimuthally averaged power spectrum of the grey face.

After Durall, Keuper & Keuper, "Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to
Reproduce Spectral Distributions", CVPR 2020, arXiv:2003.01826, section 3: up-sampling leaves its mark at high
frequencies. Ours differs in a window against the border's own frequencies, a logarithm, and a multinomial regression
instead of an SVM.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn

from dfad_bench.modelling.nn import Standardize, attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

BINS = 96
"""From 0 to sqrt(1/2) cycles per pixel, the corner of the spectrum; a bin is about 2 of a 256 px face's frequencies wide."""

_LUMA = (0.299, 0.587, 0.114)
"""Grey from red, green and blue (ITU-R BT.601)."""

_FLOOR = 1e-9
"""Far below the power of 8-bit rounding, 1/(12 · 255²) ≈ 1.3e-6: a flat image has a finite logarithm."""


class Spectral(nn.Module):
    """A linear layer on the standardised log power spectrum; the layer is all that is learned."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.standardize = Standardize(BINS)
        self.linear = nn.Linear(BINS, classes)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W] in 0..1."""
        assert batch.image is not None
        return classifier_output(self.linear(self.standardize(spectral_profile(batch.image))))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the leaf classes."""
        return attribution_loss(self(batch), batch)


def spectral_profile(image: torch.Tensor) -> torch.Tensor:
    """Return the natural log of the mean power [B, BINS] in rings of equal width around frequency 0.

    image [B, 3, H, W] RGB in 0..1, of any size. Power is per pixel and per unit of the window's energy, so that white
    noise of variance v has the profile log v at every size.
    """
    height, width = image.shape[-2:]
    # Half precision would round away what lies between the high frequencies of two generators.
    with torch.autocast(image.device.type, enabled=False):
        grey = (torch.tensor(_LUMA, device=image.device) @ image.float().flatten(2)).reshape(-1, height, width)
        window, rings = _window(height, width).to(image.device), _rings(height, width).to(image.device)
        spectrum = torch.fft.rfft2((grey - grey.mean(dim=(1, 2), keepdim=True)) * window)
        power = (spectrum.real.square() + spectrum.imag.square()).flatten(1)
        profile: torch.Tensor = (power @ rings / window.square().sum() + _FLOOR).log()
    return profile


@functools.lru_cache(maxsize=8)
def _window(height: int, width: int) -> torch.Tensor:
    """Return the Hann window [H, W]."""
    return torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))


@functools.lru_cache(maxsize=2)
def _rings(height: int, width: int) -> torch.Tensor:
    """Return the weights [H · (W // 2 + 1), BINS] that average the spectrum of a real image over rings.

    A frequency counts for the rings nearest to it, less the farther it is. In a small image, whose frequencies are
    wider apart than the rings, each ring reaches as far as the next frequency, which interpolates.
    """
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]
    frequency = torch.hypot(rows, columns).flatten()
    centres = torch.linspace(0, 0.5**0.5, BINS)
    reach = max(float(centres[1]), 1.0 / min(height, width))
    weights = (1 - (frequency[:, None] - centres[None, :]).abs() / reach).clamp(min=0)
    # The columns left out mirror those kept, but for the first and, at even widths, the last.
    times = torch.where((columns > 0) & (columns < 0.5), 2.0, 1.0).expand(height, -1).flatten()
    weights = weights * times[:, None]
    return weights / weights.sum(dim=0)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes."""
    return Spectral(len(classes))


MODEL = ModelSpec(
    build=build,
    light=True,
    inputs=("image",),
    # Resampling would overwrite the very traces that are looked for.
    preprocess=Preprocess(size=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    reference="Durall et al., CVPR 2020, arXiv:2003.01826",
    licence="Apache-2.0",
    # Small steps in plenty, for neighbouring rings are almost alike and only their differences tell. No flips: they
    # leave the spectrum as it is.
    recipe=Recipe(epochs=30, batch_size=16, learning_rate=5e-2, weight_decay=1e-2, patience=10, horizontal_flip=False),
)
