"""CNNSpot: a plain ResNet-50 on pixels that were never resized, some blurred and compressed in training, so that the
traces it learns are those which survive that.

Wang, Wang, Zhang, Owens & Efros, "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020,
arXiv:1912.11035. A ResNet-50 fine-tuned from ImageNet to tell photographs from the images of one generator recognises
those of others too, if its training images are augmented with care: cut and mirrored but never resized, and some of
them blurred (a Gaussian of σ ~ U[0, 3] px) and compressed (JPEG of quality ~ U{30, ..., 100}, by OpenCV or by Pillow),
each with the same probability, before the window of 224 px is cut. ``augment`` is that probability: 0.1 is the paper's
"Blur+JPEG (0.1)", ``--set augment=0.5`` its "Blur+JPEG (0.5)", and 0 its "No aug".

For attribution a linear head over the leaf classes stands beside the paper's detector, on the same embedding; and it
learns from the train split's generators, where the paper has ProGAN alone, whose weights are therefore not offered. It
starts from torchvision's ImageNet weights, as ``resnet50`` does.

The window must fit into the faces: those of fewer than 224 px, as the demo's of 128 px, are refused unless
``--set size=128`` asks for smaller windows, whose embedding is the mean over fewer places. In evaluation the window is the
central one and nothing is augmented.

Learning rate (1e-4), batch and absence of weight decay are the paper's, from memory of its text; AdamW for Adam, a cosine
instead of its division by ten on each plateau, early stopping and the number of epochs are dfad-bench's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from dfad_bench.modelling.image_classifier import ImageDetector, load_published
from dfad_bench.modelling.perturbations.jpeg import compressed
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.resnet import PUBLISHED_HEAD, RESNET50, resnet
from dfad_bench.types import Leaf, ModelSpec, Recipe

HIGHEST_SIGMA = 3.0
"""Of the blur, in pixels."""
QUALITIES = (30, 100)
"""Lowest and highest of the JPEGs."""


@dataclass(frozen=True, slots=True)
class BlurJpegWindow:
    """Blur, compress, cut a window of ``crop`` px and normalise as for ImageNet; a ``types.Transform``.

    augment: the probability of blurring, and independently of it that of compressing, in 0..1; in training alone.
    """

    crop: int
    augment: float

    def __call__(self, face: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.float32]:
        """Map a face [H, W, 3] uint8 RGB to [3, crop, crop] float32; raise DataError where the window does not fit."""
        pixels = face if rng is None else self.augmented(face, rng)
        return Preprocess(size=None, crop=self.crop)(pixels, rng)

    def augmented(self, face: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the face as training sees it before the window is cut: the paper's "Blur+JPEG"."""
        if rng.random() < self.augment:
            # In (0, 3] rather than [0, 3): OpenCV takes a deviation of 0 for a request to choose one.
            sigma = HIGHEST_SIGMA * (1 - rng.random())
            face = np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.uint8)
        if rng.random() < self.augment:
            quality = int(rng.integers(*QUALITIES, endpoint=True))
            face = compressed(face, quality) if rng.random() < 0.5 else _compressed_by_opencv(face, quality)
        return face


def _compressed_by_opencv(face: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return the face [H, W, 3] RGB after a JPEG by OpenCV, whose chroma is subsampled as OpenCV does unasked."""
    file = cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR_RGB), np.uint8)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return ImageDetector(*resnet("resnet50"), len(classes))


def configure(augment: float = 0.1, size: int = 224) -> ModelSpec:
    """Return the model with another augmentation or window; raise ValueError where either is out of range.

    augment: the probability of blur, and of JPEG, for each training face, in 0..1.
    size: the side in pixels of the window, 32 or more, below which the last feature map is one point.
    """
    if not 0 <= augment <= 1:
        raise ValueError(f"augment is {augment}: it must be in 0..1")
    if size < 32:
        raise ValueError(f"size is {size}: it must be 32 or more")
    return ModelSpec(
        build=build,
        inputs=("image",),
        preprocess=BlurJpegWindow(crop=size, augment=augment),
        reference="Wang et al., CVPR 2020, arXiv:1912.11035",
        licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
        recipe=Recipe(epochs=20, batch_size=64, learning_rate=1e-4, weight_decay=0.0),
        backbone_weights={"imagenet": RESNET50},
        default_backbone_weights="imagenet",
        load_backbone=partial(load_published, but_for=PUBLISHED_HEAD),
        configure=configure,
    )


MODEL = configure()
