"""SupCon: faces of one generator are drawn together and those of others pushed apart, and the nearest class mean answers.

Khosla et al., NeurIPS 2020, arXiv:2004.11362: a contrastive loss whose positives are all images of the anchor's class in
the batch, and not only its other view; the projection that it is computed on is thrown away afterwards, and a linear layer
is trained on the frozen representation. Written from memory of the paper, of which no full text was at hand.

The paper's: the loss L_out (equation 2) at a temperature of 0.1, representation and projection of unit length, a projection
with one hidden layer as wide as the representation onto 128 dimensions, two views of each image. Ours: ResNet-18 and
its 128 px window of the face at its own resolution (as in ``resnet18``), and a second view that is the mirrored first,
since the blur, colour and resizing of the paper's views would teach the network to overlook what tells generators apart.
A batch has 64 faces, not thousands; AdamW, schedule and early stopping are dfad-bench's.

Instead of the linear layer, which needs a second training, the class whose mean representation is nearest answers (Mensink
et al., TPAMI 2013; after this loss: Mai et al., CVPRW 2021, arXiv:2103.13885). The means are measured while it learns.
In evaluation the loss is the cross-entropy of that answer in nats, not L_out, which depends on which faces share a batch:
so the checkpoint is chosen by what will be asked of it, and train and val losses in a history are not comparable.
Trained from random weights unless ``--backbone-weights imagenet`` is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.image_classifier import load_published
from dfad_bench.modelling.nn import attribution_loss, classifier_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.resnet import PUBLISHED_HEAD, RESNET18, resnet
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

SIZE = 128
WIDTH = 512
"""Of the representation."""
PROJECTION = 128
TEMPERATURE = 0.1
KEPT = 0.99
"""By which the weight of a face in its class's mean shrinks with each later face of that class: a window of about 100."""
FARTHEST = 4.0
"""The squared distance of opposite unit vectors: no class mean is farther from a representation."""


def supcon_loss(projection: torch.Tensor, target: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Return L_out (equation 2) in nats, a scalar: its mean over the anchors that have a positive, 0 where none has.

    projection: unit vectors [N, D] of N ≥ 2 views; target: their classes [N] int64. A view alone in its class is no
    anchor; it stays a negative of all others.
    """
    # bfloat16 holds a cosine to two digits, and it is divided by 0.1.
    with torch.autocast(projection.device.type, enabled=False):
        similarity = projection.float() @ projection.float().T / temperature
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    log_share = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = (target[:, None] == target) & ~itself
    positives = positive.sum(dim=1)
    of_each = -(log_share * positive).sum(dim=1) / positives.clamp(min=1)
    return of_each.sum() / (positives > 0).sum().clamp(min=1)


class ClassMeans(nn.Module):
    """The mean representation of each class, and how near a face is to it.

    sums [C, D], counts [C]: the weighted sum of the representations that were seen and the sum of their weights.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.sums: torch.Tensor
        self.counts: torch.Tensor
        self.register_buffer("sums", torch.zeros(classes, width))
        self.register_buffer("counts", torch.zeros(classes))

    @torch.no_grad()
    def see(self, representation: torch.Tensor, target: torch.Tensor) -> None:
        """Add representations [N, D] of classes [N]; those of one call weigh alike, each earlier one less."""
        faces = torch.bincount(target, minlength=len(self.counts))
        kept = KEPT**faces
        self.sums.mul_(kept[:, None]).index_add_(0, target, representation.float())
        self.counts.mul_(kept).add_(faces)

    def forward(self, representation: torch.Tensor) -> torch.Tensor:
        """Return −squared distance / temperature [B, C] of unit vectors [B, D]; a class without a face is farthest away."""
        means = self.sums / self.counts.clamp(min=1)[:, None]
        distance = (representation[:, None] - means).square().sum(dim=2)
        return -distance.where(self.counts > 0, FARTHEST) / TEMPERATURE


class SupCon(nn.Module):
    """ResNet-18 that maps faces [B, 3, H, W] to unit vectors [B, 512], the class means among these, and a projection."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = resnet("resnet18")[0]
        self.projection = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, PROJECTION))
        self.means = ClassMeans(classes, WIDTH)

    def represent(self, image: torch.Tensor) -> torch.Tensor:
        """Return the representation [B, 512] of faces, float32 of unit length."""
        return F.normalize(self.backbone(image.contiguous(memory_format=torch.channels_last)).float(), dim=1)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces by their distance to the class means; the embedding is the representation."""
        assert batch.image is not None
        representation = self.represent(batch.image)
        return classifier_output(self.means(representation), representation)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return L_out over the faces and their mirror images, and let the means see the faces; in evaluation cross-entropy."""
        if not self.training:
            return attribution_loss(self(batch), batch)
        assert batch.image is not None and batch.target is not None
        self._measure(batch.image, batch.target)
        representation = self.represent(torch.cat([batch.image, batch.image.flip(3)]))
        projection = F.normalize(self.projection(representation).float(), dim=1)
        return supcon_loss(projection, batch.target.repeat(2))

    @torch.no_grad()
    def _measure(self, image: torch.Tensor, target: torch.Tensor) -> None:
        """Show the faces to the means as evaluation sees them: normalised by a batch's statistics they lie elsewhere."""
        self.backbone.eval()
        self.means.see(self.represent(image), target)
        self.backbone.train()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters but the projection's."""
        return self.backbone.parameters()


def build(classes: Sequence[Leaf]) -> nn.Module:
    """Return the model for these leaf classes, with random weights; before it learns, all classes are equally likely."""
    return SupCon(len(classes))


MODEL = ModelSpec(
    build=build,
    inputs=("image",),
    preprocess=Preprocess(size=None, crop=SIZE),
    reference="Khosla et al., NeurIPS 2020, arXiv:2004.11362",
    licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
    # Both views of a face are seen at once, so flips would only swap them.
    recipe=Recipe(epochs=20, batch_size=64, learning_rate=5e-4, weight_decay=1e-2, patience=10, horizontal_flip=False),
    backbone_weights={"imagenet": RESNET18},
    load_backbone=partial(load_published, but_for=PUBLISHED_HEAD),
)
