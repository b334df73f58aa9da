"""File header: attributes a face by its file's format, size and JPEG quality, without opening the image.

What it gets right is a shortcut that the data offers and no evidence about faces: Grommelt et al., "Fake or JPEG?",
2024, arXiv:2403.17608, found it in GenImage. Read every other row of a table against this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dfad_bench.modelling.nn import Standardize, attribution_loss, classifier_output
from dfad_bench.records.manifest import HEADER_FEATURES
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe


class FileHeader(nn.Module):
    """A perceptron with one hidden layer of 32 units on the standardised header features."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Standardize(len(HEADER_FEATURES)),
            nn.Linear(len(HEADER_FEATURES), 32),
            nn.Tanh(),  # bounded: a size far from all that training saw must not outweigh everything else
            nn.Linear(32, classes),
        )

    def forward(self, batch: Batch) -> Output:
        """Answer B faces from their header features [B, F]."""
        return classifier_output(self.layers(batch.header))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the leaf classes."""
        return attribution_loss(self(batch), batch)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes."""
    return FileHeader(len(classes))


MODEL = ModelSpec(
    build=build,
    light=True,
    inputs=("header",),
    reference="dfad-bench, after the finding of Grommelt et al., 2024, arXiv:2403.17608",
    licence="Apache-2.0",
    recipe=Recipe(epochs=60, batch_size=64, learning_rate=1e-2, weight_decay=1e-3, patience=15, horizontal_flip=False),
)
