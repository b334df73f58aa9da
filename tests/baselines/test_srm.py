"""SRM reads the face and its noise: fixed kernels, an attention that the noise guides, streams that see each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.srm import (
    MODEL,
    WIDTH,
    CrossModality,
    HighPass,
    ResidualAttention,
    configure,
    load_backbone,
)
from torch import nn

from dfad_bench.errors import DataError, WeightsMissing
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.modelling.xception import xception
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(size=32), configure=None)


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_kernel_sums_to_zero_and_predicts_a_pixel_from_its_neighbours() -> None:
    kernels = HighPass().kernels
    assert kernels.shape == (3, 1, 5, 5)
    torch.testing.assert_close(kernels.sum(dim=(2, 3)), torch.zeros(3, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(kernels[:, 0, 2, 2], -torch.ones(3))


def test_a_flat_face_has_no_residual_and_a_smooth_one_none_within() -> None:
    flat = torch.tensor([0.7, -0.2])[None, :, None, None].expand(1, 2, 20, 24)
    residuals = HighPass()(flat)
    assert residuals.shape == (1, 6, 20, 24)
    torch.testing.assert_close(residuals, torch.zeros_like(residuals), atol=1e-6, rtol=0)
    ramp = (torch.arange(24.0)[None, :] + 2 * torch.arange(20.0)[:, None])[None, None] / 24
    torch.testing.assert_close(HighPass()(ramp)[..., 2:-2, 2:-2], torch.zeros(1, 3, 16, 20), atol=1e-5, rtol=0)


def test_a_single_pixel_leaves_the_kernels_in_the_residuals() -> None:
    dot = torch.zeros(1, 1, 11, 11)
    dot[..., 5, 5] = 1
    high_pass = HighPass()
    torch.testing.assert_close(high_pass(dot)[:, :, 3:8, 3:8], high_pass.kernels.transpose(0, 1))  # they are symmetric


def test_the_kernels_are_stored_and_never_learn_while_a_few_steps_lower_both_losses(
    module: Any, tmp_path: Path
) -> None:
    table = make_faces(tmp_path, 2, size=32)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    kernels = {key for key in module.state_dict() if key.endswith("kernels")}
    assert len(kernels) == 4 and not kernels & dict(module.named_parameters()).keys()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=SMALL.recipe.learning_rate)
    losses = []
    for _ in range(4):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    unchanged = {key for key, tensor in module.state_dict().items() if torch.equal(tensor, before[key])}
    assert unchanged == kernels


def test_the_residuals_guide_what_the_colour_stream_goes_on_with() -> None:
    torch.manual_seed(0)
    attention = ResidualAttention()
    nn.init.normal_(attention.where.weight, std=1)
    colour, residuals = _noise(1, 64, 13, 13).abs(), torch.zeros(1, 3, 32, 32)
    without = attention.eval()(colour, residuals)
    residuals[..., 20:, 20:] = _noise(1, 3, 12, 12)
    gain = attention(colour, residuals) / colour
    assert gain.min() >= 1 and gain.max() <= 2
    moved = (gain - without / colour).abs().amax(dim=1)[0]
    assert moved[10:, 10:].max() > 0.01
    assert moved[:4, :4].max() < 1e-5  # far from where the residuals differ
    assert (gain - gain[:, :1]).abs().max() < 1e-5  # one map for all channels


def test_the_colour_streams_features_depend_on_the_residuals(module: Any) -> None:
    """What goes into block 1 changes where only the residuals of the same face are taken away."""
    into: list[torch.Tensor] = []
    module.colour.block1.register_forward_pre_hook(lambda _, inputs: into.append(inputs[0]))
    batch = Batch(2, image=_noise(2, 3, 32, 32))
    with torch.no_grad():
        module(batch)
        module.high_pass.kernels.zero_()
        module(batch)
    assert (into[0] - into[1]).abs().max() > 1e-3


def test_the_streams_start_apart_and_each_takes_from_the_other() -> None:
    torch.manual_seed(0)
    cross = CrossModality()
    colour, noise, other = (_noise(1, WIDTH, 2, 3, seed=seed) for seed in range(3))
    with torch.no_grad():
        assert all(torch.equal(new, old) for new, old in zip(cross(colour, noise), (colour, noise), strict=True))
        cross.gates.fill_(1)
        nn.init.zeros_(cross.keys[0].weight)
        nn.init.zeros_(cross.keys[0].bias)
        new_colour, new_noise = cross(colour, noise)
        # All places are alike: everywhere, the mean of the other's values is added.
        for new, old, values in (
            (new_colour, colour, cross.values[1](noise)),
            (new_noise, noise, cross.values[0](colour)),
        ):
            torch.testing.assert_close(new - old, values.mean(dim=(2, 3), keepdim=True).expand_as(old))
        assert not torch.equal(cross(colour, other)[0], new_colour)
        assert not torch.equal(cross(other, noise)[1], new_noise)


def test_each_place_takes_a_weighted_mean_whose_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    cross = CrossModality()
    colour, noise = 5 * _noise(1, WIDTH, 2, 3), 5 * _noise(1, WIDTH, 2, 3, seed=1)
    with torch.no_grad():
        cross.gates.fill_(1)
        for layer in cross.values:
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)
        new_colour, new_noise = cross(colour, noise)
    torch.testing.assert_close(new_colour, colour + 1)
    torch.testing.assert_close(new_noise, noise + 1)


def test_a_place_takes_from_the_place_that_resembles_it() -> None:
    cross = CrossModality()
    with torch.no_grad():
        for layer in (*cross.keys, *cross.values):
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)
        cross.gates.fill_(1)
        colour, noise = torch.zeros(1, WIDTH, 1, 3), torch.zeros(1, WIDTH, 1, 3)
        for place in range(3):
            colour[0, place, 0, place] = noise[0, place, 0, (place + 1) % 3] = 30
        new_colour, new_noise = cross(colour, noise)
    torch.testing.assert_close(new_colour, 2 * colour)
    torch.testing.assert_close(new_noise, 2 * noise)


def test_published_weights_fill_both_streams(module: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = xception()[0].state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(published, tmp_path / "xception.pth")
    load_backbone(module, tmp_path / "xception.pth")
    for stream in (module.colour, module.noise):
        assert all(torch.equal(tensor, published[key]) for key, tensor in stream.state_dict().items())
    del published["block7.rep.1.conv1.weight"]
    torch.save(published, tmp_path / "xception.pth")
    with pytest.raises(DataError, match=r"missing block7\.rep\.1\.conv1\.weight"):
        load_backbone(module, tmp_path / "xception.pth")


def test_it_never_starts_from_random_weights_by_itself() -> None:
    with pytest.raises(WeightsMissing, match=r"srm starts from published weights whose file you give"):
        find_backbone("srm", MODEL, MODEL.default_backbone_weights)


def test_a_resolution_that_the_network_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 16: it must be 32 or more"):
        configure(size=16)
