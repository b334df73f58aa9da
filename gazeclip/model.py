"""GazeCLIP put together: VPE, GIE, fusion and the DFAD head see; LRE speaks, in training only."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling import clip
from dfad_bench.modelling.lora import add_lora
from dfad_bench.types import Batch, Leaf, Output
from gazeclip.agpm import AppearanceGazePatternModule
from gazeclip.dfad import DFADHead
from gazeclip.fusion import Fusion
from gazeclip.gaze_encoder import GazeEncoder, GazeFeatures, Trunk, gaze_loss
from gazeclip.gie import GazeAwareImageEncoder, Patches
from gazeclip.lre import LanguageRefinementEncoder
from gazeclip.matching import Matching
from gazeclip.vpe import VisualPerceptionEncoder

_HEAD_WIDTH = 64
_EARLY = 4
"""AGPM reads the tower's patch tokens after a quarter of its blocks: early enough to be texture."""


@dataclass(frozen=True, slots=True)
class Design:
    """What can be switched and set. The first five are the rows of an ablation; with the first three off it is plain CLIP.

    injector, agpm, lre: the paper's parts; aws: the word selector within LRE; gaze_map: the manifest's gaze map is a
    second input of the gaze encoder; blocks: how many of the tower's last blocks are injected into; gaze_network:
    its trunk; towers: learn, stay, or learn through LoRA of ``rank``; save_memory: activation checkpointing; the weights of
    the losses, beside attribution's, which is 1.
    """

    injector: bool = True
    agpm: bool = True
    lre: bool = True
    aws: bool = True
    gaze_map: bool = False
    blocks: int = 3
    gaze_network: Trunk = "resnet18"
    towers: Literal["trained", "frozen", "lora"] = "trained"
    rank: int = 8
    save_memory: bool = False
    detection_weight: float = 1.0
    matching_weight: float = 1.0
    gaze_weight: float = 1.0

    @property
    def gaze(self) -> bool:
        """Whether any part listens to gaze features; without one there is no gaze encoder."""
        return self.injector or self.agpm


@dataclass(frozen=True, slots=True)
class Seen:
    """What the visual side made of B faces: counterfeit features z [B, d], gaze features, tokens on the way."""

    features: torch.Tensor
    gaze: GazeFeatures | None
    patches: Patches


class GazeCLIP(nn.Module):
    """Zhang et al., arXiv:2603.29295, sections not public: re-implemented; see each part for what is whose."""

    def __init__(self, classes: Sequence[Leaf], backbone: str, design: Design) -> None:
        """Build it with random weights. backbone: open_clip's name of the towers.

        Each part draws its first weights from a seed of its own, so that two designs differ in what was switched, and the
        parts they share start out the same. Raises UsageError for towers it cannot use.
        """
        super().__init__()
        seed = int(torch.randint(2**62, ()))
        self.design, self.backbone = design, backbone
        with _own_chance(seed, "towers"):
            towers = clip.Towers(backbone)
        self.quick_gelu = towers.quick_gelu
        width, tower_width = towers.width, towers.visual_width
        with _own_chance(seed, "gie"):
            heads = tower_width // _HEAD_WIDTH or 1
            blocks = design.blocks if design.injector else 0
            self.gie = GazeAwareImageEncoder(towers.visual, width, blocks, heads, design.save_memory)
        with _own_chance(seed, "gaze encoder"):
            encoder = (
                GazeEncoder(design.gaze_network, width, clip.MEAN, clip.STD, design.gaze_map) if design.gaze else None
            )
        with _own_chance(seed, "agpm"):
            heads = width // _HEAD_WIDTH or 1
            agpm = AppearanceGazePatternModule(tower_width, width, heads) if design.agpm else None
        self.vpe = None if encoder is None else VisualPerceptionEncoder(encoder, agpm)
        with _own_chance(seed, "fusion"):
            self.fusion = Fusion(width) if design.agpm else None
        with _own_chance(seed, "head"):
            self.head = DFADHead(width, len(classes))
        with _own_chance(seed, "lre"):
            self.lre = (
                LanguageRefinementEncoder(towers.text, towers.context, classes, design.aws) if design.lre else None
            )
        self.matching = Matching() if design.lre else None
        self._early = towers.depth // _EARLY
        with _own_chance(seed, "lora"):
            for tower in self.towers().values():
                if design.towers == "frozen":
                    tower.requires_grad_(False)
                elif design.towers == "lora":
                    add_lora(tower, design.rank, alpha=2 * design.rank)

    def towers(self) -> dict[str, nn.Module]:
        """Return CLIP's own parts by open_clip's names: ``visual``, and ``text`` where there is LRE."""
        return {"visual": self.gie.visual} | ({} if self.lre is None else {"text": self.lre.text})

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that learn at the backbone's rate: those of the towers, and not the adapters'."""
        if self.design.towers != "lora":
            for tower in self.towers().values():
                yield from tower.parameters()

    def sharded_blocks(self) -> Iterator[nn.Module]:
        """Yield what ``run --shard`` may hold one block at a time: the towers' blocks, but those that gaze is injected into."""
        yield from self.gie.plain_blocks()
        if self.lre is not None:
            yield from self.lre.text.transformer.resblocks

    def see(self, batch: Batch) -> Seen:
        """Return the visual counterfeit features of B faces [B, 3, H, W], normalised as for CLIP."""
        assert batch.image is not None
        patches = self.gie.embed(batch.image, self._early)
        gaze, pattern = (None, None)
        if self.vpe is not None:
            gaze, pattern = self.vpe(batch.image, batch.gaze_map, patches.tokens[:, 1:])
        image = self.gie(patches, None if gaze is None else gaze.tokens)
        features = image if self.fusion is None else self.fusion(image, pattern)
        return Seen(features, gaze, patches)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces by the visual side alone; the embedding is z [B, d]."""
        features = self.see(batch).features
        logits, fake = self.head(features)
        return Output(logits, fake.sigmoid(), features.float())

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return attribution + detection + vision-language matching + gaze, each with its weight, in nats and radians."""
        assert batch.target is not None
        seen, design = self.see(batch), self.design
        logits, fake = self.head(seen.features)
        loss = F.cross_entropy(logits, batch.target)
        is_fake = (batch.target != 0).to(fake.dtype)
        loss = loss + design.detection_weight * F.binary_cross_entropy_with_logits(fake, is_fake)
        if self.lre is not None and self.matching is not None:
            loss = loss + design.matching_weight * self.matching(seen.features, self.lre(), batch.target)
        if seen.gaze is not None and seen.gaze.angles is not None:
            assert batch.gaze is not None, "a gaze encoder that learns needs the manifest's gaze"
            loss = loss + design.gaze_weight * gaze_loss(seen.gaze.angles, batch.gaze)
        return loss


@contextmanager
def _own_chance(seed: int, part: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed + zlib.crc32(part.encode())) % 2**63)
        yield
