"""What each part of GazeCLIP is worth where it can be trained here: the tiny model from random weights, three seeds."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, record

from dfad_bench.planning import Request
from dfad_bench.run import run_model

VARIANTS: dict[str, tuple[str, ...]] = {
    "plain CLIP tower": ("injector=false", "agpm=false", "lre=false"),
    "GazeCLIP": (),
    "without gaze injector": ("injector=false",),
    "without AGPM": ("agpm=false",),
    "without LRE": ("lre=false",),
    "LRE without AWS": ("aws=false",),
    "gaze not learned": ("gaze_weight=0",),
    "gaze map as second input": ("gaze_map=true",),
}
"""``gaze not learned`` keeps the network and takes its gaze away: what it loses is what gaze gives, and nothing else."""
SEEDS = (0, 1, 2)
NUMBERS = {
    "acc_family": ("accuracy", "attribution", "family"),
    "acc_generator": ("accuracy", "attribution", "generator"),
    "auc": ("auc", "detection", "authenticity"),
}
"""Means over generators, frame by frame, seen and unseen."""


def main() -> None:
    """Run what is not finished, and record every protocol's table beside those of earlier calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="demo", help="a registered protocol, or the path of one")
    parser.add_argument("--data", type=Path, required=True, help="the folder of prepared data")
    parser.add_argument("--runs", type=Path, required=True, help="where runs are kept; finished ones are not repeated")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a thread each")
    asked = parser.parse_args()
    cells = [(name, seed) for seed in SEEDS for name in VARIANTS]
    with ProcessPoolExecutor(asked.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        started = {pool.submit(_scores, asked.protocol, asked.data, asked.runs, *cell): cell for cell in cells}
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for done, future in enumerate(as_completed(started), start=1):
            found[started[future]] = future.result()
            print(f"{done} of {len(cells)}: {started[future]}", flush=True)
    protocol = Path(asked.protocol).stem
    rows = [_row(protocol, name, [found[name, seed] for seed in SEEDS]) for name in VARIANTS]
    earlier = RESULTS / "gazeclip_ablation.json"
    if earlier.is_file():
        kept = json.loads(earlier.read_text(encoding="utf-8"))["rows"]
        rows = [row for row in kept if row["protocol"] != protocol] + rows
    record("gazeclip_ablation", sorted(rows, key=lambda row: row["protocol"] != "demo"))


@contextmanager
def _quietly(label: str) -> Iterator[Callable[[int, int | None], None]]:
    yield lambda done, total: None


def _scores(protocol: str, data: Path, runs: Path, name: str, seed: int) -> list[dict[str, Any]]:
    """Train, test and return the scores of one cell."""
    request = Request(
        model="gazeclip_tiny",
        protocol=protocol,
        data=data,
        runs=runs,
        seed=seed,
        device="cpu",
        settings=VARIANTS[name],
    )
    return [score.model_dump() for score in run_model(request, _quietly).result.scores]


def _row(protocol: str, variant: str, runs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return one variant's numbers in per cent: mean over seeds, the mean 95 % interval over test faces, range over seeds."""
    row: dict[str, Any] = {"protocol": protocol, "variant": variant, "seeds": len(runs)}
    for subset in ("seen", "unseen"):
        for key, (metric, task, level) in NUMBERS.items():
            each = [_one(scores, subset, metric, task, level) for scores in runs]
            values = [score["value"] for score in each if score and score["value"] is not None]
            if not values:
                continue
            row[f"{subset}_{key}"] = 100 * statistics.mean(values)
            row[f"{subset}_{key}_seeds"] = [100 * min(values), 100 * max(values)]
            ends = [[score[end] for score in each if score and score[end] is not None] for end in ("low", "high")]
            if len(ends[0]) == len(values):
                row[f"{subset}_{key}_interval"] = [100 * statistics.mean(end) for end in ends]
    return row


def _one(scores: list[dict[str, Any]], subset: str, metric: str, task: str, level: str) -> dict[str, Any] | None:
    wanted = {"subset": subset, "metric": metric, "task": task, "level": level, "unit": "frame", "group": "mean"}
    return next((score for score in scores if all(score.get(k) == v for k, v in wanted.items())), None)


if __name__ == "__main__":
    main()
