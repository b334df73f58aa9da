from __future__ import annotations

import pytest
import torch

from dfad_bench.errors import UsageError
from dfad_bench.modelling.device import mixed_precision, pick_device, seed_everything


def test_auto_picks_a_device_that_is_there() -> None:
    torch.zeros(1, device=pick_device("auto"))
    assert pick_device("cpu").type == "cpu"


def test_a_device_that_is_absent_is_an_error_and_not_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"finds no cuda device.*--device cpu"):
        pick_device("cuda")


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"gpu.*auto, cpu, cuda, mps"):
        pick_device("gpu")


def test_one_seed_gives_the_same_numbers_and_deterministic_kernels() -> None:
    seed_everything(3, torch.device("cpu"))
    first = torch.rand(4)
    seed_everything(3, torch.device("cpu"))
    assert torch.equal(first, torch.rand(4))
    assert torch.are_deterministic_algorithms_enabled()


def test_the_cpu_runs_in_single_precision() -> None:
    with mixed_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_precision_that_is_asked_for_is_used_on_any_device() -> None:
    with mixed_precision(torch.device("cpu"), "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with mixed_precision(torch.device("cpu"), "float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.gpu
def test_cuda_runs_matrix_products_in_bfloat16() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with mixed_precision(torch.device("cuda")):
        ones = torch.ones(2, 2, device="cuda")
        assert (ones @ ones).dtype == torch.bfloat16
    with mixed_precision(torch.device("cuda"), "float32"):
        assert (ones @ ones).dtype == torch.float32
