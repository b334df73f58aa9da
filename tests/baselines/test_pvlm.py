"""PVLM: what its losses are worth where that can be computed by hand, and that its text is there to teach only."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfad_bench.baselines.pvlm import (
    MODEL,
    REGIONS,
    SIDE,
    centre_loss,
    configure,
    language_matching,
    load_backbone,
    parsing_matching,
    parsing_targets,
    regions,
    relevance,
)
from safetensors.torch import save_file
from torch.nn import functional as F

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling import clip
from dfad_bench.modelling.data import FaceDataset, Request
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.weights import find_backbone
from dfad_bench.types import Batch, Leaf
from tests.modelling.builders import CLASSES, make_faces

FAMILIES = (
    Leaf("real", "real", "real"),
    Leaf("stylegan2", "gan", "efs"),
    Leaf("stylegan3", "gan", "efs"),
    Leaf("simswap", "gan", "fs"),
    Leaf("ddim", "diffusion", "efs"),
)
FACE = 96


@pytest.fixture
def module() -> Any:
    seed_everything(0, torch.device("cpu"))
    return configure(backbone=clip.TINY).build(FAMILIES)


def _faces(number: int) -> Batch:
    torch.manual_seed(3)
    return Batch(number, image=torch.randn(number, 3, FACE, FACE), target=torch.arange(number) % len(FAMILIES))


def test_relevance_is_the_share_of_type_family_and_generator_that_two_classes_have_in_common() -> None:
    torch.testing.assert_close(
        relevance(FAMILIES),
        torch.tensor([[3, 0, 0, 0, 0], [0, 3, 2, 1, 1], [0, 2, 3, 1, 1], [0, 1, 1, 3, 0], [0, 1, 1, 0, 3]]) / 3,
    )


def test_the_centre_loss_is_what_it_is_by_hand() -> None:
    east, north, west = torch.eye(2)[:1], torch.eye(2)[1:], -torch.eye(2)[:1]
    yes_no = torch.tensor([[1.0, 0.0]])
    # Squared distances: 0 to itself, 2 across a right angle, 4 to the opposite.
    assert centre_loss(east, torch.cat([east, north]), yes_no).item() == pytest.approx(0)
    assert centre_loss(east, torch.cat([north, west]), yes_no).item() == pytest.approx(2 / (4 + 1))
    assert centre_loss(5 * east, torch.cat([west, 3 * east]), yes_no).item() == pytest.approx(4 / (0 + 1))
    half = torch.tensor([[1.0, 0.5, 0.0]])
    near, far = (0.5 * 2) / 1.5, (0.5 * 2 + 1 * 4) / 1.5
    assert centre_loss(east, torch.cat([east, north, west]), half).item() == pytest.approx(near / (far + 1))


def test_faces_pull_the_centres_of_relevant_generators_and_push_the_others() -> None:
    faces, centres = torch.eye(8)[1:2], torch.eye(8)[: len(FAMILIES)].clone().requires_grad_()
    optimizer = torch.optim.SGD([centres], lr=0.5)
    for _ in range(20):
        loss = centre_loss(faces, centres, relevance(FAMILIES)[1:2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, own, sibling, *_ = (F.normalize(centres.detach(), dim=1) @ faces[0]).tolist()
    assert own == pytest.approx(1) and sibling > 0.1 and real < -0.1


def test_parsings_of_other_faces_match_only_within_a_class_and_as_far_as_the_faces_are_alike() -> None:
    target = torch.tensor([0, 0, 1, 1])
    apart = parsing_targets(torch.eye(4), target)
    torch.testing.assert_close(apart.diagonal(), torch.full((4,), math.e**10 / (math.e**10 + 1)))
    assert apart[:2, 2:].abs().max() == 0
    same = parsing_targets(torch.ones(4, 3), target)
    torch.testing.assert_close(same, torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]) / 2)


def test_matching_a_parsing_is_a_cross_entropy_both_ways() -> None:
    faces, target, scale = torch.eye(2), torch.tensor([0, 1]), torch.tensor(2.0)
    right, wrong = (parsing_matching(faces, parsed, target, scale).item() for parsed in (faces, faces.flip(0)))
    assert right == pytest.approx(math.log(1 + math.e**-2)) and wrong == pytest.approx(right + 2)
    # Two faces of one class that look the same have two matches each, which no parsing of theirs can tell apart.
    both = parsing_matching(torch.ones(2, 2), torch.ones(2, 2), torch.tensor([1, 1]), scale)
    assert both.item() == pytest.approx(math.log(2))


def test_faces_that_share_a_text_are_all_matched_to_it() -> None:
    texts, scale = 3 * torch.eye(4)[:2], torch.tensor(2.0)
    levels = [(texts, torch.tensor([0, 1, 1]))]
    faces = torch.eye(4)[[0, 1, 1]]
    matched = language_matching(faces, levels, torch.tensor([0, 1, 2]), scale)
    assert matched.item() == pytest.approx(math.log(1 + math.e**-2))
    astray = language_matching(faces, levels, torch.tensor([1, 0, 0]), scale)
    assert astray.item() == pytest.approx(2 + math.log(1 + math.e**-2))
    other = (torch.eye(4)[2:], torch.tensor([0, 1, 1]))  # of which the faces know nothing
    two = language_matching(faces, [*levels, other], torch.tensor([0, 1, 2]), scale)
    assert two.item() == pytest.approx((matched.item() + math.log(2)) / 2)


def test_the_stand_in_for_a_parser_finds_a_patch_of_another_colour_and_keeps_to_its_cells_on_a_flat_face() -> None:
    flat = regions(torch.zeros(1, 3, FACE, FACE))
    assert flat.shape == (1, REGIONS, SIDE, SIDE)
    torch.testing.assert_close(flat.sum(dim=1), torch.ones(1, SIDE, SIDE))
    assert flat[0, :, SIDE // 2, SIDE // 2].argmax() == 4 and flat[0, :, 0, 0].argmax() == 0
    patch = torch.zeros(1, 3, FACE, FACE)
    patch[..., 36:60, 36:60] = 3.0
    middle = regions(patch)[0, 4]
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[18:30, 18:30] = True
    assert middle[inside].min() > 0.99 and middle[~inside].max() < 0.01


def test_every_level_of_the_prompts_is_heard(module: Any) -> None:
    """Levels encoded as one text and read at its first end would be alike for all that share the first level."""
    with torch.no_grad():
        levels = module.eval().language()
        padded = F.pad(module.language.ids, (0, 48 - module.language.ids.shape[1]))
        torch.testing.assert_close(module.language._encode(), module.language.text(padded))
    assert [len(texts) for texts, _ in levels] == [2, 3, 3, 5]
    for texts, value_of in levels:
        assert torch.pdist(texts).min() > 1e-3
        assert len(value_of) == len(FAMILIES)


def test_no_text_and_no_regions_are_needed_to_answer(module: Any) -> None:
    batch = _faces(3)
    with torch.no_grad():
        before = module.eval()(batch)
        del module.language, module.parsing
        after = module(batch)
    assert torch.equal(before.logits, after.logits) and torch.equal(before.fake_score, after.fake_score)


def test_it_starts_as_clip_sees_and_every_part_teaches_the_visual_encoder(module: Any) -> None:
    batch = _faces(5)
    torch.testing.assert_close(module.vision(batch.image), module.vision.visual(batch.image))
    module.train()
    for parameter in (module.centres, module.parsing.embed.weight, module.language.text.token_embedding.weight):
        gradient = torch.autograd.grad(module.loss(batch), parameter)[0]
        assert gradient.abs().max() > 0


def test_a_few_steps_lower_the_loss(tmp_path: Path) -> None:
    spec = replace(configure(backbone=clip.TINY), configure=None)
    seed_everything(0, torch.device("cpu"))
    module: Any = spec.build(CLASSES)
    table = make_faces(tmp_path, 3, size=FACE)
    batch = FaceDataset(spec, table, CLASSES)[Request(np.arange(len(table)))].batch
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_clips_weights_fill_both_towers_and_nothing_less_does(module: Any, tmp_path: Path) -> None:
    torch.manual_seed(9)
    state = {
        f"{name}.{key}": torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for name, tower in module.towers().items()
        for key, tensor in tower.state_dict().items()
    }
    save_file(state, tmp_path / "clip.safetensors")
    load_backbone(module, tmp_path / "clip.safetensors")
    assert torch.equal(module.vision.visual.conv1.weight, state["visual.conv1.weight"])
    assert torch.equal(module.language.text.token_embedding.weight, state["text.token_embedding.weight"])
    del state["visual.class_embedding"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"missing visual\.class_embedding"):
        load_backbone(module, tmp_path / "cut.safetensors")


def test_it_starts_from_openais_weights_unless_told_otherwise() -> None:
    assert find_backbone("pvlm", MODEL, MODEL.default_backbone_weights).name == "ViT-B-16.pt"
    assert configure(backbone=clip.TINY).default_backbone_weights == "none"


def test_towers_that_are_no_vision_transformer_are_refused() -> None:
    with pytest.raises(UsageError, match="RN50"):
        configure(backbone="RN50").build(CLASSES)
