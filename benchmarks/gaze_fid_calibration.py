"""What gaze-FID says where the truth is known: p without a difference, what corrections leave, intervals, power."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from measure import record
from numpy.typing import NDArray
from scipy.stats import kstest

from dfad_bench.analysis.two_samples import TwoSample, compare_samples

SD = np.asarray([8.0, 12.0])
"""Degrees of pitch and yaw."""
Floats = NDArray[np.float64]


def gaze(rng: np.random.Generator, people: int, frames: int) -> tuple[Floats, NDArray[np.intp]]:
    """Return gazes [people * frames, 2] in degrees, half of their variance shared within a person, and whose they are."""
    own = rng.normal(size=(people, 1, 2)) * np.sqrt(0.5 if frames > 1 else 0.0)
    each = rng.normal(size=(people, frames, 2)) * np.sqrt(0.5 if frames > 1 else 1.0)
    return ((own + each) * SD).reshape(-1, 2), np.repeat(np.arange(people), frames)


def simulate(people: int, frames: int, runs: int, scale: float, shift: float, resamples: int) -> list[TwoSample]:
    """Compare real and fake gazes of so many people, the fake ones scaled and shifted (degrees), in every run."""
    found = []
    for run in range(runs):
        rng = np.random.default_rng((run, people, frames))
        real, who = gaze(rng, people, frames)
        fake, others = gaze(rng, people, frames)
        found.append(compare_samples(real, fake * scale + shift, who, others + people, resamples=resamples, seed=run))
    return found


def row(name: str, people: int, frames: int, runs: int, scale: float = 1.0, shift: float = 0.0) -> dict[str, Any]:
    """Return what is seen of one scenario."""
    found = simulate(people, frames, runs, scale, shift, 199)
    truth = float(((scale - 1) * SD) @ ((scale - 1) * SD) + 2 * shift**2)
    return {
        "scenario": name,
        "faces": people * frames,
        "people": people,
        "runs": runs,
        "truth": truth,
        "frechet": float(np.mean([each.frechet for each in found])),
        "corrected": float(np.mean([each.corrected for each in found])),
        "interval_holds_truth": float(np.mean([each.low <= truth <= each.high for each in found])),
        "uniform_p": float(kstest([each.p for each in found], "uniform").pvalue),
        **{
            f"{test}_below_5_percent": float(np.mean([getattr(each, name) < 0.05 for each in found]))
            for test, name in (("frechet", "p"), ("kid", "kid_p"), ("energy", "energy_p"))
        },
    }


def main() -> None:
    """Measure and record."""
    rows = [
        row("no difference", 100, 1, 500),
        row("no difference", 1000, 1, 60),
        row("no difference, 20 frames a person", 60, 20, 300),
        *(row("5 % wider", people, 1, 30, scale=1.05) for people in (1000, 2000, 5000)),
        *(row("0.01 rad shifted", people, 1, 30, shift=float(np.degrees(0.01))) for people in (1000, 2000, 5000)),
    ]
    started = time.perf_counter()
    simulate(10_000, 1, 12, 1.0, 0.0, 1000)
    rows.append({"what": "12 generators, N = 10,000, 1,000 resamples", "seconds": time.perf_counter() - started})
    record("gaze_fid_calibration", rows)


if __name__ == "__main__":
    main()
