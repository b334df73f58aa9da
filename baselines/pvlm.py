"""PVLM: faces matched to sentences and to their own regions, since generators differ in which facial attributes they keep.

Zhang et al., "PVLM: Parsing-Aware Vision Language Model with Dynamic Contrastive Learning for Zero-Shot Deepfake
Attribution", 2025, arXiv:2504.14129. Re-implemented from its abstract and public summaries: its text and equations were
not open to us, and no number computed here is one of the paper's. Each part below says what of it is the paper's.

**No face parser is used.** The paper reads a face-parsing map; no parser is a dependency here. ``regions`` stands in for
it: a soft clustering of colour and position into nine regions, computed from the face without any weights. It knows
neither eyes nor hair, only where a patch of like colour lies, so it tests the paper's idea in a weaker form.

Also ours: at test time neither text nor regions are needed, both only teach the visual encoder; every level of the
prompts is encoded by itself (the code of the authors' sibling papers joins four sentences to 308 tokens and reads them at
the first end-of-text, where a causal tower has heard level 1 alone); a detector's head beside the closed-set one; all
losses weigh 1; and the recipe. It starts from OpenAI's CLIP, whose towers are fine-tuned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.modelling.prompts import prompts
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

GRID, REGIONS, SIDE = 3, 9, 48
"""Regions start from the cells of a grid of GRID x GRID, on a face of SIDE x SIDE points."""
_ROUNDS, _SOFTNESS, _PULL = 5, 0.25, 2.0
_START, _MOST = math.log(1 / 0.07), math.log(100)
"""CLIP's initial temperature and its bound (Radford et al., ICML 2021, section 2.5)."""
_SHARED = ("forgery_type", "family", "generator")
Levels = list[tuple[torch.Tensor, torch.Tensor]]
"""For each level the embeddings [V, d] of its V distinct texts, and which of them describes a leaf class [C] int64."""


def regions(image: torch.Tensor) -> torch.Tensor:
    """Map faces [B, 3, H, W] to memberships [B, 9, 48, 48] in 0..1 that sum to 1 at each point. Stands in for a face parser.

    Ours: soft k-means of the normalised colour and of the position (-1..1, times 2), five rounds from the cells of a grid,
    so that region k is the one that grew from cell k on every face.
    """
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        colour = F.adaptive_avg_pool2d(image.float(), SIDE)
        axis = _PULL * torch.linspace(-1, 1, SIDE, device=image.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(image), -1, -1, -1)
        planes = torch.cat([colour, place], dim=1)
        centres = F.adaptive_avg_pool2d(planes, GRID).flatten(2).transpose(1, 2)  # [B, 9, 5]
        points = planes.flatten(2).transpose(1, 2)  # [B, 48 · 48, 5]
        for _ in range(_ROUNDS):
            share = (-torch.cdist(centres, points).square() / _SOFTNESS).softmax(dim=1)
            centres = share @ points / share.sum(dim=2, keepdim=True).clamp(min=1e-6)
        return share.reshape(-1, REGIONS, SIDE, SIDE)


class VisualEncoder(nn.Module):
    """The paper's: a "multi-perspective" visual encoder. Which perspectives those are is not known to us.

    Ours: the face through CLIP's image tower, and its noise (what is left of it after a blur of 3 x 3) through a small
    convolutional network; the second is added to the first by a layer that starts at zero, so that it starts from CLIP.
    """

    def __init__(self, visual: nn.Module, width: int) -> None:
        super().__init__()
        self.visual = visual
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128), (128, width)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.GELU()]
        self.noise = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.mix = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU())
        self.add = nn.Linear(width, width)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map faces [B, 3, H, W] to visual features [B, d] in CLIP's space."""
        seen: torch.Tensor = self.visual(image)
        left = image - F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        mixed: torch.Tensor = self.add(self.mix(torch.cat([seen, self.noise(left)], dim=1)))
        return seen + mixed


class ParsingEncoder(nn.Module):
    """The paper's: global face-attribute embeddings of a parsing map. Ours: a small transformer over patches of 6 points."""

    def __init__(self, width: int, inner: int = 128, patch: int = 6) -> None:
        super().__init__()
        self.embed = nn.Conv2d(REGIONS, inner, patch, patch)
        self.positions = nn.Parameter(torch.randn((SIDE // patch) ** 2, inner) * 0.02)
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(inner, 4, 4 * inner, 0, "gelu", batch_first=True, norm_first=True)
                for _ in range(2)
            )
        )
        self.out = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, width))

    def forward(self, shares: torch.Tensor) -> torch.Tensor:
        """Map memberships [B, 9, 48, 48] to embeddings [B, d]."""
        tokens = self.embed(shares).flatten(2).transpose(1, 2) + self.positions
        return cast(torch.Tensor, self.out(self.blocks(tokens).mean(dim=1)))


