"""CLIP describes a face by itself, and a small network reads the face beside its caption."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.de_fake import ATTRIBUTES, MODEL, captions, configure, load_backbone, sentences
from safetensors.torch import save_file
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.clip import TINY, Towers
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.testing import check_model
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(backbone=TINY), configure=None)
IMAGE_ONLY = replace(configure(backbone=TINY, prompt="none"), configure=None)
WIDTH = 64


@pytest.fixture(scope="module")
def built() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES).eval()


@pytest.fixture
def module(built: Any) -> Any:
    return deepcopy(built)


def _read_by(module: Any, batch: Batch) -> torch.Tensor:
    """Return what reaches the first layer of the network."""
    heard = []
    handle = module.mlp[0].register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    with torch.no_grad():
        module(batch)
    handle.remove()
    return heard[0]


def test_of_each_attribute_the_nearest_phrase_is_taken(module: Any) -> None:
    told = captions()
    with torch.no_grad():
        asked = nn.functional.normalize(module.text(module.sentence_tokens), dim=1)
        chosen = [told[row] for row in module.describe(asked)]
    phrases = [phrase for _, options in ATTRIBUTES for phrase in options]
    assert len(set(told)) == len(told) == len(module.caption_tokens) and len(sentences()) == len(phrases)
    assert all(
        f" {phrase} " in f"{caption} ".replace(",", " ") for phrase, caption in zip(phrases, chosen, strict=True)
    )


def test_a_caption_names_every_attribute_in_order() -> None:
    assert captions()[0] == (
        "a photo of a young woman with short hair and a smile, wearing glasses, looking at the camera, outdoors"
    )
    assert captions()[1].endswith("looking at the camera, indoors"), "the last attribute's phrases lie side by side"
    assert captions()[-1].startswith("a photo of an old man with no hair")


def test_the_caption_depends_on_the_image_and_not_on_labels_or_classes(module: Any) -> None:
    # A random tower embeds all faces nearly alike; this one does not.
    module.visual = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, WIDTH, bias=False))
    image = torch.randn(12, 3, 96, 96)
    with torch.no_grad():
        rows = module.describe(module.visual(image))
        shuffled = module.describe(module.visual(image.flip(0)))
    assert len(set(rows.tolist())) > 1, "different faces are described differently"
    assert torch.equal(shuffled, rows.flip(0))
    read = _read_by(module, Batch(12, image=image))
    for target in (torch.zeros(12, dtype=torch.int64), torch.arange(12) % 3):
        assert torch.equal(_read_by(module, Batch(12, image=image, target=target)), read)
    other = configure(backbone=TINY).build(CLASSES[:2])
    other.visual, other.text = module.visual, module.text
    torch.testing.assert_close(_read_by(other.eval(), Batch(12, image=image)), read)


def test_no_sentence_speaks_of_fakes() -> None:
    words = {word.strip(",") for text in [*sentences(), *captions()] for word in text.split()}
    assert not words & {"fake", "real", "generated", "synthetic", "deepfake", "gan", "diffusion", "ai"}


def test_the_network_reads_the_face_beside_its_caption(module: Any) -> None:
    image = torch.randn(3, 3, 96, 96)
    read = _read_by(module, Batch(3, image=image))
    with torch.no_grad():
        seen = module.visual(image)
        said = module.text(module.caption_tokens[module.describe(seen)])
    assert torch.equal(read, torch.cat([seen, said], dim=1))
    assert module.mlp[0].in_features == 2 * WIDTH
    loss = module.loss(Batch(3, image=image, target=torch.arange(3)))
    loss.backward()
    for half in module.mlp[0].weight.grad.split(WIDTH, dim=1):
        assert half.any()


def test_without_a_prompt_there_is_no_text(tmp_path: Path) -> None:
    module: Any = IMAGE_ONLY.build(CLASSES).eval()
    assert not any("text" in key or "token_embedding" in key or "_tokens" in key for key in module.state_dict())
    image = torch.randn(2, 3, 96, 96)
    assert torch.equal(_read_by(module, Batch(2, image=image)), module.visual(image))
    save_file({f"visual.{k}": v for k, v in module.visual.state_dict().items()}, tmp_path / "visual.safetensors")
    load_backbone(module, tmp_path / "visual.safetensors")
    check_model(IMAGE_ONLY)


def test_a_few_steps_lower_the_loss_and_leave_both_towers_as_they_were(module: Any, tmp_path: Path) -> None:
    table = make_faces(tmp_path, 2, size=96)
    batch = FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    changed = {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if key.startswith(("mlp.", "heads."))}


def test_published_weights_fill_both_towers_and_nothing_less_than_all_of_them(module: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = Towers(TINY).state_dict()
    save_file(published, tmp_path / "clip.safetensors")
    load_backbone(module, tmp_path / "clip.safetensors")
    for name, tower in module.towers().items():
        assert all(torch.equal(tensor, published[f"{name}.{key}"]) for key, tensor in tower.state_dict().items())
    del published["text.ln_final.bias"]
    save_file(published, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"missing text\.ln_final\.bias"):
        load_backbone(module, tmp_path / "cut.safetensors")


def test_it_starts_from_openais_vit_b_32_unless_told_otherwise() -> None:
    assert find_backbone("de_fake", MODEL, MODEL.default_backbone_weights).name == "ViT-B-32.pt"
    assert SMALL.default_backbone_weights == "none"
