"""Xception: the standard detector of manipulated faces since FaceForensics++.

Chollet, CVPR 2017, arXiv:1610.02357: every convolution is split into one in space per channel and one across channels.
Rössler et al. (FaceForensics++, ICCV 2019, arXiv:1901.08971) fine-tuned it from ImageNet into the detector that all later
ones are measured against; DeepfakeBench (arXiv:2307.01426) and DF40 (arXiv:2406.13495) call it that too. timm's
``legacy_xception``, which is Chollet's network, with a linear head over the leaf classes; all of it is fine-tuned.

Its ImageNet weights are ported from Keras by Cadène: ``xception-43020ad28.pth``, of which nobody publishes the whole
sha256, so they are offered under no name. Get them from https://github.com/rwightman/pytorch-image-models/releases
(v0.1-cadene) and give them by path: ``--backbone-weights xception-43020ad28.pth``. The older ``xception-b5690688.pth``
that DeepfakeBench starts from holds the same layers and is taken too. Without either the run stops; random weights
must be asked for, with ``--backbone-weights none``.

Faces are resized to 299 px and normalised as those weights expect, by a mean and deviation of 0.5; the whole face is
seen, not its central 89.75 %, since faces are cropped already. DeepfakeBench and DF40 resize to 256 px
(``--set size=256``) and augment with blur, brightness and JPEG, which is not done here. Learning rate, weight decay,
batch and epochs are DeepfakeBench's, with AdamW where it has Adam; schedule, early stopping and flips are dfad-bench's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dfad_bench.modelling.image_classifier import ImageClassifier
from dfad_bench.modelling.xception import load_xception, xception, xception_spec
from dfad_bench.types import Leaf, ModelSpec


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return ImageClassifier(*xception(), len(classes))


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill all but the head with Cadène's or timm's weights; raise DataError unless every name fits."""
    assert isinstance(module, ImageClassifier)
    load_xception(module.backbone, path)


def configure(size: int = 299) -> ModelSpec:
    """Return the model at another resolution; raise ValueError below 32 px, where the last feature map is one point.

    size: the side in pixels that faces are resized to.
    """
    return xception_spec(
        build,
        load_backbone,
        configure,
        size=size,
        reference="Chollet, CVPR 2017, arXiv:1610.02357; Rössler et al., ICCV 2019, arXiv:1901.08971",
    )


MODEL = configure()
