"""MFCLIP: CLIP's view of the face beside the noise of its richest patch, both led by sentences that go into detail.

Zhang, Wang, Yu, Gao, Shen & Chen, "MFCLIP: Multi-modal Fine-grained CLIP for Generalizable Diffusion Face Forgery
Detection", 2024, arXiv:2409.09724: a vision encoder fuses CLIP's global features with those of the fine noise that
high-pass filters leave of the patch with most texture; a language encoder reads what is said of a face at four levels,
from real or fake down to the generator; and where faces are matched to texts, sample pair attention (SPA) lets relevant
negative pairs count for more and irrelevant ones for less.

The released code joins the four sentences to one text of 308 tokens and reads a causal text tower at the first end mark,
where it has heard the first sentence alone: levels 2 to 4 cannot matter. That is not repeated here. Each level is encoded
by itself and read at its own end mark, and a class's text is the mean of its four levels.

Changed for attribution: a linear detector and a linear head over the leaf classes, both on the fused features; texts are
matched by leaf class. In evaluation only the image side runs. It starts from OpenAI's CLIP, both towers of which are
trained, at a lower rate than the rest (``--set towers=frozen`` leaves them as they are).

Written from the abstract and from memory, the paper's equations were not at hand. The paper's: the parts and what each is
for, and the sentences. Ours: richness measured as in PatchCraft (Zhong et al., arXiv:2311.12397), patches of 32 px, the
three filters of Zhou et al. (CVPR 2018, arXiv:1805.04953) for the noise, a small CNN as noise encoder, one layer of
cross-attention for the fusion, the formula of SPA, and the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.modelling.prompts import prompts
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

PATCH = 32
"""Side in pixels of the squares of which the richest is looked at."""

_START, _MOST = math.log(1 / 0.07), math.log(100)
"""The logarithms of CLIP's first temperature's inverse and of its bound (Radford et al., ICML 2021, section 2.5)."""
_SPA_TEMPERATURE = 0.1
"""Of the attention over negative pairs, in units of cosine."""

RECIPE = Recipe(
    epochs=10, batch_size=32, learning_rate=3e-4, backbone_learning_rate=1e-5, weight_decay=1e-3, clip_norm=1.0
)
TINY_RECIPE = Recipe(epochs=20, batch_size=16, learning_rate=1e-3, weight_decay=1e-2, clip_norm=1.0, patience=20)


class MFCLIP(nn.Module):
    """CLIP's towers, a noise encoder, their fusion, and two linear heads on it."""

    ids: torch.Tensor
    sentence_of: torch.Tensor

    def __init__(self, classes: Sequence[Leaf], backbone: str, frozen: bool, spa: bool, matching_weight: float) -> None:
        """Build it with random weights; raise UsageError for towers it cannot use."""
        super().__init__()
        towers = clip.Towers(backbone)
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.spa, self.matching_weight = spa, matching_weight
        self.visual, self.text = towers.visual, towers.text
        for tower in (self.visual, self.text):
            tower.requires_grad_(not frozen)
        self.noise = NoiseEncoder(towers.width)
        self.attention = nn.MultiheadAttention(towers.width, max(towers.width // 64, 1), batch_first=True)
        self.norm = nn.LayerNorm(towers.width)
        self.heads = TwoHeads(towers.width, len(classes))
        self.log_scale = nn.Parameter(torch.tensor(_START))
        sentences, sentence_of = class_sentences(classes)
        ids, _, _ = clip.tokenize(sentences, towers.context)
        # No part of an answer, so not of the state either. The tower reads its whole context; what follows the end mark
        # of a sentence is not heard there.
        self.register_buffer("ids", F.pad(ids, (0, towers.context - ids.shape[1])), persistent=False)
        self.register_buffer("sentence_of", sentence_of, persistent=False)

    def see(self, image: torch.Tensor) -> torch.Tensor:
        """Return the fused features [B, d] of faces [B, 3, H, W] normalised as for CLIP."""
        whole = self.visual(image)
        noise = self.noise(srm_noise(richest_patch(image)))
        heard, _ = self.attention(whole[:, None], noise, noise, need_weights=False)
        fused: torch.Tensor = self.norm(whole + heard[:, 0])
        return fused

    def class_texts(self) -> torch.Tensor:
        """Return the texts of the C leaf classes [C, d], of unit length: the mean direction of their four levels."""
        encoded = F.normalize(self.text(self.ids).float(), dim=-1)
        return F.normalize(encoded[self.sentence_of].mean(dim=1), dim=-1)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W] by the image side alone."""
        assert batch.image is not None
        output: Output = self.heads(self.see(batch.image))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return attribution + detection + matching_weight · matching, each a mean over faces in nats."""
        assert batch.image is not None and batch.target is not None
        features = self.see(batch.image)
        texts, scale = self.class_texts(), self.log_scale.clamp(max=_MOST).exp()
        # Half precision would round away the small differences of cosines, which the scale enlarges.
        with torch.autocast(features.device.type, enabled=False):
            cosines = F.normalize(features.float(), dim=-1) @ texts.T
        matching = matching_loss(cosines, scale, batch.target, self.spa)
        both: torch.Tensor = self.heads.loss(features, batch)
        return both + self.matching_weight * matching

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the towers' parameters, which learn at the backbone's rate."""
        yield from self.visual.parameters()
        yield from self.text.parameters()


class NoiseEncoder(nn.Module):
    """Three convolutions that turn the noise [B, 9, h, w] of a patch into tokens [B, n, width], one per 4 x 4 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((9, 64, 1), (64, 128, 2), (128, width, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the tokens."""
        tokens: torch.Tensor = self.layers(noise).flatten(2).transpose(1, 2)
        return tokens


def class_sentences(classes: Sequence[Leaf]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return U distinct sentences and which of them describe each class at the four levels [C, 4] int64."""
    levels = prompts(classes)
    told = [[level.sentences[level.value_of[place]][0] for level in levels] for place in range(len(classes))]
    sentences = tuple(dict.fromkeys(one for each in told for one in each))
    return sentences, torch.tensor([[sentences.index(one) for one in each] for each in told])


def richest_patch(image: torch.Tensor, side: int = PATCH) -> torch.Tensor:
    """Return of each image [B, 3, H, W] the square [B, 3, side, side] of its grid whose neighbouring pixels differ most.

    The sum of absolute differences along rows, columns and both diagonals, as in PatchCraft. What a whole number of squares
    leaves at the right and below is not looked at; the first of equals is taken.
    """
    grid = image.unfold(2, side, side).unfold(3, side, side)  # [B, 3, rows, columns, side, side]
    patches = grid.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    across, down = patches.diff(dim=-1), patches.diff(dim=-2)
    falling = patches[..., 1:, 1:] - patches[..., :-1, :-1]
    rising = patches[..., 1:, :-1] - patches[..., :-1, 1:]
    richness = sum(each.abs().sum(dim=(-3, -2, -1)) for each in (across, down, falling, rising))
    assert isinstance(richness, torch.Tensor)
    return patches[torch.arange(len(image), device=image.device), richness.argmax(dim=1)]


def srm_filters() -> torch.Tensor:
    """Return the three high-pass filters [3, 5, 5] of Zhou et al., each of which sums to zero."""
    second = torch.zeros(5, 5)
    second[2, 1:4] = torch.tensor([1.0, -2.0, 1.0]) / 2
    square = torch.zeros(5, 5)
    square[1:4, 1:4] = torch.tensor([[-1.0, 2.0, -1.0], [2.0, -4.0, 2.0], [-1.0, 2.0, -1.0]]) / 4
    edge, inner = [-1.0, 2.0, -2.0, 2.0, -1.0], [2.0, -6.0, 8.0, -6.0, 2.0]
    third = torch.tensor([edge, inner, [-2.0, 8.0, -12.0, 8.0, -2.0], inner, edge]) / 12
    return torch.stack([second, square, third])


def srm_noise(patch: torch.Tensor) -> torch.Tensor:
    """Return what the filters leave of each colour of patches [B, 3, s, s]: [B, 9, s - 4, s - 4], in the pixels' units."""
    # Half precision would round to levels that are coarser than the noise.
    with torch.autocast(patch.device.type, enabled=False):
        filters = srm_filters().to(patch.device).repeat(3, 1, 1)[:, None]
        return F.conv2d(patch.float(), filters, groups=3)


def matching_loss(cosines: torch.Tensor, scale: torch.Tensor, target: torch.Tensor, spa: bool) -> torch.Tensor:
    """Return the mean over faces of -log of their own text's share among all texts, in nats.

    cosines [B, C] of faces and class texts; scale: the inverse temperature; target [B]: each face's class. With SPA the
    share of a negative pair is multiplied by its attention, a softmax over the face's C - 1 negatives of their cosine,
    times C - 1: 1 on average, more for texts that are mistaken for the right one. Nothing is learned through it, since
    the loss would fall by attending to the easiest.
    """
    logits = scale * cosines
    if spa:
        own = F.one_hot(target, cosines.shape[1]).bool()
        attention = (cosines.detach() / _SPA_TEMPERATURE).masked_fill(own, -torch.inf).log_softmax(dim=1)
        logits = logits + (attention + math.log(cosines.shape[1] - 1)).masked_fill(own, 0)
    return F.cross_entropy(logits, target)


def build(classes: Sequence[Leaf], backbone: str, frozen: bool, spa: bool, matching_weight: float) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return MFCLIP(classes, backbone, frozen, spa, matching_weight)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill both towers with OpenAI's or open_clip's weights; raise DataError unless every name fits."""
    assert isinstance(module, MFCLIP)
    clip.load_towers({"visual": module.visual, "text": module.text}, module.backbone, module.quick_gelu, path)


def configure(
    backbone: str = clip.DEFAULT,
    towers: Literal["trained", "frozen"] = "trained",
    spa: bool = True,
    matching_weight: float = 1.0,
) -> ModelSpec:
    """Return the model with other options; raise UsageError for towers it cannot use, ValueError for a negative weight.

    backbone: open_clip's name of the towers, or ``clip-tiny``; towers: whether they learn; spa: whether negative pairs
    are weighted; matching_weight: of the matching's loss beside the two heads', 0 or more.
    """
    if matching_weight < 0:
        raise ValueError(f"matching_weight is {matching_weight}: it must be 0 or more")
    return ModelSpec(
        build=partial(build, backbone=backbone, frozen=towers == "frozen", spa=spa, matching_weight=matching_weight),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Zhang et al., 2024, arXiv:2409.09724",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=TINY_RECIPE if backbone == clip.TINY else RECIPE,
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
