"""Two faces are blended at one layer, in training alone, and each source is asked for by its share of the blend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.repmix import MODEL, build, configure, mix
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SIZE = 32
SMALL = replace(configure(size=SIZE), configure=None)
TARGET = torch.tensor([0, 1, 2, 0])
PARTNER = torch.tensor([1, 2, 3, 0])


@pytest.fixture(scope="module")
def module() -> Any:
    """Return a model that no test trains, but for its counts of batches and running statistics."""
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _faces() -> torch.Tensor:
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def _by_hand(module: Any, embedding: torch.Tensor, target: list[int]) -> torch.Tensor:
    """Return the compound loss [B] of embeddings as it is defined, with a softmax over (real, fake)."""
    losses = []
    for vector, label in zip(embedding, target, strict=True):
        p_real, p_fake = torch.stack([torch.zeros(()), module.detector(vector)[0]]).softmax(dim=0)
        scores = module.classifier(vector) * torch.stack([p_real, p_fake, p_fake])
        attribution = -scores.log_softmax(dim=0)[label]
        losses.append(attribution - (p_real.log() if label == 0 else p_fake.log() / 2))  # of two generators
    return torch.stack(losses)


def test_a_blend_is_the_convex_combination_of_two_maps() -> None:
    maps = torch.randn(3, 2, 4, 4)
    blend = mix(maps, torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.25, 0.0]))
    torch.testing.assert_close(blend, torch.stack([maps[0], 0.25 * maps[1] + 0.75 * maps[2], maps[0]]))


@pytest.mark.parametrize("layer", range(6))
def test_the_maps_are_mixed_at_the_named_layer(module: Any, layer: int) -> None:
    """What the next part reads is the blend of what it reads without a mix."""
    parts = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    following: nn.Module = module.backbone.get_submodule(parts[layer]) if layer < 5 else module.reduce
    other: Any = module.eval()
    read: list[torch.Tensor] = []
    share = torch.tensor([0.9, 0.5, 0.2, 0.0])
    other.layer = layer
    with following.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].clone())), torch.no_grad():
        plain = other.embed(_faces())
        blended = other.embed(_faces(), PARTNER, share)
        itself = other.embed(_faces(), PARTNER, torch.ones(4))
    other.layer = 5
    weight = share.reshape(4, *[1] * (read[0].ndim - 1))
    torch.testing.assert_close(read[1], weight * read[0] + (1 - weight) * read[0][PARTNER])
    assert not torch.allclose(read[1], read[0], atol=1e-3)
    torch.testing.assert_close(itself, plain)
    torch.testing.assert_close(blended[3], plain[0], atol=1e-4, rtol=1e-4)  # all of it is the partner's


def test_the_layer_is_an_option_and_the_last_one_unless_said() -> None:
    assert build(CLASSES).layer == 5 and configure(layer=2).build(CLASSES).layer == 2


def test_the_loss_asks_for_the_class_and_whether_it_is_fake_and_fakes_weigh_by_their_number(module: Any) -> None:
    embedding = torch.randn(4, 256) * 10
    with torch.no_grad():
        loss = module.compound_loss(embedding, TARGET)
        torch.testing.assert_close(loss, _by_hand(module, embedding, TARGET.tolist()))


def test_the_fake_score_is_the_detectors_and_scales_the_logits(module: Any) -> None:
    with torch.no_grad():
        output = module.eval()(Batch(4, image=_faces()))
        own = module.classifier(output.embedding)
        torch.testing.assert_close(output.fake_score, module.detector(output.embedding)[:, 0].sigmoid())
    score = output.fake_score[:, None]
    torch.testing.assert_close(output.logits, own * torch.cat([1 - score, score, score], dim=1))


def test_in_training_both_labels_count_by_their_share_of_the_blend(module: Any) -> None:
    batch = Batch(4, image=_faces(), target=TARGET)
    with torch.no_grad():
        torch.manual_seed(3)
        loss = module.train().loss(batch)
        torch.manual_seed(3)
        partner, share = torch.randperm(4), torch.distributions.Beta(0.4, 0.4).sample((4,))
        embedding = module.embed(batch.image, partner, share)
        own = _by_hand(module, embedding, TARGET.tolist())
        other = _by_hand(module, embedding, TARGET[partner].tolist())
    assert (partner != torch.arange(4)).any() and 0.01 < share.min() < 0.99
    torch.testing.assert_close(loss, (share * own + (1 - share) * other).mean())


def test_in_evaluation_nothing_is_mixed_and_nothing_drawn(module: Any) -> None:
    batch = Batch(4, image=_faces(), target=TARGET)
    module.eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        loss, output = module.loss(batch), module(batch)
        torch.testing.assert_close(loss, _by_hand(module, output.embedding, TARGET.tolist()).mean())
        apart = [module.loss(Batch(1, image=batch.image[row, None], target=TARGET[row, None])) for row in range(4)]
    torch.testing.assert_close(loss, torch.stack(apart).mean())
    assert torch.equal(torch.get_rng_state(), before)


def test_blends_are_drawn_from_the_global_generator(module: Any) -> None:
    batch = Batch(4, image=_faces(), target=TARGET)
    losses = []
    module.train()
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            losses.append(module.loss(batch).item())
    assert losses[0] == losses[1] != losses[2]


def test_a_few_steps_lower_the_loss_of_the_same_blends(tmp_path: Path) -> None:
    table = make_faces(tmp_path, 4, size=SIZE)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    seed_everything(0, torch.device("cpu"))
    learner: Any = SMALL.build(CLASSES).train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-4)
    losses = []
    for _ in range(6):
        torch.manual_seed(0)
        loss = learner.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_it_takes_imagenet_weights_but_for_their_head_and_nothing_less(tmp_path: Path) -> None:
    learner = SMALL.build(CLASSES)
    assert isinstance(learner.backbone, nn.Module)
    heads = {key: value.clone() for key, value in learner.state_dict().items() if not key.startswith("backbone.")}
    # torchvision's file is older than the counts of batches.
    state = {key: value + 1 for key, value in learner.backbone.state_dict().items() if "num_batches" not in key}
    state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "whole.pth")
    MODEL.load_backbone(learner, tmp_path / "whole.pth")
    loaded = learner.state_dict()
    assert torch.equal(loaded["backbone.layer4.2.conv3.weight"], state["layer4.2.conv3.weight"])
    assert all(torch.equal(loaded[key], value) for key, value in heads.items())
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(DataError, match=r"missing layer1\.0\.conv1\.weight"):
        MODEL.load_backbone(learner, tmp_path / "cut.pth")
    for name in ("whole", "cut"):
        (tmp_path / f"{name}.pth").unlink()


def test_it_starts_from_imagenet_weights_unless_told_otherwise() -> None:
    assert find_backbone("repmix", MODEL, MODEL.default_backbone_weights).name == "resnet50-0676ba61.pth"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "size is 16: it must be 32 or more"),
        ({"layer": 6}, "layer is 6: it must be 0 to 5"),
        ({"layer": -1}, "layer is -1: it must be 0 to 5"),
    ],
)
def test_options_that_the_network_does_not_have_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(**options)
