from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from dfad_bench import registry
from dfad_bench.modelling.clip import TINY as TINY_TOWERS
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.options import configured
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.train import Epoch, train
from dfad_bench.modelling.weights import load_weights, save_weights
from dfad_bench.testing import check_model
from dfad_bench.types import Batch, ModelSpec
from gazeclip.model import Design, GazeCLIP
from gazeclip.spec import MODEL, TINY, configure
from tests.gazeclip.builders import CLASSES, SIDE, SMALL, awake, faces, tiny
from tests.modelling.builders import CLASSES as TOY_CLASSES
from tests.modelling.builders import make_faces

CPU = torch.device("cpu")
PLAIN = replace(SMALL, injector=False, agpm=False, lre=False)
SWITCHES = {
    "injector": ("gie.injectors.",),
    "agpm": ("vpe.agpm.", "fusion."),
    "lre": ("lre.", "matching."),
    "aws": ("lre.aws.",),
}
"""The ablations, and what each takes away."""


def _answers(module: GazeCLIP, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        output = module.eval()(batch)
    assert output.logits is not None and output.embedding is not None
    return torch.cat([output.logits, output.fake_score[:, None], output.embedding], dim=1)


# --- the contract, in every design ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"injector": False},
        {"agpm": False},
        {"lre": False},
        {"aws": False},
        {"injector": False, "agpm": False, "lre": False},
        {"gaze_map": True},
        {"towers": "lora", "rank": 2},
        {"towers": "frozen"},
        {"save_memory": True},
    ],
    ids=str,
)
def test_every_design_keeps_the_contract(options: dict[str, object]) -> None:
    assert TINY.configure is not None
    check_model(replace(TINY.configure(**options), configure=None), classes=CLASSES)


def test_the_default_is_clips_vit_b16_with_openais_weights_and_asks_for_gaze() -> None:
    assert MODEL.default_backbone_weights == "openai" and TINY.default_backbone_weights == "none"
    assert MODEL.backbone_weights["openai"].name == "ViT-B-16.pt"
    assert MODEL.inputs == ("image", "gaze")
    assert configure(gaze_network="l2cs").inputs == ("image",)
    assert configure(gaze_network="l2cs").trained_on == ("Gaze360",)
    assert configure(gaze_map=True).inputs == ("image", "gaze", "gaze_map")
    assert configure(injector=False, agpm=False).inputs == ("image",)
    assert registry.get("models", "gazeclip") is MODEL and registry.get("models", "gazeclip_tiny") is TINY


