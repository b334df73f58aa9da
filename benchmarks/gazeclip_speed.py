"""GazeCLIP's size, and its speed beside plain CLIP's image tower in the same run; ``gpu.py`` does the same on a GPU."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from measure import record
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfad_bench.modelling.clip import DEFAULT
from dfad_bench.modelling.data import Batches, FaceDataset, to_device
from dfad_bench.modelling.device import device_name, mixed_precision
from dfad_bench.records.manifest import COLUMNS
from dfad_bench.records.selection import FACE_COLUMNS
from dfad_bench.types import Batch, Leaf
from gazeclip.model import Design, GazeCLIP
from gazeclip.spec import MODEL

LEAVES = (
    Leaf("real", "real", "real"),
    *(Leaf(name, "gan", "efs") for name in ("stylegan2", "stylegan3", "vqgan")),
    *(Leaf(name, "diffusion", "efs") for name in ("ddim", "dit", "rddm")),
    *(Leaf(name, "flow", "efs") for name in ("sit", "flux1_dev")),
    *(Leaf(name, "gan", "fs") for name in ("simswap", "faceswap")),
    Leaf("starganv2", "gan", "am"),
)
"""Twelve classes, as a protocol of one's own might have them."""
PLAIN = Design(injector=False, agpm=False, lre=False)
SIDE = 224


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="faces per batch on the CPU")
    parser.add_argument("--turns", type=int, default=5, help="times that each is timed, in turn")
    asked = parser.parse_args()
    torch.manual_seed(0)
    whole, plain = GazeCLIP(LEAVES, DEFAULT, Design()), GazeCLIP(LEAVES, DEFAULT, PLAIN)
    rows = [*sizes(whole, plain), *speeds(whole, plain, torch.device("cpu"), asked.batch, asked.turns)]
    rows += loading(torch.device("cpu"))
    record("gazeclip_speed", rows)


def sizes(whole: GazeCLIP, plain: GazeCLIP) -> list[dict[str, Any]]:
    """Return parameters, and floating-point operations for one face; text's are for one step, whatever its faces."""
    batch = faces(1, torch.device("cpu"))
    assert whole.vpe is not None and whole.vpe.agpm is not None and whole.fusion is not None
    assert whole.lre is not None and whole.lre.aws is not None and whole.matching is not None
    whole.eval(), plain.eval()
    with torch.no_grad():
        patches = whole.gie.embed(batch.image, whole._early)
        gaze, pattern = whole.vpe(batch.image, None, patches.tokens[:, 1:])
        image = whole.gie(patches, gaze.tokens)
    injectors = whole.gie.injectors
    embeddings = whole.lre.text.token_embedding(whole.lre.ids)
    parts: list[tuple[str, nn.Module, Callable[[], Any]]] = [
        ("CLIP image tower alone", whole.gie.visual, lambda: whole.gie.visual(batch.image)),
        (
            "GIE without injectors",
            whole.gie.visual,
            lambda: plain.gie(plain.gie.embed(batch.image, 0), None),
        ),
        (
            "gaze injectors",
            injectors,
            lambda: [each(image[:, None, :1].expand(1, 1, 768), gaze.tokens) for each in injectors],
        ),
        ("gaze encoder", whole.vpe.gaze_encoder, lambda: whole.vpe.gaze_encoder(batch.image)),
        ("AGPM", whole.vpe.agpm, lambda: whole.vpe.agpm(patches.tokens[:, 1:], gaze.tokens)),
        ("fusion", whole.fusion, lambda: whole.fusion(image, pattern)),
        ("DFAD head", whole.head, lambda: whole.head(image)),
        ("all that runs at test time", _visual(whole), lambda: whole(batch)),
        ("AWS (training only)", whole.lre.aws, lambda: whole.lre.aws(embeddings, whole.lre.word_of)),
        ("LRE with AWS (training only)", whole.lre, lambda: whole.lre()),
    ]
    rows = []
    for name, module, call in parts:
        with torch.no_grad():
            operations = counted(call)
        rows.append(
            {
                "part": name,
                "parameters": sum(p.numel() for p in module.parameters()),
                "gflop": operations / 1e9,
                "per": "step" if "training" in name else "face",
            }
        )
    return rows


