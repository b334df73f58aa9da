"""The plain backbones: each is the network it is called after, starts from published weights, and learns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines import convnext_tiny, efficientnet_b4, resnet50, vit_b16, xception
from torch import nn

from dfad_bench.errors import DataError, WeightsMissing
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch, ModelSpec
from tests.modelling.builders import CLASSES, make_faces

declare_missing_operators()
import timm  # noqa: E402
import torchvision  # noqa: E402

MODULES: dict[str, Any] = {
    "resnet50": resnet50,
    "xception": xception,
    "efficientnet_b4": efficientnet_b4,
    "convnext_tiny": convnext_tiny,
    "vit_b16": vit_b16,
}
WIDTHS = {"resnet50": 2048, "xception": 2048, "efficientnet_b4": 1792, "convnext_tiny": 768, "vit_b16": 768}
TIMM_NAMES = {
    "resnet50": "resnet50.tv_in1k",
    "xception": "legacy_xception.tf_in1k",
    "convnext_tiny": "convnext_tiny.fb_in1k",
    "vit_b16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
CPU = torch.device("cpu")


def _small(name: str, size: int = 32) -> ModelSpec:
    """Return the model as it is, but for the resolution; it takes no other options."""
    return replace(MODULES[name].configure(size=size), configure=None)


def _published(name: str) -> nn.Module:
    """Return the network with 1000 classes, as it is published, its normalisers stirred so that each of them counts."""
    torch.manual_seed(1)
    network: nn.Module
    if name == "efficientnet_b4":
        network = torchvision.models.efficientnet_b4()
    elif name == "resnet50":
        network = torchvision.models.resnet50()  # whose keys are timm's
    else:
        network = timm.create_model(TIMM_NAMES[name].partition(".")[0], pretrained=False)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(std=0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return network.eval()


def _before_the_head(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return what the last linear layer of a whole network reads."""
    read: list[torch.Tensor] = []
    head = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    with head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])), torch.no_grad():
        network(image)
    return read[0]


@pytest.mark.parametrize("name", MODULES)
def test_it_is_the_published_network_with_another_head(name: str, tmp_path: Path) -> None:
    published = _published(name)
    state = {key: value for key, value in published.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "published.pth")
    seed_everything(0, CPU)
    module = MODULES[name].MODEL.build(CLASSES).eval()
    head = module.head.weight.clone()
    MODULES[name].MODEL.load_backbone(module, tmp_path / "published.pth")
    size = MODULES[name].MODEL.preprocess.size if name == "vit_b16" else 64
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        output = module(Batch(1, image=image))
    assert output.embedding.shape == (1, WIDTHS[name])
    assert output.embedding.std() > 1e-3
    torch.testing.assert_close(output.embedding, _before_the_head(published, image), rtol=1e-3, atol=1e-4)
    assert torch.equal(module.head.weight, head) and output.logits.shape == (1, len(CLASSES))
    (tmp_path / "published.pth").unlink()


@pytest.mark.parametrize("name", MODULES)
def test_weights_of_another_network_are_refused(name: str, tmp_path: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth does not fit .* missing"):
        MODULES[name].MODEL.load_backbone(_small(name).build(CLASSES), tmp_path / "other.pth")


@pytest.mark.parametrize("name", MODULES)
def test_a_few_steps_lower_the_loss(name: str, tmp_path: Path) -> None:
    spec = _small(name)
    table = make_faces(tmp_path, 4, size=40)
    batch = FaceDataset(spec, table, CLASSES)[Request(np.arange(len(table)))].batch
    seed_everything(0, CPU)
    module: Any = spec.build(CLASSES).train()
    rates = spec.recipe.backbone_learning_rate or spec.recipe.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": list(module.backbone_parameters()), "lr": rates},
            {"params": list(module.head.parameters()), "lr": spec.recipe.learning_rate},
        ]
    )
    losses = []
    for _ in range(4):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_faces_are_prepared_as_the_published_weights_expect(name: str) -> None:
    config = timm.get_pretrained_cfg(TIMM_NAMES[name])
    assert config is not None
    side = config.input_size[1]
    assert MODULES[name].MODEL.preprocess == Preprocess(size=side, mean=config.mean, std=config.std)


def test_faces_are_prepared_as_torchvision_evaluates_efficientnet() -> None:
    transform = torchvision.models.EfficientNet_B4_Weights.IMAGENET1K_V1.transforms()
    side = transform.crop_size[0]
    expected = Preprocess(size=side, mean=tuple(transform.mean), std=tuple(transform.std))
    assert efficientnet_b4.MODEL.preprocess == expected


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1),
        ("efficientnet_b4", torchvision.models.EfficientNet_B4_Weights.IMAGENET1K_V1),
    ],
)
def test_torchvisions_files_have_the_hash_that_torchvision_says(name: str, weights: Any) -> None:
    file = MODULES[name].MODEL.backbone_weights["imagenet"]
    assert file.url == weights.url
    assert file.sha256.startswith(weights.url.rpartition("-")[2].removesuffix(".pth"))


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"xception"}))
def test_it_starts_from_published_weights_unless_told_otherwise(name: str) -> None:
    assert find_backbone(name, MODULES[name].MODEL, MODULES[name].MODEL.default_backbone_weights).sha256


def test_xception_never_starts_from_random_weights_by_itself() -> None:
    spec = xception.MODEL
    with pytest.raises(WeightsMissing, match=r"xception starts from published weights whose file you give: --backbone"):
        find_backbone("xception", spec, spec.default_backbone_weights)


def test_xception_takes_the_older_file_whose_pointwise_convolutions_are_matrices(tmp_path: Path) -> None:
    state = {
        key: value.flatten(1) if key.endswith("pointwise.weight") else value
        for key, value in _published("xception").state_dict().items()
    }
    torch.save(state, tmp_path / "older.pth")
    module = xception.MODEL.build(CLASSES)
    xception.load_backbone(module, tmp_path / "older.pth")
    loaded = module.state_dict()["backbone.block5.rep.1.pointwise.weight"]
    assert torch.equal(loaded[..., 0, 0], state["block5.rep.1.pointwise.weight"])


def test_vit_at_another_resolution_takes_the_published_weights_with_resampled_positions(tmp_path: Path) -> None:
    state = _published("vit_b16").state_dict()
    torch.save(state, tmp_path / "vit.pth")
    module = _small("vit_b16").build(CLASSES)
    vit_b16.MODEL.load_backbone(module, tmp_path / "vit.pth")
    loaded = module.state_dict()
    assert loaded["backbone.pos_embed"].shape == (1, 1 + 2 * 2, 768)
    assert torch.equal(loaded["backbone.pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert torch.equal(loaded["backbone.blocks.11.mlp.fc2.weight"], state["blocks.11.mlp.fc2.weight"])
    (tmp_path / "vit.pth").unlink()


@pytest.mark.parametrize(("name", "size"), [(name, 16) for name in MODULES if name != "vit_b16"] + [("vit_b16", 100)])
def test_a_resolution_that_the_network_cannot_read_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}: it must be"):
        MODULES[name].configure(size=size)


def test_importing_them_imports_no_library_of_networks() -> None:
    names = ", ".join([*MODULES, "dinov2_linear", "gaze_only"])
    code = (
        f"import sys; from dfad_bench.baselines import {names}; assert not {{'timm', 'torchvision'}} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
