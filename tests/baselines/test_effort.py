"""CLIP's attention is split by singular values: the principal part stays to the bit, the rest learns beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.effort import MODEL, Residual, configure, load_backbone
from safetensors.torch import save_file

from dfad_bench.errors import DataError
from dfad_bench.modelling.clip import TINY, Towers
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(backbone=TINY, rank=2), configure=None)
BLOCKS, WIDTH = 4, 64


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _state(module: Any) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def test_every_weight_of_the_attention_is_principal_plus_smallest_singular_directions(module: Any) -> None:
    whole = [weight.clone() for _, weight, _ in module.split()]
    image = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        before = module.eval()(Batch(2, image=image)).embedding
        module.decompose()
        after = module(Batch(2, image=image)).embedding
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert [len(residual.s) for _, _, residual in module.split()] == [3, 1] * BLOCKS, "query, key, value; then output"
    for original, (_, principal, residual) in zip(whole, module.split(), strict=True):
        torch.testing.assert_close(principal + residual(), original, atol=1e-6, rtol=1e-5)
        for row, weight in enumerate(original.split(WIDTH)):
            u, s, vh = torch.linalg.svd(weight)
            kept = principal[row * WIDTH : (row + 1) * WIDTH]
            torch.testing.assert_close(kept, (u[:, :-2] * s[:-2]) @ vh[:-2], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(residual.s[row], s[-2:], atol=1e-5, rtol=1e-4)


def test_a_few_steps_lower_the_loss_and_leave_the_principal_part_as_it_was(module: Any, tmp_path: Path) -> None:
    table = make_faces(tmp_path, 2, size=96)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    module.train()
    # The optimiser is made before the first loss decomposes the tower, as in training from random weights.
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    before = {}
    for step in range(20):
        loss = module.loss(batch)
        if step == 0:
            before = _state(module)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    changed = {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}
    learned = {f"residuals.{number}.{name}" for number in range(2 * BLOCKS) for name in "usv"}
    heads = {f"heads.{head}.{name}" for head in ("detector", "classifier") for name in ("weight", "bias")}
    assert changed == learned | heads
    assert {name for name, p in module.named_parameters() if p.requires_grad} == changed


def test_what_was_trained_is_not_decomposed_again(module: Any) -> None:
    batch = Batch(3, image=torch.randn(3, 3, 96, 96), target=torch.arange(3))
    module.loss(batch)
    with torch.no_grad():
        module.residuals[0].s.add_(1)
    other = SMALL.build(CLASSES)
    other.load_state_dict(module.state_dict())
    before = _state(other)
    torch.testing.assert_close(other.loss(batch), module.loss(batch))
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def test_the_constraints_are_zero_at_first_and_count_in_the_loss(module: Any) -> None:
    batch = Batch(3, image=torch.randn(3, 3, 96, 96), target=torch.arange(3))
    first = module.loss(batch)
    torch.testing.assert_close(first, module.heads.loss(module.embed(batch.image), batch), atol=1e-5, rtol=0)
    with torch.no_grad():
        module.residuals[1].u.mul_(2)  # of 4 x (3 + 1) matrices, one
    principal = module.split()[1][1]
    torch.testing.assert_close(module.residuals[1].orthogonality(), torch.tensor([18.0]), atol=1e-3, rtol=0)
    heads = module.heads.loss(module.embed(batch.image), batch)
    constraints = (18.0 + module.residuals[1].norm_change(principal)[0]) / 16
    torch.testing.assert_close(module.loss(batch), heads + constraints, atol=1e-4, rtol=0)


def test_the_constraints_are_those_of_the_equations() -> None:
    torch.manual_seed(0)
    weight = torch.randn(10, 5)
    residual, principal = Residual(2, 5, 2), weight.clone()
    residual.take_from(principal)
    frozen = [(u[:, :3], vh[:3].T) for u, _, vh in map(torch.linalg.svd, weight.split(5))]
    with torch.no_grad():
        for parameter in residual.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    now = principal + residual()
    for row, (frozen_u, frozen_v) in enumerate(frozen):
        direct = torch.zeros(())
        for fixed, learned in ((frozen_u, residual.u[row]), (frozen_v, residual.v[row])):
            both = torch.cat([fixed, learned], dim=1)
            direct = direct + (both.T @ both - torch.eye(5)).square().sum()
        torch.testing.assert_close(residual.orthogonality()[row], direct, atol=1e-4, rtol=1e-4)
        rows = slice(5 * row, 5 * row + 5)
        change = (now[rows].square().sum() - weight[rows].square().sum()).abs()
        torch.testing.assert_close(residual.norm_change(principal)[row], change, atol=1e-4, rtol=1e-4)


def test_the_constraints_of_a_diagonal_weight() -> None:
    residual, principal = Residual(1, 4, 1), torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    residual.take_from(principal)
    torch.testing.assert_close(principal, torch.diag(torch.tensor([4.0, 3.0, 2.0, 0.0])))
    assert residual.s.item() == pytest.approx(1) and abs(residual.u[0, 3].item()) == pytest.approx(1)
    assert residual.orthogonality().item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        residual.u.copy_(torch.eye(4)[None, :, :1])  # a direction that is taken: once in UᵀU, once in its transpose
        assert residual.orthogonality().item() == pytest.approx(2)
        residual.v.copy_(torch.eye(4)[None, :, :1])
        residual.s.fill_(1.0)  # diag(5, 3, 2, 0): 38 for 30
        assert residual.norm_change(principal).item() == pytest.approx(8)


def test_published_weights_are_decomposed_when_they_come_and_must_fit(module: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = Towers(TINY).state_dict()
    save_file(published, tmp_path / "clip.safetensors")
    module.decompose()  # what was there before leaves no trace
    load_backbone(module, tmp_path / "clip.safetensors")
    assert module.decomposed
    for name, principal, residual in module.split():
        torch.testing.assert_close(principal + residual(), published[name], atol=1e-6, rtol=1e-5)
        assert torch.linalg.matrix_rank(principal[:WIDTH], atol=1e-4, rtol=0) == WIDTH - 2
    split = {name for name, _, _ in module.split()}
    for name, tensor in module.tower.state_dict().items():
        assert torch.equal(tensor, published[name]) or name in split
    del published["visual.transformer.resblocks.2.attn.in_proj_weight"]
    save_file(published, tmp_path / "cut.safetensors")
    before = _state(module)
    with pytest.raises(DataError, match=r"missing visual\.transformer\.resblocks\.2\.attn\.in_proj_weight"):
        load_backbone(module, tmp_path / "cut.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_it_starts_from_openais_vit_l_unless_told_otherwise() -> None:
    assert find_backbone("effort", MODEL, MODEL.default_backbone_weights).name == "ViT-L-14.pt"
    assert SMALL.default_backbone_weights == "none"


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="rank is 0: it must be 1 or more"):
        configure(backbone=TINY, rank=0)
    with pytest.raises(ValueError, match="rank is 64: it must be less than 64, the width of clip-tiny"):
        configure(backbone=TINY, rank=64).build(CLASSES)
    with pytest.raises(ValueError, match="norm_weight must be 0 or more"):
        configure(backbone=TINY, norm_weight=-1.0)
