"""All pairs of models on one protocol: each is resampled once, and whom nobody can tell apart shares a group."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfad_bench.errors import DataError
from dfad_bench.records.pairs import ComparedMean, PairedModel, PairedTest, PairsRecord
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import MEAN, POOLED, Result
from dfad_bench.scoring.compare import resampled_difference, value_difference
from dfad_bench.scoring.pairing import check_comparable
from dfad_bench.scoring.questions import Answer, Asked, OnProgress, answer
from dfad_bench.scoring.score import Asking, Options
from dfad_bench.scoring.seeds import HEADLINES
from dfad_bench.scoring.statistics.paired_tests import max_t
from dfad_bench.scoring.views import Metric

SIGNIFICANT = 0.05
"""What p must be below, adjusted for all pairs, for one model to be called worse than another."""

Means = Mapping[tuple[str, str, str, str], Answer]
"""A model's answers by task, metric, level and subset."""


def all_pairs(
    runs: Sequence[tuple[Result, Callable[[], Predictions]]],
    options: Options,
    on_progress: OnProgress | None = None,
) -> PairsRecord:
    """Return every pair of models by every headline mean over groups, frame by frame.

    runs: the result of each model, and what reads its predictions, which are held one at a time. Every model is scored in
    the same resamples of clusters, so that a pair costs a subtraction. Raises UsageError where two were not asked the same,
    DataError where they were not shown the same faces, are fewer than two, or one of them is given twice.
    """
    names = [result.model.name for result, _ in runs]
    if len(names) < 2 or len({*names}) < len(names):
        raise DataError(f"Pairs need two models or more, each once; these are {', '.join(names) or 'none'}.")
    first: Predictions | None = None
    found: dict[str, Means] = {}
    asking: Asking | None = None
    for place, (result, read) in enumerate(runs):
        predictions = replace(read(), embedding=None).in_order()
        if first is not None:
            _require_same_faces(first, predictions, runs[0][0], result)
        first = first or replace(predictions, logits=None)
        asking = Asking.of(predictions, options)
        found[result.model.name] = _means(asking)
        if on_progress is not None:
            on_progress(place + 1, len(runs))
    assert asking is not None
    strata = None if asking.resampler is None else asking.resampler.deletions()[1]
    keys = dict.fromkeys(itertools.chain.from_iterable(found.values()))
    return PairsRecord(
        protocol=runs[0][0].protocol,
        models=[
            PairedModel(name=result.model.name, predictions_sha256=result.predictions.sha256) for result, _ in runs
        ],
        cluster_by=options.cluster_by,
        clusters=asking.clusters,
        resamples=options.resamples,
        seed=options.seed,
        means=[_compared(key, found, strata) for key in keys],
    )


def _require_same_faces(first: Predictions, other: Predictions, one: Result, result: Result) -> None:
    check_comparable(first.context, other.context)
    same = (
        first.id.equals(other.id)
        and first.subset.values == other.subset.values
        and np.array_equal(first.subset.code, other.subset.code)
    )
    if not same:
        raise DataError(
            f"{one.model.name} and {result.model.name} were not evaluated on the same faces of {one.protocol.name}. "
            "Compare complete runs, or two of them with 'dfad-bench compare'."
        )


def _means(asking: Asking) -> Means:
    """Return a model's answers to the questions that are means over groups."""
    followed = [replace(each, metrics=kept) for each in asking.asked if (kept := _headlines(each))]
    answers = answer(followed, asking.resampler)
    return {
        (found.score.task, found.score.metric, found.score.level, found.score.subset): found
        for found in answers
        if found.score.group == MEAN
    }


def _headlines(asked: Asked) -> dict[str, Metric]:
    if asked.unit != "frame" or asked.group == POOLED:
        return {}
    return {name: metric for name, metric in asked.metrics.items() if (asked.task, name) in HEADLINES}


def _compared(
    key: tuple[str, str, str, str], found: Mapping[str, Means], strata: NDArray[np.intp] | None
) -> ComparedMean:
    answers = {name: means[key] for name, means in found.items() if key in means}
    known = {name: each.score.value for name, each in answers.items() if each.score.value is not None}
    best_first = sorted(known, key=lambda name: (-known[name], name))
    tests = [_tested(a, b, answers[a], answers[b], strata) for a, b in itertools.combinations(best_first, 2)]
    adjusted = _adjusted(best_first, answers)
    tests = [
        test if test.p is None else test.model_copy(update={"p_adjusted": adjusted.get((test.a, test.b))})
        for test in tests
    ]
    task, metric, level, subset = key
    told = {"task": task, "metric": metric, "level": level, "subset": subset}
    return ComparedMean.model_validate({**told, "tests": tests, "groups": significance_groups(best_first, tests)})


def _tested(a: str, b: str, one: Answer, other: Answer, strata: NDArray[np.intp] | None) -> PairedTest:
    assert one.score.value is not None and other.score.value is not None
    difference = value_difference(one.score.value, other.score.value)
    told = resampled_difference(difference, one, other, one.score.clusters, strata)
    return PairedTest(
        a=a,
        b=b,
        difference=difference,
        low=told.get("low"),
        high=told.get("high"),
        p=told["bootstrap"].p,
        reason=told["bootstrap"].reason,
    )


def _adjusted(names: Sequence[str], answers: Mapping[str, Answer]) -> dict[tuple[str, str], float]:
    """Return p adjusted for all pairs, by pair, where it is defined."""
    draws = [answers[name].draws for name in names]
    if not names or any(each is None for each in draws):
        return {}
    values = np.array([answers[name].score.value for name in names], dtype=float)
    p = max_t(values, np.stack([each for each in draws if each is not None]))
    pairs = itertools.combinations(range(len(names)), 2)
    return {(names[i], names[j]): float(p[i, j]) for i, j in pairs if np.isfinite(p[i, j])}


def significance_groups(best_first: Sequence[str], tests: Sequence[PairedTest]) -> dict[str, int]:
    """Return per model the number of its group, 1 the best; see ``records.pairs.ComparedMean``.

    best_first: the models by their value; tests: every pair of them, the better one as ``a``.
    """
    worse = {(test.a, test.b) for test in tests if test.p_adjusted is not None and test.p_adjusted < SIGNIFICANT}
    groups: dict[str, int] = {}
    leader, number = None, 0
    for name in best_first:
        if leader is None or (leader, name) in worse:
            leader, number = name, number + 1
        groups[name] = number
    return groups
