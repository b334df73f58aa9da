"""Only CLIP's LayerNorms and the heads learn, on a sphere that two losses shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.ln_tuning import MODEL, alignment, configure, load_backbone, uniformity
from safetensors.torch import save_file
from torch import nn

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.clip import TINY, Towers
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.nn import attribution_loss
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(backbone=TINY), configure=None)


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _batch(folder: Path) -> Batch:
    table = make_faces(folder, 4, size=96)
    return FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch


def _on_the_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_few_steps_lower_the_loss_and_move_the_layer_norms_and_the_heads_alone(module: Any, tmp_path: Path) -> None:
    batch = _batch(tmp_path)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    norms = {
        f"{name}.{which}"
        for name, part in module.named_modules()
        for which in ("weight", "bias")
        if isinstance(part, nn.LayerNorm)
    }
    heads = {name for name, _ in module.named_parameters() if name.startswith("heads.")}
    assert len(norms) == 2 * (2 * 4 + 2) and len(heads) == 4, "four blocks of two, one before and one after them"
    assert {name for name, p in module.named_parameters() if p.requires_grad} == norms | heads
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    changed = {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == norms | heads
    assert {id(p) for p in module.backbone_parameters()} == {id(module.get_parameter(name)) for name in norms}


def test_the_embedding_is_the_class_token_before_the_projection_on_the_unit_sphere(module: Any) -> None:
    image = torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        embedding = module.eval()(Batch(3, image=image)).embedding
        projected = module.visual(image)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    ratio = (embedding @ module.visual.proj) / projected
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-3)


def test_alignment_is_the_mean_squared_distance_within_classes() -> None:
    embedding = _on_the_circle(0, 90, 180, 180)
    torch.testing.assert_close(alignment(embedding, torch.tensor([0, 0, 1, 1])), torch.tensor(1.0))
    torch.testing.assert_close(alignment(embedding, torch.tensor([0, 1, 0, 2])), torch.tensor(4.0))
    assert alignment(embedding, torch.arange(4)) == 0, "no two are of one class"
    assert alignment(embedding[:1], torch.tensor([0])) == 0


def test_uniformity_is_least_where_points_are_spread() -> None:
    torch.testing.assert_close(uniformity(_on_the_circle(0, 180)), torch.tensor(-8.0))
    torch.testing.assert_close(uniformity(_on_the_circle(0, 120, 240)), torch.tensor(-6.0))
    torch.testing.assert_close(uniformity(_on_the_circle(30, 30, 30)), torch.tensor(0.0))
    assert uniformity(_on_the_circle(0)) == 0


def test_the_loss_is_the_sum_of_its_parts(module: Any, tmp_path: Path) -> None:
    batch = _batch(tmp_path)
    assert batch.target is not None
    with torch.no_grad():
        output = module(batch)
        detection = nn.functional.binary_cross_entropy(output.fake_score, (batch.target != 0).float())
        parts = attribution_loss(output, batch) + detection
        parts += 0.1 * alignment(output.embedding, batch.target) + 0.5 * uniformity(output.embedding)
        torch.testing.assert_close(module.loss(batch), parts)


def test_coinciding_faces_have_a_finite_gradient(module: Any) -> None:
    image = torch.randn(1, 3, 96, 96).expand(3, -1, -1, -1)
    module.loss(Batch(3, image=image, target=torch.tensor([0, 0, 1]))).backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.requires_grad)


def test_published_weights_fill_the_image_tower_and_nothing_less_than_all_of_it(module: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = Towers(TINY).state_dict()
    heads = {key: tensor.clone() for key, tensor in module.heads.state_dict().items()}
    save_file(published, tmp_path / "clip.safetensors")
    load_backbone(module, tmp_path / "clip.safetensors")
    assert all(torch.equal(tensor, published[f"visual.{key}"]) for key, tensor in module.visual.state_dict().items())
    assert all(torch.equal(tensor, heads[key]) for key, tensor in module.heads.state_dict().items())
    del published["visual.ln_post.weight"]
    save_file(published, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"missing visual\.ln_post\.weight"):
        load_backbone(module, tmp_path / "cut.safetensors")


def test_it_starts_from_openais_vit_l_unless_told_otherwise() -> None:
    assert find_backbone("ln_tuning", MODEL, MODEL.default_backbone_weights).name == "ViT-L-14.pt"
    assert SMALL.default_backbone_weights == "none"


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="uniformity_weight must be 0 or more"):
        configure(backbone=TINY, uniformity_weight=-0.1)
    with pytest.raises(UsageError, match="ResNet"):
        configure(backbone="RN50")
