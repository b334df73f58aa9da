"""AWS, the adaptive-enhanced word selector (figure 5): weights the words of a sentence softly, before the text tower."""

from __future__ import annotations

import torch
from torch import nn


class AdaptiveWordSelector(nn.Module):
    """Gives each word an importance from the word and its sentence, and scales its embedding by it.

    The paper's: soft weights, brighter is more important, plug-and-play before any transformer, few parameters. Ours: the
    scorer (a norm, then two layers on [word; mean of the sentence's words]), and that the importances of a sentence of n
    words are n times a softmax, so that their mean is 1 and equal importances leave the text tower as it is. The last layer
    starts at zero, so training starts from there. The pieces of a split word share its importance; the two end marks keep 1.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        # Word embeddings are small (their deviation is about 0.02): unnormalised, all words would look alike to the scorer.
        self.norm = nn.LayerNorm(width)
        self.scorer = nn.Sequential(nn.Linear(2 * width, hidden), nn.GELU(), nn.Linear(hidden, 1))
        last = self.scorer[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, embeddings: torch.Tensor, word_of: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map word embeddings [U, T, w] to re-weighted ones [U, T, w] and the importances [U, W] of the words.

        word_of [U, T] int64: index of the word that a token belongs to, -1 for marks and padding; W: the most words
        that a sentence has. Importances of words that a shorter sentence lacks are 0.
        """
        words = int(word_of.max()) + 1
        belongs = torch.nn.functional.one_hot(word_of.clamp(min=0), words) * (word_of >= 0)[..., None]  # [U, T, W]
        belongs = belongs.to(embeddings.dtype)
        pieces = belongs.sum(dim=1)  # [U, W]
        is_word = pieces > 0
        each = self.norm(belongs.transpose(1, 2) @ embeddings / pieces.clamp(min=1)[..., None])  # [U, W, w]
        number = is_word.sum(dim=1, keepdim=True)
        context = (each * is_word[..., None]).sum(dim=1, keepdim=True) / number[..., None]
        score = self.scorer(torch.cat([each, context.expand_as(each)], dim=-1)).squeeze(-1).float()
        importance = number * score.masked_fill(~is_word, -torch.inf).softmax(dim=1)
        by_token = (belongs @ importance.to(embeddings.dtype)[..., None]).squeeze(-1)
        factor = torch.where(word_of >= 0, by_token, torch.ones_like(by_token))
        return embeddings * factor[..., None], importance
