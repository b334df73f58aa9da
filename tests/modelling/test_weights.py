from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.weights import (
    find_backbone,
    load_backbone,
    load_pickled_state,
    load_state,
    load_weights,
    read_metadata,
    read_state,
    save_weights,
)
from dfad_bench.types import ModelSpec, WeightsFile
from tests.modelling.builders import SHADE


def test_saved_weights_load_exactly_and_their_bytes_depend_on_the_state_alone(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    metadata = {"classes": ["real", "ddim"], "seed": 1, "a": 2.5}
    save_weights(module, tmp_path / "a.safetensors", metadata)
    save_weights(module, tmp_path / "b.safetensors", dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert load_weights(other, tmp_path / "a.safetensors") == metadata == read_metadata(tmp_path / "b.safetensors")
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key])


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    def build() -> nn.Module:
        tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        tied[1].weight = tied[0].weight
        return tied

    module, other = build(), build()
    save_weights(module, tmp_path / "tied.safetensors", {})
    load_weights(other, tmp_path / "tied.safetensors")
    assert torch.equal(other[1].weight, module[0].weight)  # type: ignore[index]


def test_weights_that_do_not_fit_end_the_run_naming_the_keys_and_leave_the_module_untouched(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False)), path, {})
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(2, affine=False, track_running_stats=True))
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(DataError) as error:
        load_weights(module, path)
    for told in ("missing 1.num_batches_tracked", "unexpected 1.weight", "of another shape 0.bias [2] for [4]"):
        assert told in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_only_the_named_keys_may_be_missing(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    load_state(module, {"weight": torch.zeros(2, 3)}, tmp_path, but_for=["bias"])
    assert not module.weight.any() and module.bias.any()
    with pytest.raises(DataError, match="unexpected bias"):
        load_state(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path, but_for=["bias"])
    with pytest.raises(DataError, match="missing weight"):
        load_state(module, {}, tmp_path, but_for=["bias"])


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match="There is no weights file"):
        load_weights(nn.Linear(1, 1), path)
    path.write_bytes(b"\x80\x02 pickle")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_weights(nn.Linear(1, 1), path)


class _Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"weight": _Malice()}, path)
    with pytest.raises(DataError, match=r"evil\.pth cannot be read as PyTorch weights"):
        load_pickled_state(path)
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("contents", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_damaged_pickle_is_refused_in_one_line(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(contents)
    with pytest.raises(DataError) as error:
        load_pickled_state(path)
    assert "\n" not in str(error.value)


def test_a_state_dict_is_read_and_anything_else_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "state.pth")
    assert load_pickled_state(tmp_path / "state.pth")["weight"].tolist() == [1, 1]
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(DataError, match="holds a Tensor"):
        load_pickled_state(tmp_path / "tensor.pth")


def test_a_backbone_must_be_offered_and_its_weights_must_be_had(cache: Path) -> None:
    def fill(module: nn.Module, path: Path) -> None:
        raise AssertionError("there is nothing to fill from")

    weights = WeightsFile("toy.bin", "http://127.0.0.1:1/toy.bin", "0" * 64, 7, "none", "none")
    spec: ModelSpec = replace(SHADE, backbone_weights={"imagenet": weights}, load_backbone=fill)
    with pytest.raises(UsageError, match=r"shade offers no backbone weights 'imagnet'\. Did you mean 'imagenet'\?"):
        load_backbone(nn.Linear(1, 1), "shade", spec, "imagnet")
    with pytest.raises(UsageError, match="Offered: none"):
        load_backbone(nn.Linear(1, 1), "shade", SHADE, "imagenet")
    with pytest.raises(DataError, match=r"downloads are off\).*put it in .*Or start from .*--backbone-weights none\.$"):
        load_backbone(nn.Linear(1, 1), "shade", spec, "imagenet", offline=True)


def _fill(module: nn.Module, path: Path) -> None:
    load_state(module, read_state(path), path)


OFFERED = WeightsFile("toy.pth", "http://127.0.0.1:1/toy.pth", "0" * 64, 7, "none", "none")
WITH_BACKBONE: ModelSpec = replace(SHADE, backbone_weights={"imagenet": OFFERED}, load_backbone=_fill)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_file_of_the_users_is_a_backbone_that_its_hash_stands_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    published = nn.Linear(3, 2)
    if suffix == ".safetensors":
        save_file(published.state_dict(), path)
    else:
        torch.save(published.state_dict(), path)
    module = nn.Linear(3, 2)
    loaded = load_backbone(module, "shade", WITH_BACKBONE, str(path), offline=True)
    assert torch.equal(module.weight, published.weight)
    assert loaded == find_backbone("shade", WITH_BACKBONE, str(path))
    assert loaded.recorded == f"mine{suffix} sha256:{file_sha256(path)}"


def test_a_published_backbone_is_recorded_by_its_published_hash_without_being_fetched() -> None:
    assert find_backbone("shade", WITH_BACKBONE, "imagenet").recorded == f"toy.pth sha256:{'0' * 64}"


def test_a_file_that_is_absent_of_another_kind_or_of_no_use_to_the_model_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no weights file .*gone\.pth\. Give the path of a \.safetensors, "):
        find_backbone("shade", WITH_BACKBONE, str(tmp_path / "gone.pth"))
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"weights\.bin\. Give the path of a \.safetensors, \.pt or \.pth file"):
        find_backbone("shade", WITH_BACKBONE, str(tmp_path / "weights.bin"))
    torch.save({}, tmp_path / "mine.pth")
    with pytest.raises(UsageError, match=r"shade offers no backbone weights.*Offered: none, it is trained from random"):
        find_backbone("shade", SHADE, str(tmp_path / "mine.pth"))
    with pytest.raises(DataError, match=r"mine\.pth does not fit Linear: missing bias, weight"):
        load_backbone(nn.Linear(3, 2), "shade", WITH_BACKBONE, str(tmp_path / "mine.pth"))
