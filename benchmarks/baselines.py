"""What every registered model is and costs: parameters, operations, faces a second, and whether it needs weights."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from measure import record
from torch.utils.flop_counter import FlopCounterMode

from dfad_bench import registry
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.records.manifest import HEADER_FEATURES
from dfad_bench.testing.models import LEAVES
from dfad_bench.types import Batch, ModelSpec

FACES, FACE_SIZE, TURNS = 4, 256, 3


def main() -> None:
    """Measure and record, the models by name; four classes, random weights, two threads."""
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into the fused kernel
    record("baselines", [measured(name, registry.get("models", name)) for name in registry.entries("models")])


def measured(name: str, spec: ModelSpec) -> dict[str, Any]:
    """Return one model's row."""
    torch.manual_seed(0)
    module = spec.build(LEAVES).eval()
    batch = faces(spec)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(batch)
    with torch.no_grad():
        seconds = []
        for _ in range(TURNS):
            started = time.perf_counter()
            module(batch)
            seconds.append(time.perf_counter() - started)
    return {
        "model": name,
        "reference": spec.reference,
        "licence": spec.licence,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "trained": sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        "gflop": counter.get_total_flops() / FACES / 1e9,
        "inputs": list(spec.inputs),
        "side": None if batch.image is None else batch.image.shape[-1],
        "faces_per_second": FACES / min(seconds),
        "weights": spec.default_backbone_weights,
    }


def faces(spec: ModelSpec) -> Batch:
    """Return random faces as the model would get them."""
    rng = np.random.default_rng(0)
    image = gaze_map = gaze = header = None
    if spec.preprocess is not None:
        pixels = rng.integers(0, 256, (FACES, FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)
        image = torch.from_numpy(np.stack([spec.preprocess(face, None) for face in pixels]))
    if "gaze_map" in spec.inputs:
        gaze_map = torch.from_numpy(rng.random((FACES, 2, HEIGHT, WIDTH), dtype=np.float32))
    if "gaze" in spec.inputs:
        gaze = torch.from_numpy(rng.uniform(-0.5, 0.5, (FACES, 2)).astype(np.float32))
    if "header" in spec.inputs:
        header = torch.from_numpy(rng.random((FACES, len(HEADER_FEATURES)), dtype=np.float32))
    return Batch(FACES, image=image, gaze_map=gaze_map, gaze=gaze, header=header)


if __name__ == "__main__":
    main()