def counted(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a call; the counter does not see into attention's fused inference kernel."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())


def _visual(module: GazeCLIP) -> nn.Module:
    assert module.vpe is not None and module.fusion is not None
    return nn.ModuleList([module.gie, module.vpe, module.fusion, module.head])


def faces(number: int, device: torch.device) -> Batch:
    """Return random faces with gaze and targets."""
    torch.manual_seed(1)
    return to_device(
        Batch(
            number,
            image=torch.randn(number, 3, SIDE, SIDE),
            gaze=0.2 * torch.randn(number, 2),
            target=torch.arange(number) % len(LEAVES),
        ),
        device,
    )


def speeds(whole: GazeCLIP, plain: GazeCLIP, device: torch.device, batch_size: int, turns: int) -> list[dict[str, Any]]:
    """Return what a pass and a training step take, beside plain CLIP's; the contestants take turns."""
    batch = faces(batch_size, device)
    whole.to(device), plain.to(device)

    def inferring(module: nn.Module) -> Callable[[], Any]:
        def run() -> None:
            with torch.inference_mode(), mixed_precision(device):
                module(batch.image if module is plain.gie.visual else batch)

        return run

    def training(module: GazeCLIP) -> Callable[[], Any]:
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.0)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            with mixed_precision(device):
                loss = module.loss(batch)
            loss.backward()
            optimizer.step()

        return run

    where = {"device": device_name(device), "batch": batch_size}
    whole.eval(), plain.eval()
    seconds = in_turns({"tower": inferring(plain.gie.visual), "whole": inferring(whole)}, device, turns)
    rows = [
        {
            "what": "inference",
            **where,
            "tower_ms_a_face": 1e3 * seconds["tower"] / batch_size,
            "gazeclip_ms_a_face": 1e3 * seconds["whole"] / batch_size,
            "times_tower": seconds["whole"] / seconds["tower"],
        }
    ]
    whole.train(), plain.train()
    steps = min(batch_size, 64)
    batch = faces(steps, device)
    seconds = in_turns({"plain": training(plain), "whole": training(whole)}, device, turns)
    return [
        *rows,
        {
            "what": "training step",
            **where,
            "batch": steps,
            "plain_ms_a_face": 1e3 * seconds["plain"] / steps,
            "gazeclip_ms_a_face": 1e3 * seconds["whole"] / steps,
            "times_plain": seconds["whole"] / seconds["plain"],
        },
    ]


def in_turns(contestants: dict[str, Callable[[], Any]], device: torch.device, turns: int) -> dict[str, float]:
    """Return the median seconds of each, after one call that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, call in contestants.items():
            started = now(device)
            call()
            if turn:
                taken[name].append(now(device) - started)
    return {name: statistics.median(each) for name, each in taken.items()}


def now(device: torch.device) -> float:
    """Return the seconds of a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# --- the data loader -----------------------------------------------------------------------------------------------


def loading(device: torch.device, number: int = 512) -> list[dict[str, Any]]:
    """Return how many faces a second one loader process decodes, resizes and normalises."""
    with tempfile.TemporaryDirectory() as folder:
        table = written_faces(Path(folder), number)
        rows = []
        for workers in (0, 2):
            batches = Batches(FaceDataset(MODEL, table, LEAVES, flip=True), 32, seed=0, workers=workers, device=device)
            list(batches.epoch(0))  # starts the workers
            started = time.perf_counter()
            loaded = sum(each.batch.size for each in batches.epoch(1))
            rows.append(
                {
                    "what": "loader",
                    "workers": workers,
                    "faces_per_second": loaded / (time.perf_counter() - started),
                }
            )
    return rows


def written_faces(folder: Path, number: int) -> pa.Table:
    """Write a few hundred 256 px faces of noise smoothed to a photograph's size as PNG, and a table that names them often."""
    rng = np.random.default_rng(0)
    names = []
    for index in range(min(number, 256)):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 3)
        pixels = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
        names.append(f"{index}.png")
        cv2.imwrite(str(folder / names[-1]), pixels)
    columns: dict[str, list[Any]] = {name: [None] * number for name in FACE_COLUMNS}
    columns |= {
        "id": [f"noise/{index}" for index in range(number)],
        "file_name": [names[index % len(names)] for index in range(number)],
        "generator": [LEAVES[index % len(LEAVES)].name for index in range(number)],
        "gaze_pitch": [0.1] * number,
        "gaze_yaw": [0.1] * number,
    }
    schema = pa.schema([COLUMNS.field(name).with_nullable(True) for name in FACE_COLUMNS])
    table = pa.table(columns, schema=schema)
    return table.append_column("root", pa.array([str(folder)] * number, pa.string()).dictionary_encode())


if __name__ == "__main__":
    main()
