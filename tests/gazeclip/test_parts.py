from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dfad_bench.errors import DataError
from dfad_bench.modelling.clip import MEAN, STD, TINY, Towers
from dfad_bench.prepare.gaze_estimators.l2cs import L2CS, state_shapes
from dfad_bench.types import Leaf, WeightsFile
from gazeclip import gaze_encoder
from gazeclip.agpm import AppearanceGazePatternModule
from gazeclip.aws import AdaptiveWordSelector
from gazeclip.dfad import DFADHead
from gazeclip.fusion import Fusion
from gazeclip.gaze_encoder import GazeEncoder, gaze_loss
from gazeclip.gaze_injector import GazeInjector
from gazeclip.gie import GazeAwareImageEncoder
from gazeclip.lre import LanguageRefinementEncoder
from gazeclip.matching import Matching
from gazeclip.vpe import VisualPerceptionEncoder
from tests.gazeclip.builders import CLASSES, faces

WIDTH = 64


@pytest.fixture
def towers() -> Towers:
    torch.manual_seed(0)
    return Towers(TINY).eval()


def _reached(module: nn.Module, out: torch.Tensor) -> set[str]:
    """Return the names of the parameters that a gradient of ``out`` does not reach."""
    out.square().sum().backward()
    return {name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()}


# --- gaze injector and GIE -----------------------------------------------------------------------------------------


def test_the_injector_starts_as_the_identity_and_its_gradient_opens_it() -> None:
    injector = GazeInjector(WIDTH, 32, heads=2)
    cls, gaze = torch.randn(3, 1, WIDTH), torch.randn(3, 5, 32)
    assert torch.equal(injector(cls, gaze), cls)
    assert "gamma" not in _reached(injector, injector(cls, gaze))
    nn.init.ones_(injector.gamma)
    assert _reached(injector, injector(cls, gaze)) == set()
    assert injector(cls, gaze).shape == (3, 1, WIDTH)


def test_the_injector_attends_to_gaze_tokens_alone_and_says_to_which() -> None:
    injector = GazeInjector(WIDTH, 32, heads=2)
    nn.init.ones_(injector.gamma)
    cls, gaze = torch.randn(2, 1, WIDTH), torch.randn(2, 5, 32)
    shares = injector.looked_at(cls, gaze)
    assert shares.shape == (2, 5)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    shuffled = gaze[:, [4, 2, 0, 1, 3]]
    torch.testing.assert_close(injector(cls, shuffled), injector(cls, gaze))
    torch.testing.assert_close(injector.looked_at(cls, shuffled), shares[:, [4, 2, 0, 1, 3]])


@pytest.mark.parametrize("blocks", [0, 1, 2, 4])
@pytest.mark.parametrize("early", [0, 1, 4])
def test_an_image_encoder_whose_gamma_is_zero_is_plain_clip(towers: Towers, blocks: int, early: int) -> None:
    image = torch.randn(3, 3, 96, 96)
    gie = GazeAwareImageEncoder(towers.visual, WIDTH, blocks, heads=1).eval()
    ours = gie(gie.embed(image, early), torch.randn(3, 7, WIDTH))
    torch.testing.assert_close(ours, towers.visual(image), atol=1e-6, rtol=1e-6)


def test_patch_tokens_are_clips_to_the_bit_whatever_the_gaze_says(towers: Towers) -> None:
    gie = GazeAwareImageEncoder(towers.visual, WIDTH, blocks=4, heads=1).eval()
    for injector in gie.injectors:
        nn.init.normal_(injector.gamma, std=3)
    image = torch.randn(2, 3, 96, 96)
    blocks = towers.visual.transformer.resblocks

    def patches_after_each_block(run: object) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        hooks = [block.register_forward_hook(lambda *call: seen.append(call[2][:, 1:])) for block in blocks]
        run()  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        return seen

    plain = patches_after_each_block(lambda: towers.visual(image))
    gazed = patches_after_each_block(lambda: gie(gie.embed(image, 1), torch.randn(2, 7, WIDTH)))
    assert len(plain) == 4 and len(gazed) == 3, "the last block is computed for the class token alone"
    assert all(torch.equal(one, other) for one, other in zip(plain, gazed, strict=False))
    changed = gie(gie.embed(image, 1), torch.randn(2, 7, WIDTH)) - towers.visual(image)
    assert changed.abs().max() > 0.01, "and yet the class token heard the gaze"


