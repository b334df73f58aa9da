"""What a GPU does: GazeCLIP beside plain CLIP's tower, what bfloat16 and compiling change, and every model's faces a second.

Weights are random: no time depends on them. ``python benchmarks/gpu.py``, where CUDA is present.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from gazeclip_speed import LEAVES, PLAIN, counted, in_turns, now, speeds, written_faces
from gazeclip_speed import faces as gazeclip_faces
from measure import record

from baselines import FACES, faces
from dfad_bench import registry
from dfad_bench.modelling.clip import DEFAULT
from dfad_bench.modelling.data import Batches, FaceDataset, to_device
from dfad_bench.modelling.device import device_name, mixed_precision, pick_device, seed_everything
from dfad_bench.testing.models import LEAVES as FOUR
from dfad_bench.types import Batch, ModelSpec
from gazeclip.model import Design, GazeCLIP
from gazeclip.spec import MODEL

ANSWERED, LEARNED = 256, 64
"""Faces of a batch: in evaluation and in training."""
EPOCH = 16_384
TURNS = 5


def main() -> None:
    """Measure and record; what may fail to compile comes last, when all else is kept."""
    cuda = pick_device("cuda")
    seed_everything(0, cuda)
    torch.use_deterministic_algorithms(False)  # a run asks for deterministic kernels, some of which are slower
    whole, plain = GazeCLIP(LEAVES, DEFAULT, Design()), GazeCLIP(LEAVES, DEFAULT, PLAIN)
    rows = speeds(whole, plain, cuda, 512, TURNS) + utilisation(whole, cuda, 512) + epoch(whole, cuda)
    record("gpu", rows)
    del plain
    rows += [model_speed(name, registry.get("models", name), cuda) for name in registry.entries("models")]
    record("gpu", rows)
    rows += parity(whole, cuda)
    record("gpu", rows)


def utilisation(whole: GazeCLIP, device: torch.device, batch_size: int) -> list[dict[str, Any]]:
    """Return the share of the matrix multiplication that this device reaches in bfloat16, measured, that inference reaches."""
    side = 8192
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    batch = gazeclip_faces(batch_size, device)
    whole.to(device).eval()

    def infer() -> None:
        with torch.inference_mode(), mixed_precision(device):
            whole(batch)

    with torch.no_grad():
        operations = counted(lambda: whole(gazeclip_faces(8, device))) / 8
    seconds = in_turns({"matmul": lambda: one @ other, "inference": infer}, device, 20)
    peak = 2 * side**3 / seconds["matmul"]
    reached = operations * batch_size / seconds["inference"]
    return [
        {
            "what": "utilisation",
            "device": device_name(device),
            "batch": batch_size,
            "matmul_tflops": peak / 1e12,
            "inference_tflops": reached / 1e12,
            "share": reached / peak,
        }
    ]


def epoch(whole: GazeCLIP, device: torch.device) -> list[dict[str, Any]]:
    """Return the share of a training epoch in which the device waits for faces, and the memory that training takes."""
    whole.to(device).train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.0)
    workers = max((torch.get_num_threads() or 1) - 1, 1)
    torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as folder:
        dataset = FaceDataset(MODEL, written_faces(Path(folder), EPOCH), LEAVES, flip=True)
        batches = Batches(dataset, LEARNED, seed=0, workers=workers, device=device)
        waited = 0.0
        list(batches.epoch(0))  # starts the workers
        started = mark = now(device)
        for loaded in batches.epoch(1):
            waited += now(device) - mark
            optimizer.zero_grad(set_to_none=True)
            with mixed_precision(device):
                loss = whole.loss(to_device(loaded.batch, device))
            loss.backward()
            optimizer.step()
            mark = now(device)
        took = now(device) - started
    return [
        {
            "what": "training epoch from disk",
            "device": device_name(device),
            "batch": LEARNED,
            "workers": workers,
            "faces_per_second": EPOCH / took,
            "idle": waited / took,
            "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30,
        }
    ]


def model_speed(name: str, spec: ModelSpec, device: torch.device) -> dict[str, Any]:
    """Return how many faces a second a model answers and learns in mixed precision, from batches on the device."""
    torch.manual_seed(0)
    module = spec.build(FOUR).to(device)
    few = faces(spec)
    row: dict[str, Any] = {"model": name, "device": device_name(device)}
    batch = repeated(few, ANSWERED, device)
    module.eval()

    def answering() -> None:
        with torch.inference_mode(), mixed_precision(device):
            module(batch)

    row["answered_per_second"] = ANSWERED / seconds_of(answering, device)
    if not hasattr(module, "loss") or not any(each.requires_grad for each in module.parameters()):
        return row
    learned = replace(repeated(few, LEARNED, device), target=torch.arange(LEARNED, device=device) % len(FOUR))
    module.train()

    def learning() -> None:
        with mixed_precision(device):
            loss = module.loss(learned)
        loss.backward()
        module.zero_grad(set_to_none=True)

    return row | {"learned_per_second": LEARNED / seconds_of(learning, device)}


INPUTS = tuple(each.name for each in fields(Batch) if each.name not in ("size", "target"))


def repeated(few: Batch, number: int, device: torch.device) -> Batch:
    """Return the faces over and over, on a device."""
    rows = torch.arange(number) % FACES
    many = (None if (part := getattr(few, name)) is None else part[rows] for name in INPUTS)
    return to_device(Batch(number, *many), device)


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Return the median seconds of a call, after one that is not counted."""
    return in_turns({"call": call}, device, TURNS)["call"]


def parity(whole: GazeCLIP, device: torch.device) -> list[dict[str, Any]]:
    """Return how far answers in bfloat16, also compiled by torch, are from those in float32, and how fast each way is."""
    whole.to(device).eval()
    batch = gazeclip_faces(ANSWERED, device)
    compiled = torch.compile(whole)
    ways = {
        "float32": (whole, "float32"),
        "bfloat16": (whole, "bfloat16"),
        "bfloat16, compiled": (compiled, "bfloat16"),
    }
    rows: list[dict[str, Any]] = []
    exact = None
    for way, (module, precision) in ways.items():

        def answer(module: Any = module, precision: Any = precision) -> torch.Tensor:
            with torch.inference_mode(), mixed_precision(device, precision):
                answered: torch.Tensor = module(batch).logits.float().softmax(1)
            return answered

        found = answer()
        exact = found if exact is None else exact
        rows.append(
            {
                "what": "answers",
                "way": way,
                "device": device_name(device),
                "ms_a_face": 1e3 * seconds_of(answer, device) / ANSWERED,
                "largest_difference": float((found - exact).abs().max()),
                "same_class": float((found.argmax(1) == exact.argmax(1)).double().mean()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
