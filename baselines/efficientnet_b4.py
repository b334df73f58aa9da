"""EfficientNet-B4: the second plain detector of DeepfakeBench and DF40, and the backbone of many others.

Tan & Le, ICML 2019, arXiv:1905.11946: depth, width and resolution of a network of inverted bottlenecks are scaled
together. torchvision's implementation with a linear head over the leaf classes; all of it is fine-tuned from its ImageNet
weights (trained by Wightman for timm), and from random ones only if ``--backbone-weights none`` says so.

Faces are resized to the 380 px that torchvision evaluates these weights at and normalised as they expect; the whole
face is seen, since it is cropped already. DeepfakeBench (arXiv:2307.01426) and DF40 (arXiv:2406.13495) resize to 256 px
(``--set size=256``), normalise by a mean and deviation of 0.5, start from other ImageNet weights and augment with
rotation, blur, brightness and JPEG; none of that is done here. Learning rate, weight decay, batch and epochs are
DeepfakeBench's, with AdamW where it has Adam; schedule, early stopping and flips are dfad-bench's. torchvision's dropout
and stochastic depth stay as they are, but for the dropout before the head, which is part of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier, load_published
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.types import Leaf, ModelSpec, Recipe, WeightsFile

WIDTH = 1792
"""Of the embedding."""


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    declare_missing_operators()
    from torchvision.models import efficientnet_b4

    network = efficientnet_b4()
    network.classifier = nn.Identity()
    return ImageClassifier(network, WIDTH, len(classes))


def configure(size: int = 380) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where the last feature map is one point.

    size: the side in pixels that faces are resized to.
    """
    if size < 32:
        raise ValueError(f"size is {size}: it must be 32 or more")
    return ModelSpec(
        build=build,
        inputs=("image",),
        preprocess=Preprocess(size=size),
        reference="Tan & Le, ICML 2019, arXiv:1905.11946",
        licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
        recipe=Recipe(epochs=10, batch_size=32, learning_rate=2e-4, weight_decay=5e-4),
        backbone_weights={
            "imagenet": WeightsFile(
                name="efficientnet_b4_rwightman-23ab8bcd.pth",
                url="https://download.pytorch.org/models/efficientnet_b4_rwightman-23ab8bcd.pth",
                sha256="23ab8bcd5bdbef61a7a43b91adcad81f622fd7f36fb4935a569828d77888c44e",
                bytes=None,
                licence="Apache-2.0 (timm's weights); trained on ImageNet (non-commercial research terms)",
                training_data="ImageNet-1k",
            )
        },
        default_backbone_weights="imagenet",
        load_backbone=partial(load_published, but_for=("classifier.",)),
        configure=configure,
    )


MODEL = configure()
