"""Whether Gaze-FID's p-values, intervals and corrections are what they are called, where the truth is known.

Pitch and yaw are normal, sd 12 and 8 degrees. Scenarios: ``independent`` faces; ``clustered``, 10 frames to a cluster that
correlate by 0.5; ``shared``, where a cluster holds 10 reals and 10 fakes of one person; ``unlike``, reals clustered and
fakes independent; ``heavy`` tails, Student's t of 5 degrees of freedom, independent.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # two processes on two cores; before NumPy is loaded

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from measure import record
from scipy.stats import kstest

from dfad_bench.analysis.blocks import Blocks
from dfad_bench.analysis.frechet import gaussian_distance
from dfad_bench.analysis.frechet_bias import clustered_normal_bias, extrapolated, jackknife, jackknife_bias, normal_bias
from dfad_bench.analysis.frechet_interval import MovedResamples, basic_interval
from dfad_bench.analysis.kernels import whiten
from dfad_bench.analysis.moments import Gaussians, Moments, between
from dfad_bench.analysis.two_sample_tests import run_tests
from dfad_bench.analysis.two_samples import compare_samples, real_null
from dfad_bench.scoring.statistics.intervals import Influence, bca_interval, expanded
from dfad_bench.scoring.views import Undefined

SD = np.array([12.0, 8.0])
FRAMES = 10
ALIKE = 0.5
NONE, SCALED, SHIFTED, LARGE = (1.0, 0.0), (1.05, 0.0), (1.0, float(np.rad2deg(0.01))), (1.2, 3.0)
"""Differences: by what factor the fakes' spread differs, and by how many degrees both their means do."""

Difference = tuple[float, float]


def samples(scenario: str, faces: int, difference: Difference, rng: np.random.Generator) -> tuple[Any, ...]:
    """Return reals [faces, 2], fakes [faces, 2] and their clusters."""
    alone, together = np.arange(faces), np.arange(faces) // FRAMES

    def rows(cluster: Any, shared: Any) -> Any:
        own = rng.normal(size=(faces, 2))
        return (np.sqrt(ALIKE) * shared[cluster] + np.sqrt(1 - ALIKE) * own) * SD

    def effects() -> Any:
        return rng.normal(size=(faces, 2))

    first = effects()
    if scenario in ("independent", "heavy"):
        clusters = alone, alone + faces
        wide = (lambda: rng.standard_t(5, size=(faces, 2)) * np.sqrt(3 / 5)) if scenario == "heavy" else effects
        reals, fakes = wide() * SD, wide() * SD
    elif scenario == "clustered":
        clusters = together, together + faces
        reals, fakes = rows(together, first), rows(together, effects())
    elif scenario == "shared":
        clusters = together, together
        reals, fakes = rows(together, first), rows(together, first)
    else:
        clusters = together, alone + faces
        reals, fakes = rows(together, first), effects() * SD
    return reals, fakes * difference[0] + difference[1], *clusters


def truth(difference: Difference) -> float:
    """Return the distance between the populations, deg²."""
    covariance = np.diag(SD**2)
    return gaussian_distance(np.zeros(2), covariance, np.full(2, difference[1]), covariance * difference[0] ** 2)


def gathered(drawn: tuple[Any, ...]) -> Moments:
    """Return the moments of two samples."""
    return Moments.of(Blocks.of(*drawn), drawn[0], drawn[1])