def test_gaze_that_is_injected_reaches_the_embedding_and_its_own_encoder(towers: Towers) -> None:
    gie = GazeAwareImageEncoder(towers.visual, WIDTH, blocks=2, heads=1)
    for injector in gie.injectors:
        nn.init.ones_(injector.gamma)
    gaze = torch.randn(2, 7, WIDTH, requires_grad=True)
    out = gie(gie.embed(torch.randn(2, 3, 96, 96), 1), gaze)
    assert out.shape == (2, WIDTH)
    assert _reached(gie, out) == set()
    assert gaze.grad is not None and gaze.grad.any()


def test_more_blocks_than_the_tower_has_are_refused(towers: Towers) -> None:
    with pytest.raises(ValueError, match="5 of 4 blocks"):
        GazeAwareImageEncoder(towers.visual, WIDTH, blocks=5, heads=1)


def test_recomputing_blocks_in_the_backward_pass_changes_no_gradient(towers: Towers) -> None:
    image, gaze = torch.randn(2, 3, 96, 96), torch.randn(2, 7, WIDTH)

    def gradients(save_memory: bool) -> tuple[list[torch.Tensor], int]:
        torch.manual_seed(1)
        gie = GazeAwareImageEncoder(towers.visual, WIDTH, blocks=2, heads=1, save_memory=save_memory).train()
        for injector in gie.injectors:
            nn.init.ones_(injector.gamma)
        gie.zero_grad()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
            out = gie(gie.embed(image, 1), gaze)
        out.square().sum().backward()
        return [p.grad.clone() for p in gie.parameters() if p.grad is not None], sum(saved)

    (plain, kept), (saving, kept_less) = gradients(False), gradients(True)
    for one, other in zip(plain, saving, strict=True):
        torch.testing.assert_close(one, other)
    assert kept_less < kept / 2


# --- gaze encoder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trunk", "side", "grid"), [("convnet", 96, (6, 6)), ("resnet18", 64, (2, 2))])
def test_the_gaze_encoder_reads_the_feature_map_as_tokens_and_says_angles(
    trunk: gaze_encoder.Trunk, side: int, grid: tuple[int, int]
) -> None:
    encoder = GazeEncoder(trunk, WIDTH, MEAN, STD)
    found = encoder(torch.randn(3, 3, side, side))
    assert found.tokens.shape == (3, grid[0] * grid[1], WIDTH) and found.grid == grid
    assert found.angles is not None and found.angles.shape == (3, 2)
    assert _reached(encoder, torch.cat([found.tokens.flatten(), found.angles.flatten()])) == set()


def test_faces_reach_the_network_in_imagenets_normalisation() -> None:
    encoder = GazeEncoder("convnet", WIDTH, MEAN, STD)
    given: list[torch.Tensor] = []
    encoder.trunk.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    pixels = torch.rand(1, 3, 64, 64)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    encoder(normalised(MEAN, STD))
    torch.testing.assert_close(given[0], normalised(gaze_encoder.IMAGENET_MEAN, gaze_encoder.IMAGENET_STD))


def test_the_gaze_map_is_a_second_input_and_an_unknown_one_is_no_gaze_at_all() -> None:
    encoder = GazeEncoder("convnet", WIDTH, MEAN, STD, gaze_map=True).eval()
    batch = faces(3)
    tokens = encoder(batch.image, batch.gaze_map).tokens
    assert tokens.shape == (3, 36 + 60, WIDTH)
    assert torch.equal(tokens[:, :36], encoder(batch.image, torch.zeros_like(batch.gaze_map)).tokens[:, :36])
    assert encoder.map_tokens is not None
    unknown = encoder.map_tokens(torch.zeros(1, 2, 72, 120))[0] - encoder.map_tokens.place
    torch.testing.assert_close(unknown, encoder.map_tokens.unknown.expand(60, WIDTH))
    torch.testing.assert_close(tokens[2, 36:] - encoder.map_tokens.place, unknown)
    assert _reached(encoder.map_tokens, tokens[:, 36:]) == set()


