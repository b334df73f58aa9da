"""Scoring 640,000 frames: the whole report, and intervals by resampling, against the usual ways in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measure import record, timed
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score, roc_curve

from dfad_bench.records.predictions import SCHEMA_VERSION, Context, LeafRecord, PredictionsWriter
from dfad_bench.scoring.metrics.auc import auc
from dfad_bench.scoring.statistics.resampling import Resampler
from dfad_bench.scoring.views import DetectionView

FRAMES_PER_VIDEO = 32
LEAVES = [LeafRecord(name="real", family="real", forgery_type="real")] + [
    LeafRecord(name=f"g{i:02d}", family=("gan", "diffusion", "flow")[i % 3], forgery_type=("efs", "fs")[i % 2])
    for i in range(11)
]
CALLS = 5
"""Calls of scikit-learn that are timed; a thousand would take minutes to say the same."""


def write(path: Path, frames: int) -> None:
    """Write predictions for videos of 12 classes, a tenth of them for val, 1,000 people in them."""
    rng = np.random.default_rng(0)
    videos = frames // FRAMES_PER_VIDEO
    leaf_of_video = np.arange(videos) % len(LEAVES)
    effect = rng.normal(size=(videos, len(LEAVES)))
    context = Context(
        schema_version=SCHEMA_VERSION,
        model="random",
        seed=0,
        protocol="benchmark",
        protocol_version=1,
        protocol_fingerprint="sha256:" + "0" * 64,
        classes=LEAVES,
        levels=["forgery_type", "family", "generator"],
        assume={},
        reals="same_domain",
        pooling="mean",
        subsets={"test": "generator"},
        declared=frames,
        skipped={},
    )
    with PredictionsWriter(path) as writer:
        for start in range(0, videos, 2000):
            video = np.repeat(np.arange(start, min(start + 2000, videos)), FRAMES_PER_VIDEO)
            leaf = leaf_of_video[video]
            logits = effect[video] + rng.normal(size=(len(video), len(LEAVES)))
            logits[np.arange(len(video)), leaf] += 1
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            frame = np.tile(np.arange(FRAMES_PER_VIDEO), len(video) // FRAMES_PER_VIDEO)
            names = [LEAVES[code].name for code in leaf.tolist()]
            clips = [f"s/{name}/{number:05d}" for name, number in zip(names, video.tolist(), strict=True)]
            faces = pa.table(
                {
                    "id": [f"{clip}/{number:03d}" for clip, number in zip(clips, frame.tolist(), strict=True)],
                    "generator": names,
                    "family": [LEAVES[code].family for code in leaf.tolist()],
                    "forgery_type": [LEAVES[code].forgery_type for code in leaf.tolist()],
                    "domain": ["d"] * len(video),
                    "video": clips,
                    "identities": [[f"person {number % 1000}"] for number in video.tolist()],
                }
            )
            is_val = video[::FRAMES_PER_VIDEO] % 10 == 0
            for subset, rows in (
                ("val", np.repeat(is_val, FRAMES_PER_VIDEO)),
                ("test", np.repeat(~is_val, FRAMES_PER_VIDEO)),
            ):
                chosen = np.flatnonzero(rows)
                writer.write(subset, faces.take(pa.array(chosen)), 1 - shares[chosen, 0], logits[chosen])
        writer.finish(context)


OURS = """
import json, re, sys, time
from pathlib import Path
from dfad_bench import registry
from dfad_bench.records.predictions import read_predictions
from dfad_bench.scoring.score import Options, score
[registry.get("metrics", name) for name in registry.entries("metrics")]
start = time.perf_counter()
read = read_predictions(Path(sys.argv[1]))
reading = time.perf_counter() - start
report = score(read, Options(resamples=int(sys.argv[2])))
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "read_seconds": reading,
    "numbers": sum(each.value is not None for each in report.scores),
    # of this program alone: getrusage would count what was held by the process that started it
    "peak_mib": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024,
}))
"""


def report(path: Path, resamples: int) -> dict[str, float]:
    """Read and score a file in a process of its own; return seconds, numbers and peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", OURS, str(path), str(resamples)], capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def as_scripts_do(is_fake: NDArray[np.bool_], score: NDArray[np.float64], names: list[str]) -> list[float]:
    """Frame ACC, AUC, EER and AP, and video AUC by a dictionary of lists: the five numbers that scripts print."""
    fpr, tpr, _ = roc_curve(is_fake, score)
    clips: defaultdict[str, list[tuple[bool, float]]] = defaultdict(list)
    for fake, value, name in zip(is_fake, score, names, strict=True):
        clips[name].append((fake, value))
    labels = [frames[0][0] for frames in clips.values()]
    means = [float(np.mean([value for _, value in frames])) for frames in clips.values()]
    return [
        float(accuracy_score(is_fake, score > 0.5)),
        float(roc_auc_score(is_fake, score)),
        float(fpr[np.nanargmin(np.abs(1 - tpr - fpr))]),
        float(average_precision_score(is_fake, score)),
        float(roc_auc_score(labels, means)),
    ]


def resampled_auc(view: DetectionView, resampler: Resampler) -> NDArray[np.float64]:
    """Return the AUC in every resample."""
    at_once = max(1, 2_000_000 // len(view))
    parts = []
    for multiplicity in resampler.draws(cells=2_000_000):
        chunks = (multiplicity[start : start + at_once] for start in range(0, len(multiplicity), at_once))
        parts += [np.asarray(auc(view.resampled(chunk))) for chunk in chunks]
    return np.concatenate(parts)


def main() -> None:
    """Measure and record."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in (64_000, 640_000):
            path = Path(folder, f"{frames}.parquet")
            write(path, frames)
            rows.append({"what": "report", "frames": frames, "resamples": 0, **report(path, 0)})
            if frames == 64_000:
                rows.append({"what": "report", "frames": frames, "resamples": 1000, **report(path, 1000)})
    frames = 640_000
    is_fake = np.arange(frames) % 2 == 1
    score = rng.normal(size=frames) + is_fake
    names = [f"{number // FRAMES_PER_VIDEO // 2:05d}_{number % 2}" for number in range(frames)]
    seconds, numbers = timed(as_scripts_do, is_fake, score, names)
    rows.append({"what": "as scripts do", "frames": frames, "seconds": seconds, "numbers": len(numbers)})
    ours = next(row for row in rows if row["frames"] == frames and "resamples" in row)
    ours["speed_per_number"] = (seconds / len(numbers)) / (ours["seconds"] / ours["numbers"])
    start = time.perf_counter()
    for _ in range(CALLS):
        chosen = rng.integers(0, frames, frames)
        roc_auc_score(is_fake[chosen], score[chosen])
    naive = (time.perf_counter() - start) / CALLS * 1000
    for clusters in (1000, frames):
        cluster = np.repeat(np.arange(clusters), frames // clusters).astype(np.int32)
        view = DetectionView(is_fake, score, 0.5).clustered(cluster)
        ours, values = timed(resampled_auc, view, Resampler(np.zeros(clusters, np.intp)))
        rows.append(
            {
                "what": "1,000 resamples of AUC",
                "frames": frames,
                "clusters": clusters,
                "seconds": ours,
                "naive_seconds": naive,
                "speed": naive / ours,
                "spread": float(values.std()),
            }
        )
    record("scoring", rows)


if __name__ == "__main__":
    main()
