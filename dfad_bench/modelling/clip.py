"""CLIP's image and text towers, built by open_clip's name and filled from weights that must fit to the last key."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError, did_you_mean
from dfad_bench.modelling.lora import plain_names
from dfad_bench.modelling.preprocess import Preprocess
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
from dfad_bench.modelling.weights import BY_PATH, load_state, read_state
from dfad_bench.types import WeightsFile

DEFAULT = "ViT-B-16-quickgelu"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""By which CLIP's images are normalised, in units of 0..1."""
TINY = "clip-tiny"
"""Ours: small enough to be trained from random weights on two cores. It has no published weights."""

_TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 96, "layers": 4, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
_GAIN = 0.4
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_OPENAI_FILES = {
    "ViT-B-16-quickgelu": ("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16.pt"),
    "ViT-B-32-quickgelu": ("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32.pt"),
    "ViT-L-14-quickgelu": ("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt"),
}
"""OpenAI's own files by open_clip's name; the hash stands in their address."""
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "logit_scale", "logit_bias")
"""What such files hold beside the towers. The temperature is no part of a tower: ours starts anew."""
_SIZES = dict.fromkeys(_OPENAI_FILES, 224) | {TINY: 96}


def published_weights(name: str) -> dict[str, WeightsFile]:
    """Return the published weights that a run may name for these towers; a file of the user's own is given by its path."""
    if name not in _OPENAI_FILES:
        return {}
    sha256, file = _OPENAI_FILES[name]
    weights = WeightsFile(
        name=file,
        url=f"{_OPENAI}/{sha256}/{file}",
        sha256=sha256,
        bytes=None,
        licence="MIT",
        training_data="OpenAI's WIT: 400 million image-text pairs, not published",
        commercial_use="unclear",
    )
    return {"openai": weights}


def default_weights(name: str) -> str:
    """Return the choice of weights that a model on these towers starts from: published ones, but for the tiny towers."""
    return "none" if name == TINY else next(iter(published_weights(name)), BY_PATH)


def image_size(name: str) -> int:
    """Return the side in pixels of the square images that the image tower reads."""
    return _SIZES[name] if name in _SIZES else int(_config(name)["vision_cfg"]["image_size"])


def preprocess(name: str) -> Preprocess:
    """Return how faces are prepared for the image tower: resized as CLIP does.

    The tiny tower sees a window at full resolution, where the traces of generators are.
    """
    side = image_size(name)
    if name == TINY:
        return Preprocess(size=None, crop=side, mean=MEAN, std=STD)
    return Preprocess(size=side, mean=MEAN, std=STD)


class Towers(nn.Module):
    """An open_clip vision transformer with a class token, and its text transformer.

    width: d of the space that both project to; visual_width, depth: of the image tower; context: tokens that the text tower
    reads; quick_gelu: which GELU both have.
    """

    def __init__(self, name: str) -> None:
        """Build both with random weights; raise UsageError for a name that open_clip lacks or a tower of another kind."""
        super().__init__()
        config = _config(name)
        clip: Any = _open_clip().CustomTextCLIP(**config)
        self.visual: nn.Module = clip.visual
        self.text: nn.Module = clip.text
        self.width: int = clip.visual.output_dim
        self.visual_width: int = clip.visual.transformer.width
        self.depth = len(clip.visual.transformer.resblocks)
        self.context: int = clip.text.context_length
        self.quick_gelu = bool(config.get("quick_gelu", False))
        _require_plain_blocks(name, self.visual, self.text)
        if name == TINY:
            hear_every_frequency(clip.visual.conv1)


def hear_every_frequency(patches: nn.Conv2d) -> None:
    """Let a patch embedding start as the cosine transform of a patch's luma, each frequency f scaled by f².

    Ours, for towers trained from random weights on few faces. The power of photographs falls with f, so a random
    embedding hears their light and shade, and generators differ where it is faint: from such a start the tiny model was
    at chance after twenty epochs. patches [w, 3, p, p]: the w lowest frequencies, of p² at most.
    """
    side = patches.kernel_size[0]
    steps = torch.arange(side, dtype=torch.float64)
    cosines = torch.cos(torch.pi * (steps + 0.5) * steps[:, None] / side) * (2 / side) ** 0.5  # [frequency, pixel]
    cosines[0] /= 2**0.5
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    frequency = torch.hypot(rows, columns).flatten()
    lowest = frequency.argsort(stable=True)[: patches.out_channels]
    with torch.no_grad():
        patches.weight.zero_()
        for channel, place in enumerate(lowest.tolist()):
            wave = torch.outer(cosines[place // side], cosines[place % side])
            gain = _GAIN * max(float(frequency[place]), 0.5) ** 2
            patches.weight[channel] = (gain * wave * (luma / luma.norm())[:, None, None]).to(patches.weight.dtype)


def load_towers(towers: Mapping[str, nn.Module], name: str, quick_gelu: bool, path: Path) -> None:
    """Fill ``visual`` and, where it is given, ``text`` from open_clip's or OpenAI's weights.

    Adapters stay as they are. Raises DataError for keys that are missing, unexpected or of another shape, and where the
    weights were trained with the other GELU: open_clip only warns then, and the features are quietly wrong.
    """
    state, needs_quick_gelu = _read(path)
    if needs_quick_gelu is not None and needs_quick_gelu != quick_gelu:
        theirs, ours = ("QuickGELU", "GELU") if needs_quick_gelu else ("GELU", "QuickGELU")
        other = name.removesuffix("-quickgelu") if quick_gelu else f"{name}-quickgelu"
        raise DataError(f"{path} was trained with {theirs}, and {name} has {ours}. Use --set backbone={other}.")
    if "positional_embedding" in state:  # as CLIP itself lays its text tower out
        state = _open_clip().model.convert_to_custom_text_state_dict(state)
    state = {key: tensor.float() for key, tensor in state.items() if key not in _NOT_WEIGHTS}
    if "text" not in towers:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("text.")}
    holder = nn.ModuleDict(dict(towers))
    names, adapters = plain_names(holder)
    renamed = {names.get(key, key): tensor for key, tensor in state.items()}
    load_state(holder, renamed, path, but_for=adapters)


def tokenize(texts: Sequence[str], context: int) -> tuple[torch.Tensor, list[list[str]], torch.Tensor]:
    """Return token ids, words and the word of each token, for sentences in English.

    ids [U, T] int64: T is the length of the longest sentence with its two end marks, since in a causal tower what follows
    the end cannot be heard; words: U lists; word_of [U, T] int64: index into a sentence's words, -1 for marks and padding.
    Raises UsageError for a sentence that the tower's context does not hold.
    """
    tokenizer = _open_clip().SimpleTokenizer()
    encoded = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, encoded)) + 2
    if longest > context:
        text = texts[max(range(len(texts)), key=lambda row: len(encoded[row]))]
        raise UsageError(f"The prompt {text!r} has {longest} tokens; the text tower reads {context}.")
    ids = torch.zeros(len(texts), longest, dtype=torch.int64)
    word_of = torch.full((len(texts), longest), -1, dtype=torch.int64)
    words: list[list[str]] = []
    for row, tokens in enumerate(encoded):
        ids[row, 0], ids[row, len(tokens) + 1] = tokenizer.sot_token_id, tokenizer.eot_token_id
        pieces = [""]
        for place, token in enumerate(tokens, start=1):
            ids[row, place], word_of[row, place] = token, len(pieces) - 1
            piece = tokenizer.decoder[token]
            pieces[-1] += piece.removesuffix("</w>")
            if piece.endswith("</w>"):
                pieces.append("")
        words.append(pieces[:-1] if not pieces[-1] else pieces)
    return ids, words, word_of


