"""ConvNeXt-T: a convolutional network built like a vision transformer, and about as good.

Liu et al., CVPR 2022, arXiv:2201.03545: a ResNet brought up to date step by step, with patches for a stem, depthwise
7x7 convolutions, layer norm and GELU. timm's implementation with a linear head over the leaf classes; all of it is
fine-tuned from the authors' ImageNet-1k weights, and from random ones only if ``--backbone-weights none`` says so.

Faces are resized to 224 px and normalised as those weights expect; the whole face is seen, not its central 87.5 %, since
faces are cropped already. ``--set size=…`` is another resolution. The recipe is ours, but for the weight decay of 0.05
by which the paper trains on ImageNet; stochastic depth, mixup and the moving average of the paper are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier, load_published, timm_network
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Leaf, ModelSpec, Recipe, WeightsFile

_REVISION = "b43a6303c9fcf176d2d707478a128c2c91e93528"


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return ImageClassifier(*timm_network("convnext_tiny"), len(classes))


def configure(size: int = 224) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where nothing is left for the last stage.

    size: the side in pixels that faces are resized to.
    """
    if size < 32:
        raise ValueError(f"size is {size}: it must be 32 or more")
    return ModelSpec(
        build=build,
        inputs=("image",),
        preprocess=Preprocess(size=size),
        reference="Liu et al., CVPR 2022, arXiv:2201.03545",
        licence="Apache-2.0 (this file, timm)",
        recipe=Recipe(
            epochs=10, batch_size=32, learning_rate=1e-3, backbone_learning_rate=1e-4, weight_decay=0.05, clip_norm=1.0
        ),
        backbone_weights={
            "imagenet": WeightsFile(
                name="convnext_tiny.fb_in1k.safetensors",
                url=f"https://huggingface.co/timm/convnext_tiny.fb_in1k/resolve/{_REVISION}/model.safetensors",
                sha256="08b9dc9c3a3a29421de7996761e176501896d1ae7fc3085cf56a643772329276",
                bytes=114_374_272,
                licence="Apache-2.0 (Hugging Face's card); trained on ImageNet (non-commercial research terms)",
                training_data="ImageNet-1k",
            )
        },
        default_backbone_weights="imagenet",
        load_backbone=partial(load_published, but_for=("head.fc.",)),
        configure=configure,
    )


MODEL = configure()
