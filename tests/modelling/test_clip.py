from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling import clip
from dfad_bench.modelling.clip import TINY, Towers, load_towers, tokenize
from dfad_bench.modelling.lora import add_lora
from dfad_bench.modelling.torchvision_ops import declare_missing_operators

declare_missing_operators()
import open_clip  # noqa: E402
from open_clip.pretrained import get_pretrained_url  # noqa: E402


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state as open_clip publishes it: CLIP's own layout, and a temperature."""
    torch.manual_seed(7)
    return open_clip.CLIP(**clip._TINY_CONFIG).state_dict()


def _towers(seed: int = 0) -> tuple[Towers, dict[str, nn.Module]]:
    torch.manual_seed(seed)
    towers = Towers(TINY)
    return towers, {"visual": towers.visual, "text": towers.text}


def test_published_weights_fill_both_towers_to_the_last_key(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "clip.safetensors")
    towers, parts = _towers()
    load_towers(parts, TINY, False, tmp_path / "clip.safetensors")
    theirs = open_clip.CLIP(**clip._TINY_CONFIG)
    theirs.load_state_dict(published)
    image, text = torch.randn(2, 3, 96, 96), torch.randint(1, 49000, (2, 48))
    assert torch.equal(towers.visual(image), theirs.encode_image(image))
    assert torch.equal(towers.text(text), theirs.encode_text(text))


@pytest.mark.parametrize("layout", ["visual.class_embedding", "token_embedding.weight"])
def test_a_missing_key_is_an_error_that_names_it_and_leaves_the_towers_as_they_were(
    published: dict[str, torch.Tensor], tmp_path: Path, layout: str
) -> None:
    save_file({key: tensor for key, tensor in published.items() if key != layout}, tmp_path / "cut.safetensors")
    towers, parts = _towers()
    before = {key: tensor.clone() for key, tensor in towers.state_dict().items()}
    with pytest.raises(DataError, match=rf"missing (text\.)?{layout}"):
        load_towers(parts, TINY, False, tmp_path / "cut.safetensors")
    assert all(torch.equal(before[key], tensor) for key, tensor in towers.state_dict().items())