def _open_clip() -> Any:
    """Return the package, imported only where it is needed: that takes seconds."""
    declare_missing_operators()
    import open_clip

    return open_clip


def _config(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of towers that have what is needed: a class token and a causal text tower."""
    if name == TINY:
        return _TINY_CONFIG
    open_clip = _open_clip()
    config = open_clip.get_model_config(name)
    if config is None:
        hint = did_you_mean(name, open_clip.list_models())
        raise UsageError(f"open_clip has no model {name!r}.{hint} See open_clip.list_models().")
    vision, text = config["vision_cfg"], config["text_cfg"]
    odd = next(
        (
            told
            for is_odd, told in (
                ("timm_model_name" in vision, "its image tower is timm's"),
                (isinstance(vision.get("layers"), list), "its image tower is a ResNet"),
                (vision.get("attentional_pool"), "its image tower pools by attention"),
                (vision.get("pool_type", "tok") != "tok", "its image tower does not read its class token"),
                ("hf_model_name" in text, "its text tower is Hugging Face's"),
                ("hf_tokenizer_name" in text, "its tokenizer is Hugging Face's"),
                (text.get("no_causal_mask") or text.get("embed_cls"), "its text tower is not causal"),
                (text.get("pool_type", "argmax") != "argmax", "its text tower is not read at the end of the text"),
                ("multimodal_cfg" in config, "it has a third tower"),
                (config.get("custom_text") and "tokenizer_kwargs" in text, "its tokenizer is not CLIP's"),
            )
            if is_odd
        ),
        None,
    )
    if odd is not None:
        raise UsageError(
            f"What is built on CLIP here needs a plain vision transformer with a class token, and {name} is none: {odd}. "
            "Choose another open_clip model, such as ViT-B-16-quickgelu or ViT-L-14."
        )
    known = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    return {key: config[key] for key in known if key in config}


def _require_plain_blocks(name: str, *towers: nn.Module) -> None:
    plain = _open_clip().transformer.ResidualAttentionBlock
    for tower in towers:
        transformer: Any = tower.transformer
        if not transformer.batch_first or not all(type(block) is plain for block in transformer.resblocks):
            raise UsageError(
                f"What is built on CLIP here needs open_clip's plain residual attention blocks, and {name} has others."
            )


def _read(path: Path) -> tuple[dict[str, torch.Tensor], bool | None]:
    """Return a file's tensors, and whether they were trained with QuickGELU where the file or its neighbour says so."""
    if _is_torchscript(path):
        return _torchscript_state(path), True
    state = read_state(path)
    state = state.get("state_dict", state)  # open_clip's own training keeps more beside it
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}, _said_beside(path)


def _said_beside(path: Path) -> bool | None:
    """Return what the Hub's ``open_clip_config.json`` in the same folder says of QuickGELU, None where there is none."""
    beside = path.with_name("open_clip_config.json")
    if not beside.is_file():
        return None
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
        return bool(config["model_cfg"].get("quick_gelu", False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{beside} is not an open_clip configuration ({type(error).__name__}). Remove it.") from None


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def _torchscript_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of one of OpenAI's own files, which are TorchScript programs; any other such file is refused.

    A program may do anything when it is loaded, so it is its sha256 that is believed, whatever path it was given by.
    """
    if file_sha256(path) not in {sha256 for sha256, _ in _OPENAI_FILES.values()}:
        raise DataError(
            f"{path} is a TorchScript program and none of OpenAI's own files, so it is not loaded. "
            "Give its weights as safetensors."
        )
    try:
        with warnings.catch_warnings():
            # torch wants torch.export instead; the files are older
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            state: dict[str, torch.Tensor] = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read as TorchScript: {str(error).splitlines()[0]}") from None
    return state