class LanguageEncoder(nn.Module):
    """The paper's: CLIP's text tower on hierarchical prompts. Ours: the sentences, each level encoded by itself."""

    ids: torch.Tensor

    def __init__(self, text: Any, context: int, classes: Sequence[Leaf]) -> None:
        super().__init__()
        self.text = text
        self.levels = prompts(classes)
        every = tuple(dict.fromkeys(one for level in self.levels for several in level.sentences for one in several))
        self.register_buffer("ids", clip.tokenize(every, context)[0], persistent=False)
        place = {sentence: row for row, sentence in enumerate(every)}
        for number, level in enumerate(self.levels):
            rows = torch.tensor([[place[one] for one in several] for several in level.sentences])  # [V, templates]
            self.register_buffer(f"rows_{number}", rows, persistent=False)
            self.register_buffer(f"value_of_{number}", torch.tensor(level.value_of), persistent=False)

    def forward(self) -> Levels:
        """Return what is said of the leaf classes; the templates of a text are averaged."""
        encoded = F.normalize(self._encode().float(), dim=-1)
        return [
            (encoded[self.get_buffer(f"rows_{number}")].mean(dim=1), self.get_buffer(f"value_of_{number}"))
            for number in range(len(self.levels))
        ]

    def _encode(self) -> torch.Tensor:
        """Return the tower's embeddings of all sentences [U, d], with only as many positions as the longest one has."""
        text, length = self.text, self.ids.shape[1]
        hidden = text.token_embedding(self.ids) + text.positional_embedding[:length]
        hidden = text.transformer(hidden, attn_mask=text.attn_mask[:length, :length])
        # The end-of-text token has the highest id of all (open_clip's pool_type 'argmax').
        ends = text.ln_final(hidden[torch.arange(len(hidden), device=hidden.device), self.ids.argmax(dim=1)])
        projection = text.text_projection
        if projection is None:
            return cast(torch.Tensor, ends)
        return cast(torch.Tensor, projection(ends) if isinstance(projection, nn.Linear) else ends @ projection)


def parsing_targets(visual: torch.Tensor, target: torch.Tensor, softness: float = 0.1) -> torch.Tensor:
    """Return for B faces how much each parsing embedding is a match [B, B], rows summing to 1.

    The paper's: "dynamic vision-parsing matching"; what is dynamic in it is not known to us. Ours: the parsings of all
    faces of one's own class are matches, each by the softmax of how alike the two faces look now (cosine / 0.1): one's
    own parsing alone where the faces differ, all of them alike where they do not. No gradient passes.
    """
    normal = F.normalize(visual.detach().float(), dim=-1)
    alike = (normal @ normal.T).float() / softness
    return alike.masked_fill(target[:, None] != target, -torch.inf).softmax(dim=1)