def _l2cs_file(folder: Path) -> WeightsFile:
    """Write a state of L2CS-Net's shape, and return the file as a published one."""
    torch.manual_seed(3)
    state = {name: torch.rand(shape) * 0.02 + 0.01 for name, shape in state_shapes().items()}
    torch.save(state, folder / "L2CSNet_gaze360.pkl")
    from dfad_bench.config import file_sha256

    return WeightsFile(
        "L2CSNet_gaze360.pkl", "http://localhost/none", file_sha256(folder / "L2CSNet_gaze360.pkl"), None, "MIT", "-"
    )


def test_a_pre_trained_gaze_network_is_the_published_one_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(L2CS, "weights", (_l2cs_file(tmp_path),))
    encoder = GazeEncoder("l2cs", WIDTH, MEAN, STD)
    encoder.load_published()
    published = torch.load(tmp_path / "L2CSNet_gaze360.pkl", weights_only=True)
    assert torch.equal(encoder.trunk.state_dict()["layer4.2.conv3.weight"], published["layer4.2.conv3.weight"])
    # The features are those that dfad_bench's own estimator computes from the same file.
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = encoder.eval().trunk(image * encoder.scale + encoder.mean).mean(dim=(2, 3))
    from dfad_bench.prepare.gaze_estimators import l2cs

    layers = l2cs._layers({k: v for k, v in published.items() if not k.endswith("num_batches_tracked")})
    theirs = l2cs._forward(layers, image * encoder.scale + encoder.mean)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # Training leaves it alone: no gradient, no running statistics.
    before = {key: tensor.clone() for key, tensor in encoder.trunk.state_dict().items()}
    found = encoder.train()(torch.randn(3, 3, 64, 64))
    found.tokens.sum().backward()
    assert found.angles is None
    assert all(p.grad is None for p in encoder.trunk.parameters())
    assert encoder.tokens[1].weight.grad is not None
    assert all(torch.equal(before[key], tensor) for key, tensor in encoder.trunk.state_dict().items())


def test_a_pre_trained_gaze_network_that_cannot_be_had_is_an_error_that_says_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    with pytest.raises(DataError, match=r"L2CSNet_gaze360\.pkl could not be downloaded .*DFAD_BENCH_WEIGHTS"):
        GazeEncoder("l2cs", WIDTH, MEAN, STD).load_published()


def test_the_gaze_loss_counts_known_gaze_only_and_is_in_radians() -> None:
    gaze = torch.tensor([[0.1, -0.2], [torch.nan, torch.nan], [0.3, torch.nan]])
    assert gaze_loss(torch.zeros(3, 2), gaze).item() == pytest.approx(((0.1 - 0.05) + (0.2 - 0.05)) / 2)
    assert gaze_loss(gaze.nan_to_num(7), gaze).item() == 0
    angles = torch.ones(2, 2, requires_grad=True)
    unknown = gaze_loss(angles, torch.full((2, 2), torch.nan))
    unknown.backward()
    assert unknown.item() == 0 and angles.grad is not None and not angles.grad.any()


# --- AGPM, VPE, fusion, head ---------------------------------------------------------------------------------------


def test_agpm_makes_one_pattern_per_face_of_both_sides() -> None:
    agpm = AppearanceGazePatternModule(48, WIDTH, heads=2)
    patches, gaze = torch.randn(3, 9, 48, requires_grad=True), torch.randn(3, 5, WIDTH, requires_grad=True)
    pattern = agpm(patches, gaze)
    assert pattern.shape == (3, WIDTH)
    assert _reached(agpm, pattern) == set()
    assert patches.grad is not None and patches.grad.flatten(1).any(dim=1).all()
    assert gaze.grad is not None and gaze.grad.flatten(1).any(dim=1).all()
    torch.testing.assert_close(agpm(patches[:, torch.randperm(9)], gaze[:, torch.randperm(5)]), pattern)


def test_vpe_gives_gaze_features_and_patterns_and_without_agpm_only_the_former() -> None:
    encoder = GazeEncoder("convnet", WIDTH, MEAN, STD)
    patches = torch.randn(2, 9, 48)
    gaze, pattern = VisualPerceptionEncoder(encoder, AppearanceGazePatternModule(48, WIDTH, 1))(
        faces(2).image, None, patches
    )
    assert gaze.tokens.shape == (2, 36, WIDTH) and pattern.shape == (2, WIDTH)
    assert VisualPerceptionEncoder(encoder, None)(faces(2).image, None, patches)[1] is None


