"""GIE, the gaze-aware image encoder: CLIP's image tower, whose class token hears the gaze in the last blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gazeclip.gaze_injector import GazeInjector


@dataclass(frozen=True, slots=True)
class Patches:
    """The tower's tokens [B, 1 + N, w] after its first blocks, class token first; ``depth`` is how many it has passed."""

    tokens: torch.Tensor
    depth: int


class GazeAwareImageEncoder(nn.Module):
    """The paper's: an encoder of patches and gaze features in which the gaze reaches the class token only.

    Ours: in the last ``blocks`` blocks two class tokens walk side by side. CLIP's own is the one that the patches see, so
    patch tokens are CLIP's to the bit; the gaze-aware one takes what the injector adds, then passes the same open_clip block:
    it asks with the block's own query, keys and values of itself and the patches, and is the one that leaves the tower. The
    last block is computed for it alone, since nobody reads what that does to the patches.
    """

    def __init__(self, visual: Any, gaze_width: int, blocks: int, heads: int, save_memory: bool = False) -> None:
        """Wrap an open_clip tower. blocks: how many of its last blocks are injected into, 0 for plain CLIP.

        save_memory: recompute each block in the backward pass instead of keeping it. Raises ValueError for more blocks
        than the tower has.
        """
        super().__init__()
        self.visual = visual
        self.save_memory = save_memory
        depth = len(self.visual.transformer.resblocks)
        if not 0 <= blocks <= depth:
            raise ValueError(f"gaze cannot be injected into {blocks} of {depth} blocks")
        width = self.visual.transformer.width
        self.injectors = nn.ModuleList(GazeInjector(width, gaze_width, heads) for _ in range(blocks))

    def embed(self, image: torch.Tensor, depth: int) -> Patches:
        """Return the tokens of faces [B, 3, H, W] after ``depth`` blocks, at most as many as no gaze reaches."""
        tokens = self.visual._embeds(image)
        for block in self.visual.transformer.resblocks[: min(depth, self._first)]:
            tokens = self._through(block, tokens)
        return Patches(tokens, min(depth, self._first))

    def forward(self, patches: Patches, gaze: torch.Tensor | None) -> torch.Tensor:
        """Map the tower's early tokens and the gaze tokens [B, M, d] to image embeddings [B, d] in CLIP's space."""
        return self._walk(patches, gaze)[0]

    def looked_at(self, patches: Patches, gaze: torch.Tensor) -> torch.Tensor:
        """Return how much each gaze token is attended to [B, M], the mean over heads and injected blocks."""
        return torch.stack(self._walk(patches, gaze, watch=True)[1]).mean(dim=0)

    def plain_blocks(self) -> Iterator[nn.Module]:
        """Yield the blocks of the tower that no gaze reaches, and that are only ever run through their forward."""
        yield from self.visual.transformer.resblocks[: self._first]

    @property
    def _first(self) -> int:
        """The block from which the class token walks apart: the first injected one, or the last one."""
        depth = len(self.visual.transformer.resblocks)
        return depth - max(len(self.injectors), 1)

    def _walk(
        self, patches: Patches, gaze: torch.Tensor | None, watch: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens, watched = patches.tokens, []
        blocks = self.visual.transformer.resblocks
        for block in blocks[patches.depth : self._first]:
            tokens = self._through(block, tokens)
        cls = tokens[:, :1]
        for number, block in enumerate(blocks[self._first :]):
            if len(self.injectors):
                assert gaze is not None, "an injector needs gaze tokens"
                injector = self.injectors[number]
                assert isinstance(injector, GazeInjector)
                if watch:
                    watched.append(injector.looked_at(cls, gaze))
                cls = injector(cls, gaze)
            cls = self._through(_cls_through, block, cls, tokens[:, 1:])
            if block is not blocks[-1]:
                tokens = self._through(block, tokens)
        pooled = self.visual.ln_post(cls[:, 0])
        return (pooled if self.visual.proj is None else pooled @ self.visual.proj), watched

    def _through(self, step: Any, *inputs: Any) -> torch.Tensor:
        if self.save_memory and self.training and torch.is_grad_enabled():
            kept: torch.Tensor = checkpoint(step, *inputs, use_reentrant=False)
            return kept
        out: torch.Tensor = step(*inputs)
        return out


def _cls_through(block: Any, cls: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Return what an open_clip block makes of a class token [B, 1, w] that stands before patch tokens [B, N, w]."""
    tokens = block.ln_1(torch.cat([cls, patches], dim=1))
    cls = cls + block.ls_1(block.attention(tokens[:, :1], tokens, tokens))
    passed: torch.Tensor = cls + block.ls_2(block.mlp(block.ln_2(cls)))
    return passed
