from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dfad_bench.modelling.torchvision_ops import declare_missing_operators

_SCRIPT = """
import warnings
warnings.simplefilter("error")
import torch
from dfad_bench.modelling.torchvision_ops import declare_missing_operators
declared = declare_missing_operators()
assert declare_missing_operators() == declared
import torchvision.models
assert torchvision.models.resnet18(num_classes=2).fc.out_features == 2
try:
    torch.ops.torchvision.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
except NotImplementedError:
    print("declared" if declared else "wrong: nms exists, yet it does not work")
else:
    print("wrong: a declared operator answered" if declared else "works")
"""


def test_torchvision_imports_and_a_declared_operator_refuses_to_compute() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("declared", "works")


def test_declaring_twice_in_one_process_changes_nothing() -> None:
    assert declare_missing_operators() == declare_missing_operators()
    assert hasattr(torch.ops.torchvision, "nms")


def test_another_fault_of_the_import_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError):
        declare_missing_operators()
