"""NPR: how the pixels of each 2×2 block differ from one of them, for up-sampling by two ties them to each other.

Tan, Liu, Zhao, Wei, Gu, Liu & Wei, "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
Generalizable Deepfake Detection", CVPR 2024, arXiv:2312.10461. Generators end in up-sampling layers, whose output pixels
are copies or blends of few input pixels, and so related to their neighbours as those of photographs are not. The image
less its nearest-neighbour copy at half resolution (neighbouring pixel relationships) leaves these relations and little
of the content; a small classifier, the first two of ResNet-50's four stages, reads it. Trained from random weights.

For attribution a linear head over the leaf classes stands beside the paper's detector, on the same embedding.

The face is never resized, which would blend the pixels anew: a 128 px window at its own resolution is seen, where the
paper has 224 px of images of 256 px. Blocks of a window that begins at an odd row or column straddle those of the face:
copies that make exact zeros in one window make none in the next. So windows are cut at even offsets, in training and in
evaluation, and the blocks are the face's own, mirrored too where its width is even. Where a face was itself cut out of a
picture at an odd place, or resized, its generator's blocks cannot be known; the network then learns what is left.

Re-implemented from the paper's abstract and from memory of its text. Learning rate, batch size and epochs are those of the
authors' published command, with AdamW for Adam; schedule, early stopping and flips are dfad-bench's, and the stem is
ResNet-50's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.image_classifier import ImageDetector, timm_network
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Leaf, ModelSpec, Recipe

SIZE = 128
WIDTH = 512
"""Of the embedding: what the second stage of ResNet-50 gives."""


@dataclass(frozen=True, slots=True)
class EvenWindow:
    """Cut a square window whose top left corner lies on the face's 2×2 grid, and normalise it as for ImageNet."""

    side: int

    def __call__(self, face: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.float32]:
        """Map a face [H, W, 3] uint8 RGB to [3, side, side] float32, from its centre where ``rng`` is None.

        Raises DataError for a face that is smaller than the window.
        """
        places = np.maximum(np.array(face.shape[:2]) - self.side, 0) // 2 + 1
        top, left = 2 * ((places - 1) // 2 if rng is None else rng.integers(0, places))
        window = face[top : top + self.side, left : left + self.side]
        return Preprocess(size=None, crop=self.side)(window, None)


class PixelRelations(nn.Module):
    """Each pixel of [B, C, H, W] less the one at the top left of its 2×2 block; H and W are even."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the relations, of the image's shape."""
        return image - F.interpolate(image[..., ::2, ::2], scale_factor=2, mode="nearest")


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return ResNet-50's first two stages on pixel relations, with two heads on the mean over the image; random weights."""
    network: Any = timm_network("resnet50")[0]
    backbone = nn.Sequential(
        PixelRelations(),
        *(network.conv1, network.bn1, network.act1, network.maxpool),
        *(network.layer1, network.layer2, network.global_pool),
    )
    return ImageDetector(backbone, WIDTH, len(classes))


MODEL = ModelSpec(
    build=build,
    inputs=("image",),
    preprocess=EvenWindow(SIZE),
    reference="Tan et al., CVPR 2024, arXiv:2312.10461",
    licence="Apache-2.0 (this file, timm)",
    recipe=Recipe(epochs=50, batch_size=32, learning_rate=2e-4, weight_decay=0.0, patience=10),
)
