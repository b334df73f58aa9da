"""What the leaderboard's page holds of each protocol: columns, numbers as the browser rounds them, marks and tests."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from dfad_bench.publish import site_facts
from dfad_bench.publish.ranking import Key, key_of, leaderboard_table, ranked_by
from dfad_bench.publish.tables import LEVELS, NONE, Lookup, Notes, Table, cell, clusters_cell, level_name
from dfad_bench.records.pairs import ComparedMean, PairedTest, PairsRecord
from dfad_bench.records.results import MEAN, Result, Score, Task
from dfad_bench.records.robustness import RobustnessRecord, SeverityCurve
from dfad_bench.records.seeds import SeededScore, SeedsRecord
from dfad_bench.scoring.pairs import SIGNIFICANT
from dfad_bench.taxonomy import Taxonomy
from dfad_bench.types import REAL

_MOST_TESTS = 50_000
"""Paired tests that one page carries, some 25 bytes each: 200 models have 20,000 pairs by every single mean."""
_UNLISTED = "not in the taxonomy"


@dataclass(slots=True)
class _Strings:
    """Keeps each text once: rows of one leaderboard say the same about code and environment."""

    found: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.found)
            self.found.append(text)
        return self._places[text]


@dataclass(frozen=True, slots=True)
class _Column:
    """One number of every model, face by face: a mean over the groups of a subset, or that of a single group."""

    task: Task
    metric: str
    level: str
    subset: str
    group: str

    @property
    def id(self) -> str:
        return f"{self.subset}.{self.metric}.{self.level}.{self.group}"

    @property
    def name(self) -> str:
        measure = {"accuracy": f"ACC {level_name(self.level)}", "auc": "AUC", "accuracy@val": "ACC@val"}[self.metric]
        return f"{self.subset} {measure} %" if self.group == MEAN else f"{self.subset}, {self.group}: {measure} %"

    @property
    def has_interval(self) -> bool:
        return self.metric != "accuracy@val"

    def of(self, lookup: Lookup) -> Score | None:
        return lookup.score(self.task, self.metric, self.level, self.subset, self.group)

    def is_of(self, other: ComparedMean | SeededScore | SeverityCurve) -> bool:
        """Return whether a record's number has this column's task, metric, level and subset."""
        place = (other.task, other.metric, other.level, other.subset)
        return place == (self.task, self.metric, self.level, self.subset)


def _columns(lookups: Sequence[Lookup]) -> list[_Column]:
    """Return the columns that any result has: the means as on the leaderboard, then those of single groups."""
    subsets = list(dict.fromkeys(subset for lookup in lookups for subset in lookup.subsets))
    levels = [level for level in LEVELS if any(level in lookup.levels for lookup in lookups)]
    tasks: tuple[Task, Task] = ("attribution", "detection")
    means, singles = [], []
    for subset in subsets:
        found = (lookup.groups(task, subset) for task in tasks for lookup in lookups)
        for group in [MEAN, *dict.fromkeys(itertools.chain.from_iterable(found))]:
            columns = [_Column("attribution", "accuracy", level, subset, group) for level in levels]
            columns += [
                _Column("detection", metric, "authenticity", subset, group) for metric in ("auc", "accuracy@val")
            ]
            if group == MEAN:
                means += columns
            else:
                singles += [each for each in columns if any(each.of(lookup) is not None for lookup in lookups)]
    return means + singles


# --- numbers -------------------------------------------------------------------------------------------------------


def _tenths(value: float) -> int:
    """Return a fraction in tenths of a percent, rounded as every other table rounds it."""
    return round(10 * float(f"{100 * value:.1f}"))


def _millionths(value: float) -> int:
    """Return a fraction in millionths, so that rounding half up gives the same tenth of a percent as everywhere else.

    Python rounds the exact binary number and a browser would not: the value is kept within the tenth that is shown.
    """
    shown = 1000 * _tenths(value)
    return min(max(round(1e6 * value), shown - 500), shown + 499)


def _bounded(value: float, low: float | None, high: float | None, notes: Sequence[int]) -> int | list[int | None]:
    """Return a number for the page: alone, or with its interval (tenths of a percent) and the places of its notes."""
    if low is None or high is None:
        return [_millionths(value), None, None, *notes] if notes else _millionths(value)
    return [_millionths(value), _tenths(low), _tenths(high), *notes]


def _cell(score: Score | None, column: _Column, strings: _Strings) -> int | list[int | None] | None:
    if score is None:
        return None
    notes = Notes()
    cell(score, notes, "", column.has_interval)
    clusters_cell(score, notes)
    places = [strings.place(reason) for reason in notes.reasons]
    if score.value is None:
        return [None, None, None, *places]
    if not column.has_interval:
        return _bounded(score.value, None, None, places)
    return _bounded(score.value, score.low, score.high, places)


# --- tables --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Builder:
    """Makes the tables of a page from all its records, in the form that the page's script reads."""

    results: Sequence[Result]
    seeds: Sequence[SeedsRecord]
    pairs: Sequence[PairsRecord]
    robustness: Sequence[RobustnessRecord]
    links: Mapping[tuple[str, str], str]
    taxonomy: Taxonomy
    strings: _Strings = field(default_factory=_Strings)
    tests_left: int = _MOST_TESTS
    keys: dict[tuple[str, str], set[Key]] = field(default_factory=lambda: defaultdict(set))
    """Of a protocol's name and a model: on which versions and faces it has results."""

    def __post_init__(self) -> None:
        for each in self.results:
            self.keys[each.protocol.name, each.model.name].add(key_of(each.protocol))

    def table(self, group: Sequence[Result]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the table of results on the same faces: for the script, and for a page without script."""
        protocol = group[0].protocol
        by_name = {each.model.name: each for each in group}
        # In the table itself a reported result's name is followed by the number of a note.
        order = leaderboard_table(protocol, [each.model_copy(update={"origin": "measured"}) for each in group])
        ordered = [by_name[row[1]] for row in order.rows]
        lookups = {name: Lookup(each.scores) for name, each in by_name.items()}
        columns = _columns(list(lookups.values()))
        means = [column for column in columns if column.group == MEAN]
        ranking = _ranking(means)
        record = self._pairs_of(ordered)
        grouping = None if record is None else _grouping(record, ranking)
        standings = [_standing(row[0], by_name[row[1]], record, grouping) for row in order.rows]
        marks = [
            site_facts.marks(each, [column.of(lookups[each.model.name]) for column in means], self._superseded(each))
            for each in ordered
        ]
        robust = [self._robustness_of(each) for each in ordered]
        perturbations = sorted({curve.perturbation for each in robust if each is not None for curve in each.curves})
        rows = [
            {
                "model": result.model.name,
                "standing": standing,
                "marks": [[kind, self.strings.place(text)] for kind, text in marked],
                "cells": [_cell(column.of(lookups[result.model.name]), column, self.strings) for column in columns],
                "parameters": result.model.parameters,
                "inputs": site_facts.listed(result.model.inputs),
                "facts": [self.strings.place(fact) for fact in site_facts.facts(result)],
                "link": self._link(result),
                "seeds": self._seeded(result, means),
                "robust": _perturbed(robustness, perturbations, means, self.strings),
            }
            for result, standing, marked, robustness in zip(ordered, standings, marks, robust, strict=True)
        ]
        editions = {key_of(each.protocol) for each in self.results}
        several = sum(key[:2] == (protocol.name, protocol.version) for key in editions) > 1
        title = f"{protocol.name} v{protocol.version}" + (f", faces {protocol.fingerprint}" if several else "")
        shown = {
            "id": f"{protocol.name}.v{protocol.version}.{protocol.fingerprint.rpartition(':')[2][:12]}",
            "title": title,
            "faces": protocol.fingerprint,
            "warning": protocol.warning,
            "ranked": [column.name.removesuffix(" %") for column in ranking],
            "grouped": None if grouping is None else _named(grouping),
            "columns": [self._column(column) for column in columns],
            "perturbations": perturbations,
            "pairs": None if record is None else self._tests(record, ordered, means, ranking),
            "rows": [{name: value for name, value in row.items() if value not in (None, [])} for row in rows],
        }
        return shown, _plain(title, protocol.warning, leaderboard_table(protocol, group), standings, marks)

    def _column(self, column: _Column) -> dict[str, Any]:
        absent = "the model gives no class logits" if column.task == "attribution" else "not scored"
        shown = {"id": column.id, "name": column.name, "level": column.level, "absent": absent}
        if column.group == MEAN:
            return shown
        found = self.taxonomy.find(column.group)
        family, forgery_type = (_UNLISTED, _UNLISTED) if found is None else (found.family, found.forgery_type)
        if column.group == REAL:
            family = forgery_type = REAL
        return shown | {"group": column.group, "family": family, "type": forgery_type}

    def _link(self, result: Result) -> str | None:
        """Return the quoted path of a result's file; an older result of the model has none of its own."""
        link = self.links.get((result.protocol.name, result.model.name))
        return None if link is None or self._newer(result) else quote(link, safe="/+=,")

    def _newer(self, result: Result) -> int | None:
        """Return the newest version of the protocol that the model has a result on, None where it is this one."""
        newest = max(version for _, version, _ in self.keys[result.protocol.name, result.model.name])
        return newest if newest > result.protocol.version else None

    def _superseded(self, result: Result) -> str | None:
        newer = self._newer(result)
        if newer:
            return f"the model has a result on v{newer} of this protocol"
        if sum(key[1] == result.protocol.version for key in self.keys[result.protocol.name, result.model.name]) > 1:
            return "perhaps: the model has a result on other faces of this version, too, and nothing tells the newer"
        return None

    def _seeded(self, result: Result, means: Sequence[_Column]) -> list[Any] | None:
        """Return the number of seeds, then per mean column [mean, deviation] in tenths of a percent; None without a record."""
        for record in self.seeds:
            model = next((each for each in record.models if each.name == result.model.name), None)
            is_same = key_of(record.protocol) == key_of(result.protocol) and model is not None
            if is_same and model is not None and result.predictions.sha256 in model.predictions_sha256:
                scores = [each for each in record.scores if each.model == model.name and each.group == MEAN]
                found = [next((each for each in scores if column.is_of(each)), None) for column in means]
                return [len(model.seeds), *map(_deviating, found)]
        return None

    def _robustness_of(self, result: Result) -> RobustnessRecord | None:
        wanted = (key_of(result.protocol), result.model.name, result.predictions.sha256)
        for each in self.robustness:
            if (key_of(each.protocol), each.model, each.clean_predictions_sha256) == wanted:
                return each
        return None

    def _pairs_of(self, results: Sequence[Result]) -> PairsRecord | None:
        """Return the record of pairs that tests most of these results by these very predictions, at least two of them."""
        found = [record for record in self.pairs if key_of(record.protocol) == key_of(results[0].protocol)]
        counts = [sum(_is_tested(each, record) for each in results) for record in found]
        return found[counts.index(max(counts))] if counts and max(counts) > 1 else None

    def _tests(
        self, record: PairsRecord, results: Sequence[Result], means: Sequence[_Column], ranking: Sequence[_Column]
    ) -> dict[str, Any]:
        """Return the paired tests by mean column, those that rank first, as long as the page has room for them."""
        models = [each.model.name for each in results if _is_tested(each, record)]
        found: dict[str, list[Any]] = {}
        left_out = []
        for column in dict.fromkeys([*ranking, *means]):
            compared = next((each for each in record.means if column.is_of(each)), None)
            if compared is None:
                continue
            if len(compared.tests) > self.tests_left:
                left_out.append(column.name.removesuffix(" %"))
                continue
            self.tests_left -= len(compared.tests)
            by_pair = {frozenset((each.a, each.b)): each for each in compared.tests}
            found[column.id] = [
                self._test(by_pair.get(frozenset(pair)), pair[0]) for pair in itertools.combinations(models, 2)
            ]
        return {"models": models, "clusters": record.clusters, "tests": found, "left_out": left_out}

    def _test(self, test: PairedTest | None, first: str) -> list[Any] | None:
        """Return [difference, low, high, p, whether significant] of first − second, or the place of why there is none."""
        if test is None:
            return None
        if test.difference is None:
            return [self.strings.place(test.reason or "undefined")]
        sign = 1 if test.a == first else -1
        bounds = None
        if test.low is not None and test.high is not None:
            bounds = sorted(sign * _tenths(each) for each in (test.low, test.high))
        p = None if test.p_adjusted is None else "<0.001" if test.p_adjusted < 0.001 else f"{test.p_adjusted:.3f}"
        is_significant = test.p_adjusted is not None and test.p_adjusted < SIGNIFICANT
        return [sign * _tenths(test.difference), *(bounds or (None, None)), p, int(is_significant)]


def _ranking(means: Sequence[_Column]) -> list[_Column]:
    """Return the mean columns that rank models: attribution, where there is any, then detection."""
    subsets = list(dict.fromkeys(column.subset for column in means))
    levels = [level for level in LEVELS if any(column.level == level for column in means)]
    subset, level = ranked_by(subsets, levels)
    wanted = {("accuracy", level), ("auc", "authenticity")}
    return [column for column in means if column.subset == subset and (column.metric, column.level) in wanted]


def _grouping(record: PairsRecord, ranking: Sequence[_Column]) -> ComparedMean | None:
    """Return the mean whose significance groups stand for ranks: the first of those that rank that was compared."""
    return next((mean for column in ranking for mean in record.means if column.is_of(mean)), None)


def _named(mean: ComparedMean) -> str:
    return _Column(mean.task, mean.metric, mean.level, mean.subset, MEAN).name.removesuffix(" %")


def _is_tested(result: Result, record: PairsRecord) -> bool:
    tested = {each.name: each.predictions_sha256 for each in record.models}
    return tested.get(result.model.name) == result.predictions.sha256


def _standing(rank: str, result: Result, record: PairsRecord | None, grouping: ComparedMean | None) -> str:
    """Return the significance group of a row that was tested, else its rank and that it was not tested."""
    if rank == NONE:
        return "not ranked"
    if record is None or grouping is None:
        return f"rank {rank}"
    if not _is_tested(result, record) or result.model.name not in grouping.groups:
        return f"rank {rank}, not tested"
    return f"group {grouping.groups[result.model.name]}"


def _deviating(score: SeededScore | None) -> list[int] | None:
    if score is None or score.mean is None or score.deviation is None:
        return None
    return [_tenths(score.mean), _tenths(score.deviation)]


def _perturbed(
    record: RobustnessRecord | None, perturbations: Sequence[str], means: Sequence[_Column], strings: _Strings
) -> dict[int, list[list[Any]]] | None:
    """Return by perturbation: per severity 1 to 5, then for the area, the cells of the mean columns."""
    if record is None:
        return None
    shown = {}
    for place, name in enumerate(perturbations):
        curves = [each for each in record.curves if (each.perturbation, each.unit, each.group) == (name, "frame", MEAN)]
        found = [next((each for each in curves if column.is_of(each)), None) for column in means]
        if any(found):
            shown[place] = [[_at(curve, severity, strings) for curve in found] for severity in (*range(1, 6), None)]
    return shown


def _at(curve: SeverityCurve | None, severity: int | None, strings: _Strings) -> int | list[int | None] | None:
    """Return a curve's cell at a severity, or that of its area."""
    if curve is None:
        return None
    if severity is None:
        value, low, high, reason = curve.area, None, None, curve.reason
    else:
        value, low, high = curve.value[severity], curve.low[severity], curve.high[severity]
        reason = curve.undefined.get(severity)
    if value is None:
        return [None, None, None, strings.place(reason or "undefined")]
    return _bounded(value, low, high, ())


def _plain(
    title: str, warning: str | None, table: Table, standings: Sequence[str], marks: Sequence[Sequence[tuple[str, str]]]
) -> dict[str, Any]:
    """Return the leaderboard's own table for a page without script, with standings for ranks, and a column of marks."""
    told = ["; ".join(f"{kind}: {text}" for kind, text in each) or "none" for each in marks]
    rows = [(standing, *row[1:], mark) for standing, row, mark in zip(standings, table.rows, told, strict=True)]
    columns = ("standing", *table.columns[1:], "marks")
    return {"title": title, "warning": warning, "columns": columns, "rows": rows, "notes": table.notes}
