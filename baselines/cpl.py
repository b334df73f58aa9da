"""CPL: a network that also learns from faces whose generator it is not told, by asking which other faces are like them.

Sun et al., "Contrastive Pseudo Learning for Open-World DeepFake Attribution", ICCV 2023, arXiv:2309.11132. Re-implemented
from its abstract and public summaries: its equations were not open to us, and the code that the authors published was not
read. No number computed here is one of the paper's.

The paper's: training on labelled faces of known generators beside unlabelled ones of known and of new generators, with
Global-Local Voting (GLV), which aligns faces that were manipulated in different regions, and with Confidence-based Soft
Pseudo-labels (CSP), which keep similar generators from teaching each other's mistakes. Ours: how votes are cast and what
a confident pseudo-label is (see ``vote`` and ``soft_labels``); that both losses weigh 1; the network, which is ResNet-18
on a 128 px window at the face's own resolution, as ``resnet18``; and the recipe. The paper's stages of pre-training and
of iterative learning are left out.

dfad-bench trains on labelled faces alone. So ``unlabelled`` is the share of each training batch whose labels are hidden:
those faces are learned from by GLV and CSP only, and no hidden label influences that step. With 0 it is plain supervised
learning. New generators get no prototypes: they are looked for afterwards, by dfad-bench's k-means on the recorded
embedding. From random weights and a few hundred faces it stays near chance (the table in this folder's README), where
``resnet18`` does not; keeping the mean prediction spread over the classes did not mend that. The paper's pre-training, which
is left out, may be what is missing. The fake score is 1 - P(real). Random weights unless ``--backbone-weights imagenet``
is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.image_classifier import load_published
from dfad_bench.modelling.nn import Head, attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.resnet import PUBLISHED_HEAD, RESNET18, resnet
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

SIZE = 128
WIDTH = 512
"""Of the embedding."""
SHARPEST = 0.1
"""The temperature of a pseudo-label that is certain."""


def vote(whole: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """Return the share of votes that each other face gets from each of B faces [B, B]: rows sum to 1, the diagonal is 0.

    whole [B, d]: global features; local [B, P, d]: those of P places. Half of the votes is the global feature's, for the
    face with the most similar one (cosine). The other half is split among the places: each votes for the face that has
    the most similar place, wherever it lies, since a window of the face may be cut anywhere. No gradient passes.
    """
    # In half precision many faces would be equally alike, and the first of them would get all votes.
    with torch.no_grad(), torch.autocast(whole.device.type, enabled=False):
        itself = torch.eye(len(whole), dtype=torch.bool, device=whole.device)
        whole, local = F.normalize(whole.float(), dim=-1), F.normalize(local.float(), dim=-1)
        by_whole = (whole @ whole.T).masked_fill(itself, -torch.inf).argmax(dim=1)  # [B]
        alike = torch.einsum("ipd,jqd->ipjq", local, local).amax(dim=3)  # [B, P, B]
        by_place = alike.masked_fill(itself[:, None], -torch.inf).argmax(dim=2)  # [B, P]
        places = F.one_hot(by_place, len(whole)).float().mean(dim=1)
        return (F.one_hot(by_whole, len(whole)).float() + places) / 2


def voting_loss(logits: torch.Tensor, votes: torch.Tensor) -> torch.Tensor:
    """Return -log P(both faces are of one class), averaged over votes and faces, in nats.

    logits [B, C]: of all faces; votes [N, B]: of the first N, as ``vote`` returns them. What two faces' classes are is
    the network's to say: labels have no part in it.
    """
    with torch.autocast(logits.device.type, enabled=False):
        chances = logits.float().softmax(dim=1)
        same = chances[: len(votes)] @ chances.T
    return -(votes * same.clamp(min=1e-6).log()).sum(dim=1).mean()


def soft_labels(logits: torch.Tensor) -> torch.Tensor:
    """Return pseudo-labels [N, C] of logits [N, C]: the softmax at temperature 1 - (1 - 0.1) · confidence.

    The confidence of a face is its largest probability. A face that the network is sure of gets nearly a hard label; one
    that it is not gets nearly what the network said, from which it learns nearly nothing. No gradient passes.
    """
    logits = logits.detach().float()
    confidence = logits.softmax(dim=1).amax(dim=1, keepdim=True)
    return (logits / (1 - (1 - SHARPEST) * confidence)).softmax(dim=1)


class CPL(nn.Module):
    """ResNet-18 with a linear head; the last feature map is the local features, its mean the global one."""

    def __init__(self, classes: int, unlabelled: float) -> None:
        super().__init__()
        self.backbone, width = resnet("resnet18")
        self.backbone.avgpool = nn.Identity()
        self.head = Head(width, classes)
        self.unlabelled = unlabelled

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Map faces [B, 3, H, W] to the features of P = H · W / 32² places [B, P, 512]."""
        flat: torch.Tensor = self.backbone(image.contiguous(memory_format=torch.channels_last))
        return flat.reshape(len(image), WIDTH, -1).transpose(1, 2)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W]; the embedding is the global feature."""
        assert batch.image is not None
        embedding = self.features(batch.image).mean(dim=1)
        return classifier_output(self.head(embedding), embedding)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy of the labelled faces plus, of the hidden ones, GLV and CSP, each a mean in nats.

        Which are hidden is drawn from torch's global generator; in evaluation, and with a share of 0, none is.
        """
        hidden = min(round(self.unlabelled * batch.size), batch.size - 1) if self.training else 0
        if hidden == 0:
            return attribution_loss(self(batch), batch)
        assert batch.image is not None and batch.target is not None
        order = torch.randperm(batch.size).to(batch.target.device)  # the first ones are hidden
        local = self.features(batch.image)[order]
        whole = local.mean(dim=1)
        logits = self.head(whole).float()
        known = F.cross_entropy(logits[hidden:], batch.target[order[hidden:]])
        pseudo = F.cross_entropy(logits[:hidden], soft_labels(logits[:hidden]))
        return known + voting_loss(logits, vote(whole, local)[:hidden]) + pseudo


def build(classes: Sequence[Leaf], unlabelled: float = 0.5) -> nn.Module:
    """Return the model for these leaf classes, with random weights; its embedding has 512 dimensions."""
    return CPL(len(classes), unlabelled)


def configure(unlabelled: float = 0.5) -> ModelSpec:
    """Return the model with another share of hidden labels; raise ValueError unless it is 0 or more and less than 1.

    unlabelled: the share of each training batch whose labels are hidden; 0 is plain supervised learning.
    """
    if not 0 <= unlabelled < 1:
        raise ValueError(f"unlabelled is {unlabelled}: it must be 0 or more and less than 1")
    return ModelSpec(
        build=partial(build, unlabelled=unlabelled),
        light=True,
        inputs=("image",),
        preprocess=Preprocess(size=None, crop=SIZE),
        reference="Sun et al., ICCV 2023, arXiv:2309.11132 (re-implemented from what is public of it)",
        licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
        recipe=Recipe(epochs=10, batch_size=16, learning_rate=5e-4, weight_decay=1e-2, patience=10),
        backbone_weights={"imagenet": RESNET18},
        load_backbone=partial(load_published, but_for=PUBLISHED_HEAD),
        configure=configure,
    )


MODEL = configure()