def test_an_unexpected_key_and_another_shape_are_errors(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(published | {"visual.extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(DataError, match=r"unexpected visual\.extra"):
        load_towers(_towers()[1], TINY, False, tmp_path / "more.safetensors")
    save_file(published | {"visual.proj": torch.zeros(64, 32)}, tmp_path / "shape.safetensors")
    with pytest.raises(DataError, match=r"visual\.proj \[64, 32\] for \[64, 64\]"):
        load_towers(_towers()[1], TINY, False, tmp_path / "shape.safetensors")


def test_a_plain_clip_needs_no_text_tower(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "clip.safetensors")
    towers, parts = _towers()
    load_towers({"visual": parts["visual"]}, TINY, False, tmp_path / "clip.safetensors")
    assert torch.equal(towers.visual.proj, published["visual.proj"])
    assert not torch.equal(towers.text.text_projection, published["text_projection"])


def test_adapters_stay_as_they_are_when_weights_come(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "clip.safetensors")
    towers, parts = _towers()
    add_lora(towers.visual, rank=2)
    adapter = towers.visual.transformer.resblocks[0].attn.parametrizations.in_proj_weight[0]
    nn.init.normal_(adapter.up)
    up = adapter.up.detach().clone()
    load_towers(parts, TINY, False, tmp_path / "clip.safetensors")
    weights = towers.visual.transformer.resblocks[0].attn.parametrizations.in_proj_weight.original
    assert torch.equal(weights, published["visual.transformer.resblocks.0.attn.in_proj_weight"])
    assert torch.equal(adapter.up, up)


def test_weights_trained_with_the_other_gelu_are_refused(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "clip.safetensors")
    beside = tmp_path / "open_clip_config.json"
    beside.write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    with pytest.raises(DataError, match=r"QuickGELU, and clip-tiny has GELU.*backbone=clip-tiny-quickgelu"):
        load_towers(_towers()[1], TINY, False, tmp_path / "clip.safetensors")
    load_towers(_towers()[1], TINY, True, tmp_path / "clip.safetensors")
    beside.write_text("[]")
    with pytest.raises(DataError, match="is not an open_clip configuration"):
        load_towers(_towers()[1], TINY, True, tmp_path / "clip.safetensors")


class _Program(nn.Module):
    """A scripted module with the parameters of a state, as OpenAI's files are."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for key, tensor in state.items():
            place: nn.Module = self
            *path, name = key.split(".")
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _save_program(state: dict[str, torch.Tensor], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; OpenAI's files are made by it
        torch.jit.save(torch.jit.script(_Program(state)), path)


def test_openais_own_files_are_read_and_need_quick_gelu(
    published: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = {key: tensor.half() for key, tensor in published.items()}
    _save_program(halves | {"input_resolution": torch.tensor(64)}, tmp_path / "ViT.pt")
    known_files = {"ViT-B-16-quickgelu": (file_sha256(tmp_path / "ViT.pt"), "ViT.pt")}
    monkeypatch.setattr(clip, "_OPENAI_FILES", known_files)
    towers, parts = _towers()
    load_towers(parts, TINY, True, tmp_path / "ViT.pt")
    assert torch.equal(towers.visual.proj, halves["visual.proj"].float())
    with pytest.raises(DataError, match="trained with QuickGELU"):
        load_towers(parts, TINY, False, tmp_path / "ViT.pt")


def test_a_program_that_is_not_openais_is_not_loaded(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    _save_program(dict(published), tmp_path / "stranger.pt")
    with pytest.raises(DataError, match="TorchScript program and none of OpenAI's own files"):
        load_towers(_towers()[1], TINY, True, tmp_path / "stranger.pt")


def test_a_hostile_pickle_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "owned").touch, ())

    torch.save({"visual.proj": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(DataError, match="cannot be read as PyTorch weights"):
        load_towers(_towers()[1], TINY, False, tmp_path / "hostile.pt")
    assert not (tmp_path / "owned").exists()


def test_training_checkpoints_of_open_clip_are_read(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in published.items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    towers, parts = _towers()
    load_towers(parts, TINY, False, tmp_path / "epoch_3.pt")
    assert torch.equal(towers.visual.proj, published["visual.proj"])


def test_the_named_weights_are_openais_by_address_and_hash() -> None:
    for name in clip._OPENAI_FILES:
        weights = clip.published_weights(name)["openai"]
        assert weights.url == get_pretrained_url(name, "openai")
        assert weights.sha256 in weights.url
        assert open_clip.get_model_config(name)["quick_gelu"] is True
        assert clip.image_size(name) == open_clip.get_model_config(name)["vision_cfg"]["image_size"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"open_clip has no model 'ViT-B16'.* Did you mean 'ViT-B-16'"):
        clip.image_size("ViT-B16")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("RN50", "ResNet"),
        ("ViT-B-16-SigLIP", "timm's"),
        ("coca_ViT-B-32", "pools by attention"),
        ("roberta-ViT-B-32", "Hugging Face's"),
        ("convnext_base", "timm's"),
    ],
)
def test_towers_without_a_class_token_or_a_causal_text_are_refused(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is none: .*{why}"):
        clip.image_size(name)


def test_every_open_clip_model_is_either_refused_in_a_line_or_has_what_is_needed() -> None:
    usable = []
    for name in open_clip.list_models():
        try:
            config = clip._config(name)
        except UsageError:
            continue
        usable.append(name)
        vision = config["vision_cfg"]
        assert {"layers", "width", "patch_size", "image_size"} <= vision.keys(), name
        assert config["text_cfg"]["context_length"] >= 48, name
    assert {"ViT-B-16", "ViT-B-16-quickgelu", "ViT-L-14", "ViT-L-14-336", "ViT-B-32-quickgelu", "ViT-H-14"} <= set(
        usable
    )


@pytest.mark.parametrize("name", ["ViT-S-32", "ViT-B-32-quickgelu"])
def test_other_towers_can_be_built(name: str) -> None:
    towers = Towers(name)
    assert towers.visual(torch.zeros(1, 3, 224, 224)).shape == (1, towers.width)
    assert towers.quick_gelu == name.endswith("quickgelu")


# --- words ---------------------------------------------------------------------------------------------------------


def test_tokens_are_open_clips_and_pieces_know_their_word() -> None:
    texts = ["A photo of StyleGAN3", "Hi"]
    ids, words, word_of = tokenize(texts, 77)
    theirs = open_clip.get_tokenizer("ViT-B-16")(texts)
    assert torch.equal(ids, theirs[:, : ids.shape[1]])
    assert not theirs[:, ids.shape[1] :].any()
    assert words[0][:3] == ["a", "photo", "of"] and "".join(words[0][3:]) == "stylegan3"
    assert words[1] == ["hi"]
    assert word_of[1].tolist() == [-1, 0] + [-1] * (ids.shape[1] - 2)
    assert word_of[0].max() == len(words[0]) - 1
    marks = (word_of[0] == -1).sum()
    assert marks == 2, "only the start and the end are no words in the longest sentence"


def test_a_sentence_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has 12 tokens; the text tower reads 11"):
        tokenize(["one two three four five six seven eight nine ten"], 11)


# --- the tiny model's patch embedding ------------------------------------------------------------------------------


def test_the_tiny_patch_embedding_hears_faint_high_frequencies_as_loud_as_light_and_shade() -> None:
    """On pictures whose amplitude falls as 1/f², every channel of the embedding has about the same spread."""
    towers, _ = _towers()
    patches: Any = towers.visual.conv1
    torch.manual_seed(0)
    spectrum = torch.fft.rfft2(torch.randn(64, 1, 128, 128))
    f = torch.hypot(*torch.meshgrid(torch.fft.fftfreq(128) * 128, torch.fft.rfftfreq(128) * 128, indexing="ij"))
    pictures = torch.fft.irfft2(spectrum / f.clamp(min=4) ** 2).expand(-1, 3, -1, -1)
    spread = patches(pictures)[:, 1:].std(dim=(0, 2, 3))
    assert spread.max() / spread.min() < 5
    plain = nn.Conv2d(3, 64, 8, 8, bias=False)
    nn.init.orthogonal_(plain.weight)
    energy = plain(pictures).var(dim=(0, 2, 3))
    assert energy.max() / energy.min() > 5, "as a random embedding does not"
    assert torch.linalg.matrix_rank(patches.weight.flatten(1)) == 64
