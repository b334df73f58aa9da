"""Xception's published weights fit whatever planes it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dfad_bench.errors import DataError
from dfad_bench.modelling.xception import load_xception, xception


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Return weights in the layout of Cadène's newer file."""
    torch.manual_seed(0)
    network: Any = xception()[0]
    return {
        key: torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in network.state_dict().items()
    } | {
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
    }


def test_the_older_file_keeps_its_pointwise_convolutions_as_matrices(
    published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    older = {key: each.flatten(1) if key.endswith("pointwise.weight") else each for key, each in published.items()}
    torch.save(older, tmp_path / "xception.pth")
    network = xception()[0]
    load_xception(network, tmp_path / "xception.pth")
    assert all(torch.equal(tensor, published[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("planes", [1, 4, 12])
def test_grey_images_give_what_they_gave_whatever_the_number_of_planes(
    published: dict[str, torch.Tensor], planes: int, tmp_path: Path
) -> None:
    torch.save(published, tmp_path / "xception.pth")
    network, colour = xception(planes)[0], xception()[0]
    load_xception(network, tmp_path / "xception.pth")
    load_xception(colour, tmp_path / "xception.pth")
    grey = torch.rand(1, 1, 16, 16)
    expected = colour.conv1(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(network.conv1(grey.repeat(1, planes, 1, 1)), expected, atol=1e-4, rtol=1e-4)


def test_a_file_that_lacks_a_layer_is_refused(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({key: each for key, each in published.items() if key != "conv4.pointwise.weight"}, tmp_path / "cut.pth")
    with pytest.raises(DataError, match=r"missing conv4\.pointwise\.weight"):
        load_xception(xception()[0], tmp_path / "cut.pth")