def bias_row(scenario: str, faces: int, difference: Difference, simulations: int) -> dict[str, Any]:
    """Return by how much the distance is off on average, raw and after each correction, and how each one scatters."""
    rng, off = np.random.default_rng(1), {}
    found: dict[str, list[float]] = {}
    for simulation in range(simulations):
        moments = gathered(samples(scenario, faces, difference, rng))
        one, two = (moments.gaussians(weights) for weights in moments.blocks.whole)
        raw = float(between(one, two)[0])
        left_out, kind = jackknife(moments)
        estimates = {
            "raw": raw,
            "jackknife": raw - jackknife_bias(raw, left_out, kind),
            "normal": raw - normal_bias(one.covariance[0], faces, two.covariance[0], faces),
            "clustered_normal": raw - clustered_normal_bias(moments),
            "fid_infinity": extrapolated(moments, seed=simulation),
        }
        for name, value in estimates.items():
            found.setdefault(name, []).append(value - truth(difference))
    for name, values in found.items():
        off[f"{name}_bias"] = float(np.mean(values))
        off[f"{name}_rmse"] = float(np.sqrt(np.mean(np.square(values))))
    return {
        "what": "bias",
        "scenario": scenario,
        "faces": faces,
        "truth": truth(difference),
        "simulations": simulations,
    } | off


def uniform_row(scenario: str, faces: int, simulations: int) -> dict[str, Any]:
    """Return how p-values and intervals behave where nothing differs."""
    rng = np.random.default_rng(2)
    found = [
        compare_samples(*samples(scenario, faces, NONE, rng), resamples=199, seed=simulation)
        for simulation in range(simulations)
    ]
    row: dict[str, Any] = {"what": "no difference", "scenario": scenario, "faces": faces, "simulations": simulations}
    row["p_method"] = found[0].p_method
    for name in ("p", "kid_p", "energy_p"):
        values = np.asarray([getattr(each, name) for each in found])
        row |= {
            f"{name}_ks": float(kstest(values, "uniform").pvalue),
            f"{name}_up_to_0.05": float((values <= 0.05).mean()),
        }
    row["interval_covers_0"] = float(np.mean([each.low == 0 for each in found]))
    row["null_p95_mean"] = float(np.mean([each.null_p95 for each in found]))
    row["frechet_p95"] = float(np.quantile([each.frechet for each in found], 0.95))
    row["above_null_p95"] = float(np.mean([each.frechet > each.null_p95 for each in found]))
    row["corrected_mean"] = float(np.mean([each.corrected for each in found]))
    row["kid_mean_over_se"], row["energy_mean_over_se"] = (
        float(np.mean(values) / np.std(values) * np.sqrt(len(values)))
        for values in ([each.kid for each in found], [each.energy for each in found])
    )
    return row


def coverage_row(scenario: str, faces: int, difference: Difference, simulations: int) -> dict[str, Any]:
    """Return how often intervals of several kinds hold the true distance, and how wide they are."""
    rng, true = np.random.default_rng(3), truth(difference)
    hits: dict[str, int] = {}
    width: dict[str, float] = {}
    for simulation in range(simulations):
        moments = gathered(samples(scenario, faces, difference, rng))
        parts = [
            (moments.gaussians(one), moments.gaussians(two)) for one, two in moments.blocks.resampled(499, simulation)
        ]
        one, two = (Gaussians.joined([part[side] for part in parts]) for side in (0, 1))
        whole = [moments.gaussians(weights) for weights in moments.blocks.whole]
        raw = float(between(whole[0], whole[1])[0])
        left_out, kind = jackknife(moments)
        corrected = raw - jackknife_bias(raw, left_out, kind)
        replicates = between(one, two)
        influence = Influence.of(left_out, kind)
        assert influence is not None
        tail = expanded(influence, 0.95)
        moved = MovedResamples(one, two, whole[0], whole[1], raw)
        try:
            bca = bca_interval(raw, replicates, left_out, kind)
        except Undefined:
            bca = None
        intervals = {
            "inversion": moved.interval(moved.matched(), tail),
            "basic": basic_interval(corrected, replicates, tail),
            "bca": (bca.low, bca.high) if bca else (np.nan, np.nan),
            "percentile": tuple(np.quantile(replicates, (0.025, 0.975)).tolist()),
        }
        for name, (low, high) in intervals.items():
            hits[name] = hits.get(name, 0) + (low <= true <= high)
            width[name] = width.get(name, 0.0) + high - low
    row: dict[str, Any] = {
        "what": "coverage",
        "scenario": scenario,
        "faces": faces,
        "truth": true,
        "simulations": simulations,
    }
    row["clusters"] = faces if scenario in ("independent", "heavy") else faces // FRAMES
    row |= {name: count / simulations for name, count in hits.items()}
    return row | {f"{name}_width": each / simulations for name, each in width.items()}


