"""Saves and loads the state of modules: a file that is not exactly what it should be ends the run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError, WeightsMissing, did_you_mean, shorten
from dfad_bench.types import ModelSpec, WeightsFile
from dfad_bench.weights import fetch

_METADATA_KEY = "dfad_bench"
_SUFFIXES = (".safetensors", ".pt", ".pth")
_FILES = ".safetensors, .pt or .pth"


@dataclass(frozen=True, slots=True)
class Backbone:
    """The file that a backbone starts from: one that the model publishes, or one of the user's own."""

    name: str
    sha256: str
    file: WeightsFile | Path

    @property
    def recorded(self) -> str:
        """The file's name and its hash, for the record of a run."""
        return f"{self.name} sha256:{self.sha256}"


BY_PATH = "published"
"""The default backbone weights of a model whose published file has no checksum to hold it against: the user gives it."""


def find_backbone(name: str, spec: ModelSpec, choice: str) -> Backbone:
    """Return the file that a choice of backbone weights stands for, fetching nothing.

    name: the model's, for messages; choice: a key of ``spec.backbone_weights``, or the path of a .safetensors, .pt or
    .pth file. Raises WeightsMissing for ``published``, UsageError for anything else.
    """
    path = Path(choice).expanduser()
    looks_like_a_path = path.suffix in _SUFFIXES or len(path.parts) > 1
    if spec.load_backbone is not None and choice in spec.backbone_weights:
        published = spec.backbone_weights[choice]
        return Backbone(published.name, published.sha256, published)
    if choice == BY_PATH and spec.load_backbone is not None:
        raise WeightsMissing(
            f"{name} starts from published weights whose file you give: --backbone-weights FILE (its docstring says which), "
            "or none for random ones."
        )
    if spec.load_backbone is None or not looks_like_a_path:
        offered = "none, it is trained from random weights"
        if spec.load_backbone is not None:
            offered = ", ".join([*spec.backbone_weights, "none", f"the path of a {_FILES} file"])
        hint = did_you_mean(choice, spec.backbone_weights)
        raise UsageError(f"{name} offers no backbone weights {choice!r}.{hint} Offered: {offered}.")
    if path.suffix not in _SUFFIXES or not path.is_file():
        raise UsageError(f"There is no weights file {choice}. Give the path of a {_FILES} file.")
    return Backbone(path.name, file_sha256(path), path)


def load_backbone(module: nn.Module, name: str, spec: ModelSpec, choice: str, offline: bool = False) -> Backbone:
    """Fill a model's backbone from the file that ``find_backbone`` finds, and return what was loaded.

    Raises UsageError for a choice that the model does not offer, WeightsMissing where the weights cannot be had, DataError
    where they do not fit.
    """
    found = find_backbone(name, spec, choice)
    assert spec.load_backbone is not None, "find_backbone refuses a model that cannot load any"
    if isinstance(found.file, Path):
        spec.load_backbone(module, found.file)
        return found
    try:
        path = fetch(found.file, offline)
    except WeightsMissing as error:
        raise WeightsMissing(f"{error} Or start from random weights with --backbone-weights none.") from None
    spec.load_backbone(module, path)
    return found


# --- state ---------------------------------------------------------------------------------------------------------


def save_weights(module: nn.Module, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a module's state to ``path`` as safetensors, whole or not at all; equal states give equal bytes.

    metadata: JSON values to store with it.
    """
    save_tensors(module.state_dict(), path, metadata)


def load_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    """Fill a module from a file of ``save_weights`` and return its metadata; raise DataError unless it fits exactly."""
    state, metadata = read_tensors(path)
    load_state(module, state, path)
    return metadata


def load_state(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path, but_for: Collection[str] = ()) -> None:
    """Fill a module from a state dict; ``path`` is where it came from, for the message.

    but_for: the keys that the state must lack and the module keeps as they are, such as a new head's. Raises DataError
    naming the keys that are missing, unexpected or of another shape; the module is then untouched.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys() - set(but_for))
    unexpected = sorted((state.keys() - own.keys()) | (state.keys() & set(but_for)))
    shapes = [
        f"{key} {list(state[key].shape)} for {list(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    complaints = [
        f"{what} {shorten(keys)}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if complaints:
        raise DataError(f"{path} does not fit {type(module).__name__}: {'; '.join(complaints)}.")
    module.load_state_dict(dict(state), strict=not but_for)


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, Any]) -> None:
    """Write named tensors and JSON metadata to ``path``, whole or not at all."""
    # Cloned, because safetensors refuses tied weights; one key, because it stores several in a random order.
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(own, part, metadata={_METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file of ``save_tensors``; raise DataError where it is not one."""
    metadata = read_metadata(path)
    try:
        return load_file(path), metadata
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}.") from None


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a safetensors file, empty where dfad-bench stored none; raise DataError where it is not one."""
    if not path.is_file():
        raise DataError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}.") from None
    return metadata


def read_state(path: Path) -> dict[str, Any]:
    """Return the state dict that somebody published: of a ``.safetensors`` file, or of a pickle as ``load_pickled_state``."""
    return read_tensors(path)[0] if path.suffix == ".safetensors" else load_pickled_state(path)


def load_pickled_state(path: Path) -> dict[str, Any]:
    """Return what a published ``.pth`` file holds, executing nothing in it; raise DataError where that is no dict.

    torch refuses any pickle that holds more than tensors and plain containers.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} cannot be read as PyTorch weights: {reason}") from None
    if not isinstance(state, dict):
        raise DataError(f"{path} holds a {type(state).__name__} where a state dict was expected.")
    return state
