"""DE-FAKE: what a picture shows beside what its caption says, since a text-to-image model paints what it was told.

Sha, Li, Yu, Zhang, CCS 2023, arXiv:2210.06998. CLIP's embedding of an image and that of the prompt it was made from lie
side by side, and a small network reads both: one for detection, another for attribution to the generator. Images that
came without a prompt are captioned by BLIP.

Faces here have no prompt, and BLIP is no part of dfad-bench. Instead CLIP describes each face itself: of a few phrases
each for age, sex, hair, expression, things worn, gaze and place it takes the one that is nearest to the image, and the
phrases become one sentence, which its text tower reads. No label has a part in that, neither in training nor in
evaluation; but where BLIP may tell what only it has seen, such a caption tells nothing that is not in CLIP's image
embedding. ``--set prompt=none`` leaves the image embedding alone; the paper's image-only model is another, as we
remember it a ResNet-18. One network with two heads, a detector and one over the leaf classes, stands for its two.

Re-implemented from the paper's abstract, and from memory of its text: ViT-B/32, embeddings as the towers give them,
and the network's hidden layers of 512 and 256. Both towers stay as OpenAI published them; the authors offer an encoder
for download beside their classifier, so theirs may be fine-tuned. The recipe is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

Prompt = Literal["attributes", "none"]

ATTRIBUTES = (
    ("a photo of {} person", ("a young", "a middle-aged", "an old")),
    ("a photo of a {}", ("woman", "man")),
    ("a photo of a person with {}", ("short hair", "long hair", "no hair")),
    ("a photo of a person with {}", ("a smile", "a closed mouth", "an open mouth")),
    ("a photo of a person {}", ("wearing glasses", "wearing a hat", "with a bare face")),
    ("a photo of a person {}", ("looking at the camera", "looking to the side")),
    ("a photo of a person {}", ("outdoors", "indoors", "in front of a plain background")),
)
"""Per attribute the sentence by which CLIP is asked, and the phrases that it chooses from."""
CAPTION = "a photo of {} {} with {} and {}, {}, {}, {}"
HIDDEN = (512, 256)


def sentences() -> list[str]:
    """Return what CLIP compares a face with: one sentence per phrase, attribute by attribute."""
    return [question.format(phrase) for question, phrases in ATTRIBUTES for phrase in phrases]


def captions() -> list[str]:
    """Return every caption that a face may get, that of the last attribute's phrases next to each other."""
    return [CAPTION.format(*phrases) for phrases in product(*(phrases for _, phrases in ATTRIBUTES))]


class DeFake(nn.Module):
    """CLIP's frozen image tower and, unless ``prompt`` is none, its text tower; a network reads both embeddings."""

    sentence_tokens: torch.Tensor
    caption_tokens: torch.Tensor

    def __init__(self, classes: int, backbone: str, prompt: Prompt) -> None:
        """Build it with random weights. backbone: open_clip's name. Raises UsageError for unusable towers."""
        super().__init__()
        towers = clip.Towers(backbone)
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.visual = towers.visual.requires_grad_(False)
        self.text = None if prompt == "none" else towers.text.requires_grad_(False)
        if self.text is not None:
            for name, texts in (("sentence_tokens", sentences()), ("caption_tokens", captions())):
                tokens = clip.tokenize(texts, towers.context)[0]
                # The tower's causal mask is for texts of its whole context.
                self.register_buffer(name, F.pad(tokens, (0, towers.context - tokens.shape[1])))
        width = towers.width if self.text is None else 2 * towers.width
        self.mlp = nn.Sequential(nn.Linear(width, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU())
        self.heads = TwoHeads(HIDDEN[1], classes)

    def towers(self) -> dict[str, nn.Module]:
        """Return CLIP's own parts by open_clip's names."""
        return {"visual": self.visual} | ({} if self.text is None else {"text": self.text})

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        """Return which of ``captions()`` [B] int64 fits image embeddings [B, d]: per attribute the nearest phrase."""
        assert self.text is not None, "a model without prompts describes nothing"
        likeness = image @ F.normalize(self.text(self.sentence_tokens), dim=1).T
        row = torch.zeros(len(image), dtype=torch.int64, device=image.device)
        counts = [len(phrases) for _, phrases in ATTRIBUTES]
        for count, of_one in zip(counts, torch.split(likeness, counts, dim=1), strict=True):
            row = row * count + of_one.argmax(dim=1)
        return row

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of faces [B, 3, H, W] and of their captions, side by side [B, 2d], or [B, d]."""
        # In float32: of two phrases that are about as near, a rounder number would choose by the batch.
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            seen: torch.Tensor = self.visual(image)
            if self.text is None:
                return seen
            return torch.cat([seen, self.text(self.caption_tokens[self.describe(seen)])], dim=1)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces; the embedding is the last hidden layer, which both heads read."""
        assert batch.image is not None
        output: Output = self.heads(self.mlp(self.embed(batch.image)))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum of both heads' cross-entropies in nats."""
        assert batch.image is not None
        return self.heads.loss(self.mlp(self.embed(batch.image)), batch)


def build(classes: Sequence[Leaf], backbone: str, prompt: Prompt = "attributes") -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return DeFake(len(classes), backbone, prompt)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the towers with OpenAI's or open_clip's weights; raise DataError unless every name fits."""
    assert isinstance(module, DeFake)
    clip.load_towers(module.towers(), module.backbone, module.quick_gelu, path)


def configure(backbone: str = "ViT-B-32-quickgelu", prompt: Prompt = "attributes") -> ModelSpec:
    """Return the model with other options; raise UsageError for towers that cannot be used.

    backbone: open_clip's name; prompt: attributes, a caption that CLIP chooses by itself, or none, the image alone.
    """
    return ModelSpec(
        build=partial(build, backbone=backbone, prompt=prompt),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Sha et al., CCS 2023, arXiv:2210.06998",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=Recipe(epochs=20, batch_size=64, learning_rate=1e-3, weight_decay=1e-4),
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
