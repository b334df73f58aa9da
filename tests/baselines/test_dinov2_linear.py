"""DINOv2 stays as it is published; only a linear layer on its features learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.dinov2_linear import MODEL, configure, load_backbone

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SIZE = 28
SMALL = replace(configure(size=SIZE), configure=None)


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _published(network: Any) -> dict[str, torch.Tensor]:
    """Return weights as the authors publish them: for 37 x 37 patches, and with the token of the hidden patches."""
    torch.manual_seed(1)
    return network.state_dict() | {"pos_embed": torch.randn(1, 1 + 37 * 37, 768), "mask_token": torch.zeros(1, 768)}


def test_the_head_reads_the_class_token_beside_the_mean_of_the_patches(module: Any) -> None:
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        embedding = module.eval()(Batch(2, image=image)).embedding
        tokens = module.backbone.network.forward_features(image)
    assert tokens.shape == (2, 1 + 2 * 2, 768)
    torch.testing.assert_close(embedding, torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1))


def test_a_few_steps_lower_the_loss_and_leave_dinov2_as_it_was(module: Any, tmp_path: Path) -> None:
    table = make_faces(tmp_path, 4, size=SIZE)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    module.train()
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert {*learned} == {*module.head.parameters()}
    # Whatever the optimiser is given, nothing reaches what is frozen.
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    changed = {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {"head.weight", "head.bias"}


def test_the_authors_file_is_taken_at_any_resolution_and_nothing_less_than_it(module: Any, tmp_path: Path) -> None:
    state = _published(module.backbone.network)
    state["norm.weight"] = torch.rand(768)
    torch.save(state, tmp_path / "published.pth")
    load_backbone(module, tmp_path / "published.pth")
    loaded = module.backbone.network.state_dict()
    assert loaded["pos_embed"].shape == (1, 1 + 2 * 2, 768)
    assert torch.equal(loaded["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert torch.equal(loaded["norm.weight"], state["norm.weight"])
    del state["blocks.3.ls1.gamma"]
    torch.save(state, tmp_path / "published.pth")
    with pytest.raises(DataError, match=r"missing blocks\.3\.ls1\.gamma"):
        load_backbone(module, tmp_path / "published.pth")
    (tmp_path / "published.pth").unlink()


def test_it_starts_from_the_authors_weights_unless_told_otherwise() -> None:
    assert find_backbone("dinov2_linear", MODEL, MODEL.default_backbone_weights).name == "dinov2_vitb14_pretrain.pth"


@pytest.mark.parametrize("size", [0, 225])
def test_a_resolution_of_no_whole_patches_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}: it must be a multiple of 14"):
        configure(size=size)
