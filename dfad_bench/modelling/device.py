"""Chooses the device, and makes a run repeat itself there as far as the device allows."""

from __future__ import annotations

import os

import torch

from dfad_bench.errors import UsageError
from dfad_bench.modelling.distributed import Ranks, current
from dfad_bench.types import Precision

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``auto`` is the first present of cuda, mps and cpu.

    Of several ranks each has a CUDA device of its own. Raises UsageError for an unknown name and for a device that is
    absent: a run never falls back to a slower one without being told to.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in present.items() if is_there)
    if name not in present:
        raise UsageError(f"No device is named {name!r}. Choose one of {', '.join(DEVICES)}.")
    if not present[name]:
        why = " (this torch was built without CUDA)" if name == "cuda" and torch.version.cuda is None else ""
        raise UsageError(f"torch {torch.__version__} finds no {name} device{why}. Use --device cpu, or auto.")
    return _own_cuda(current()) if name == "cuda" else torch.device(name)


def _own_cuda(ranks: Ranks) -> torch.device:
    if not ranks.are_several:
        return torch.device("cuda")
    if ranks.local_rank >= (there := torch.cuda.device_count()):
        raise UsageError(
            f"This machine has {there} CUDA device{'s' if there > 1 else ''} and more ranks than that. "
            f"Start {there} with --nproc-per-node, or use --device cpu."
        )
    return torch.device("cuda", torch.cuda.current_device())  # which is set where ranks are joined


def device_name(device: torch.device) -> str:
    """Return what results call a device: a GPU by its model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch's generators and ask for deterministic kernels: strictly on the CPU, where they exist elsewhere.

    What runs in float32 does so throughout: cuDNN's convolutions would round to 10 bits of mantissa (TF32) by default.
    On one CPU with one number of threads, a run then repeats itself bit by bit.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    torch.backends.cudnn.allow_tf32 = False


def mixed_precision(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """Return the context in which a network runs: bfloat16 where autocast finds that safe, or float32 throughout.

    precision: ``auto`` is bfloat16 on CUDA and float32 elsewhere.
    """
    is_mixed = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=is_mixed)
