"""ResNet-18: the plain convolutional network that a new architecture has to beat.

He et al., CVPR 2016, arXiv:1512.03385, as torchvision implements it, with a linear head over the leaf classes. It sees a
128 px window of the face at its own resolution, at random in training and from the centre in evaluation, as Wang et al.
(CNNSpot, CVPR 2020, arXiv:1912.11035) cut theirs: resizing would blur the traces of up-sampling that tell generators
apart. Trained from random weights unless ``--backbone-weights imagenet`` is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.modelling.weights import load_state, read_state
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe, WeightsFile

SIZE = 128
_HEAD = ("fc.weight", "fc.bias")


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with one logit per leaf class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        declare_missing_operators()
        from torchvision.models import resnet18

        self.backbone: nn.Module = resnet18(num_classes=classes).to(memory_format=torch.channels_last)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, 128, 128], normalised as for ImageNet; the embedding has 512 dimensions."""
        assert batch.image is not None
        pooled: list[torch.Tensor] = []
        head: nn.Module = self.backbone.fc  # type: ignore[assignment]
        with head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0])):
            logits = self.backbone(batch.image.contiguous(memory_format=torch.channels_last))
        return classifier_output(logits, pooled[0])

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the leaf classes."""
        return attribution_loss(self(batch), batch)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return ResNet18(len(classes))


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill all but the head with torchvision's ImageNet weights; raise DataError where a key is missing or left over."""
    assert isinstance(module, ResNet18)
    state = read_state(path)
    backbone = {key: tensor for key, tensor in state.items() if key not in _HEAD}
    # Files in the manner of PyTorch before 0.4.1, as torchvision's is, lack these counts, which nothing here reads.
    own = module.backbone.state_dict()
    backbone |= {key: own[key] for key in own.keys() - state.keys() if key.endswith("num_batches_tracked")}
    load_state(module.backbone, backbone, path, but_for=_HEAD)


MODEL = ModelSpec(
    build=build,
    light=True,
    inputs=("image",),
    preprocess=Preprocess(size=None, crop=SIZE),
    reference="He et al., CVPR 2016, arXiv:1512.03385",
    licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
    recipe=Recipe(epochs=10, batch_size=16, learning_rate=5e-4, weight_decay=1e-2, patience=10),
    backbone_weights={
        "imagenet": WeightsFile(
            name="resnet18-f37072fd.pth",
            url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
            sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
            bytes=46_830_571,
            licence="BSD-3-Clause code; weights trained on ImageNet (non-commercial research terms)",
            training_data="ImageNet-1k",
        )
    },
    load_backbone=load_backbone,
)