def test_fusion_starts_as_the_image_embedding_and_learns_to_listen() -> None:
    fusion = Fusion(WIDTH)
    image, pattern = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    assert torch.equal(fusion(image, pattern), image)
    nn.init.normal_(fusion.mix[3].weight)
    assert not torch.allclose(fusion(image, pattern), fusion(image, -pattern))
    assert _reached(fusion, fusion(image, pattern)) == set()


def test_the_head_answers_both_questions_in_float32() -> None:
    head = DFADHead(WIDTH, 5)
    logits, fake = head(torch.randn(3, WIDTH))
    assert logits.shape == (3, 5) and fake.shape == (3,)
    assert _reached(head, torch.cat([logits.flatten(), fake])) == set()
    with torch.autocast("cpu", torch.bfloat16):
        logits, fake = head(torch.randn(3, WIDTH))
    assert logits.dtype == fake.dtype == torch.float32


# --- AWS and LRE ---------------------------------------------------------------------------------------------------


def test_aws_starts_uniform_and_its_importances_have_mean_one() -> None:
    torch.manual_seed(0)
    aws = AdaptiveWordSelector(16)
    word_of = torch.tensor([[-1, 0, 1, 1, 2, -1], [-1, 0, -1, -1, -1, -1]])
    embeddings = torch.randn(2, 6, 16)
    scaled, importance = aws(embeddings, word_of)
    assert torch.equal(scaled, embeddings)
    assert importance.tolist() == [[1, 1, 1], [1, 0, 0]]
    nn.init.normal_(aws.scorer[2].weight, std=3)
    scaled, importance = aws(embeddings, word_of)
    torch.testing.assert_close(importance.sum(dim=1), torch.tensor([3.0, 1.0]))
    assert importance[0].std() > 0.05
    factor = (scaled / embeddings)[..., 0]
    assert torch.equal(factor[:, [0, 5]], torch.ones(2, 2)), "marks keep their weight"
    torch.testing.assert_close(factor[0, 2], factor[0, 3], msg="the pieces of a word share its importance")
    torch.testing.assert_close(factor[0, 1:5], importance[0][[0, 1, 1, 2]])


def test_aws_hears_the_sentence_a_word_stands_in() -> None:
    """A softmax alone would leave the ratio of two words as it is when a third one changes."""
    torch.manual_seed(0)
    aws = AdaptiveWordSelector(16)
    for layer in (aws.scorer[0], aws.scorer[2]):
        nn.init.normal_(layer.weight, std=0.2)
    word, second, one, other = torch.randn(4, 16)
    sentences = torch.stack([torch.stack([word, second, one]), torch.stack([word, second, other])])
    importance = aws(sentences, torch.arange(3).expand(2, 3))[1]
    ratio = importance[:, 0] / importance[:, 1]
    assert abs(ratio[0] / ratio[1] - 1) > 0.05
    unreached = _reached(aws, importance[:, 0])
    assert unreached <= {"scorer.2.bias"}, "a softmax does not see what all words share"


def _lre(aws: bool = True, classes: tuple[Leaf, ...] = CLASSES) -> LanguageRefinementEncoder:
    torch.manual_seed(0)
    towers = Towers(TINY)
    return LanguageRefinementEncoder(towers.text, towers.context, classes, aws).eval()


def test_uniform_weights_equal_the_plain_text_tower() -> None:
    lre, plain = _lre(aws=True), _lre(aws=False)
    for ours, theirs in zip(lre().levels, plain().levels, strict=True):
        assert torch.equal(ours, theirs)
    ids = torch.nn.functional.pad(plain.ids, (0, 48 - plain.ids.shape[1]))
    whole = torch.nn.functional.normalize(plain.text(ids), dim=-1)  # open_clip's own way, at full length
    row = plain.sentences.index("A photo of a fake face")
    templates = [plain.sentences.index(one) for one in plain.prompts[0].sentences[1]]
    assert templates[0] == row
    expected = torch.nn.functional.normalize(whole[templates].mean(dim=0), dim=-1)
    torch.testing.assert_close(plain().levels[0][1], expected, atol=1e-6, rtol=1e-5)


