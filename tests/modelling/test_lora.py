from __future__ import annotations

import pytest
import torch
from torch import nn

from dfad_bench.modelling.lora import LowRank, add_lora, plain_names


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.norm(x + self.mlp(x))


def _blocks(rank: int = 2) -> tuple[Block, Block]:
    torch.manual_seed(0)
    plain, adapted = Block(), Block()
    adapted.load_state_dict(plain.state_dict())
    add_lora(adapted, rank=rank, alpha=4)
    return plain, adapted


def test_an_adapted_network_starts_as_the_plain_one() -> None:
    plain, adapted = _blocks()
    x = torch.randn(3, 5, 8)
    assert torch.equal(adapted(x), plain(x))


def test_only_the_low_rank_parts_learn_and_all_of_them_do() -> None:
    _, adapted = _blocks()
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(learning) == 2 * 4, "in_proj, out_proj and two linear layers, up and down"
    for _ in range(2):  # down hears nothing until up has moved
        adapted(torch.randn(3, 5, 8)).square().sum().backward()
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if name in learning and parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
    assert all(p.grad is not None and p.grad.any() for n, p in adapted.named_parameters() if n in learning)
    assert all(p.grad is None for n, p in adapted.named_parameters() if n not in learning)


def test_the_change_is_of_that_rank_and_scaled_by_alpha_over_rank() -> None:
    part = LowRank(8, 6, rank=2, alpha=4)
    nn.init.normal_(part.up)
    weight = torch.randn(8, 6)
    change = part(weight) - weight
    assert torch.linalg.matrix_rank(change) == 2
    torch.testing.assert_close(change, 2 * part.up @ part.down)


def test_the_names_before_and_after_are_told() -> None:
    plain, adapted = _blocks()
    names, adapters = plain_names(adapted)
    state = adapted.state_dict()
    before = plain.state_dict()
    assert {names.get(key, key) for key in before} | adapters == state.keys()
    assert all(torch.equal(state[names.get(key, key)], tensor) for key, tensor in before.items())
    assert plain_names(plain) == ({}, set())
    linear = nn.Linear(3, 4)
    add_lora(linear, 1)
    assert plain_names(linear)[0] == {"weight": "parametrizations.weight.original"}


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ValueError, match="rank of 0"):
        add_lora(nn.Linear(3, 4), rank=0)
    with pytest.raises(ValueError, match="neither a linear layer"):
        add_lora(nn.LayerNorm(4))
