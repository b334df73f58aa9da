"""CLIP's image tower stays as it is published; a linear layer reads it, or a bank of faces that it has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.clip_linear import MODEL, NearestNeighbour, configure, load_backbone
from safetensors.torch import save_file

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.clip import TINY, Towers
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.options import configured
from dfad_bench.modelling.weights import find_backbone, load_weights, save_weights
from dfad_bench.testing import check_model
from dfad_bench.types import Batch, ModelSpec
from tests.modelling.builders import CLASSES, make_faces

HEADS = ("linear", "nearest")


def _spec(head: Any, capacity: int = 8) -> ModelSpec:
    return replace(configure(backbone=TINY, head=head, capacity=capacity), configure=None)


def _module(head: str, capacity: int = 8) -> Any:
    seed_everything(0, torch.device("cpu"))
    return _spec(head, capacity).build(CLASSES)


def _batch(faces: int, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    return Batch(faces, image=torch.randn(faces, 3, 96, 96), target=torch.arange(faces) % len(CLASSES))


def _remembering(embedding: torch.Tensor, target: list[int], capacity: int = 4) -> NearestNeighbour:
    head = NearestNeighbour(embedding.shape[1], len(CLASSES), capacity).train()
    head.loss(embedding, Batch(len(target), target=torch.tensor(target)))
    return head.eval()


@pytest.mark.parametrize("head", HEADS)
def test_both_heads_keep_the_contract(head: str) -> None:
    check_model(_spec(head))


@pytest.mark.parametrize(("head", "rate"), [("linear", 0.01), ("nearest", 0.5)])
def test_training_lowers_the_loss_and_leaves_clip_as_it_was(head: str, rate: float, tmp_path: Path) -> None:
    module = _module(head, capacity=64).train()
    table = make_faces(tmp_path, 4, size=96)
    batch = FaceDataset(_spec(head), table, CLASSES)[Request(np.arange(len(table)))].batch
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    # Whatever the optimiser is given, nothing reaches what is frozen.
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.1)
    losses = []
    for _ in range(20):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is None for parameter in module.backbone.parameters())
    changed = {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if key.startswith("head.")}


def test_the_linear_heads_read_clips_own_embedding() -> None:
    module, batch = _module("linear").eval(), _batch(2)
    with torch.no_grad():
        output = module(batch)
        embedding = module.backbone.visual(batch.image)
        assert torch.equal(output.embedding, embedding)
        torch.testing.assert_close(output.logits, module.head.classifier(embedding))
        torch.testing.assert_close(output.fake_score, module.head.detector(embedding).squeeze(1).sigmoid())
    assert not any("text" in name for name, _ in module.named_parameters()), "the text tower is not kept"


# --- the nearest neighbour -----------------------------------------------------------------------------------------


def test_nearest_finds_every_face_that_was_put_into_the_bank() -> None:
    module, batch = _module("nearest"), _batch(9)
    assert batch.target is not None
    module.train().loss(batch)
    with torch.no_grad():
        output = module.eval()(batch)
        scale = module.head.log_scale.exp()
    assert torch.equal(output.logits.argmax(dim=1), batch.target)
    own = output.logits.gather(1, batch.target[:, None]).squeeze(1)
    torch.testing.assert_close(own, scale.expand(9), msg="a face's cosine to itself is 1")
    assert output.fake_score[batch.target != 0].min() > 0.5 > output.fake_score[batch.target == 0].max()


def test_a_logit_is_the_cosine_to_the_nearest_of_a_class_and_the_score_how_much_nearer_the_nearest_fake_is() -> None:
    seen = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.6, 0.8], [-1.0, 0.0]])
    head = _remembering(seen, [0, 1, 0, 2])
    output = head(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    scale = head.log_scale.exp()
    assert output.logits is not None
    torch.testing.assert_close(output.logits / scale, torch.tensor([[1.0, 0.0, -1.0], [0.8, 1.0, 0.0]]))
    torch.testing.assert_close(output.fake_score, (scale * torch.tensor([-1.0, 0.2])).sigmoid())


def test_a_face_is_compared_with_the_bank_before_it_enters_it() -> None:
    head = NearestNeighbour(2, len(CLASSES), 4).train()
    batch = Batch(2, target=torch.tensor([0, 1]))
    first, again = (head.loss(torch.eye(2), batch).item() for _ in range(2))
    assert first == pytest.approx(np.log(3) + np.log(2)), "an empty bank says nothing"
    assert again < 0.1


def test_a_bank_keeps_the_first_faces_of_each_class_and_no_more_than_its_capacity() -> None:
    torch.manual_seed(0)
    embedding = torch.nn.functional.normalize(torch.randn(7, 5), dim=1)
    head = _remembering(embedding, [0, 0, 1, 0, 0, 1, 0], capacity=3).train()
    assert head.held.tolist() == [3, 2, 0]
    torch.testing.assert_close(head.bank[0], embedding[[0, 1, 3]])
    torch.testing.assert_close(head.bank[1, :2], embedding[[2, 5]])
    assert not head.bank[1, 2].any() and not head.bank[2].any()
    before = head.bank[0].clone()
    head.loss(embedding[:3], Batch(3, target=torch.tensor([0, 1, 1])))
    assert head.held.tolist() == [3, 3, 0]
    assert torch.equal(head.bank[0], before)
    torch.testing.assert_close(head.bank[1, 2], embedding[1])


def test_validation_puts_nothing_into_the_bank() -> None:
    module = _module("nearest")
    with torch.inference_mode():
        module.eval().loss(_batch(3))
    assert not module.head.held.any() and not module.head.bank.any()


def test_the_bank_is_saved_with_the_weights(tmp_path: Path) -> None:
    module, batch = _module("nearest"), _batch(6)
    module.train().loss(batch)
    save_weights(module, tmp_path / "model.safetensors", {})
    other: Any = _spec("nearest").build(CLASSES)
    load_weights(other, tmp_path / "model.safetensors")
    assert other.head.held.tolist() == [2, 2, 2]
    with torch.no_grad():
        assert torch.equal(other.eval()(batch).logits, module.eval()(batch).logits)


# --- weights and options -------------------------------------------------------------------------------------------


def test_published_weights_fill_the_image_tower_and_a_missing_key_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(7)
    published = Towers(TINY).state_dict()
    save_file(published, tmp_path / "clip.safetensors")
    module = _module("nearest")
    load_backbone(module, tmp_path / "clip.safetensors")
    visual = module.backbone.visual.state_dict()
    assert visual and all(torch.equal(tensor, published[f"visual.{key}"]) for key, tensor in visual.items())
    del published["visual.class_embedding"]
    save_file(published, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"missing visual\.class_embedding"):
        load_backbone(module, tmp_path / "cut.safetensors")


def test_it_starts_from_openais_vit_l14_unless_told_otherwise() -> None:
    assert find_backbone("clip_linear", MODEL, MODEL.default_backbone_weights).name == "ViT-L-14.pt"
    assert configure(backbone="ViT-L-14").default_backbone_weights == "published", "it was trained by others"
    assert configure(backbone=TINY).default_backbone_weights == "none"
    assert configure(head="nearest").recipe.epochs == 1


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0: it must be 1 or more"):
        configure(capacity=0)
    with pytest.raises(UsageError, match="ResNet"):
        configure(backbone="RN50")
    with pytest.raises(UsageError, match="head is one of linear, nearest"):
        configured("clip_linear", MODEL, ["head=mlp"])
