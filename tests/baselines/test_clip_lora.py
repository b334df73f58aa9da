"""CLIP with LoRA starts as CLIP, and what it learns is of low rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.clip_lora import MODEL, configure, load_backbone
from safetensors.torch import save_file

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.clip import TINY, Towers
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.lora import plain_names
from dfad_bench.modelling.options import configured
from dfad_bench.modelling.weights import find_backbone, load_weights, save_weights
from dfad_bench.testing import check_model
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(backbone=TINY, rank=2), configure=None)


@pytest.fixture
def module() -> Any:
    return _module()


def _module(seed: int = 0) -> Any:
    seed_everything(seed, torch.device("cpu"))
    return SMALL.build(CLASSES)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return Towers(TINY).state_dict()


def _batch(folder: Path) -> Batch:
    table = make_faces(folder, 4, size=96)
    batch: Batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    return batch


def _steps(module: Any, batch: Batch, steps: int) -> list[float]:
    """Train a few steps of everything that the module has, frozen or not, and return the losses."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = module.train().loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_keeps_the_contract() -> None:
    check_model(SMALL)


def test_at_the_start_it_is_clip_itself_under_linear_heads(
    module: Any, published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(published, tmp_path / "clip.safetensors")
    load_backbone(module, tmp_path / "clip.safetensors")
    plain = Towers(TINY)
    plain.load_state_dict(published)
    image = torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        output, embedding = module.eval()(Batch(3, image=image)), plain.visual.eval()(image)
        torch.testing.assert_close(output.embedding, embedding, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(output.logits, module.heads.classifier(output.embedding))
        torch.testing.assert_close(output.fake_score, module.heads.detector(output.embedding).squeeze(1).sigmoid())


def test_training_lowers_the_loss_and_changes_adapters_and_heads_alone(module: Any, tmp_path: Path) -> None:
    batch = _batch(tmp_path)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    losses = _steps(module, batch, 12)
    assert losses[-1] < 0.9 * losses[0]
    _, adapters = plain_names(module)
    changed = {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}
    assert len(adapters) == 4 * 4 * 2, (
        "in each of four blocks attention in and out and two layers of an MLP, up and down"
    )
    assert changed == adapters | {key for key in before if key.startswith("heads.")}
    assert changed == {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_a_weight_moves_by_the_rank_that_was_asked_for(module: Any, tmp_path: Path) -> None:
    _steps(module, _batch(tmp_path), 3)
    attention = module.visual.transformer.resblocks[0].attn
    change = attention.in_proj_weight - attention.parametrizations.in_proj_weight.original
    assert torch.linalg.matrix_rank(change.detach(), atol=1e-5) == 2


def test_adapters_survive_saving(module: Any, tmp_path: Path) -> None:
    batch = _batch(tmp_path)
    untrained = module.eval()(batch).logits.detach()
    _steps(module, batch, 3)
    save_weights(module, tmp_path / "model.safetensors", {})
    other = _module(seed=1)
    load_weights(other, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(other.eval()(batch).logits, module.eval()(batch).logits)
    assert not torch.allclose(module(batch).logits, untrained)


def test_published_weights_go_below_the_adapters_and_a_missing_key_is_refused(
    module: Any, published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    _steps(module, _batch(tmp_path), 2)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    save_file(published, tmp_path / "clip.safetensors")
    load_backbone(module, tmp_path / "clip.safetensors")
    after = module.state_dict()
    names, adapters = plain_names(module)
    taken = {names.get(key, key) for key in published if key.startswith("visual.")}
    assert taken | adapters | {key for key in after if key.startswith("heads.")} == after.keys()
    assert all(
        torch.equal(after[names.get(key, key)], published[key]) for key in published if key.startswith("visual.")
    )
    assert all(torch.equal(after[key], before[key]) for key in after.keys() - taken)
    cut = {key: tensor for key, tensor in published.items() if not key.endswith("resblocks.1.attn.in_proj_weight")}
    save_file(cut, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"missing visual\.transformer\.resblocks\.1\.attn\..*in_proj_weight"):
        load_backbone(module, tmp_path / "cut.safetensors")


def test_it_starts_from_openais_vit_b16_unless_told_otherwise() -> None:
    assert find_backbone("clip_lora", MODEL, MODEL.default_backbone_weights).name == "ViT-B-16.pt"
    assert configure(backbone="ViT-B-16").default_backbone_weights == "published", "it was trained by others"
    assert configure(backbone=TINY).default_backbone_weights == "none"


def test_options_are_set_and_those_that_make_no_sense_are_refused() -> None:
    spec, options = configured("clip_lora", MODEL, [f"backbone={TINY}", "rank=3"])
    assert options == {"backbone": TINY, "rank": 3}
    adapters = [tensor for name, tensor in spec.build(CLASSES).named_parameters() if name.endswith(".down")]
    assert adapters and all(len(tensor) == 3 for tensor in adapters)
    with pytest.raises(ValueError, match="rank is 0: it must be 1 or more"):
        configure(rank=0)
    with pytest.raises(UsageError, match="ResNet"):
        configure(backbone="RN50")
