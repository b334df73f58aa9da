"""Which results may be compared, and the ranking of models among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from dfad_bench.publish.tables import LEVELS, NONE, Lookup, Notes, Table, cell, level_name, warned
from dfad_bench.records.results import MEAN, ProtocolRecord, Result, Score

_HEADLINE = "unseen"

Key = tuple[str, int, str]
"""A protocol's name, its version and the fingerprint of its faces: what numbers must share to be compared."""


def key_of(protocol: ProtocolRecord) -> Key:
    """Return what numbers must share to be compared."""
    return protocol.name, protocol.version, protocol.fingerprint


def by_faces(results: Iterable[Result]) -> list[list[Result]]:
    """Return the results of each protocol, version and set of faces, in the order of these and of the models' names."""
    ordered = sorted(results, key=lambda each: (*key_of(each.protocol), each.model.name))
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda each: key_of(each.protocol))]


def leaderboard_table(protocol: ProtocolRecord, results: Sequence[Result]) -> Table:
    """Return one row per result of a protocol: eligible ones ranked, best first, then the others without a rank.

    Ranked by attribution ACC and, where that is equal or absent, by detection AUC: means over the groups of the subset
    ``unseen``, or of the last subset where none has that name. Equal models share a rank. The notes give the reason why
    a result is not ranked.
    """
    found = {each.model.name: Lookup(each.scores) for each in results}
    subsets = list(dict.fromkeys(subset for lookup in found.values() for subset in lookup.subsets))
    levels = [level for level in LEVELS if any(level in lookup.levels for lookup in found.values())]
    headline, level = ranked_by(subsets, levels)
    keys = {
        name: (
            _rank_value(lookup.score("attribution", "accuracy", level, headline, MEAN)),
            _rank_value(lookup.score("detection", "auc", "authenticity", headline, MEAN)),
        )
        for name, lookup in found.items()
    }
    ranked = {each.model.name for each in results if not each.ineligible}
    ordered = sorted(results, key=lambda each: each.model.name)
    ordered.sort(key=lambda each: (each.model.name in ranked, keys[each.model.name]), reverse=True)
    notes = Notes()
    rows = []
    for result in ordered:
        name = result.model.name
        rank = str(1 + sum(keys[other] > keys[name] for other in ranked)) if name in ranked else NONE
        shown = name if result.origin == "measured" else f"{name} {notes.mark('reported by its authors, not measured')}"
        cells = _mean_cells(found[name], subsets, levels, notes)
        rows.append((rank, shown, *cells, f"{result.model.parameters:,}", ", ".join(result.model.inputs) or "nothing"))
    columns = ["rank", "model"]
    for subset in subsets:
        columns += [f"{subset} ACC {level_name(each)} %" for each in levels]
        columns += [f"{subset} AUC %", f"{subset} ACC@val %"]
    told = [
        f"Ranked by {headline} ACC {level_name(level)}, then by {headline} AUC. Every value is a mean over groups, face "
        "by face, with its 95 % interval. ACC: attribution; AUC and ACC@val: detection, at the threshold chosen on val."
    ]
    told += warned(protocol.warning)
    told += [f"Not ranked: {each.model.name}: {'; '.join(each.ineligible)}." for each in ordered if each.ineligible]
    title = f"{protocol.name} v{protocol.version}"
    return Table(title, (*columns, "parameters", "inputs"), tuple(rows), (*notes.lines(), *told))


def ranked_results(group: Sequence[Result]) -> list[tuple[str, Result]]:
    """Return a group's results as the leaderboard orders them, each with its rank, empty where it has none."""
    by_name = {each.model.name: each for each in group}
    # A reported result's name carries a mark in the table, and a measured one's does not.
    plain = [each.model_copy(update={"origin": "measured"}) for each in group]
    rows = leaderboard_table(group[0].protocol, plain).rows
    return [("" if row[0] == NONE else row[0], by_name[row[1]]) for row in rows]


def ranked_by(subsets: Sequence[str], levels: Sequence[str]) -> tuple[str, str]:
    """Return the subset and the level of attribution whose means rank models: ``unseen`` and ``family`` where they exist."""
    subset = _HEADLINE if _HEADLINE in subsets else next(reversed(subsets), _HEADLINE)
    return subset, "family" if "family" in levels or not levels else levels[0]


def _rank_value(score: Score | None) -> float:
    return -1.0 if score is None or score.value is None else score.value


def _mean_cells(lookup: Lookup, subsets: Sequence[str], levels: Sequence[str], notes: Notes) -> list[str]:
    absent = "the model gives no class logits"
    cells = []
    for subset in subsets:
        attributed = [lookup.score("attribution", "accuracy", level, subset, MEAN) for level in levels]
        cells += [cell(score, notes, absent, True) for score in attributed]
        for metric in ("auc", "accuracy@val"):
            detected = lookup.score("detection", metric, "authenticity", subset, MEAN)
            cells.append(cell(detected, notes, "not scored", metric == "auc"))
    return cells
