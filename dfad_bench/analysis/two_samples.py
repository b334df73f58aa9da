"""Whether two samples of rows differ in distribution, by how much, and how sure that is, when rows come in clusters.

Rows are what one looks at: gaze as pitch and yaw in degrees, as a unit vector, or an estimator's features. What is shown for
each choice (null, bias, interval, tests) is in ``benchmarks/gaze_fid_calibration.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from dfad_bench.analysis.blocks import Blocks, Floats, Ints
from dfad_bench.analysis.frechet import GaussianStatistics, finite_rows, frechet_distance
from dfad_bench.analysis.frechet_bias import jackknife, jackknife_bias
from dfad_bench.analysis.frechet_interval import MovedResamples, basic_interval
from dfad_bench.analysis.kernels import energy, kid, whiten
from dfad_bench.analysis.moments import SMALL, Gaussians, Moments, between
from dfad_bench.analysis.two_sample_tests import Method, run_tests
from dfad_bench.errors import DataError
from dfad_bench.scoring.statistics.intervals import Influence, expanded

FACES = 10_000
"""The paper compares so many faces of each side; fewer are flagged."""
CLUSTERS = 20
CONFIDENCE = 0.95
_AS_MANY = 0.02
"""Numbers of faces that differ by less than this share are the same."""


@dataclass(frozen=True, slots=True)
class RealNull:
    """How far apart two random halves of one sample lie that are cut between clusters.

    values [R]: Fréchet distances, unit squared, ascending. faces: rows in a half, on average. clusters: in a half.
    """

    values: Floats
    faces: float
    clusters: int


@dataclass(frozen=True, slots=True)
class TwoSample:
    """How a candidate's distribution differs from a reference's. Distances in the rows' unit squared, but for KID and energy.

    frechet: the distance between the samples' Gaussians; of it mean_part is ‖μ₁ − μ₂‖². corrected: less ``bias``, what a
    sample of this size adds; about 0, also below, where nothing differs. low, high: 95 % interval of the distance
    between the populations, >= 0. raw_low, raw_high: the same plus the bias, so of the distance to be expected at
    this many rows.

    p: of the hypothesis that both sides have one distribution, from ``p_method``: relabelled clusters, or resamples of sides
    moved onto each other (one mean and covariance; the mean kernel feature for kid_p and energy_p) where clusters of the
    two sides are too unlike to be exchanged; at least 1 / (resamples + 1).

    null_*: the distance of random halves of the reals, ``null_faces`` in a half, brought to this many rows by
    multiplying with ``null_scale`` (1 where both are the same); p95 is the 95th percentile.

    kid: KID of both sides whitened together, no unit. energy: energy distance, in the rows' unit. Both unbiased.
    flags: short phrases on what limits the result.
    """

    dimensions: int
    reference_faces: int
    candidate_faces: int
    reference_clusters: int
    candidate_clusters: int
    shared_clusters: int
    frechet: float
    mean_part: float
    bias: float
    corrected: float
    low: float
    high: float
    raw_low: float
    raw_high: float
    p: float
    p_method: Method
    null_mean: float
    null_median: float
    null_p95: float
    null_faces: float
    null_scale: float
    kid: float
    kid_p: float
    energy: float
    energy_p: float
    resamples: int
    seed: int
    flags: tuple[str, ...]


def compare_samples(
    reference: ArrayLike,
    candidate: ArrayLike,
    reference_cluster: Ints,
    candidate_cluster: Ints,
    *,
    resamples: int = 1000,
    seed: int = 0,
    null: RealNull | None = None,
) -> TwoSample:
    """Compare rows [N, D] of reals with rows [M, D] of fakes.

    reference_cluster [N], candidate_cluster [M]: any integers; rows with the same one, on either side, depend on each
    other. A row that stands by itself has one of its own. null: from ``real_null``, to be shared by many comparisons
    with the same reals; otherwise it is made of ``reference``, whose halves are smaller, and scaled.

    The same rows give the same numbers in any order (but where two clusters have the same smallest row).
    Up to D = 8 a thousand resamples cost little; above, each is O(N D² + D³), the interval is the basic one, and fewer
    resamples will do. Raises DataError where N or M <= D or < 2, D differs, a number is NaN or infinite, a column is
    constant, or a side has fewer than two clusters; ValueError where rows and clusters are not equally many.
    """
    first, second = finite_rows(reference, "reference"), finite_rows(candidate, "candidate")
    if first.shape[1] != second.shape[1]:
        raise DataError(f"The reference has rows of {first.shape[1]} numbers, the candidate of {second.shape[1]}.")
    blocks = Blocks.of(first, second, reference_cluster, candidate_cluster)
    clusters = blocks.clusters
    # Sums are made in the blocks' order, so that not even rounding depends on the caller's.
    one, two = (GaussianStatistics.of(rows) for rows in blocks.ordered(first, second))
    distance = frechet_distance(one, two)
    for what, held in (("reference", clusters[0]), ("candidate", clusters[1])):
        if held < 2:
            raise DataError(f"The {what} comes from one cluster (a person or a video); there must be two or more.")
    moments = Moments.of(blocks, first, second)
    white = whiten(moments.values)
    # The products are too small for BLAS to share out (its threads would wait for each other), and how it shares rounds.
    with threadpool_limits(1), ThreadPoolExecutor(1) as pool:
        energy_distance = pool.submit(energy, blocks, moments.values)  # SciPy lets go of the interpreter
        left_out, kind = jackknife(moments)
        bias = jackknife_bias(distance, left_out, kind)
        low, high = _interval(moments, distance, bias, left_out, kind, resamples, seed)
        tests = run_tests(moments, white, resamples, seed)
        if null is None:
            fewer = min(len(first), len(second))
            null = real_null(first, reference_cluster, fewer, resamples=resamples, seed=seed)
    scale = (1 / len(first) + 1 / len(second)) / (2 / null.faces)
    return TwoSample(
        dimensions=first.shape[1],
        reference_faces=len(first),
        candidate_faces=len(second),
        reference_clusters=clusters[0],
        candidate_clusters=clusters[1],
        shared_clusters=clusters[2],
        frechet=distance,
        mean_part=float(((one.mean - two.mean) ** 2).sum()),
        bias=bias,
        corrected=distance - bias,
        low=low,
        high=high,
        raw_low=max(0.0, low + bias),
        raw_high=max(0.0, high + bias),
        p=tests.frechet,
        p_method=tests.method,
        null_mean=float(null.values.mean()) * scale,
        null_median=float(np.median(null.values)) * scale,
        null_p95=float(np.quantile(null.values, 0.95)) * scale,
        null_faces=null.faces,
        null_scale=scale,
        kid=kid(blocks, white),
        kid_p=tests.kid,
        energy=energy_distance.result(),
        energy_p=tests.energy,
        resamples=resamples,
        seed=seed,
        flags=tuple(_flags(len(first), len(second), clusters, scale, tests.method)),
    )


def real_null(reals: ArrayLike, cluster: Ints, faces: int, *, resamples: int = 1000, seed: int = 0) -> RealNull:
    """Return the distances of random pairs of halves of reals [N, D], whole clusters [N] being dealt out.

    Each half has ``faces`` rows on average where 2 * faces <= N, else as many as there are. To leading order a distance without
    a difference is proportional to 1/N, so smaller halves can be scaled (``TwoSample.null_scale``). Raises DataError as
    ``compare_samples``, and where a half would have no more than D rows.
    """
    rows = finite_rows(reals, "reals")
    blocks = Blocks.of(rows, rows[:0], cluster, cluster[:0])
    count = len(blocks.kind)
    half = min(count // 2, max(1, round(count * faces / max(1, len(rows)))))
    if half < 2 or half * len(rows) / count <= rows.shape[1] + 1:
        raise DataError(
            f"{len(rows)} reals from {count} clusters are too few to be split in two; add reals or look at fewer numbers."
        )
    moments = Moments.of(blocks, rows, rows[:0])
    found, held = [], []
    for weights in blocks.split(half, resamples, seed):
        sides = [moments.gaussians(side) for side in weights]
        enough = np.minimum(sides[0].weight, sides[1].weight) > rows.shape[1]
        found.append(between(sides[0].only(enough), sides[1].only(enough)))
        held += [side.weight[enough] for side in sides]
    return RealNull(np.sort(np.concatenate(found)), float(np.concatenate(held).mean()), half)


def _interval(
    moments: Moments, distance: float, bias: float, left_out: Floats, kind: Ints, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the ends of the interval of the distance between the populations."""
    influence = Influence.of(left_out, kind)
    tail = expanded(influence, CONFIDENCE) if influence is not None else (1 - CONFIDENCE) / 2
    draws = moments.blocks.resampled(resamples, seed)
    if moments.values.shape[1] > SMALL:
        return basic_interval(distance - bias, moments.distances(draws), tail)
    parts = [(moments.gaussians(reference), moments.gaussians(candidate)) for reference, candidate in draws]
    one, two = (Gaussians.joined([part[side] for part in parts]) for side in (0, 1))
    whole = [moments.gaussians(weights) for weights in moments.blocks.whole]
    moved = MovedResamples(one, two, whole[0], whole[1], distance)
    return moved.interval(moved.matched(), tail)


def _flags(
    reference_faces: int, candidate_faces: int, clusters: tuple[int, int, int], scale: float, method: Method
) -> Iterator[str]:
    if min(reference_faces, candidate_faces) < FACES:
        yield f"fewer than {FACES:,} faces"
    if reference_faces != candidate_faces:
        yield "different numbers of faces"
    if min(clusters[:2]) < CLUSTERS:
        yield f"fewer than {CLUSTERS} clusters"
    if method != "permutation":
        yield "cluster sizes differ"
    if abs(scale - 1) > _AS_MANY:
        yield "null scaled from another number of faces"
