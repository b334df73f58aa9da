"""RepMix: a network that learns from blends of two faces must find the traces of generators, whatever the faces show.

Bui, Yu & Collomosse, ECCV 2022, arXiv:2207.02063: the feature maps of two images are mixed inside a ResNet-50 and the loss
asks for both sources, each by its share, so that the network attributes images by what generators leave and not by their
content. A detector of fakes stands beside the attribution head and scales its logits (the compound loss). Re-implemented
from the abstract and from what the authors' published code (github.com/TuBui/image_attribution, CC BY 4.0) says of settings,
without its lines; the paper's text was not at hand.

The authors' settings: a mix of two after the last residual stage, whose shares are drawn from Dirichlet(0.4, 0.4), which
is Beta(0.4, 0.4); an embedding of 256 dimensions that is linear in the pooled map; the real logit times P(real) and the
others times P(fake); both cross-entropies weigh alike, and in the detector's a fake weighs 1 / (number of generators), as if
classes were equally frequent; ImageNet weights; pixels scaled to −1..1; batch, learning rate, decay, epochs.

Ours: a face's partner comes from its own batch, another each time, where theirs is drawn from the whole train split, so a
step sees half as many faces; val faces are not mixed, so that the loss which chooses a checkpoint is free of chance; the
whole face is resized to 224 px where they cut 224 of 256 px at random; AdamW and dfad-bench's schedule. Their training also
corrupts the images as ImageNet-C does, for robustness. That is left out, since dfad-bench's perturbations disturb test
faces much like it, and a model that trained on them would be measured on what it knows: expect less robustness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.image_classifier import load_published
from dfad_bench.modelling.nn import Head, detector_output
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.resnet import PUBLISHED_HEAD, RESNET50, resnet
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

STEM = ("conv1", "bn1", "relu", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")
EMBEDDING = 256
ALPHA = 0.4
"""Both parameters of the Beta distribution: most blends are nearly one of the two faces."""


def mix(maps: torch.Tensor, partner: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return share · own map + (1 − share) · the partner's [B, c, h, w].

    maps [B, c, h, w]; partner [B] int64: whose map is mixed into each; share [B] in 0..1: how much of its own remains.
    """
    share = share[:, None, None, None]
    return share * maps + (1 - share) * maps[partner]


class RepMix(nn.Module):
    """ResNet-50 with two heads, for faces [B, 3, H, W].

    layer: after how many parts of the network maps are mixed in training: 0 is the pixels, 1 after the stem, 2 to 5 after
    each stage.
    """

    def __init__(self, classes: int, layer: int) -> None:
        super().__init__()
        self.backbone, width = resnet("resnet50")
        self.layer = layer
        self.reduce = nn.Linear(width, EMBEDDING)
        self.detector = Head(EMBEDDING, 1)
        self.classifier = Head(EMBEDDING, classes)

    def embed(
        self, image: torch.Tensor, partner: torch.Tensor | None = None, share: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return embeddings [B, 256] of faces, or of each face's blend with its partner where both are given; see ``mix``."""
        maps = image.contiguous(memory_format=torch.channels_last)
        for number, part in enumerate((STEM, *((stage,) for stage in STAGES), ())):
            if number == self.layer and partner is not None and share is not None:
                maps = mix(maps, partner, share)
            for name in part:
                maps = self.backbone.get_submodule(name)(maps)
        embedding: torch.Tensor = self.reduce(maps.mean(dim=(2, 3)))
        return embedding

    def heads(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the compound logits [B, C], scaled by the detector, and the detector's fake logits [B], both float32."""
        fake_logit = self.detector(embedding).squeeze(1).float()
        is_fake = fake_logit.sigmoid()[:, None]
        logits = self.classifier(embedding).float()
        return torch.cat([logits[:, :1] * (1 - is_fake), logits[:, 1:] * is_fake], dim=1), fake_logit

    def forward(self, batch: Batch) -> Output:
        """Answer B faces by the compound logits; the fake score is the detector's own. Nothing is mixed."""
        assert batch.image is not None
        embedding = self.embed(batch.image)
        logits, fake_logit = self.heads(embedding)
        return detector_output(fake_logit, logits, embedding)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean compound loss in nats: in training of blends, drawn from torch's global generator."""
        assert batch.image is not None and batch.target is not None
        if not self.training:
            return self.compound_loss(self.embed(batch.image), batch.target).mean()
        # On the CPU, so that every device draws the same.
        partner = torch.randperm(batch.size).to(batch.image.device)
        share = torch.distributions.Beta(ALPHA, ALPHA).sample((batch.size,)).to(batch.image.device)
        embedding = self.embed(batch.image, partner, share)
        own, other = (self.compound_loss(embedding, target) for target in (batch.target, batch.target[partner]))
        return (share * own + (1 - share) * other).mean()

    def compound_loss(self, embedding: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return attribution's plus detection's cross-entropy [B] in nats for embeddings [B, 256] and classes [B]."""
        logits, fake_logit = self.heads(embedding)
        is_fake = target != 0
        weight = torch.where(is_fake, 1 / (logits.shape[1] - 1), 1.0)
        detection = F.binary_cross_entropy_with_logits(fake_logit, is_fake.float(), weight, reduction="none")
        return F.cross_entropy(logits, target, reduction="none") + detection

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the ResNet-50."""
        return self.backbone.parameters()


def build(classes: Sequence[Leaf], layer: int = 5) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return RepMix(len(classes), layer)


def configure(size: int = 224, layer: int = 5) -> ModelSpec:
    """Return the model at another resolution or with another place of the mix; raise ValueError where it has no such.

    size: the side in pixels that faces are resized to, 32 or more; layer: after how many of the network's six parts
    maps are mixed, 0 (the pixels, which is mixup) to 5 (after the last stage, which mixes embeddings).
    """
    if size < 32:
        raise ValueError(f"size is {size}: it must be 32 or more")
    if not 0 <= layer <= len(STAGES) + 1:
        raise ValueError(f"layer is {layer}: it must be 0 to {len(STAGES) + 1}")
    return ModelSpec(
        build=partial(build, layer=layer),
        inputs=("image",),
        preprocess=Preprocess(size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        reference="Bui et al., ECCV 2022, arXiv:2207.02063",
        licence="Apache-2.0 (this file), BSD-3-Clause (torchvision)",
        recipe=Recipe(epochs=30, batch_size=32, learning_rate=1e-4, weight_decay=5e-4),
        backbone_weights={"imagenet": RESNET50},
        default_backbone_weights="imagenet",
        load_backbone=partial(load_published, but_for=PUBLISHED_HEAD),
        configure=configure,
    )


MODEL = configure()
