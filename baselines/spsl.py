"""SPSL: a shallow Xception on the face and the phase of its spectrum, which up-sampling changes more than the amplitude.

Liu et al., "Spatial-Phase Shallow Learning: Rethinking Face Forgery Detection in Frequency Domain", CVPR 2021,
arXiv:2103.01856. The face is rebuilt from its phase alone, every frequency at the same amplitude, and goes as a fourth
plane beside red, green and blue into an Xception with many layers dropped: a smaller receptive field leaves local
texture, which generators have in common, and suppresses what the whole face means. A linear closed-set head over the
leaf classes is added beside the paper's real-or-fake one.

Only the abstract and summaries were at hand, not the paper's text. Ours to choose were therefore which layers go (the
middle flow, blocks 4 to 11: 24 of 34 separable convolutions), that the phase is that of the mean of the colours, that
the mean and frequencies without power are left out of it, and its scale, a mean square of 1. Size, learning rate,
weight decay, batch and epochs are those that DeepfakeBench (arXiv:2307.01426) trains its detectors with, with AdamW
where it has Adam; schedule, early stopping and flips are dfad-bench's, and its other augmentation is not done.

It starts from Xception's ImageNet weights, given by path: ``--backbone-weights xception-43020ad28.pth``, see
``baselines/xception.py``. The layers that are dropped are dropped from the file too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from dfad_bench.modelling.image_classifier import ImageDetector
from dfad_bench.modelling.xception import load_xception, xception, xception_spec
from dfad_bench.types import Leaf, ModelSpec

PLANES = 4
DROPPED = tuple(f"block{number}" for number in range(4, 12))
"""The middle flow: it keeps resolution and width, so the blocks around it fit each other."""
FLOOR = 1e-5
"""The amplitude, orthonormal and in units of the normalised image, below which there is rounding and no phase."""


class Shallow(nn.Module):
    """Xception without its middle flow: maps faces [B, 3, H, W], their phase a fourth plane, to embeddings [B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.width = xception(PLANES)
        for name in DROPPED:
            setattr(self.network, name, nn.Identity())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embeddings."""
        planes = torch.cat([image, phase_image(image)], dim=1)
        embedding: torch.Tensor = self.network(planes.contiguous(memory_format=torch.channels_last))
        return embedding


def phase_image(image: torch.Tensor) -> torch.Tensor:
    """Return images [B, 1, H, W] of mean 0 and mean square 1, rebuilt from the phase of the colours' mean alone.

    image [B, 3, H, W] of any scale: brightness and contrast change nothing. A flat image gives 0.
    """
    # Half precision has no transform on some devices, and would turn small amplitudes' phase into rounding.
    with torch.autocast(image.device.type, enabled=False):
        grey = image.float().mean(dim=1, keepdim=True)
        spectrum = torch.fft.rfft2(grey - grey.mean(dim=(2, 3), keepdim=True), norm="ortho")
        phase = spectrum / spectrum.abs().clamp(min=FLOOR)
        phase[..., 0, 0] = 0  # what rounding left of the mean
        rebuilt: torch.Tensor = torch.fft.irfft2(phase, s=image.shape[-2:], norm="ortho")
    return rebuilt


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    backbone = Shallow()
    return ImageDetector(backbone, backbone.width, len(classes))


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the kept layers with Cadène's or timm's weights; raise DataError unless every name of the whole file fits."""
    assert isinstance(module, ImageDetector) and isinstance(module.backbone, Shallow)
    whole, _ = xception(PLANES)
    load_xception(whole, path)
    published = whole.state_dict()
    kept: nn.Module = module.backbone.network
    kept.load_state_dict({key: published[key] for key in kept.state_dict()})


def configure(size: int = 256) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where the last feature map is one point.

    size: the side in pixels that faces are resized to.
    """
    return xception_spec(
        build, load_backbone, configure, size=size, reference="Liu et al., CVPR 2021, arXiv:2103.01856"
    )


MODEL = configure()
