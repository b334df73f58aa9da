"""F3-Net splits a face into bands that add up to it, measures bands locally, and learns from both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.f3net import (
    BANDS,
    MODEL,
    Decomposition,
    LocalStatistics,
    MixBlock,
    configure,
    cosine_transform,
    load_backbone,
)
from scipy.fft import dctn
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


def _statistics() -> LocalStatistics:
    """Return LFS that has learned nothing, not even the randomness that it starts from."""
    statistics = LocalStatistics()
    nn.init.zeros_(statistics.learned)
    return statistics


@pytest.mark.parametrize("size", [10, 33])
def test_the_cosine_transform_is_orthonormal_and_scipys(size: int) -> None:
    rows = cosine_transform(size)
    torch.testing.assert_close(rows @ rows.T, torch.eye(size), atol=1e-5, rtol=0)
    image = _noise(size, size)
    expected = torch.from_numpy(dctn(image.numpy(), norm="ortho"))
    torch.testing.assert_close(rows @ image @ rows.T, expected, atol=1e-4, rtol=1e-4)


def test_the_bands_share_out_the_spectrum_and_add_up_to_the_face() -> None:
    fad = Decomposition(160)
    assert torch.equal(fad.bands.sum(dim=0), torch.ones(160, 160))
    torch.testing.assert_close(fad.bands.mean(dim=(1, 2)), torch.tensor([1 / 16, 1 / 16, 7 / 8]), atol=2 / 160, rtol=0)
    assert fad.bands[0, 0, 0] == 1 and fad.bands[2, -1, -1] == 1
    image = _noise(2, 3, 160, 160)
    planes = fad(image)
    assert planes.shape == (2, 9, 160, 160)
    torch.testing.assert_close(planes.unflatten(1, (3, 3)).sum(dim=1), image, atol=1e-4, rtol=0)


def test_each_wave_goes_to_the_band_of_its_frequency() -> None:
    fad = Decomposition(64)
    for band, frequency in enumerate((5, 27, 50)):  # the bands end at 22.6 and 32
        wave = cosine_transform(64)[frequency].expand(1, 3, 64, 64)
        strengths = fad(wave).unflatten(1, (3, 3)).square().sum(dim=(2, 3, 4))[0]
        torch.testing.assert_close(strengths / strengths.sum(), torch.eye(3)[band], atol=1e-4, rtol=0)


def test_a_learned_filter_takes_frequencies_out_of_its_band_and_in_from_others() -> None:
    fad = Decomposition(64)
    wave = cosine_transform(64)[50].expand(1, 3, 64, 64)
    with torch.no_grad():
        fad.learned[2] = -100
        fad.learned[0] = 100
    low, middle, high = fad(wave).unflatten(1, (3, 3))[0]
    torch.testing.assert_close(low, wave[0], atol=1e-4, rtol=0)
    assert middle.abs().max() < 1e-4 and high.abs().max() < 1e-4


def test_the_statistics_of_white_noise_are_flat_at_the_height_of_its_deviation() -> None:
    deviation = 0.1
    grey = deviation * _noise(4, 1, 100, 100).expand(-1, 3, -1, -1)
    profile = _statistics()(grey)
    assert profile.shape == (4, BANDS, 49, 49)
    strength = (10**profile).mean(dim=(0, 2, 3))
    mean_magnitude = deviation * (2 / torch.pi) ** 0.5 + 1e-3  # of a normal deviate, and the floor
    torch.testing.assert_close(strength, torch.full((BANDS,), mean_magnitude), atol=0, rtol=0.03)


@pytest.mark.parametrize(("across", "down", "band"), [(1, 0, 0), (5, 0, 1), (8, 0, 2), (0, 8, 2), (6, 8, 4), (9, 9, 5)])
def test_a_wave_stands_out_in_its_band(across: int, down: int, band: int) -> None:
    """across, down: half periods of the wave in a window of 10 px, their sum its number."""
    place = torch.arange(60.0)
    wave = torch.cos(torch.pi / 10 * across * place) * torch.cos(torch.pi / 10 * down * place)[:, None]
    profile = _statistics()(wave.expand(1, 3, 60, 60))[..., 5:-5, 5:-5].mean(dim=(0, 2, 3))
    assert int(profile.argmax()) == band
    assert profile.max() - profile.median() > 0.2


def test_the_statistics_are_local_and_a_flat_place_has_only_the_lowest_band() -> None:
    image = torch.full((1, 3, 60, 60), 0.5)
    image[..., 30:] += _noise(1, 1, 60, 30) * 0.2
    profile = _statistics()(image)
    assert profile[:, 1:, :, :10].max() < -2.9 and profile[:, 0, :, :10].min() > -1
    assert profile[:, 1:, :, 20:].min() > -2


def test_the_streams_start_apart_and_each_takes_from_the_other() -> None:
    torch.manual_seed(0)
    mix = MixBlock(16)
    bands, statistics, other = (_noise(2, 16, 2, 3, seed=seed) for seed in range(3))
    with torch.no_grad():
        assert all(torch.equal(new, old) for new, old in zip(mix(bands, statistics), (bands, statistics), strict=True))
        mix.gates.fill_(1)
        new_bands, new_statistics = mix(bands, statistics)
        assert (mix(bands, other)[0] - new_bands).abs().max() > 1e-2
        assert (mix(other, statistics)[1] - new_statistics).abs().max() > 1e-2
        nn.init.zeros_(mix.query.weight)
        nn.init.zeros_(mix.query.bias)
        new_bands, _ = mix(bands, statistics)
        # All places are alike: everywhere, the mean of the other's values is added.
        values = mix.values[1](statistics).mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(new_bands - bands, values.expand_as(bands))


@pytest.mark.parametrize("size", [33, 34])
def test_the_streams_have_the_same_places_at_every_resolution(size: int) -> None:
    torch.manual_seed(0)
    odd: Any = configure(size=size).build(CLASSES).eval()
    seen: list[torch.Size] = []
    for stream in (odd.bands, odd.statistics):
        stream.conv1.register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    with torch.no_grad():
        odd(Batch(1, image=_noise(1, 3, size, size)))
    assert seen[0] == seen[1]


def test_both_streams_and_their_filters_reach_the_loss(module: Any) -> None:
    batch = Batch(3, image=_noise(3, 3, 32, 32), target=torch.tensor([0, 1, 2]))
    module.loss(batch).backward()
    for learned in (module.fad.learned, module.lfs.learned):
        assert learned.grad.flatten(1).abs().amax(dim=1).min() > 0  # of each band
    assert (module.lfs.learned.grad != 0).all()  # outside the bands too
    for stream in (module.bands, module.statistics):
        assert stream.conv1.weight.grad.abs().amax(dim=(0, 2, 3)).min() > 0  # of each plane
    embedding = module(batch).embedding
    for half, stream in enumerate((module.bands, module.statistics)):
        assert module.heads.classifier.weight.grad.chunk(2, dim=1)[half].abs().max() > 0
        nn.init.zeros_(stream.bn4.weight)
        assert (module(batch).embedding - embedding).chunk(2, dim=1)[half].abs().max() > 0.1


def test_a_few_steps_lower_both_losses(module: Any, tmp_path: Path) -> None:
    table = make_faces(tmp_path, 2, size=32)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=SMALL.recipe.learning_rate)
    losses = []
    for _ in range(4):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_published_weights_fill_both_streams(module: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = xception()[0].state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(published, tmp_path / "xception.pth")
    load_backbone(module, tmp_path / "xception.pth")
    for stream, planes in ((module.bands, 9), (module.statistics, BANDS)):
        loaded = stream.state_dict()
        first = loaded.pop("conv1.weight")
        torch.testing.assert_close(first.sum(dim=1), published["conv1.weight"].sum(dim=1))
        assert first.shape[1] == planes
        assert all(torch.equal(tensor, published[key]) for key, tensor in loaded.items())
    del published["block7.rep.1.conv1.weight"]
    torch.save(published, tmp_path / "xception.pth")
    with pytest.raises(DataError, match=r"missing block7\.rep\.1\.conv1\.weight"):
        load_backbone(module, tmp_path / "xception.pth")


def test_it_never_starts_from_random_weights_by_itself() -> None:
    with pytest.raises(WeightsMissing, match=r"f3net starts from published weights whose file you give"):
        find_backbone("f3net", MODEL, MODEL.default_backbone_weights)


def test_a_resolution_that_the_network_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 16: it must be 32 or more"):
        configure(size=16)
