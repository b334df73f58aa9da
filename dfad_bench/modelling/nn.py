"""The heads that models end in, with their losses, and the standardiser of hand-made features."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.types import Batch, Output


def classifier_output(logits: torch.Tensor, embedding: torch.Tensor | None = None) -> Output:
    """Return the answer of a closed-set classifier: logits [B, C] float32 and fake_score [B] = 1 − P(real).

    embedding [B, D]: what the logits are computed from, to be recorded beside them.

    Class 0 is ``real``. The sum over the fakes is taken instead of 1 − P(real), which rounds to 0 for sure reals. The
    softmax is float32 whatever precision the network ran in: rounded scores would tie.
    """
    logits = logits.float()
    fake_score = logits.softmax(dim=1)[:, 1:].sum(dim=1).clamp(max=1)
    return Output(logits, fake_score, None if embedding is None else embedding.float())


def attribution_loss(output: Output, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy in nats (a scalar) between the logits and the batch's leaf classes."""
    assert output.logits is not None, "attribution_loss needs logits"
    assert batch.target is not None, "attribution_loss needs targets"
    return F.cross_entropy(output.logits, batch.target)


def detector_output(fake_logit: torch.Tensor, logits: torch.Tensor, embedding: torch.Tensor | None = None) -> Output:
    """Return the answer of a model with a detector of its own: fake_score [B] = sigmoid(fake_logit [B]), logits [B, C].

    embedding [B, D]: as in ``classifier_output``.
    """
    fake_score = fake_logit.float().sigmoid()
    return Output(logits.float(), fake_score, None if embedding is None else embedding.float())


def detection_loss(fake_logit: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean binary cross-entropy in nats (a scalar) between fake logits [B] and whether the faces are fakes."""
    assert batch.target is not None, "detection_loss needs targets"
    return F.binary_cross_entropy_with_logits(fake_logit.float(), (batch.target != 0).float())


class Head(nn.Linear):
    """A linear layer in float32 whatever precision the network before it ran in: rounded logits would tie."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return logits [B, out] of embeddings [B, in]."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class TwoHeads(nn.Module):
    """A linear detector beside a linear closed-set head over the leaf classes, on one embedding.

    For methods that were published as detectors: their own answer stays a binary one, and attribution is added to it.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.detector = Head(width, 1)
        self.classifier = Head(width, classes)

    def forward(self, embedding: torch.Tensor) -> Output:
        """Answer for embeddings [B, width], which are recorded too."""
        return detector_output(self.detector(embedding).squeeze(1), self.classifier(embedding), embedding)

    def loss(self, embedding: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of both cross-entropies in nats, each a mean over faces."""
        output, fake_logit = self(embedding), self.detector(embedding).squeeze(1)
        return attribution_loss(output, batch) + detection_loss(fake_logit, batch)


class Standardize(nn.Module):
    """Brings features [B, F] to zero mean and unit variance, as measured over all training faces seen so far.

    Unlike batch normalisation it scales by the same numbers in training and in evaluation: those of a batch are too
    noisy for classes that differ by less than a deviation. ``floor`` is the least standard deviation, in the features'
    units, that is divided by: a feature that never moved in training would otherwise blow up where it does.
    """

    def __init__(self, features: int, floor: float = 1e-2) -> None:
        super().__init__()
        self.floor = floor
        self.count: torch.Tensor
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the standardised features [B, F]; in training, measure them first."""
        if self.training:
            self._measure(features.detach())
        return (features - self.mean) / self.variance.sqrt().clamp(min=self.floor)

    def _measure(self, features: torch.Tensor) -> None:
        """Merge a batch's mean and variance into those so far (Chan, Golub & LeVeque, 1979, equation 2.1)."""
        share = len(features) / (self.count + len(features))
        shift = features.mean(dim=0) - self.mean
        within = (1 - share) * self.variance + share * features.var(dim=0, correction=0)
        self.variance.copy_(within + share * (1 - share) * shift.square())
        self.mean += share * shift
        self.count += len(features)
