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
        red, green, blue = image.float().unbind(dim=1)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        window, rings = _window(height, width).to(image.device), _rings(height, width).to(image.device)
        grey = (grey - grey.mean(dim=(1, 2), keepdim=True)) * window
        power = torch.fft.fft2(grey).abs().square() / window.square().sum()
        profile: torch.Tensor = (power.flatten(1) @ rings + _FLOOR).log()
    return profile


@functools.lru_cache(maxsize=8)
def _window(height: int, width: int) -> torch.Tensor:
    """Return the Hann window [H, W]."""
    return torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))


@functools.lru_cache(maxsize=2)
def _rings(height: int, width: int) -> torch.Tensor:
    """Return the weights [H · W, BINS] that average a spectrum over rings; each column sums to 1.

    A frequency counts for the rings nearest to it, less the farther it is. In a small image, whose frequencies are
    wider apart than the rings, each ring reaches as far as the next frequency, which interpolates.
    """
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :]
    frequency = torch.hypot(rows, columns).flatten()
    centres = torch.linspace(0, 0.5**0.5, BINS)
    reach = max(float(centres[1]), 1.0 / min(height, width))
    weights = (1 - (frequency[:, None] - centres[None, :]).abs() / reach).clamp(min=0)
    return weights / weights.sum(dim=0)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes."""
    return Spectral(len(classes))


MODEL = ModelSpec(
    build=build,
    inputs=("image",),
    # Resampling would overwrite the very traces that are looked for.
    preprocess=Preprocess(size=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    reference="Durall et al., CVPR 2020, arXiv:2003.01826",
    licence="Apache-2.0",
    # No flips: they leave the spectrum as it is.
    recipe=Recipe(epochs=60, batch_size=128, learning_rate=1e-2, weight_decay=1e-2, patience=60, horizontal_flip=False),
)
