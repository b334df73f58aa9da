"""What several seeds say together: the mean of a score, how far it is to be trusted, and whether the order of models holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dfad_bench.errors import DataError
from dfad_bench.records.results import MEAN, Result, Score
from dfad_bench.records.seeds import RankStability, SeededModel, SeededScore, SeedsRecord

HEADLINES = (("attribution", "accuracy"), ("detection", "auc"), ("detection", "accuracy@val"))
"""The tasks and metrics that are followed over seeds."""
_NORMAL = float(stats.norm.ppf(0.975))

Key = tuple[str, str, str, str, str]
"""Task, metric, level, subset and group of a score."""


def over_seeds(results: Sequence[Result]) -> SeedsRecord:
    """Return what results of one protocol, of one model or many, say over seeds.

    Raises DataError where they are not of the same faces, where a model has a seed twice, and where its seeds were run with
    different settings: their spread would not be that of the seed.
    """
    if not results:
        raise DataError("There is no result to look at over seeds.")
    protocol = results[0].protocol
    for each in results:
        if each.protocol != protocol:
            raise DataError(
                f"{_told(each)} is not of the same faces as {_told(results[0])}. Run them on one protocol, prepared once."
            )
    by_model: dict[str, list[Result]] = {}
    for each in sorted(results, key=lambda each: (each.model.name, each.seed)):
        by_model.setdefault(each.model.name, []).append(each)
    scores: list[SeededScore] = []
    for name, runs in by_model.items():
        _require_alike(runs)
        scores += _model_scores(name, runs)
    models = [
        SeededModel(
            name=name,
            seeds=[each.seed for each in runs],
            predictions_sha256=[each.predictions.sha256 for each in runs],
            ineligible=list(dict.fromkeys(itertools.chain.from_iterable(each.ineligible for each in runs))),
        )
        for name, runs in by_model.items()
    ]
    return SeedsRecord(protocol=protocol, models=models, scores=scores, stability=list(_stability(models, scores)))


def _require_alike(runs: Sequence[Result]) -> None:
    for one, other in itertools.pairwise(runs):
        if one.seed == other.seed:
            raise DataError(f"{_told(one)} is given twice. Give each seed once.")
        if one.config != other.config:
            changed = sorted(key for key in one.config | other.config if one.config.get(key) != other.config.get(key))
            raise DataError(
                f"{_told(one)} and {_told(other)} differ in {', '.join(changed)}. Run all seeds of a model alike."
            )


def _told(result: Result) -> str:
    return f"{result.model.name} on {result.protocol.name}, seed {result.seed}"


def _model_scores(name: str, runs: Sequence[Result]) -> Iterable[SeededScore]:
    found = [dict(_followed(each)) for each in runs]
    for key in dict.fromkeys(itertools.chain.from_iterable(found)):
        scores = [each.get(key) for each in found]
        task, metric, level, subset, group = key
        yield SeededScore.model_validate(
            {"model": name, "task": task, "metric": metric, "level": level, "subset": subset, "group": group}
            | _over_seeds(scores)
        )


def _followed(result: Result) -> Iterable[tuple[Key, Score]]:
    for score in result.scores:
        if score.unit == "frame" and (score.task, score.metric) in HEADLINES:
            yield (score.task, score.metric, score.level, score.subset, score.group), score


def _over_seeds(scores: Sequence[Score | None]) -> dict[str, object]:
    """Return mean, deviation and interval of one score over seeds.

    The interval adds in squares half the width of the faces' interval (the seeds share the faces, so that it does not
    shrink with their number) and Student's for the mean of the seeds. Ours; it takes both to be independent.
    """
    values = [None if score is None else score.value for score in scores]
    known = np.array([value for value in values if value is not None])
    if len(known) < len(values):
        reason = next((score.reason for score in scores if score is not None and score.reason), "not scored")
        return {"values": values, "reason": reason}
    told = {"values": values, "mean": float(known.mean())}
    if len(known) > 1:
        told["deviation"] = float(known.std(ddof=1))
    bounds = [(score.low, score.high) for score in scores if score is not None]
    halves = [(high - low) / 2 for low, high in bounds if low is not None and high is not None]
    if len(halves) < len(values):
        why = next(
            (score.no_interval for score in scores if score is not None and score.no_interval), "none was asked for"
        )
        return told | {"reason": f"no interval: {why}"}
    if len(known) == 1:
        low, high = bounds[0]
        return told | {"low": low, "high": high}
    of_seeds = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / len(known) ** 0.5
    half = float(np.hypot(np.sqrt(np.mean(np.square(halves))), of_seeds))
    mean = float(known.mean())
    return told | {"low": max(mean - half, 0.0), "high": min(mean + half, 1.0)}


def _stability(models: Sequence[SeededModel], scores: Sequence[SeededScore]) -> Iterable[RankStability]:
    most = max(len(model.seeds) for model in models)
    seeds = next(model.seeds for model in models if len(model.seeds) == most)
    compared = {model.name for model in models if model.seeds == seeds}
    means: dict[tuple[str, str, str, str], dict[str, list[float | None]]] = {}
    for score in scores:
        if score.group == MEAN and score.model in compared:
            key = (score.task, score.metric, score.level, score.subset)
            means.setdefault(key, {})[score.model] = score.values
    for (task, metric, level, subset), by_model in means.items():
        whole = {name: values for name, values in by_model.items() if None not in values}
        if len(seeds) < 2 or len(whole) < 2:
            continue
        told = {"task": task, "metric": metric, "level": level, "subset": subset, "seeds": seeds}
        yield RankStability.model_validate(told | _ranked(whole))


def _ranked(values: Mapping[str, Sequence[float | None]]) -> dict[str, object]:
    table = -np.array(list(values.values()), dtype=float)  # [models, seeds]; the best has the lowest
    ranks = stats.rankdata(table, method="min", axis=0).astype(int)
    return {
        "ranks": {name: row.tolist() for name, row in zip(values, ranks, strict=True)},
        "concordance": concordance(table),
    }


def concordance(values: NDArray[np.float64]) -> float | None:
    """Return Kendall's coefficient of concordance W in 0..1 for n objects judged by m judges, values [n, m].

    With the correction for ties (Kendall, Rank Correlation Methods, 1970, chapter 6); None where every judge ties all.
    """
    objects, judges = values.shape
    ranks = stats.rankdata(values, axis=0)
    spread = float(((ranks.sum(axis=1) - judges * (objects + 1) / 2) ** 2).sum())
    sizes = [np.unique(column, return_counts=True)[1] for column in values.T]
    ties = sum(float((size**3 - size).sum()) for size in sizes)
    most = judges**2 * (objects**3 - objects) - judges * ties
    return None if most <= 0 else min(12 * spread / most, 1.0)
