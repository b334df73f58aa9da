"""CLIP, zero-shot: asks what CLIP knows of deepfakes before it is shown one, by comparing faces with sentences.

Radford et al., ICML 2021, arXiv:2103.00020: an image belongs to the class whose text embedding has the highest cosine to
the image's, several sentences of a class being averaged after each was brought to unit length, and cosines are
multiplied by the learned temperature, which ended at its bound of 100. Nothing is trained here, so the training faces
are not looked at: whatever a trained model adds to this, it learned from them.

Ours: the sentences, which describe a class at four levels from ``real`` or ``fake`` to its generator and are those that
GazeCLIP trains with (``modelling.prompts``), and what is made of them. A leaf class's logit is 100 times the mean over
the four levels of the cosine to what is said of it there: many generators' names appeared after CLIP was trained, and
their family and kind of forgery may still be understood. The fake score hears the authenticity sentences alone.

OpenAI's ViT-B/16 by default; from random weights it is a random answer. Written from memory of the paper. It computes in
float32, since the temperature would make a hundredfold of what bfloat16 rounds away.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.prompts import prompts
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

SCALE = 100.0
"""CLIP's inverse temperature, at which its training clipped it (section 2.5)."""


class ClassTexts(nn.Module):
    """CLIP's text tower and the sentences of C leaf classes at the four levels.

    They are encoded where they are first needed, and again whenever the tower's weights are no longer those they were
    encoded with: a model is built before its weights come.
    """

    ids: torch.Tensor

    def __init__(self, text: nn.Module, context: int, classes: Sequence[Leaf]) -> None:
        super().__init__()
        self.text = text.requires_grad_(False)
        self.levels = prompts(classes)
        self.templates = len(self.levels[0].sentences[0])
        sentences = [one for level in self.levels for several in level.sentences for one in several]
        ids = clip.tokenize(sentences, context)[0]
        # They follow from the classes: kept with the weights, they could be those of other classes.
        self.register_buffer("ids", F.pad(ids, (0, context - ids.shape[1])), persistent=False)
        self._encoded: tuple[torch.Tensor, torch.Tensor] | None = None
        self._encoded_with: list[tuple[int, int]] = []

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is said of the leaf classes [C, d], a mean over levels, and of real and fake faces [2, d]."""
        # Every change in place is counted by torch; a move to a device or another precision gives other memory.
        weights = [(parameter.data_ptr(), parameter._version) for parameter in self.text.parameters()]
        if self._encoded is None or weights != self._encoded_with:
            self._encoded, self._encoded_with = self._encode(), weights
        return self._encoded

    def _encode(self) -> tuple[torch.Tensor, torch.Tensor]:
        sentences = F.normalize(self.text(self.ids).float(), dim=1)
        values = F.normalize(sentences.view(-1, self.templates, sentences.shape[1]).mean(dim=1), dim=1)
        levels = torch.split(values, [len(level.values) for level in self.levels])
        # A mean of cosines to unit vectors is one product with the vectors' mean.
        of_classes = torch.stack(
            [texts[list(level.value_of)] for texts, level in zip(levels, self.levels, strict=True)]
        ).mean(dim=0)
        return of_classes, levels[0]


class ZeroShotClip(nn.Module):
    """Both of CLIP's towers, as they were published."""

    def __init__(self, classes: Sequence[Leaf], backbone: str) -> None:
        """Build them with random weights; raise UsageError for towers that cannot be used."""
        super().__init__()
        towers = clip.Towers(backbone)
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.visual = towers.visual.requires_grad_(False)
        self.texts = ClassTexts(towers.text, towers.context, classes)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W], normalised as for CLIP; the embedding is CLIP's, of unit length."""
        assert batch.image is not None
        with torch.no_grad():
            image = F.normalize(self.visual(batch.image).float(), dim=1)
            of_classes, of_authenticity = self.texts()
            logits = SCALE * image @ of_classes.T
            # ``real`` is the first of a level's values
            fake_score = (SCALE * image @ of_authenticity.T).softmax(dim=1)[:, 1:].sum(dim=1)
        return Output(logits, fake_score, image)


def build(classes: Sequence[Leaf], backbone: str) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return ZeroShotClip(classes, backbone)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill both towers with OpenAI's or open_clip's weights; raise DataError unless every name fits."""
    assert isinstance(module, ZeroShotClip)
    towers = {"visual": module.visual, "text": module.texts.text}
    clip.load_towers(towers, module.backbone, module.quick_gelu, path)


def configure(backbone: str = clip.DEFAULT) -> ModelSpec:
    """Return the model on other towers; raise UsageError for those that cannot be used.

    backbone: open_clip's name of the towers.
    """
    return ModelSpec(
        build=partial(build, backbone=backbone),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Radford et al., ICML 2021, arXiv:2103.00020",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=Recipe(batch_size=64, precision="float32"),
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
