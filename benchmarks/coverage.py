"""How often a 95 % interval holds the truth when frames of one video are alike: by frame, and by cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import record, timed
from scipy.stats import binomtest, norm

from dfad_bench.scoring.statistics.delong import delong_interval, delong_variance
from dfad_bench.scoring.statistics.intervals import bca_interval
from dfad_bench.scoring.statistics.resampling import Resampler
from dfad_bench.scoring.statistics.wins import win_matrix

TRUTH = 0.9
FRAMES = 20
CORRELATION = 0.5
SIMULATIONS = 2000
SEEDS = 40

Intervals = dict[str, tuple[float, float]]


class Design:
    """The clusters of one scenario, and the same few sets of 1,000 resamples of them for all simulations.

    separate: half the clusters hold 20 real frames each, half 20 fakes, as many of each as ``clusters`` says.
    mixed: each holds 10 and 10, which share what makes the cluster easy or hard. accuracy: 20 frames, right or wrong.
    """

    def __init__(self, scenario: str, clusters: int) -> None:
        self.scenario = scenario
        self.stratum = np.repeat([0, 1], clusters) if scenario == "separate" else np.zeros(clusters, dtype=np.intp)
        self.cluster = np.repeat(np.arange(len(self.stratum)), FRAMES)
        half = np.tile(np.arange(FRAMES) < FRAMES // 2, clusters)
        self.is_fake = self.cluster >= clusters if scenario == "separate" else half
        self.draws = [np.concatenate(list(Resampler(self.stratum, seed=seed).draws())) for seed in range(SEEDS)]
        deletions, self.deleted_from = Resampler(self.stratum).deletions()
        self.deletions = np.concatenate(list(deletions))

    def normals(self, rng: np.random.Generator) -> Any:
        """Return standard normals, one a frame, that correlate by CORRELATION within a cluster."""
        shared = rng.normal(size=len(self.stratum))[self.cluster]
        return np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * rng.normal(size=len(self.cluster))

    def intervals(self, rng: np.random.Generator, simulation: int) -> Intervals:
        """Simulate the frames once and return each method's interval."""
        found: Intervals = {}
        statistic: Callable[[Any], Any]
        if self.scenario == "accuracy":
            right = self.normals(rng) < norm.ppf(TRUTH)
            wilson = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            found["naive"] = (wilson.low, wilson.high)
            of_cluster = np.bincount(self.cluster, weights=right)

            def statistic(times: Any) -> Any:
                return times @ of_cluster / (times.sum(axis=1) * FRAMES)
        else:
            # Two standard normals this far apart are in the right order with probability TRUTH.
            score = self.normals(rng) + np.sqrt(2) * norm.ppf(TRUTH) * self.is_fake
            found["naive"] = delong_interval(*delong_variance(self.is_fake, score))
            found["clustered_delong"] = delong_interval(*delong_variance(self.is_fake, score, self.cluster))
            statistic = win_matrix(self.is_fake, score, self.cluster, len(self.stratum)).auc
        estimate = float(statistic(np.ones((1, len(self.stratum)), dtype=np.int32))[0])
        replicates, jackknife = statistic(self.draws[simulation % SEEDS]), statistic(self.deletions)
        for name, values, expand in (
            ("percentile", None, False),
            ("bca_not_expanded", jackknife, False),
            ("bca", jackknife, True),
        ):
            interval = bca_interval(estimate, replicates, values, self.deleted_from, expand=expand)
            found[name] = (interval.low, interval.high)
        return found


def covered(scenario: str, clusters: int) -> dict[str, Any]:
    """Return the share of simulations in which each method's interval holds the truth, and the mean widths of two."""
    design, rng = Design(scenario, clusters), np.random.default_rng(0)
    hits: dict[str, int] = defaultdict(int)
    width: dict[str, float] = defaultdict(float)
    for simulation in range(SIMULATIONS):
        for name, (low, high) in design.intervals(rng, simulation).items():
            hits[name] += low <= TRUTH <= high
            width[name] += high - low
    return {
        "scenario": scenario,
        "clusters": clusters,
        "simulations": SIMULATIONS,
        **{name: count / SIMULATIONS for name, count in hits.items()},
        "naive_width": width["naive"] / SIMULATIONS,
        "bca_width": width["bca"] / SIMULATIONS,
    }


def speed() -> dict[str, Any]:
    """Return the seconds that 1,000 resampled AUCs of 640,000 faces in 1,000 clusters take."""
    rng = np.random.default_rng(0)
    is_fake, cluster = rng.random(640_000) < 0.5, rng.integers(0, 1000, 640_000)
    score = rng.normal(size=640_000) + is_fake
    built, wins = timed(win_matrix, is_fake, score, cluster, 1000)
    drawn, draws = timed(lambda: list(Resampler(np.zeros(1000, dtype=np.intp)).draws()))
    resampled, _ = timed(lambda: [wins.auc(chunk) for chunk in draws])
    return {
        "faces": 640_000,
        "clusters": 1000,
        "resamples": 1000,
        "win_matrix_seconds": built,
        "draws_seconds": drawn,
        "resampled_auc_seconds": resampled,
    }


def main() -> None:
    """Measure and record."""
    rows = [covered(scenario, n) for scenario in ("separate", "mixed", "accuracy") for n in (20, 60, 200)]
    record("coverage", [*rows, speed()])


if __name__ == "__main__":
    main()
