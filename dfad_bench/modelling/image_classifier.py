"""A network that embeds faces, followed by linear heads: what every plain backbone is here, and many a detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfad_bench.modelling.nn import Head, TwoHeads, attribution_loss, classifier_output
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.modelling.weights import load_state, read_state
from dfad_bench.types import Batch, Output


class ImageClassifier(nn.Module):
    """One logit per leaf class, linear in what a backbone makes of a face.

    backbone: maps images [B, 3, H, W] to embeddings [B, width], its own head taken off.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        # Convolutions are up to 1.7 times as fast so; transformers do not mind.
        self.backbone: nn.Module = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = Head(width, classes)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W] after the model's preprocessing; the embedding is what the head reads."""
        embedding = _embedded(self.backbone, batch)
        return classifier_output(self.head(embedding), embedding)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the leaf classes."""
        return attribution_loss(self(batch), batch)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters but the head's."""
        return self.backbone.parameters()


class ImageDetector(nn.Module):
    """A detector beside a closed-set head over the leaf classes, both linear in what a backbone makes of a face.

    backbone: maps images [B, 3, H, W] to embeddings [B, width], its own head taken off.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone: nn.Module = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = TwoHeads(width, classes)

    def forward(self, batch: Batch) -> Output:
        """Answer B faces [B, 3, H, W] after the model's preprocessing; the embedding is what both heads read."""
        output: Output = self.heads(_embedded(self.backbone, batch))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy over the leaf classes plus that of real against fake, each a mean in nats."""
        return self.heads.loss(_embedded(self.backbone, batch), batch)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters but the heads'."""
        return self.backbone.parameters()


def _embedded(backbone: nn.Module, batch: Batch) -> torch.Tensor:
    assert batch.image is not None
    embedding: torch.Tensor = backbone(batch.image.contiguous(memory_format=torch.channels_last))
    return embedding


def timm_network(name: str, **settings: Any) -> tuple[nn.Module, int]:
    """Return one of timm's networks with random weights and without its head, and the width of its embedding.

    settings: those of the network itself, such as ``img_size``, the side in pixels that a transformer reads.
    """
    declare_missing_operators()
    import timm

    network: Any = timm.create_model(name, pretrained=False, num_classes=0, **settings)
    return network, network.num_features


def load_published(module: nn.Module, path: Path, but_for: tuple[str, ...]) -> None:
    """Fill a ``backbone`` from published weights, whose head ``but_for`` names; see ``load_network``."""
    assert isinstance(module.backbone, nn.Module)
    load_network(module.backbone, read_state(path), path, but_for)


def load_network(
    network: nn.Module, state: Mapping[str, torch.Tensor], path: Path, but_for: tuple[str, ...] = ()
) -> None:
    """Fill a network from published weights of the same network, whatever head and resolution they were trained with.

    state: what ``weights.read_state`` found; path: where, for the message; but_for: how the names begin that the file has
    and the network lacks, such as a head's ``fc.``. A transformer's position embedding [1, 1 + n·n, d] is resampled to
    the network's grid. Raises DataError where any other name is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    kept = {key: tensor for key, tensor in state.items() if not (but_for and key.startswith(but_for))}
    # Files in the manner of PyTorch before 0.4.1, such as torchvision's of ResNet-50, lack these counts, which nothing
    # here reads.
    kept |= {key: own[key] for key in own.keys() - kept.keys() if key.endswith("num_batches_tracked")}
    if "pos_embed" in own and "pos_embed" in kept:
        kept["pos_embed"] = _resampled(kept["pos_embed"], own["pos_embed"].shape[1])
    load_state(network, kept, path)


def _resampled(positions: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return position embeddings [1, tokens, d] of a class token and a square grid, resampled as timm does it."""
    if positions.ndim != 3 or positions.shape[1] == tokens:
        return positions
    from timm.layers.pos_embed import resample_abs_pos_embed

    side = round((tokens - 1) ** 0.5)
    resampled: torch.Tensor = resample_abs_pos_embed(positions, new_size=[side, side], num_prefix_tokens=1)
    return resampled