def test_options_are_typed_at_the_command_line() -> None:
    spec, options = configured("gazeclip_tiny", TINY, ["aws=off", "matching_weight=0.5", "blocks=2"])
    assert options == {"aws": False, "matching_weight": 0.5}, "two blocks are the tiny model's default"
    assert spec.preprocess == TINY.preprocess
    module = spec.build(CLASSES)
    assert isinstance(module, GazeCLIP) and module.lre is not None
    assert module.lre.aws is None and module.design.matching_weight == 0.5 and module.backbone == TINY_TOWERS


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong in ({"blocks": 0}, {"rank": 0}, {"gaze_weight": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            configure(**wrong)  # type: ignore[arg-type]


# --- what it computes ----------------------------------------------------------------------------------------------


def test_with_every_switch_off_it_is_a_head_on_plain_clip() -> None:
    module, batch = tiny(PLAIN), faces(3)
    with torch.no_grad():
        expected = module.eval().head(module.gie.visual(batch.image))[0]
    torch.testing.assert_close(module(batch).logits, expected, atol=1e-6, rtol=1e-6)
    assert {name.partition(".")[0] for name, _ in module.named_parameters()} == {"gie", "head"}


def test_before_training_gazeclip_sees_what_clip_sees() -> None:
    torch.testing.assert_close(_answers(tiny(), faces(3)), _answers(tiny(PLAIN), faces(3)), atol=1e-6, rtol=1e-6)


def test_in_evaluation_the_text_tower_is_neither_run_nor_needed() -> None:
    module, batch = awake(), faces(4)
    before = _answers(module, batch)
    assert module.lre is not None
    ran: list[nn.Module] = []
    for part in module.lre.modules():
        part.register_forward_hook(lambda part, *_: ran.append(part))
    _answers(module, batch)
    assert not ran
    del module.lre, module.matching
    assert torch.equal(_answers(module, batch), before)


def test_answers_do_not_depend_on_the_batch_they_come_in() -> None:
    module, batch = awake(), faces(6)
    whole = _answers(module, batch)
    assert batch.image is not None
    alone = [_answers(module, Batch(1, image=batch.image[row : row + 1])) for row in range(6)]
    torch.testing.assert_close(torch.cat(alone), whole, atol=1e-5, rtol=1e-5)


def test_gaze_is_heard_in_both_of_its_places() -> None:
    """Another face's gaze in the injector, or in AGPM, changes the answer; in a plain CLIP nothing does."""
    module, batch = awake(), faces(2)
    assert module.vpe is not None
    before = _answers(module, batch)
    hook = module.vpe.gaze_encoder.trunk.register_forward_hook(lambda _, __, out: out.flip(0))
    swapped = _answers(module, batch)
    hook.remove()
    assert (swapped - before).abs().max() > 1e-3
    for design in (replace(SMALL, injector=False), replace(SMALL, agpm=False)):
        one = awake(design)
        assert one.vpe is not None
        kept = _answers(one, batch)
        one.vpe.gaze_encoder.trunk.register_forward_hook(lambda _, __, out: out.flip(0))
        assert (_answers(one, batch) - kept).abs().max() > 1e-3


def test_bfloat16_agrees_with_float32() -> None:
    module, batch = awake(), faces(8)
    exact = module.eval()(batch)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = module(batch)
    assert rounded.logits is not None and exact.logits is not None
    assert rounded.logits.dtype == rounded.fake_score.dtype == torch.float32
    spread = exact.logits.std()
    assert not torch.equal(rounded.logits, exact.logits), "autocast did something"
    assert (rounded.logits - exact.logits).abs().max() < 0.1 * spread
    assert (rounded.fake_score - exact.fake_score).abs().max() < 0.03
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.train().loss(batch)
    assert loss.item() == pytest.approx(module.loss(batch).item(), rel=0.03)


def test_a_state_goes_through_safetensors_and_back(tmp_path: Path) -> None:
    module, batch = awake(), faces(3)
    save_weights(module, tmp_path / "model.safetensors", {})
    other = tiny(seed=9)
    assert not torch.equal(_answers(other, batch), _answers(module, batch))
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(_answers(other, batch), _answers(module, batch))
    assert other.loss(batch).item() == module.loss(batch).item()


# --- ablations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_takes_its_part_away_and_leaves_every_other_weight_as_it_was(switch: str) -> None:
    whole, without = tiny().state_dict(), tiny(replace(SMALL, **{switch: False})).state_dict()
    gone = whole.keys() - without.keys()
    assert gone and all(key.startswith(SWITCHES[switch]) for key in gone)
    assert not any(key.startswith(SWITCHES[switch]) for key in without)
    assert without.keys() <= whole.keys()
    assert all(torch.equal(whole[key], tensor) for key, tensor in without.items())


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_what_it_should_and_nothing_else(switch: str) -> None:
    """The visual switches change answers; those of the text side change the loss alone."""
    whole, batch = awake(), faces(4)
    without = tiny(replace(SMALL, **{switch: False}))
    kept = {key: tensor for key, tensor in whole.state_dict().items() if key in without.state_dict()}
    without.load_state_dict(kept)
    same = torch.equal(_answers(whole, batch), _answers(without, batch))
    assert same == (switch in ("lre", "aws"))
    assert whole.loss(batch).item() != without.loss(batch).item()


def test_without_any_use_for_gaze_there_is_no_gaze_encoder() -> None:
    assert tiny(replace(SMALL, injector=False, agpm=False)).vpe is None
    for design in (replace(SMALL, injector=False), replace(SMALL, agpm=False)):
        assert tiny(design).vpe is not None


@pytest.mark.parametrize("weight", ["detection_weight", "matching_weight", "gaze_weight"])
def test_each_loss_counts_by_its_weight(weight: str) -> None:
    def loss(value: float) -> float:
        return awake(replace(SMALL, **{weight: value})).loss(faces(4)).item()

    none, half, one = loss(0.0), loss(0.5), loss(1.0)
    assert one - none > 1e-3
    assert half == pytest.approx((none + one) / 2, rel=1e-5)


def test_frozen_towers_learn_nothing_and_adapters_learn_in_their_place() -> None:
    batch = faces(4)
    frozen = awake(replace(SMALL, towers="frozen"))
    frozen.loss(batch).backward()
    assert all(p.grad is None for tower in frozen.towers().values() for p in tower.parameters())
    assert frozen.lre is not None and frozen.lre.aws is not None
    assert frozen.lre.aws.scorer[2].weight.grad is not None, "AWS learns through a frozen text tower"
    adapted = awake(replace(SMALL, towers="lora", rank=2))
    adapted.loss(batch).backward()
    learning = {n for t in adapted.towers().values() for n, p in t.named_parameters() if p.grad is not None}
    assert learning and all(name.endswith((".up", ".down")) for name in learning)
    assert list(adapted.backbone_parameters()) == []


def test_before_training_adapters_change_nothing() -> None:
    plain, adapted = tiny(), tiny(replace(SMALL, towers="lora"))
    torch.testing.assert_close(_answers(adapted, faces(3)), _answers(plain, faces(3)))


def test_the_towers_learn_at_the_backbones_rate_and_new_parts_at_their_own() -> None:
    module = tiny()
    slow = {id(p) for p in module.backbone_parameters()}
    fast = {name for name, p in module.named_parameters() if id(p) not in slow}
    assert all(name.startswith(("gie.injectors", "vpe", "fusion", "head", "lre.aws", "matching")) for name in fast)
    assert slow == {id(p) for tower in module.towers().values() for p in tower.parameters()}


# --- training ------------------------------------------------------------------------------------------------------


def test_it_learns_32_faces_by_heart_and_the_loss_falls() -> None:
    torch.manual_seed(0)
    module, batch = tiny(seed=1), faces(32)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = module.train().loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    output = module.eval()(batch)
    assert output.logits is not None and batch.target is not None
    assert torch.equal(output.logits.argmax(dim=1), batch.target)
    assert torch.equal(output.fake_score > 0.5, batch.target != 0)


def test_without_pre_trained_weights_the_gaze_encoder_learns_the_manifests_gaze() -> None:
    """Faces that are bright on one side look there."""
    module, batch = tiny(replace(SMALL, lre=False), seed=1), faces(32)
    assert batch.image is not None and batch.gaze is not None
    yaw = batch.gaze[:, 1].nan_to_num()
    image = batch.image + 5 * yaw[:, None, None, None] * torch.linspace(-1, 1, SIDE)
    batch = replace(batch, image=image)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        module.train().loss(batch).backward()
        optimizer.step()
    seen = module.eval().see(batch).gaze
    assert seen is not None and seen.angles is not None
    assert torch.corrcoef(torch.stack([seen.angles[:, 1], yaw]))[0, 1] > 0.8


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, pa.Table]:
    folder = tmp_path_factory.mktemp("toy")
    return make_faces(folder, 8, size=128, gaze=True), make_faces(folder, 3, size=128, gaze=True, seed=1)


def _trained(
    spec: ModelSpec, toy: tuple[pa.Table, pa.Table], folder: Path, on_progress: Callable[[Epoch], None] | None = None
) -> GazeCLIP:
    seed_everything(0, CPU)
    module = spec.build(TOY_CLASSES)
    recipe = replace(spec.recipe, epochs=4, batch_size=8, accumulate=2)
    how: dict[str, Any] = {"recipe": recipe, "seed": 0, "folder": folder, "device": CPU, "on_progress": on_progress}
    train(module, spec, TOY_CLASSES, *toy, **how)
    assert isinstance(module, GazeCLIP)
    return module


def test_dfad_bench_trains_it_and_predicts_with_it(toy: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    module = _trained(TINY, toy, tmp_path)
    history = (tmp_path / "training.jsonl").read_text().splitlines()
    assert len(history) == 4
    answers = list(predict(module, TINY, toy[1], batch_size=4, device=CPU))
    assert sum(len(answer.fake_score) for answer in answers) == toy[1].num_rows
    assert answers[0].embedding is not None and answers[0].embedding.shape[1] == 64


def test_two_trainings_are_the_same_to_the_byte(toy: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    for name in ("one", "two"):
        _trained(TINY, toy, tmp_path / name)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    toy: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    def stop(row: Epoch) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    _trained(TINY, toy, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _trained(TINY, toy, tmp_path / "stopped", stop)
    _trained(TINY, toy, tmp_path / "stopped")
    for name in ("training.jsonl", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_the_parts_of_two_designs_that_they_share_start_out_the_same() -> None:
    one, other = tiny(), tiny(Design(gaze_network="convnet", blocks=2, towers="lora", rank=4))
    assert torch.equal(one.head.attribution.weight, other.head.attribution.weight)
    assert not torch.equal(tiny(seed=5).head.attribution.weight, one.head.attribution.weight)


@pytest.mark.parametrize("design", [SMALL, PLAIN], ids=["whole", "plain"])
def test_blocks_that_ranks_may_share_are_run_through_their_forward_and_nothing_reaches_past_it(design: Design) -> None:
    """FSDP2 makes a block whole in its forward alone: parameters that were used without it would be shares."""
    module = tiny(design)
    blocks = list(module.sharded_blocks())
    depth = len(module.gie.visual.transformer.resblocks)
    texts = 0 if module.lre is None else len(module.lre.text.transformer.resblocks)
    assert len(blocks) == depth - max(len(module.gie.injectors), 1) + texts
    inside: list[nn.Module] = []
    for block in blocks:
        block.register_forward_pre_hook(lambda block, _: inside.append(block))
        block.register_forward_hook(lambda block, *_: inside.remove(block))
        for part in block.modules():
            if part is not block:
                part.register_forward_pre_hook(lambda part, _, block=block: _require(block in inside))
    ran: list[nn.Module] = []
    for block in blocks:
        block.register_forward_hook(lambda block, *_: ran.append(block))
    module.loss(faces(4))
    assert {id(block) for block in ran} == {id(block) for block in blocks} and not inside


def _require(condition: bool) -> None:
    assert condition, "a part of a block was run from outside"
