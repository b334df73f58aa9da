"""Supervised contrast draws classes together; the class means are those of what was seen, and the nearest one answers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.supcon import FARTHEST, KEPT, MODEL, TEMPERATURE, ClassMeans, supcon_loss
from torch.nn import functional as F

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SIZE = 32
SMALL = replace(MODEL, preprocess=Preprocess(size=None, crop=SIZE))


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _units(count: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def _equation_2(z: torch.Tensor, target: list[int], temperature: float) -> float:
    """Return L_out as the paper writes it, one pair after the other, over the anchors that have a positive."""
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if target[p] == target[i]]
        if positives:
            below = sum(np.exp(float(z[i] @ z[a]) / temperature) for a in others)
            shares = [np.log(np.exp(float(z[i] @ z[p]) / temperature) / below) for p in positives]
            losses.append(-sum(shares) / len(positives))
    return float(np.mean(losses))


@pytest.mark.parametrize("target", [[0, 0, 1, 1], [0, 1, 0, 2, 0, 1, 3]], ids=["pairs", "two_alone"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_equation_2(target: list[int], temperature: float) -> None:
    z = _units(len(target))
    expected = _equation_2(z.double(), target, temperature)
    assert supcon_loss(z, torch.tensor(target), temperature).item() == pytest.approx(expected, rel=1e-4)


def test_clustered_classes_have_a_lower_loss_than_scattered_ones_and_the_least_is_the_logarithm_of_the_positives() -> (
    None
):
    target = torch.arange(12) % 3
    clustered = torch.eye(8)[target]
    assert supcon_loss(clustered, target) < supcon_loss(_units(12), target)
    assert supcon_loss(clustered, target).item() == pytest.approx(np.log(3), abs=1e-3)


def test_classes_of_one_view_alone_have_no_loss() -> None:
    z = _units(3).requires_grad_()
    loss = supcon_loss(z, torch.arange(3))
    loss.backward()
    assert loss.item() == 0 and z.grad is not None and not z.grad.any()


def test_bfloat16_does_not_reach_the_cosines() -> None:
    z, target = _units(6), torch.arange(6) % 2
    with torch.autocast("cpu", torch.bfloat16):
        mixed = supcon_loss(z, target)
    assert torch.equal(mixed, supcon_loss(z, target))


def test_means_of_one_batch_are_those_of_its_faces_and_later_faces_of_a_class_weigh_more() -> None:
    means, seen = ClassMeans(3, 8), _units(7)
    means.see(seen, torch.tensor([0, 1, 0, 1, 1, 0, 1]))
    torch.testing.assert_close(means.sums[0] / means.counts[0], seen[[0, 2, 5]].mean(dim=0))
    torch.testing.assert_close(means.sums[1] / means.counts[1], seen[[1, 3, 4, 6]].mean(dim=0))
    later = _units(2, seed=1)
    means.see(later, torch.tensor([0, 0]))
    weights = torch.tensor([KEPT**2] * 3 + [1.0] * 2)
    expected = (weights[:, None] * torch.cat([seen[[0, 2, 5]], later])).sum(dim=0) / weights.sum()
    torch.testing.assert_close(means.sums[0] / means.counts[0], expected)
    torch.testing.assert_close(means.sums[1] / means.counts[1], seen[[1, 3, 4, 6]].mean(dim=0))


def test_logits_are_squared_distances_and_a_class_without_a_face_is_farthest() -> None:
    means, faces = ClassMeans(3, 8), _units(5)
    assert torch.equal(means(faces), torch.full((5, 3), -FARTHEST / TEMPERATURE))
    means.see(torch.cat([-faces[:1], faces[1:2]]), torch.tensor([0, 2]))
    logits = means(faces)
    torch.testing.assert_close(logits[:, 2], -(faces - faces[1]).square().sum(dim=1) / TEMPERATURE)
    assert logits[1].argmax() == 2 and (logits[:, 1] <= logits.amin(dim=1) + 1e-4).all()
    assert logits[0, 0].item() == pytest.approx(-FARTHEST / TEMPERATURE, rel=1e-5)  # as far as a seen class can be


def test_the_training_loss_is_over_the_faces_and_their_mirror_images(module: Any) -> None:
    image, target = torch.randn(4, 3, SIZE, SIZE), [0, 1, 1, 2]
    copy = deepcopy(module).train()
    with torch.no_grad():
        projected = F.normalize(copy.projection(copy.represent(torch.cat([image, image.flip(3)]))), dim=1)
    expected = _equation_2(projected.double(), target * 2, TEMPERATURE)
    loss = module.train().loss(Batch(4, image=image, target=torch.tensor(target)))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_means_are_of_the_faces_as_evaluation_sees_them(module: Any) -> None:
    batch = Batch(5, image=torch.randn(5, 3, SIZE, SIZE), target=torch.tensor([0, 1, 1, 0, 1]))
    with torch.no_grad():
        expected = module.eval()(batch).embedding
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(5))
    module.train().loss(batch)
    assert module.backbone.training and module.means.counts.tolist() == [2, 3, 0]
    torch.testing.assert_close(module.means.sums[0] / 2, expected[[0, 3]].mean(dim=0))
    torch.testing.assert_close(module.means.sums[1] / 3, expected[[1, 2, 4]].mean(dim=0))


def test_in_evaluation_the_loss_is_the_cross_entropy_of_the_answer_and_nothing_is_remembered(module: Any) -> None:
    target = torch.tensor([0, 1, 2, 2])
    batch = Batch(4, image=torch.randn(4, 3, SIZE, SIZE), target=target)
    module.train().loss(batch)
    before = module.means.sums.clone()
    with torch.no_grad():
        whole = module.eval().loss(batch)
        expected = F.cross_entropy(module(batch).logits, target)
    assert torch.equal(whole, expected) and torch.equal(module.means.sums, before)


def test_it_learns_to_tell_toy_generators_apart(module: Any, tmp_path: Path) -> None:
    tables = [make_faces(tmp_path, 6, size=SIZE, seed=seed) for seed in range(2)]
    seen, unseen = (FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch for table in tables)
    with torch.no_grad():
        assert module.eval().loss(unseen).item() == pytest.approx(np.log(3))  # no class has a mean yet
    optimizer = torch.optim.AdamW(module.parameters(), lr=SMALL.recipe.learning_rate)
    losses = []
    module.train()
    for _ in range(8):
        loss = module.loss(seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    with torch.no_grad():
        output = module.eval()(unseen)
    assert (output.logits.argmax(dim=1) == unseen.target).all()
    assert module.loss(unseen) < 0.5 * np.log(3)


def test_it_takes_published_weights_but_for_their_head_and_nothing_less(module: Any, tmp_path: Path) -> None:
    state = {key: value + 1 for key, value in module.backbone.state_dict().items() if "num_batches" not in key}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "whole.pth")
    MODEL.load_backbone(module, tmp_path / "whole.pth")
    assert torch.equal(module.backbone.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(DataError, match=r"missing layer1\.0\.conv1\.weight"):
        MODEL.load_backbone(module, tmp_path / "cut.pth")
