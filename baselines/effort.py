"""Effort: fakes are learned in the directions that CLIP's attention hardly uses, so that what it knows stays whole.

Yan et al., ICML 2025, arXiv:2411.15633, "Orthogonal Subspace Decomposition for Generalizable AI-Generated Image
Detection". A detector that is fine-tuned freely forgets: its features shrink to the few directions that tell the fakes
it has seen. So every weight of the attention of CLIP's image tower (ViT-L/14) is split by its singular values. The
principal subspace stays frozen; the directions of the smallest singular values, one of 1024, are learned. Constraints
keep the learned ones orthogonal to the frozen ones and the weight at its norm.

For attribution the linear detector gets a linear head over the leaf classes beside it, on the class token before CLIP's
projection. open_clip's queries, keys and values lie in one tensor and are split one by one, as the paper's are.

Re-implemented from the paper's abstract and from memory of its equations. Learning rate, weight decay and batch size
are remembered (it has Adam, a fixed rate); that both constraints count as much as the cross-entropy, averaged over the
weights, is ours. Users report that the authors' code leaves them out (its issue 9), which
``--set orthogonality_weight=0 --set norm_weight=0`` does. It starts from OpenAI's weights, decomposed when they are
loaded, in about a minute; random ones (``--backbone-weights none``) are decomposed when training begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from dfad_bench.modelling import clip
from dfad_bench.modelling.nn import TwoHeads
from dfad_bench.types import Batch, Leaf, ModelSpec, Output, Recipe

_SPLIT = ("attn.in_proj_weight", "attn.out_proj.weight")


class Residual(nn.Module):
    """What is learned of k square weights that lie in one tensor [k·d, d]: U Σ Vᵀ of their smallest singular values.

    u, v [k, d, rank], s [k, rank]; ``first_*`` is what they were when they were taken from the weight.
    """

    first_u: torch.Tensor
    first_s: torch.Tensor
    first_v: torch.Tensor

    def __init__(self, stacked: int, width: int, rank: int) -> None:
        """Begin as zero: a weight that nothing was taken from."""
        super().__init__()
        self.u = nn.Parameter(torch.zeros(stacked, width, rank))
        self.s = nn.Parameter(torch.zeros(stacked, rank))
        self.v = nn.Parameter(torch.zeros(stacked, width, rank))
        for name, parameter in list(self.named_parameters()):
            self.register_buffer(f"first_{name}", torch.zeros_like(parameter))

    def forward(self) -> torch.Tensor:
        """Return the residual part [k·d, d]."""
        return ((self.u * self.s[:, None]) @ self.v.mT).flatten(0, 1)

    @torch.no_grad()
    def take_from(self, weight: torch.Tensor) -> None:
        """Start as the smallest singular directions of a weight [k·d, d], of which the principal part is left."""
        rank = self.s.shape[1]
        u, s, vh = torch.linalg.svd(weight.view(len(self.s), -1, weight.shape[1]))
        for name, tensor in (("u", u[:, :, -rank:]), ("s", s[:, -rank:]), ("v", vh[:, -rank:].mT)):
            self.get_parameter(name).copy_(tensor)
            self.get_buffer(f"first_{name}").copy_(tensor)
        weight -= self()

    def orthogonality(self) -> torch.Tensor:
        """Return ‖ÛᵀÛ − I‖² + ‖V̂ᵀV̂ − I‖² [k], where Û = [U_r, u] are the frozen and the learned directions.

        U_r itself is not needed: being orthonormal, with ``first_u`` it spans everything, so ‖U_rᵀu‖ is the length of
        what of u lies outside ``first_u``.
        """
        total = torch.zeros_like(self.s[:, 0])
        for now, first in ((self.u, self.first_u), (self.v, self.first_v)):
            outside = now - first @ (first.mT @ now)
            gram = now.mT @ now - torch.eye(now.shape[2], device=now.device)
            total = total + 2 * outside.square().sum(dim=(1, 2)) + gram.square().sum(dim=(1, 2))
        return total

    def norm_change(self, principal: torch.Tensor) -> torch.Tensor:
        """Return | ‖P + R‖² − ‖W‖² | [k], for the frozen part P [k·d, d], the residual R and the original weight W.

        As ‖R‖² + 2⟨P, R⟩ − ‖R₀‖², since P and R₀, what R was at first, are orthogonal: ‖P‖² would drown the difference.
        """
        scales = self.s[:, :, None] * self.s[:, None, :]
        length = (scales * (self.u.mT @ self.u) * (self.v.mT @ self.v)).sum(dim=(1, 2))
        across = (self.u * (principal.view(len(self.s), -1, principal.shape[1]) @ self.v)).sum(dim=1)
        inner = (self.s * across).sum(dim=1)
        return (length + 2 * inner - self.first_s.square().sum(dim=1)).abs()


class ClassToken(nn.Module):
    """CLIP's image tower up to its projection: faces [B, 3, H, W] to class tokens [B, w]."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the class tokens after the last LayerNorm."""
        token: torch.Tensor = self.visual._pool(self.visual.transformer(self.visual._embeds(image)))[0]
        return token


