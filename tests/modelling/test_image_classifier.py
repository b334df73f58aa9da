from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.image_classifier import ImageClassifier, load_network, timm_network
from dfad_bench.types import Batch

NOWHERE = Path("weights.pth")


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _whole() -> dict[str, torch.Tensor]:
    """What is published of such a network: other weights, and a head."""
    torch.manual_seed(1)
    state = {key: torch.rand_like(tensor.float()) for key, tensor in _network().state_dict().items()}
    return state | {"fc.weight": torch.rand(10, 4), "fc.bias": torch.rand(10)}


def test_the_logits_are_linear_in_what_the_backbone_makes_of_the_faces() -> None:
    model = ImageClassifier(_network(), width=4, classes=3).eval()
    image = torch.rand(2, 3, 8, 8)
    output = model(Batch(2, image=image))
    embedding = _network().eval()(image)
    assert output.embedding is not None and output.logits is not None
    torch.testing.assert_close(output.embedding, embedding)
    torch.testing.assert_close(output.logits, embedding @ model.head.weight.T + model.head.bias)


def test_the_backbone_is_everything_but_the_head() -> None:
    model = ImageClassifier(_network(), width=4, classes=3)
    assert set(model.backbone_parameters()) == set(model.parameters()) - set(model.head.parameters())


def test_timm_builds_a_network_without_a_head() -> None:
    network, width = timm_network("resnet18")
    assert width == 512
    assert not any(key.startswith("fc.") for key in network.state_dict())
    assert network.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 512)


def test_published_weights_fill_all_but_the_head_they_came_with() -> None:
    network, state = _network(), _whole()
    load_network(network, state, NOWHERE, but_for=("fc.",))
    assert all(torch.equal(tensor, state[key].to(tensor.dtype)) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("0.weight"), "missing 0.weight"),
        (lambda state: state.pop("1.running_mean"), "missing 1.running_mean"),
        (lambda state: state.update(extra=torch.rand(1)), "unexpected extra"),
        (lambda state: state.update({"0.bias": torch.rand(5)}), r"of another shape 0.bias \[5\] for \[4\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    network, state = _network(), _whole()
    change(state)
    with pytest.raises(DataError, match=rf"weights\.pth does not fit Sequential: {complaint}"):
        load_network(network, state, NOWHERE, but_for=("fc.",))
    assert torch.equal(network.state_dict()["0.weight"], _network().state_dict()["0.weight"])


def test_a_head_is_unexpected_where_it_is_not_left_out() -> None:
    with pytest.raises(DataError, match=r"unexpected fc\.bias, fc\.weight"):
        load_network(_network(), _whole(), NOWHERE)


def test_old_files_without_counts_of_batches_are_whole() -> None:
    network, state = _network(), _whole()
    del state["1.num_batches_tracked"]
    load_network(network, state, NOWHERE, but_for=("fc.",))
    assert torch.equal(network.state_dict()["1.running_var"], state["1.running_var"])
    assert network.state_dict()["1.num_batches_tracked"] == 0


def test_position_embeddings_are_resampled_to_the_resolution_that_is_asked_for() -> None:
    published, width = timm_network("vit_tiny_patch16_224", img_size=64)
    network, _ = timm_network("vit_tiny_patch16_224", img_size=32)
    ramp = torch.arange(4.0).repeat(4)  # the column of each of 4x4 patches
    state = published.state_dict()
    state["pos_embed"] = torch.cat([torch.full((1, 1, width), 7.0), ramp[None, :, None].expand(1, 16, width)], dim=1)
    load_network(network, state, NOWHERE)
    positions = network.state_dict()["pos_embed"]
    assert positions.shape == (1, 5, width)
    assert (positions[:, 0] == 7).all()
    left, right = positions[0, [1, 3], 0], positions[0, [2, 4], 0]
    torch.testing.assert_close(left, left[:1].expand(2))
    assert 0.3 < left[0] < 1.0 and 2.0 < right[0] < 2.7 and float(left[0] + right[0]) == pytest.approx(3)
