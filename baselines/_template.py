"""What a contributor copies: one sentence that says what the model looks at and why that should tell fakes apart.

Authors, venue and year, arXiv number. Two or three sentences: what the paper does. Then what is changed here for
attribution, what the recipe takes from the paper and what is ours. Re-implemented from the paper, never from code under a
non-commercial or missing licence.

Files that begin with ``_`` are not listed: copy this one to ``baselines/<name>.py``, and the file name is the model's name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

SIDE = 64


class Template(nn.Module):
    """Say what goes through it, with shapes. Whatever decides an answer is a parameter or a buffer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        # Import torchvision, timm or open_clip here and not above, after modelling.torchvision_ops.declare_missing_operators():
        # a listing imports every file, and a CPU build of torch lacks operators that torchvision wants.
        self.features = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, classes)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, 64, 64]: one logit per leaf class; 1 − P(real) is the fake score unless you have your own."""
        assert batch.image is not None
        embedding = self.features(batch.image)
        return classifier_output(self.head(embedding), embedding)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of B faces, their mean; only here may ``batch.target`` be looked at."""
        return attribution_loss(self(batch), batch)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return Template(len(classes))


MODEL = ModelSpec(
    build=build,
    inputs=("image",),
    preprocess=Preprocess(size=SIDE),
    reference="Authors, venue year, arXiv:0000.00000",
    licence="Apache-2.0 (this file)",
    recipe=Recipe(epochs=10, batch_size=32, learning_rate=1e-3),
)
