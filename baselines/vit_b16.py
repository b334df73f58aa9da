"""ViT-B/16: the plain vision transformer.

Dosovitskiy et al., ICLR 2021, arXiv:2010.11929: an image is a sequence of patches of 16x16 px, and a class token gathers
from them what the head reads. timm's implementation with a linear head over the leaf classes; all of it is fine-tuned
from ImageNet weights (trained on ImageNet-21k by the recipe of Steiner et al., arXiv:2106.10270, fine-tuned on
ImageNet-1k by timm), and from random ones only if ``--backbone-weights none`` says so: on few faces those do not learn.

Faces are resized to 224 px and normalised as those weights expect, by a mean and deviation of 0.5; the whole face is
seen, not its central 90 %, since faces are cropped already. ``--set size=…`` is another resolution, for which the
position embedding is resampled. The recipe is ours, but for the clipping of gradients to a norm of 1 by which the
paper fine-tunes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier, load_published, timm_network
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Leaf, ModelSpec, Recipe, WeightsFile

PATCH = 16
_REPOSITORY = "https://huggingface.co/timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
_REVISION = "063c6c38a5d8510b2e57df480445e94b231dad2c"


def build(classes: Sequence[Leaf], size: int = 224) -> nn.Module:
    """Return the model for these leaf classes and faces of size x size pixels, with random weights."""
    return ImageClassifier(*timm_network("vit_base_patch16_224", img_size=size), len(classes))


def configure(size: int = 224) -> ModelSpec:
    """Return the model at another resolution; raise ValueError for one that is not made of whole patches.

    size: the side in pixels that faces are resized to, a multiple of 16.
    """
    if size < PATCH or size % PATCH:
        raise ValueError(f"size is {size}: it must be a multiple of {PATCH}")
    return ModelSpec(
        build=partial(build, size=size),
        inputs=("image",),
        preprocess=Preprocess(size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        reference="Dosovitskiy et al., ICLR 2021, arXiv:2010.11929",
        licence="Apache-2.0 (this file, timm)",
        recipe=Recipe(
            epochs=10, batch_size=32, learning_rate=1e-3, backbone_learning_rate=2e-5, weight_decay=0.05, clip_norm=1.0
        ),
        backbone_weights={
            "imagenet": WeightsFile(
                name="vit_base_patch16_224.augreg2_in21k_ft_in1k.safetensors",
                url=f"{_REPOSITORY}/resolve/{_REVISION}/model.safetensors",
                sha256="32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
                bytes=346_284_714,
                licence="Apache-2.0 (Hugging Face's card); trained on ImageNet (non-commercial research terms)",
                training_data="ImageNet-21k, then ImageNet-1k",
            )
        },
        default_backbone_weights="imagenet",
        load_backbone=partial(load_published, but_for=("head.",)),
        configure=configure,
    )


MODEL = configure()
