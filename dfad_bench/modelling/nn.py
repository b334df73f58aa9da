"""The head that every attribution model ends in, and the standardiser of hand-made features."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.types import Batch, Output


def classifier_output(logits: torch.Tensor) -> Output:
    """Return the answer of a closed-set classifier: logits [B, C] float32 and fake_score [B] = 1 − P(real).

    Class 0 is ``real``. The sum over the fakes is taken instead of 1 − P(real), which rounds to 0 for sure reals. The
    softmax is float32 whatever precision the network ran in: rounded scores would tie.
    """
    logits = logits.float()
    return Output(logits=logits, fake_score=logits.softmax(dim=1)[:, 1:].sum(dim=1).clamp(max=1))


def attribution_loss(output: Output, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy in nats (a scalar) between the logits and the batch's leaf classes."""
    assert output.logits is not None, "attribution_loss needs logits"
    assert batch.target is not None, "attribution_loss needs targets"
    return F.cross_entropy(output.logits, batch.target)


class Standardize(nn.BatchNorm1d):
    """Brings features [B, F] to zero mean and unit variance, as measured over the training batches.

    It learns nothing else. A batch of one has no variance: it is scaled by what was measured before. ``floor`` is the
    least standard deviation, in the features' units, that is divided by: a feature that never moved in training would
    otherwise blow up at the first face where it does.
    """

    def __init__(self, features: int, floor: float = 1e-2) -> None:
        super().__init__(features, eps=floor**2, affine=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the standardised features [B, F]."""
        if self.training and len(features) == 1:
            return F.batch_norm(features, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(features)
