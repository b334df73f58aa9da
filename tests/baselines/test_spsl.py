"""SPSL sees a face's phase beside its colours, through an Xception without its middle flow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.spsl import MODEL, PLANES, configure, load_backbone, phase_image

from dfad_bench.errors import DataError, WeightsMissing
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.modelling.xception import load_xception, xception
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(size=48), configure=None)


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    """Return weights as they are published, of the whole network and for three colours."""
    torch.manual_seed(1)
    network: Any = xception()[0]
    return network.state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


def _noise(side: int = 48) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _with_spectrum(image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return the image, each frequency times a factor [H, W // 2 + 1]."""
    return torch.fft.irfft2(torch.fft.rfft2(image) * factor, s=image.shape[-2:])


@pytest.mark.parametrize("side", [48, 49])
def test_the_phase_plane_has_the_phase_of_the_grey_face_and_no_amplitude(side: int) -> None:
    image = _noise(side)
    plane = phase_image(image)
    assert plane.shape == (2, 1, side, side)
    of_plane = torch.fft.rfft2(plane, norm="ortho").flatten(1)[:, 1:]  # but for the mean
    of_image = torch.fft.rfft2(image.mean(dim=1, keepdim=True), norm="ortho").flatten(1)[:, 1:]
    torch.testing.assert_close(of_plane.abs(), torch.ones_like(of_plane.abs()), atol=1e-4, rtol=0)
    torch.testing.assert_close(of_plane, of_image / of_image.abs(), atol=1e-3, rtol=0)


def test_the_phase_plane_does_not_see_amplitudes() -> None:
    image = _noise()
    plane = phase_image(image)
    torch.testing.assert_close(phase_image(0.3 * image - 0.2), plane, atol=1e-3, rtol=0)
    across, down = torch.fft.rfftfreq(48)[None, :], torch.fft.fftfreq(48)[:, None]
    blur = torch.exp(-10 * (across.square() + down.square()))  # real and positive: it moves no phase
    blurred = _with_spectrum(image, blur)
    assert (blurred - image).square().mean() > 0.1 * image.square().mean()
    torch.testing.assert_close(phase_image(blurred), plane, atol=1e-2, rtol=0)


def test_the_phase_plane_sees_a_change_of_phase_that_leaves_the_amplitudes() -> None:
    image = _noise()
    plane = phase_image(image)
    moved = torch.roll(image, (3, 5), dims=(2, 3))
    torch.testing.assert_close(torch.fft.rfft2(moved).abs(), torch.fft.rfft2(image).abs(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(phase_image(moved), torch.roll(plane, (3, 5), dims=(2, 3)), atol=1e-3, rtol=0)
    turn = torch.polar(torch.ones(48, 25), torch.linspace(0, 3, 48)[:, None] * torch.linspace(0, 3, 25)[None, :])
    assert (phase_image(_with_spectrum(image, turn)) - plane).square().mean() > 0.1


def test_a_flat_face_has_no_phase() -> None:
    # 0 but for rounding, which is far below the unit scale of a face's plane.
    assert phase_image(torch.full((1, 3, 32, 40), 0.3)).abs().max() < 1e-3


def test_the_network_reads_all_four_planes(module: Any) -> None:
    batch = Batch(2, image=_noise(), target=torch.tensor([0, 1]))
    assert module.backbone.network.conv1.weight.shape[1] == PLANES
    module.loss(batch).backward()
    assert (module.backbone.network.conv1.weight.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    with torch.no_grad():
        before = module(batch)
        module.backbone.network.conv1.weight[:, 3] = 0
        after = module(batch)
    assert (before.logits - after.logits).abs().max() > 1e-2


def test_it_is_xception_without_its_middle_flow(module: Any) -> None:
    depthwise = [each for each in module.modules() if isinstance(each, torch.nn.Conv2d) and each.groups > 1]
    assert len(depthwise) == 34 - 24
    assert not any(key.startswith(("block4.", "block11.")) for key in module.backbone.network.state_dict())


def test_a_few_steps_lower_both_losses(module: Any, tmp_path: Path) -> None:
    table = make_faces(tmp_path, 4, size=48)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=SMALL.recipe.learning_rate)
    losses = []
    for _ in range(5):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_whole_published_file_fills_the_layers_that_are_kept(
    module: Any, published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(published, tmp_path / "xception.pth")
    load_backbone(module, tmp_path / "xception.pth")
    whole = xception(PLANES)[0]
    load_xception(whole, tmp_path / "xception.pth")
    loaded, expected = module.backbone.network.state_dict(), whole.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.items())
    torch.testing.assert_close(loaded["conv1.weight"][:, 3], published["conv1.weight"].mean(dim=1) * 3 / PLANES)
    # A file that lacks even a layer that is dropped is not the published one.
    torch.save({key: each for key, each in published.items() if key != "block7.rep.1.conv1.weight"}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"missing block7\.rep\.1\.conv1\.weight"):
        load_backbone(module, tmp_path / "x.pth")


def test_it_never_starts_from_random_weights_by_itself() -> None:
    with pytest.raises(WeightsMissing, match=r"spsl starts from published weights whose file you give"):
        find_backbone("spsl", MODEL, MODEL.default_backbone_weights)


def test_a_resolution_that_the_network_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 16: it must be 32 or more"):
        configure(size=16)
