"""CPL: whom faces vote for, what a pseudo-label is, and that a hidden label is hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.cpl import CPL, MODEL, SHARPEST, configure, soft_labels, vote, voting_loss

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.nn import attribution_loss
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SIDE = 48


def _module(unlabelled: float = 0.5) -> Any:
    seed_everything(0, torch.device("cpu"))
    return configure(unlabelled=unlabelled).build(CLASSES)


def _faces(number: int) -> Batch:
    torch.manual_seed(4)
    return Batch(number, image=torch.randn(number, 3, SIDE, SIDE), target=torch.arange(number) % len(CLASSES))


def _hidden(number: int, count: int, seed: int) -> list[int]:
    """Return the faces whose labels a step under this seed hides."""
    torch.manual_seed(seed)
    return torch.randperm(number)[:count].tolist()


def test_no_hidden_label_influences_the_loss_and_every_other_does() -> None:
    module, batch, hidden = _module().train(), _faces(8), _hidden(8, 4, seed=11)

    def loss(target: torch.Tensor) -> float:
        torch.manual_seed(11)
        with torch.no_grad():
            return float(module.loss(replace(batch, target=target)))

    assert batch.target is not None
    before = loss(batch.target)
    for face in range(8):
        other = batch.target.clone()
        other[face] = (other[face] + 1) % len(CLASSES)
        assert (loss(other) == before) == (face in hidden)


def test_hidden_faces_are_learned_from_all_the_same() -> None:
    """Through their own logits: batch normalisation, which mixes the faces of a batch, is in evaluation mode."""
    module, batch, hidden = _module().train(), _faces(8), _hidden(8, 4, seed=11)
    module.backbone.eval()
    assert batch.image is not None
    image = batch.image.clone().requires_grad_()
    torch.manual_seed(11)
    module.loss(replace(batch, image=image)).backward()
    assert image.grad is not None
    assert bool((image.grad[hidden].abs().amax(dim=(1, 2, 3)) > 0).all())


def test_the_same_seed_hides_the_same_faces() -> None:
    module, batch = _module().train(), _faces(8)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        with torch.no_grad():
            return float(module.loss(batch))

    assert loss(11) == loss(11) != loss(12)


def test_with_nothing_unlabelled_it_is_plain_supervised_learning_and_draws_nothing() -> None:
    batch = _faces(6)
    module = _module(unlabelled=0).train()
    before = torch.get_rng_state()
    loss, plain = module.loss(batch), attribution_loss(module(batch), batch)
    assert torch.equal(loss, plain) and torch.equal(before, torch.get_rng_state())


def test_validation_hides_no_label() -> None:
    module, batch = _module().eval(), _faces(6)
    with torch.no_grad():
        assert torch.equal(module.loss(batch), attribution_loss(module(batch), batch))


def test_global_and_local_features_each_have_half_of_the_votes() -> None:
    a, b, c = torch.eye(3)
    whole = torch.stack([a, a + 0.1 * b, c])  # 0 and 1 are alike as a whole
    local = torch.stack(
        [
            torch.stack([a, b, b, b]),  # face 0: place 0 is like face 1's last place, the other three like face 2's
            torch.stack([c, c, c, a]),
            torch.stack([b, b, b, b]),
        ]
    )
    votes = vote(whole, local)
    torch.testing.assert_close(votes.sum(dim=1), torch.ones(3))
    assert votes.diagonal().abs().max() == 0
    torch.testing.assert_close(votes[0], torch.tensor([0, 0.5 + 0.5 * 0.25, 0.5 * 0.75]))
    assert votes[2, 0] >= 0.5  # all of its places are like places of face 0


def test_the_voting_loss_is_the_chance_of_one_class() -> None:
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]).log()
    votes = torch.tensor([[0.0, 1, 0], [0.25, 0, 0.75]])
    first = -np.log(0.8 * 0.5 + 0.2 * 0.5)
    second = -0.25 * np.log(0.5 * 0.8 + 0.5 * 0.2) - 0.75 * np.log(0.5 * 0.1 + 0.5 * 0.9)
    assert voting_loss(logits, votes).item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_pseudo_labels_are_the_sharper_the_surer_the_network_is() -> None:
    unsure = torch.tensor([[0.4, 0.3, 0.3]]).log()
    temperature = 1 - (1 - SHARPEST) * 0.4
    torch.testing.assert_close(soft_labels(unsure), (unsure / temperature).softmax(dim=1))
    probabilities = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.9, 0.05, 0.05]])
    labels = soft_labels(probabilities.log())
    odds, sharper = ((each[:, 0] / each[:, 1]).log() for each in (probabilities, labels))
    ratio = sharper / odds
    assert bool((ratio.diff() > 0).all()) and ratio[0] < 1.6 and labels[2, 0] > 0.999
    torch.testing.assert_close(soft_labels(torch.zeros(1, 3)), torch.full((1, 3), 1 / 3))


def test_it_learns_toy_generators_of_half_of_whose_faces_it_is_told(tmp_path: Path) -> None:
    spec = replace(MODEL, preprocess=Preprocess(size=None, crop=SIDE))
    tables = [make_faces(tmp_path, 4, size=SIDE, seed=seed) for seed in (0, 1)]
    train, test = (FaceDataset(spec, table, CLASSES)[Request(np.arange(len(table)))].batch for table in tables)
    module = _module().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-4)
    losses = []
    for _ in range(10):
        loss = module.loss(train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    # Batch normalisation has not averaged over enough steps yet: it takes this batch's own mean and variance.
    with torch.no_grad():
        assert (module(test).logits.argmax(dim=1) == test.target).float().mean() > 0.9


def test_torchvisions_weights_fill_all_but_the_head_and_nothing_less_does(tmp_path: Path) -> None:
    module = _module()
    state = {key: torch.rand_like(tensor.float()) for key, tensor in module.backbone.state_dict().items()}
    state = {key: tensor for key, tensor in state.items() if "num_batches" not in key}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    head = module.head.weight.clone()
    torch.save(state, tmp_path / "whole.pth")
    MODEL.load_backbone(module, tmp_path / "whole.pth")
    assert torch.equal(module.backbone.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(module.head.weight, head)
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(DataError, match=r"missing layer1\.0\.conv1\.weight"):
        MODEL.load_backbone(module, tmp_path / "cut.pth")


def test_the_embedding_is_resnets_own() -> None:
    """The mean over places of the last map is what torchvision's average pooling gives."""
    module = _module().eval()
    assert isinstance(module, CPL)
    image = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        embedding = module(Batch(2, image=image)).embedding
        module.backbone.avgpool = torch.nn.AdaptiveAvgPool2d(1)
        torch.testing.assert_close(embedding, module.backbone(image))


@pytest.mark.parametrize("unlabelled", [-0.1, 1.0])
def test_a_share_that_leaves_no_label_is_refused(unlabelled: float) -> None:
    with pytest.raises(ValueError, match=f"unlabelled is {unlabelled}: it must be 0 or more and less than 1"):
        configure(unlabelled=unlabelled)