def parsing_matching(
    visual: torch.Tensor, parsed: torch.Tensor, target: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy in nats of cosine x scale against ``parsing_targets``, the mean of both directions.

    visual, parsed: features [B, d] of the same B faces, whose leaf classes are ``target`` [B].
    """
    alike = scale * F.normalize(visual.float(), dim=-1) @ F.normalize(parsed.float(), dim=-1).T
    matches = parsing_targets(visual, target)
    back = matches.T / matches.T.sum(dim=1, keepdim=True)
    return (F.cross_entropy(alike, matches) + F.cross_entropy(alike.T, back)) / 2


def language_matching(visual: torch.Tensor, levels: Levels, target: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy in nats of cosine x scale of features [B, d] to a level's texts, the mean over levels.

    Against the distinct texts of a level rather than each other's captions, since many faces share one text.
    """
    normal = F.normalize(visual.float(), dim=-1)
    losses = [
        F.cross_entropy(scale * normal @ F.normalize(texts, dim=-1).T, value_of[target]) for texts, value_of in levels
    ]
    return torch.stack(losses).mean()


def relevance(classes: Sequence[Leaf]) -> torch.Tensor:
    """Return for each pair of leaf classes the share in 0..1 of forgery type, family and generator they agree in [C, C]."""
    return torch.tensor(
        [
            [sum(one.value(level) == other.value(level) for level in _SHARED) / len(_SHARED) for other in classes]
            for one in classes
        ]
    )


def centre_loss(features: torch.Tensor, centres: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """Return the attribution contrastive centre loss (a scalar, no unit) of features [B, d] to C class centres [C, d].

    The paper's: DFACC, which is to "pull relevant generators closer and push irrelevant ones away". Ours: its form, the
    contrastive-centre loss of Qi & Su (ICIP 2017, arXiv:1707.07391) with δ = 1, and with relevances [B, C] in the
    place of yes and no: the mean squared distance to relevant centres over that to irrelevant ones plus 1, all of unit
    length.
    """
    normal, middles = F.normalize(features.float(), dim=-1), F.normalize(centres.float(), dim=-1)
    apart = (normal[:, None] - middles).square().sum(dim=-1)
    near = (relevant * apart).sum(dim=1) / relevant.sum(dim=1)
    far = ((1 - relevant) * apart).sum(dim=1) / (1 - relevant).sum(dim=1).clamp(min=1e-6)
    return (near / (far + 1)).mean()


class PVLM(nn.Module):
    """The visual encoder answers; language, parsing and centres teach it."""

    relevant: torch.Tensor

    def __init__(self, classes: Sequence[Leaf], backbone: str) -> None:
        """Build it with random weights. backbone: open_clip's name of the towers; UsageError for what cannot be used."""
        super().__init__()
        towers = clip.Towers(backbone)
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.vision = VisualEncoder(towers.visual, towers.width)
        self.norm, self.heads = nn.LayerNorm(towers.width), TwoHeads(towers.width, len(classes))
        self.parsing = ParsingEncoder(towers.width)
        self.language = LanguageEncoder(towers.text, towers.context, classes)
        self.centres = nn.Parameter(torch.randn(len(classes), towers.width))
        self.log_scales = nn.Parameter(torch.full((2,), _START))
        self.register_buffer("relevant", relevance(classes), persistent=False)

    def towers(self) -> dict[str, nn.Module]:
        """Return CLIP's own parts by open_clip's names."""
        return {"visual": self.vision.visual, "text": self.language.text}

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of CLIP's towers, which learn at the backbone's rate."""
        for tower in self.towers().values():
            yield from tower.parameters()

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W], normalised as for CLIP, by the visual encoder alone."""
        assert batch.image is not None
        return cast(Output, self.heads(self.norm(self.vision(batch.image))))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return attribution + detection + language matching + parsing matching (nats) + the centre loss."""
        assert batch.image is not None and batch.target is not None
        seen: torch.Tensor = self.vision(batch.image)
        scales = self.log_scales.clamp(max=_MOST).exp()
        return (
            self.heads.loss(self.norm(seen), batch)
            + language_matching(seen, self.language(), batch.target, scales[0])
            + parsing_matching(seen, self.parsing(regions(batch.image)), batch.target, scales[1])
            + centre_loss(seen, self.centres, self.relevant[batch.target])
        )


def build(classes: Sequence[Leaf], backbone: str = clip.DEFAULT) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return PVLM(classes, backbone)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill both towers from CLIP's weights; raise DataError unless every name fits."""
    assert isinstance(module, PVLM)
    clip.load_towers(module.towers(), module.backbone, module.quick_gelu, path)


def configure(backbone: str = clip.DEFAULT) -> ModelSpec:
    """Return the model on other towers; raise UsageError for towers that cannot be used.

    backbone: open_clip's name of a CLIP with a plain vision transformer; clip-tiny is trained from random weights.
    """
    tiny = backbone == clip.TINY
    rates: dict[str, Any] = {"learning_rate": 1e-3} if tiny else {"learning_rate": 3e-4, "backbone_learning_rate": 1e-5}
    return ModelSpec(
        build=partial(build, backbone=backbone),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Zhang et al., 2025, arXiv:2504.14129 (re-implemented from what is public of it)",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=Recipe(epochs=10, batch_size=32, weight_decay=1e-3, clip_norm=1.0, patience=3, **rates),
        backbone_weights=clip.published_weights(backbone),
        load_backbone=load_backbone,
        default_backbone_weights=clip.default_weights(backbone),
        configure=configure,
    )


MODEL = configure()
