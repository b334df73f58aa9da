"""ResNet-18: the plain convolutional network that a new architecture has to beat.

He et al., CVPR 2016, arXiv:1512.03385, as torchvision implements it, with a linear head over the leaf classes. It sees a
128 px window of the face at its own resolution, at random in training and from the centre in evaluation, as Wang et al.
(CNNSpot, CVPR 2020, arXiv:1912.11035) cut theirs: resizing would blur the traces of up-sampling that tell generators
apart. Trained from random weights unless ``--backbone-weights imagenet`` is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier, load_published
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.resnet import PUBLISHED_HEAD, RESNET18, resnet
from dfad_bench.types import Leaf, ModelSpec, Recipe

SIZE = 128


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights; its embedding has 512 dimensions."""
    return ImageClassifier(*resnet("resnet18"), len(classes))


MODEL = ModelSpec(
    build=build,
    light=True,
    inputs=("image",),
    preprocess=Preprocess(size=None, crop=SIZE),
    reference="He et al., CVPR 2016, arXiv:1512.03385",
    licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
    recipe=Recipe(epochs=10, batch_size=16, learning_rate=5e-4, weight_decay=1e-2, patience=10),
    backbone_weights={"imagenet": RESNET18},
    load_backbone=partial(load_published, but_for=PUBLISHED_HEAD),
)