def test_texts_have_unit_length_and_one_per_distinct_value() -> None:
    texts = _lre()()
    assert [len(level) for level in texts.levels] == [2, 3, 3, 4]
    for level in texts.levels:
        torch.testing.assert_close(level.norm(dim=1), torch.ones(len(level)))
    assert len(_lre().sentences) == 3 * (1 + 1 + 2 + 2 + 3), "a sentence is encoded once, whoever says it"


@pytest.mark.parametrize("level", range(4))
def test_each_level_can_change_the_text_embedding(level: int) -> None:
    """The siblings' released code reads all four levels at the first end-of-text token, so that only level 1 is heard."""
    swapped = {
        0: (Leaf("real", "real", "real"), Leaf("real", "real", "real")),
        1: (Leaf("x", "gan", "efs"), Leaf("x", "gan", "fs")),
        2: (Leaf("x", "gan", "efs"), Leaf("x", "flow", "efs")),
        3: (Leaf("x", "gan", "efs"), Leaf("y", "gan", "efs")),
    }[level]
    real = Leaf("real", "real", "real")
    if level == 0:
        texts = _lre(classes=(real, Leaf("x", "gan", "efs")))().levels[0]
        assert (texts[0] - texts[1]).abs().max() > 1e-3
        return
    one, other = (_lre(classes=(real, leaf))() for leaf in swapped)
    for number, (ours, theirs) in enumerate(zip(one.levels, other.levels, strict=True)):
        moved = (ours[1] - theirs[1]).abs().max()
        assert moved > 1e-3 if number == level else moved == 0


def test_every_parameter_of_the_text_side_learns() -> None:
    lre = _lre()
    assert lre.aws is not None
    nn.init.normal_(lre.aws.scorer[2].weight)
    goal = [torch.randn_like(level) for level in lre().levels]
    loss = sum(((ours - theirs) ** 3).sum() for ours, theirs in zip(lre().levels, goal, strict=True))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    unreached = {name for name, p in lre.named_parameters() if p.grad is None or not p.grad.any()}
    assert unreached <= {"aws.scorer.2.bias"}, "a softmax does not see what all words share"


# --- matching ------------------------------------------------------------------------------------------------------


def test_faces_of_one_class_do_not_push_each_other_apart() -> None:
    """With one text per face and one-to-one InfoNCE, two faces of one class could never both be right."""
    lre, matching = _lre(), Matching()
    with torch.no_grad():
        texts = lre()
    target = torch.tensor([1, 1, 1, 1])
    ideal = torch.stack(
        [sum(level[value_of[1]] for level, value_of in zip(texts.levels, texts.value_of, strict=True))] * 4
    )
    alone = matching(ideal[:1], texts, target[:1])
    assert matching(ideal, texts, target).item() == pytest.approx(alone.item())


def test_matching_is_lowest_for_the_right_texts_and_texts_are_encoded_once_a_step() -> None:
    lre, matching = _lre(), Matching()
    calls: list[int] = []
    lre.text.transformer.register_forward_hook(lambda *call: calls.append(len(call[1][0])))
    with torch.no_grad():
        texts = lre()
    calls.clear()
    levels = list(zip(texts.levels, texts.value_of, strict=True))
    by_class = [sum(level[value_of[leaf]] for level, value_of in levels) for leaf in range(4)]
    losses = torch.stack(
        [torch.stack([matching(f[None], texts, torch.tensor([leaf])) for leaf in range(4)]) for f in by_class]
    )
    assert torch.equal(losses.argmin(dim=0), torch.arange(4)), "no other features fit a class as well as its own texts"
    calls.clear()
    matching(torch.randn(50, WIDTH), lre(), torch.arange(50) % 4)
    assert calls == [len(lre.sentences)]


def test_the_temperature_learns_and_is_clamped() -> None:
    lre, matching = _lre(), Matching()
    loss = matching(torch.randn(4, WIDTH), lre(), torch.arange(4))
    loss.backward()
    assert matching.log_scale.exp().item() == pytest.approx(1 / 0.07)
    assert matching.log_scale.grad is not None and matching.log_scale.grad.item() != 0
    features = torch.randn(4, WIDTH)
    with torch.no_grad():
        matching.log_scale.fill_(100.0)
        too_hot = matching(features, lre(), torch.arange(4))
        matching.log_scale.fill_(torch.tensor(100.0).log())
        assert too_hot.item() == pytest.approx(matching(features, lre(), torch.arange(4)).item())