class Effort(nn.Module):
    """A frozen tower that holds the principal parts, the residuals that are added to them, and two heads."""

    decomposed: torch.Tensor

    def __init__(self, classes: int, backbone: str, rank: int, orthogonality_weight: float, norm_weight: float) -> None:
        """Build it with random weights, not decomposed yet: that takes ViT-L/14 a minute, and no answer depends on it.

        Raises UsageError for a tower that cannot be used, ValueError for a rank that leaves nothing of it frozen.
        """
        super().__init__()
        towers = clip.Towers(backbone)
        width = towers.visual_width
        if rank >= width:
            raise ValueError(f"rank is {rank}: it must be less than {width}, the width of {backbone}")
        self.backbone, self.quick_gelu = backbone, towers.quick_gelu
        self.orthogonality_weight, self.norm_weight = orthogonality_weight, norm_weight
        # The tower's own weights, and not parametrised ones, so that published files fit it to the last key.
        self.tower = ClassToken(towers.visual.requires_grad_(False))
        self.names = [name for name, _ in self.tower.named_parameters() if name.endswith(_SPLIT)]
        self.residuals = nn.ModuleList(
            Residual(len(self.tower.get_parameter(name)) // width, width, rank) for name in self.names
        )
        self.register_buffer("decomposed", torch.tensor(False))
        self.heads = TwoHeads(width, classes)

    def split(self) -> list[tuple[str, torch.Tensor, Residual]]:
        """Return the name, the principal part and the residual of every weight that is split."""
        found: list[tuple[str, torch.Tensor, Residual]] = []
        for name, residual in zip(self.names, self.residuals, strict=True):
            assert isinstance(residual, Residual)
            found.append((name, self.tower.get_parameter(name), residual))
        return found

    def decompose(self) -> None:
        """Move the smallest singular directions of the tower's weights, which are whole, to the residuals."""
        for _, weight, residual in self.split():
            residual.take_from(weight)
        self.decomposed.fill_(True)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Return the class tokens [B, w] of faces [B, 3, H, W]."""
        weights = {name: principal + residual() for name, principal, residual in self.split()}
        token: torch.Tensor = functional_call(self.tower, weights, (image,))
        return token

    def forward(self, batch: Batch) -> Output:
        """Answer B faces; the embedding is the class token that both heads read."""
        assert batch.image is not None
        output: Output = self.heads(self.embed(batch.image))
        return output

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return both heads' cross-entropies in nats, and both constraints, each a mean over the split weights."""
        assert batch.image is not None
        if not self.decomposed:
            self.decompose()
        loss = self.heads.loss(self.embed(batch.image), batch)
        # In bfloat16, a length of 1 is off by more than the constraints are about.
        with torch.autocast(batch.image.device.type, enabled=False):
            orthogonality = torch.cat([residual.orthogonality() for _, _, residual in self.split()]).mean()
            norm_change = torch.cat([residual.norm_change(principal) for _, principal, residual in self.split()]).mean()
        return loss + self.orthogonality_weight * orthogonality + self.norm_weight * norm_change


def build(
    classes: Sequence[Leaf], backbone: str, rank: int = 1, orthogonality_weight: float = 1.0, norm_weight: float = 1.0
) -> nn.Module:
    """Return the model for these leaf classes, with random weights."""
    return Effort(len(classes), backbone, rank, orthogonality_weight, norm_weight)


def load_backbone(module: nn.Module, path: Path) -> None:
    """Fill the image tower with OpenAI's or open_clip's weights and decompose it; raise DataError unless all fit."""
    assert isinstance(module, Effort)
    clip.load_towers({"visual": module.tower.visual}, module.backbone, module.quick_gelu, path)
    module.decompose()


def configure(
    backbone: str = "ViT-L-14-quickgelu", rank: int = 1, orthogonality_weight: float = 1.0, norm_weight: float = 1.0
) -> ModelSpec:
    """Return the model with other options; raise ValueError for a number that makes no sense, UsageError for a tower.

    backbone: open_clip's name; rank: singular directions that are learned of each weight; orthogonality_weight,
    norm_weight: what the constraints are multiplied by, 0 for none.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}: it must be 1 or more")
    if min(orthogonality_weight, norm_weight) < 0:
        raise ValueError("orthogonality_weight and norm_weight must be 0 or more")
    return ModelSpec(
        build=partial(
            build, backbone=backbone, rank=rank, orthogonality_weight=orthogonality_weight, norm_weight=norm_weight
        ),
        inputs=("image",),
        preprocess=clip.preprocess(backbone),
        reference="Yan et al., ICML 2025, arXiv:2411.15633",
        licence="Apache-2.0 (this file), MIT (open_clip)",
        recipe=Recipe(epochs=10, batch_size=32, learning_rate=2e-4, weight_decay=5e-4),
        backbone_weights=clip.published_weights(backbone),
        default_backbone_weights=clip.default_weights(backbone),
        load_backbone=load_backbone,
        configure=configure,
    )


MODEL = configure()