def power_row(name: str, faces: int, difference: Difference, simulations: int) -> dict[str, Any]:
    """Return how often each test rejects at 5 %, independent faces."""
    rng, found = np.random.default_rng(4), []
    for simulation in range(simulations):
        moments = gathered(samples("independent", faces, difference, rng))
        tests = run_tests(moments, whiten(moments.values), 199, simulation)
        found.append((tests.frechet, tests.kid, tests.energy))
    power = (np.asarray(found) <= 0.05).mean(axis=0).tolist()
    row = {"what": "power", "difference": name, "faces": faces, "truth": truth(difference), "simulations": simulations}
    return row | dict(zip(("frechet", "kid", "energy"), power, strict=True))


def null_row(scenario: str, faces: int, simulations: int) -> dict[str, Any]:
    """Return the 95th percentile of distances without a difference, and that of halves of as many, or half as many, reals."""
    rng = np.random.default_rng(5)
    raw, enough, scaled = [], [], []
    for simulation in range(simulations):
        reals, fakes, cluster, other = samples(scenario, faces, NONE, rng)
        moments = gathered((reals, fakes, cluster, other))
        one, two = (moments.gaussians(weights) for weights in moments.blocks.whole)
        raw.append(float(between(one, two)[0]))
        null = real_null(reals, cluster, faces, resamples=199, seed=simulation)
        scaled.append(float(np.quantile(null.values, 0.95)) * null.faces / faces)
        more = np.concatenate([reals, samples(scenario, faces, NONE, rng)[0]])
        null = real_null(more, np.r_[cluster, cluster + 10 * faces], faces, resamples=199, seed=simulation)
        enough.append(float(np.quantile(null.values, 0.95)))
    return {
        "what": "null",
        "scenario": scenario,
        "faces": faces,
        "simulations": simulations,
        "true_p95": float(np.quantile(raw, 0.95)),
        "null_p95_of_twice_as_many": float(np.mean(enough)),
        "null_p95_scaled": float(np.mean(scaled)),
    }


Task = tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]


def tasks() -> Sequence[Task]:
    """Return what is measured, the longest first."""
    return [
        *(
            (power_row, (name, n, d, 200))
            for n in (5000, 2000, 1000)
            for name, d in (("scale 5 %", SCALED), ("shift 0.01 rad", SHIFTED))
        ),
        *((uniform_row, (scenario, 500, 500)) for scenario in ("independent", "clustered", "shared", "unlike")),
        *((coverage_row, ("independent", n, d, 300)) for n in (1000, 100) for d in (NONE, SCALED, LARGE)),
        *((coverage_row, (s, n, d, 300)) for s in ("clustered", "shared") for n in (1000, 200) for d in (NONE, LARGE)),
        *((coverage_row, ("heavy", 1000, d, 300)) for d in (NONE, LARGE)),
        (bias_row, ("independent", 10_000, NONE, 100)),
        *((bias_row, ("independent", n, NONE, 500)) for n in (100, 1000)),
        *((bias_row, (s, n, NONE, 300)) for s in ("clustered", "shared", "unlike", "heavy") for n in (200, 1000)),
        *((bias_row, (s, 1000, LARGE, 300)) for s in ("independent", "clustered")),
        *((null_row, (s, 1000, 100)) for s in ("independent", "clustered")),
    ]


def run(task: Task) -> dict[str, Any]:
    """Measure one row."""
    function, arguments = task
    return function(*arguments)


def main() -> None:
    """Measure and record."""
    with ProcessPoolExecutor(2) as pool:
        record("gaze_fid_calibration", list(pool.map(run, tasks())))


if __name__ == "__main__":
    main()
