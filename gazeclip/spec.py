"""What dfad_bench needs to know about GazeCLIP: the models ``gazeclip`` and ``gazeclip_tiny``, and their options."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from dfad_bench.modelling import clip
from dfad_bench.types import Input, Leaf, ModelSpec, Recipe
from gazeclip.gaze_encoder import Trunk
from gazeclip.model import Design, GazeCLIP

REFERENCE = "Zhang et al., arXiv:2603.29295 (re-implemented from its abstract and captions, not the authors' code)"
LICENCE = "Apache-2.0 (this code), MIT (open_clip)"

RECIPE = Recipe(
    epochs=10,
    batch_size=32,
    learning_rate=3e-4,
    backbone_learning_rate=1e-5,
    weight_decay=1e-3,
    clip_norm=1.0,
    patience=3,
)
"""Weight decay as in the authors' MFVLR (arXiv:2605.10071); the rest is ours."""
TINY_RECIPE = Recipe(epochs=20, batch_size=16, learning_rate=1e-3, weight_decay=1e-2, clip_norm=1.0, patience=20)


def configure(
    backbone: str = clip.DEFAULT,
    injector: bool = True,
    agpm: bool = True,
    lre: bool = True,
    aws: bool = True,
    gaze_map: bool = False,
    gaze_network: Trunk = "resnet18",
    blocks: int = 3,
    towers: Literal["trained", "frozen", "lora"] = "trained",
    rank: int = 8,
    save_memory: bool = False,
    detection_weight: float = 1.0,
    matching_weight: float = 1.0,
    gaze_weight: float = 1.0,
) -> ModelSpec:
    """Return GazeCLIP with other options; see ``Design`` for what they mean.

    Raises UsageError for towers that cannot be used, ValueError for a number that makes no sense.
    """
    if blocks < 1 or rank < 1 or min(detection_weight, matching_weight, gaze_weight) < 0:
        raise ValueError("blocks and rank must be 1 or more, weights of losses 0 or more")
    design = Design(
        injector=injector,
        agpm=agpm,
        lre=lre,
        aws=aws,
        gaze_map=gaze_map,
        blocks=blocks,
        gaze_network=gaze_network,
        towers=towers,
        rank=rank,
        save_memory=save_memory,
        detection_weight=detection_weight,
        matching_weight=matching_weight,
        gaze_weight=gaze_weight,
    )
    inputs: list[Input] = ["image"]
    if design.gaze and gaze_network != "l2cs":
        inputs.append("gaze")
    if design.gaze and gaze_map:
        inputs.append("gaze_map")
    return ModelSpec(
        build=partial(_build, backbone=backbone, design=design),
        inputs=tuple(inputs),
        preprocess=clip.preprocess(backbone),
        reference=REFERENCE,
        licence=LICENCE,
        recipe=TINY_RECIPE if backbone == clip.TINY else RECIPE,
        backbone_weights=clip.published_weights(backbone),
        load_backbone=_load_backbone,
        default_backbone_weights=clip.default_weights(backbone),
        trained_on=("Gaze360",) if design.gaze and gaze_network == "l2cs" else (),
        light=backbone == clip.TINY,
        configure=configure_tiny if backbone == clip.TINY else configure,
    )


def _build(classes: Sequence[Leaf], backbone: str, design: Design) -> nn.Module:
    model = GazeCLIP(classes, backbone, design)
    if design.gaze_network == "l2cs" and model.vpe is not None:
        model.vpe.gaze_encoder.load_published()
    return model


def _load_backbone(module: nn.Module, path: Path) -> None:
    assert isinstance(module, GazeCLIP)
    clip.load_towers(module.towers(), module.backbone, module.quick_gelu, path)


configure_tiny = partial(configure, backbone=clip.TINY, gaze_network="convnet", blocks=2)
"""The same options with the tiny model's defaults: it has four blocks, and faces of 64 px are too small for a ResNet."""
MODEL, TINY = configure(), configure_tiny()
