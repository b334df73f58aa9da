"""ResNet-50: the convolutional network that most forensic papers start from.

He et al., CVPR 2016, arXiv:1512.03385: layers learn what to add to their input, so that fifty of them can be trained.
torchvision's implementation with a linear head over the leaf classes; all of it is fine-tuned from torchvision's ImageNet
weights, and from random ones only if ``--backbone-weights none`` says so.

Faces are resized to 224 px and normalised as those weights expect; the whole face is seen, not its central 87.5 %, since
faces are cropped already. ``--set size=…`` is another resolution. Learning rate, weight decay, batch and epochs are
those by which DeepfakeBench (arXiv:2307.01426) trains its plain networks, with AdamW where it has Adam; schedule, early
stopping and flips are dfad-bench's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier, load_published
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.resnet import PUBLISHED_HEAD, RESNET50, resnet
from dfad_bench.types import Leaf, ModelSpec, Recipe


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return ImageClassifier(*resnet("resnet50"), len(classes))


def configure(size: int = 224) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where the last feature map is one point.

    size: the side in pixels that faces are resized to.
    """
    if size < 32:
        raise ValueError(f"size is {size}: it must be 32 or more")
    return ModelSpec(
        build=build,
        inputs=("image",),
        preprocess=Preprocess(size=size),
        reference="He et al., CVPR 2016, arXiv:1512.03385",
        licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
        recipe=Recipe(epochs=10, batch_size=32, learning_rate=2e-4, weight_decay=5e-4),
        backbone_weights={"imagenet": RESNET50},
        default_backbone_weights="imagenet",
        load_backbone=partial(load_published, but_for=PUBLISHED_HEAD),
        configure=configure,
    )


MODEL = configure()
