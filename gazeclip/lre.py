"""LRE, the language refinement encoder: class texts at four levels through CLIP's text tower, with AWS in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dfad_bench.modelling.clip import tokenize
from dfad_bench.modelling.prompts import prompts
from dfad_bench.types import Leaf
from gazeclip.aws import AdaptiveWordSelector


@dataclass(frozen=True, slots=True)
class ClassTexts:
    """What the language side says of C leaf classes.

    levels: for each the embeddings [V, d] of its V distinct texts, of unit length; value_of: for each level, which text
    describes a class [C] int64; importance [U, W]: AWS's, of the words of U sentences, None without AWS.
    """

    levels: tuple[torch.Tensor, ...]
    value_of: tuple[torch.Tensor, ...]
    importance: torch.Tensor | None


class LanguageRefinementEncoder(nn.Module):
    """The paper's: text encoder + AWS. From the siblings' papers: four levels of sentences.

    Ours: each level is encoded by itself and read at its own end-of-text token (the siblings' code reads one long
    sentence at its first end mark, where a causal tower has heard level 1 alone); several templates are averaged; a text
    that several classes or levels share is encoded once; and only as many positions as the longest sentence has.
    """

    ids: torch.Tensor
    word_of: torch.Tensor

    def __init__(self, text: Any, context: int, classes: Sequence[Leaf], aws: bool = True) -> None:
        super().__init__()
        self.text = text
        self.prompts = prompts(classes)
        self.sentences = tuple(
            dict.fromkeys(one for level in self.prompts for several in level.sentences for one in several)
        )
        ids, self.words, word_of = tokenize(self.sentences, context)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("word_of", word_of, persistent=False)
        place = {sentence: row for row, sentence in enumerate(self.sentences)}
        for number, level in enumerate(self.prompts):
            rows = torch.tensor([[place[one] for one in several] for several in level.sentences])  # [V, templates]
            self.register_buffer(f"rows_{number}", rows, persistent=False)
            self.register_buffer(f"value_of_{number}", torch.tensor(level.value_of), persistent=False)
        self.aws = AdaptiveWordSelector(self.text.width) if aws else None

    def forward(self) -> ClassTexts:
        """Encode every sentence once, whatever the number of faces and of classes that share it."""
        embeddings = self.text.token_embedding(self.ids)
        importance = None
        if self.aws is not None:
            embeddings, importance = self.aws(embeddings, self.word_of)
        length = self.ids.shape[1]
        hidden = embeddings + self.text.positional_embedding[:length]
        hidden = self.text.transformer(hidden, attn_mask=self.text.attn_mask[:length, :length])
        # The end-of-text token has the highest id of all (open_clip's pool_type 'argmax').
        ends = hidden[torch.arange(len(self.ids), device=self.ids.device), self.ids.argmax(dim=1)]
        encoded = _project(self.text.ln_final(ends), self.text.text_projection)
        encoded = F.normalize(encoded.float(), dim=-1)
        levels = tuple(
            F.normalize(encoded[self.get_buffer(f"rows_{number}")].mean(dim=1), dim=-1)
            for number in range(len(self.prompts))
        )
        value_of = tuple(self.get_buffer(f"value_of_{number}") for number in range(len(self.prompts)))
        return ClassTexts(levels, value_of, importance)


def _project(pooled: torch.Tensor, projection: nn.Linear | torch.Tensor | None) -> torch.Tensor:
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
