"""DNA-Det contrasts patches that are cut from the faces, by the class of the face and not by the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from dfad_bench.baselines.dna_det import configure, contrastive_loss, random_patches
from torch.nn import functional as F

from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.types import Batch
from tests.modelling import builders
from tests.modelling.builders import CLASSES, make_faces

SIDE = 32
SMALL = replace(configure(patch=16), preprocess=Preprocess(size=None, crop=SIDE), configure=None)
"""The same network on smaller windows, which it takes as well."""


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return SMALL.build(CLASSES)


def _train(module: Any, loss_of: Callable[[Batch], torch.Tensor], batch: Batch, steps: int) -> list[float]:
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_patches_are_windows_of_their_own_face_and_lie_everywhere_in_it() -> None:
    torch.manual_seed(0)
    faces, side, height, width = 40, 5, 12, 9
    place = torch.arange(height)[:, None] * width + torch.arange(width)
    image = torch.stack([place + 1000 * face for face in range(faces)])[:, None].repeat(1, 3, 1, 1)
    patches = random_patches(image, side, 3)
    assert patches.shape == (faces, 3, 3, side, side)
    corners = set()
    for face, cut in enumerate(patches):
        for patch in cut:
            top, left = divmod(int(patch[0, 0, 0]) - 1000 * face, width)
            assert torch.equal(patch, image[face, :, top : top + side, left : left + side])
            corners.add((top, left))
    assert len(corners) > 30
    assert {top for top, _ in corners} == set(range(height - side + 1))
    assert {left for _, left in corners} == set(range(width - side + 1))


def test_the_contrast_is_that_of_a_loop_over_all_pairs() -> None:
    torch.manual_seed(1)
    features, target, temperature = torch.randn(8, 5), torch.tensor([0, 0, 1, 1, 2, 2, 0, 0]), 0.3
    unit = (features / features.norm(dim=1, keepdim=True)).double()
    total = 0.0
    for i in range(8):
        others = [j for j in range(8) if j != i]
        below = sum(math.exp(float(unit[i] @ unit[j]) / temperature) for j in others)
        positives = [j for j in others if target[j] == target[i]]
        total -= sum(math.log(math.exp(float(unit[i] @ unit[j]) / temperature) / below) for j in positives) / len(
            positives
        )
    assert float(contrastive_loss(features, target, temperature)) == pytest.approx(total / 8, rel=1e-5)


def test_the_contrast_of_equal_and_of_parted_classes_is_known() -> None:
    target = torch.tensor([0, 0, 0, 1, 1, 1])
    alike = torch.ones(6, 4)
    assert float(contrastive_loss(alike, target)) == pytest.approx(math.log(5), rel=1e-5)
    # The own class at cosine 1 (two others), the other one opposite (three).
    parted = torch.where(target[:, None] == 0, alike, -alike)
    temperature = 0.5
    expected = math.log(2 + 3 * math.exp(-2 / temperature))
    assert float(contrastive_loss(parted, target, temperature)) == pytest.approx(expected, rel=1e-5)


def test_only_a_texture_that_is_the_same_everywhere_in_a_class_can_be_contrasted(module: Any) -> None:
    target = torch.arange(3).repeat(4)
    tiles = torch.randn(3, 3, 8, 8)
    everywhere = tiles.repeat(1, 1, SIDE // 8, SIDE // 8)[target]
    # The same three textures, but as stripes of every face: a patch tells its place and not its class.
    by_place = torch.cat([tiles.repeat(1, 1, 1, SIDE // 8)[kind] for kind in (0, 1, 2, 0)], dim=1).expand(
        len(target), -1, -1, -1
    )
    assert by_place.shape == everywhere.shape
    start = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    consistent = _train(module, module.contrast, Batch(12, image=everywhere, target=target), steps=20)
    module.load_state_dict(start)
    changing = _train(module, module.contrast, Batch(12, image=by_place, target=target), steps=20)
    # Of the 23 other patches 7 are of the own class: no less than log 7 is possible, and log 23 where all look alike.
    assert consistent[-1] < math.log(7) + 0.3
    assert changing[-1] > math.log(23) - 0.3


def _texture(generator: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise of one variance whose up-sampling is the generator's."""
    side = size if generator == "real" else size // 2
    small = np.clip(rng.normal(128, 30, (side, side, 3)), 0, 255).astype(np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_NEAREST if generator == "ddim" else cv2.INTER_CUBIC)


def test_it_learns_toy_generators_by_their_up_sampling(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "face_pixels", _texture)
    tables = [make_faces(tmp_path, 8, size=SIDE, seed=seed) for seed in range(2)]
    seen, unseen = (FaceDataset(SMALL, table, CLASSES)[Request(np.arange(len(table)))].batch for table in tables)
    losses = _train(module, module.loss, seen, steps=45)
    # Cross-entropy 0 and all of a patch's likeness on the 15 others of its class: no less is possible.
    assert losses[0] > math.log(15) + 1
    assert losses[-1] < math.log(15) + 0.5
    with torch.no_grad():
        output = module.eval()(unseen)
    assert unseen.target is not None
    assert (output.logits.argmax(dim=1) == unseen.target).float().mean() > 0.9
    assert output.fake_score[unseen.target != 0].min() > output.fake_score[unseen.target == 0].max()


def test_the_weight_scales_the_contrast_beside_the_cross_entropy_of_the_windows(module: Any) -> None:
    torch.manual_seed(0)
    image, target = torch.randn(3, 3, SIDE, SIDE), torch.arange(3)
    batch, terms = Batch(3, image=image, target=target), []
    for weight in (0.0, 1.0, 3.0):
        # In evaluation, where batch norm does not count how often it was asked.
        other: Any = configure(patch=16, contrastive_weight=weight).build(CLASSES).eval()
        other.load_state_dict(module.state_dict())
        torch.manual_seed(1)
        terms.append(other.loss(batch).item())
    with torch.no_grad():
        assert terms[0] == pytest.approx(F.cross_entropy(module.eval()(batch).logits, target).item(), rel=1e-5)
    assert terms[1] > terms[0] + 0.1
    assert terms[2] - terms[0] == pytest.approx(3 * (terms[1] - terms[0]), rel=1e-4)


@pytest.mark.parametrize("patch", [7, 129])
def test_a_patch_that_does_not_fit_is_refused(patch: int) -> None:
    with pytest.raises(ValueError, match=f"patch is {patch}: it must be 8 to 128"):
        configure(patch=patch)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="contrastive_weight is -1"):
        configure(contrastive_weight=-1.0)
