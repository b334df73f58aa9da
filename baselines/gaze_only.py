"""Gaze only: attributes a face by where it looks, and by nothing else.

From no paper. Zhang et al. (GazeCLIP, arXiv:2603.29295) observe that the gaze vectors of pristine and forged faces are
distributed differently: this is what that difference is worth by itself, and so the floor under every model that is
given gaze. A perceptron with one hidden layer reads the manifest's pitch and yaw and their second powers, with which
the log ratio of two Gaussians is linear. A face whose gaze is unknown is a case of its own: that an estimator gave up
may tell generators apart, and no angle is made up for it.

Where the generators look in different directions because their *sources* do (portraits against video), this model
shows that too: read it as the gaze-FID is read, beside real against real. Recipe and hidden layer are ours. Faces are
not mirrored in training, which would hide a generator that prefers one side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dfad_bench.modelling.nn import Standardize, attribution_loss, classifier_output
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

FUNCTIONS = 5
"""Of pitch and yaw: see ``gaze_functions``."""


class GazeOnly(nn.Module):
    """A perceptron on the standardised functions of known gaze, all zero where it is unknown, and on that it is."""

    def __init__(self, classes: int, hidden: int = 32) -> None:
        super().__init__()
        # In radians and radians²: of faces that look straight ahead the squares hardly move.
        self.standardize = Standardize(FUNCTIONS, floor=1e-3)
        self.layers = nn.Sequential(
            nn.Linear(FUNCTIONS + 1, hidden),
            nn.Tanh(),  # bounded: one glance far to the side must not outweigh everything else
            nn.Linear(hidden, classes),
        )

    def forward(self, batch: Batch) -> Output:
        """Answer B faces from gaze [B, 2], pitch and yaw in radians, NaN where unknown."""
        assert batch.gaze is not None
        known = batch.gaze.isfinite().all(dim=1)
        functions = batch.gaze.new_zeros(batch.size, FUNCTIONS)
        if known.any():
            functions[known] = self.standardize(gaze_functions(batch.gaze[known]))
        return classifier_output(self.layers(torch.cat([functions, (~known).float()[:, None]], dim=1)))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the leaf classes."""
        return attribution_loss(self(batch), batch)


def gaze_functions(gaze: torch.Tensor) -> torch.Tensor:
    """Return pitch, yaw, pitch², yaw² and pitch · yaw [B, 5] of gaze [B, 2], pitch and yaw in radians."""
    pitch, yaw = gaze.unbind(dim=1)
    return torch.stack([pitch, yaw, pitch.square(), yaw.square(), pitch * yaw], dim=1)


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes."""
    return GazeOnly(len(classes))


MODEL = ModelSpec(
    build=build,
    light=True,
    inputs=("gaze",),
    reference="dfad-bench, after the observation of Zhang et al., arXiv:2603.29295",
    licence="Apache-2.0",
    recipe=Recipe(epochs=60, batch_size=64, learning_rate=1e-2, weight_decay=1e-3, patience=15, horizontal_flip=False),
)
