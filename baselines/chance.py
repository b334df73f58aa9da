"""Chance: learns how frequent each class is and looks at nothing, so its detection AUC is exactly 0.5.

The floor of every table: a model that does not beat it has learned nothing about faces.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe


class Chance(nn.Module):
    """One logit per leaf class, the same for every face."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes))

    def forward(self, batch: Batch) -> Output:
        """Answer B faces with the class priors."""
        prior = classifier_output(self.logits[None])
        assert prior.logits is not None
        # Computed once and repeated: scores that differed in their last bit would not tie.
        return Output(prior.logits.expand(batch.size, -1), prior.fake_score.expand(batch.size))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy, which is least at the class frequencies."""
        return attribution_loss(self(batch), batch)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes."""
    return Chance(len(classes))


MODEL = ModelSpec(
    build=build,
    light=True,
    inputs=(),
    reference="none: the class priors of the train split",
    licence="Apache-2.0",
    recipe=Recipe(epochs=30, batch_size=256, learning_rate=0.1, weight_decay=0.0, patience=30, horizontal_flip=False),
)
