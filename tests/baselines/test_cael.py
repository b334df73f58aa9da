"""CAEL draws edges where there are some and nowhere else, and lets each domain ask the other, and only the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.cael import GRAINS, WIDTH, Edges, configure

from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.preprocess import IMAGENET_MEAN, IMAGENET_STD
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SIZE = 32
SMALL = replace(configure(size=SIZE), configure=None)


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _normalised(face: torch.Tensor) -> torch.Tensor:
    """Return faces [B, 3, H, W] in 0..1 as the model gets them."""
    return (face - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


def test_a_flat_face_of_any_colour_has_no_edges_up_to_its_border() -> None:
    colours = torch.rand(5, 3, 1, 1).expand(5, 3, 9, 9)
    torch.testing.assert_close(Edges()(_normalised(colours)), torch.zeros(5, 3, 9, 9), atol=2e-6, rtol=0)


def test_a_step_from_black_to_white_excites_the_filters_as_they_are_defined() -> None:
    step = torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1
    across, down, laplacian = Edges()(_normalised(step))[0]
    expected = torch.zeros(8, 8)
    expected[:, 3:5] = 4  # 1 + 2 + 1, on either side of the step
    torch.testing.assert_close(across, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(down, torch.zeros(8, 8), atol=1e-5, rtol=0)
    expected[:, 3], expected[:, 4] = 1, -1
    torch.testing.assert_close(laplacian, expected, atol=1e-5, rtol=0)
    turned = Edges()(_normalised(step.transpose(2, 3)))[0]
    torch.testing.assert_close(turned[1], across.T, atol=1e-5, rtol=0)


def test_queries_come_from_one_domain_and_keys_and_values_from_the_other(module: Any) -> None:
    asks = module.eval().grains[0].appearance_asks
    tokens, other = torch.randn(1, 6, WIDTH), torch.randn(1, 5, WIDTH)
    with torch.no_grad():
        answer = asks(tokens, other)
        moved = tokens.clone()
        moved[:, 2] += 1
        changed = (asks(moved, other) - answer).abs().amax(dim=(0, 2)) > 1e-4
        # No token of its own domain is a key or a value: the others do not notice.
        assert changed.tolist() == [False, False, True, False, False, False]
        torch.testing.assert_close(asks(tokens, other.flip(1)), answer)
        heard = other.clone()
        heard[:, 3] += torch.randn(WIDTH)
        assert bool(((asks(tokens, heard) - answer).abs().amax(dim=(0, 2)) > 1e-4).all())


def test_what_one_domain_sees_changes_what_the_other_says(module: Any) -> None:
    grain = module.eval().grains[1]
    side = SIZE // 4
    appearance, edges = torch.randn(2, WIDTH, side, side), torch.randn(2, WIDTH, side, side)
    with torch.no_grad():
        before = grain(appearance, edges)
        other_edges = grain(appearance, edges + torch.randn_like(edges)) - before
        other_appearance = grain(appearance + torch.randn_like(appearance), edges) - before
    assert before.shape == (2, 2 * WIDTH)
    assert other_edges[:, :WIDTH].abs().max() > 1e-3
    assert other_appearance[:, WIDTH:].abs().max() > 1e-3


def test_tokens_are_fine_and_coarse(module: Any) -> None:
    features = torch.randn(1, WIDTH, SIZE // 4, SIZE // 4)
    tokens = [grain.appearance(features).shape[1] for grain in module.grains]
    assert tokens == [(SIZE // 8) ** 2, (SIZE // 16) ** 2] and len(GRAINS) == 2


def test_both_branches_reach_the_loss_and_a_few_steps_lower_it(module: Any, tmp_path: Path) -> None:
    table = make_faces(tmp_path, 4, size=SIZE)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            assert module.align_appearance[0].weight.grad.any() and module.align_edges[0].weight.grad.any()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_light_and_shade_alone_reach_the_appearance_branch_only(module: Any) -> None:
    module.eval()
    faces = Batch(2, image=torch.stack([torch.zeros(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE)]))
    assert faces.image is not None
    with torch.no_grad():
        edges = module.align_edges(module.edges(faces.image))
        torch.testing.assert_close(edges[0], edges[1], atol=1e-5, rtol=0)
        logits = module(faces).logits
    assert (logits[0] - logits[1]).abs().max() > 1e-4


@pytest.mark.parametrize("size", [0, 100])
def test_a_resolution_of_no_whole_tokens_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}: it must be a multiple of 16"):
        configure(size=size)
