"""Tables of scores as plain text cells, shared by the console and by Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dfad_bench.records.results import ProtocolRecord, Result, Score

NONE = "–"
LEVELS = ("forgery_type", "family", "generator")
MEAN, POOLED = "mean", "pooled"
_AUC, _ACC = "auc", "accuracy@0.5"
_HEADLINE = "unseen"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, C column names, rows of C cells each, and notes that stand below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Notes:
    """Numbers the reasons that cells refer to, in the order in which they are first given."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"({self.reasons.index(reason) + 1})"

    def lines(self) -> list[str]:
        return [f"({number}) {reason}." for number, reason in enumerate(self.reasons, start=1)]


class _Lookup:
    """Finds a score by its coordinates, and writes it as a cell in percent."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self.scores: dict[tuple[str, ...], Score] = {(s.task, s.metric, s.level, s.subset, s.group): s for s in scores}
        self.subsets = list(dict.fromkeys(key[3] for key in self.scores))
        self.levels = [
            level for level in LEVELS if any(key[0] == "attribution" and key[2] == level for key in self.scores)
        ]

    def groups(self, subset: str) -> list[str]:
        """Return a subset's groups, ``real`` first where attribution has it, without mean and pooled."""
        found = [key[4] for key in sorted(self.scores, key=lambda key: key[0]) if key[3] == subset]
        return [group for group in dict.fromkeys(found) if group not in (MEAN, POOLED)]

    def attribution(self, level: str, subset: str, group: str) -> Score | None:
        return self.scores.get(("attribution", "accuracy", level, subset, group))

    def detection(self, metric: str, subset: str, group: str) -> Score | None:
        return self.scores.get(("detection", metric, "authenticity", subset, group))

    def faces(self, subset: str, group: str) -> int | None:
        """Return how many faces a group has; for a pure detector, with the reals it is tested against."""
        group = POOLED if group == MEAN else group
        for level in self.levels:
            if (found := self.attribution(level, subset, group)) is not None:
                return found.n + found.unknown
        found = self.detection(_AUC, subset, group)
        return None if found is None else found.n


def _cell(score: Score | None, notes: _Notes, absent: str) -> str:
    if score is None:
        return f"{NONE} {notes.mark(absent)}"
    if score.value is None:
        return f"{NONE} {notes.mark(score.reason or 'undefined')}"
    shown = f"{100 * score.value:.1f}"
    if not score.unknown:
        return shown
    faces = "face" if score.unknown == 1 else "faces"
    return f"{shown} {notes.mark(f'leaves out {score.unknown} {faces} of a class that training does not have')}"


def _level_name(level: str) -> str:
    return level.replace("_", " ")


def scores_table(title: str, scores: Sequence[Score], warning: str | None = None) -> Table:
    """Return one row per group of each test subset, then its mean; ACC and AUC in percent, undefined as ``–`` with a note.

    warning: what the protocol says must stand on every page that shows its numbers.
    """
    lookup, notes = _Lookup(scores), _Notes()
    columns = ["subset", "group", *(f"ACC {_level_name(level)} %" for level in lookup.levels)]
    columns += ["AUC %", "ACC@0.5 %", "faces" if lookup.levels else "faces with reals"]
    rows = []
    for subset in lookup.subsets:
        for group in [*lookup.groups(subset), MEAN]:
            cells = [_cell(lookup.attribution(level, subset, group), notes, "not scored") for level in lookup.levels]
            cells += [
                _cell(
                    lookup.detection(metric, subset, group),
                    notes,
                    "real faces are the other side of every detection row",
                )
                for metric in (_AUC, _ACC)
            ]
            faces = lookup.faces(subset, group)
            rows.append((subset, group, *cells, NONE if faces is None else str(faces)))
    meaning = [
        "AUC and ACC@0.5: detection, the row's fakes against real test faces; 0.5 is the threshold.",
        "mean: macro average over the rows above it.",
    ]
    if lookup.levels:
        meaning.insert(0, "ACC: attribution, the class head rolled up to each level.")
    return Table(title, tuple(columns), tuple(rows), (*notes.lines(), *meaning, *_warned(warning)))


def result_table(result: Result) -> Table:
    """Return the table of one run, its notes telling what is missing and why it may not stand on the leaderboard."""
    title = f"{result.model.name} on {result.protocol.name} v{result.protocol.version}"
    table = scores_table(title, result.scores, result.protocol.warning)
    notes = list(table.notes)
    if result.counts.skipped:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(result.counts.skipped.items()))
        notes.append(f"{result.counts.evaluated} of {result.counts.declared} faces were evaluated; left out: {told}.")
    if result.ineligible:
        notes.append(f"Not eligible for the leaderboard: {'; '.join(result.ineligible)}.")
    return Table(table.title, table.columns, table.rows, tuple(notes))


def _warned(warning: str | None) -> list[str]:
    return [] if warning is None else [f"Warning: {warning}"]


# --- leaderboard ---------------------------------------------------------------------------------------------------


def leaderboard_table(protocol: ProtocolRecord, results: Sequence[Result]) -> Table:
    """Return one row per result of a protocol: eligible ones ranked, best first, then the others without a rank.

    Ranked by attribution ACC and, where that is equal or absent, by detection AUC: means over the groups of the subset
    ``unseen``, or of the last subset where none has that name. Equal models share a rank. The notes give the reason why
    a result is not ranked.
    """
    found = {each.model.name: _Lookup(each.scores) for each in results}
    subsets = list(dict.fromkeys(subset for lookup in found.values() for subset in lookup.subsets))
    levels = [level for level in LEVELS if any(level in lookup.levels for lookup in found.values())]
    headline = _HEADLINE if _HEADLINE in subsets else next(reversed(subsets), _HEADLINE)
    level = "family" if "family" in levels or not levels else levels[0]
    keys = {
        name: (
            _rank_value(lookup.attribution(level, headline, MEAN)),
            _rank_value(lookup.detection(_AUC, headline, MEAN)),
        )
        for name, lookup in found.items()
    }
    ranked = {each.model.name for each in results if not each.ineligible}
    ordered = sorted(results, key=lambda each: each.model.name)
    ordered.sort(key=lambda each: (each.model.name in ranked, keys[each.model.name]), reverse=True)
    notes = _Notes()
    rows = []
    for result in ordered:
        name = result.model.name
        rank = str(1 + sum(keys[other] > keys[name] for other in ranked)) if name in ranked else NONE
        shown = name if result.origin == "measured" else f"{name} {notes.mark('reported by its authors, not measured')}"
        cells = _mean_cells(found[name], subsets, levels, notes)
        rows.append((rank, shown, *cells, f"{result.model.parameters:,}", ", ".join(result.model.inputs) or "nothing"))
    columns = ["rank", "model"]
    for subset in subsets:
        columns += [f"{subset} ACC {_level_name(each)} %" for each in levels]
        columns += [f"{subset} AUC %", f"{subset} ACC@0.5 %"]
    told = [
        f"Ranked by {headline} ACC {_level_name(level)}, then by {headline} AUC. Every value is a mean over groups. "
        "ACC: attribution; AUC and ACC@0.5: detection, 0.5 being the threshold."
    ]
    told += _warned(protocol.warning)
    told += [f"Not ranked: {each.model.name}: {'; '.join(each.ineligible)}." for each in ordered if each.ineligible]
    title = f"{protocol.name} v{protocol.version}"
    return Table(title, (*columns, "parameters", "inputs"), tuple(rows), (*notes.lines(), *told))


def _rank_value(score: Score | None) -> float:
    return -1.0 if score is None or score.value is None else score.value


def _mean_cells(lookup: _Lookup, subsets: Sequence[str], levels: Sequence[str], notes: _Notes) -> list[str]:
    absent = "the model gives no class logits"
    cells = []
    for subset in subsets:
        cells += [_cell(lookup.attribution(level, subset, MEAN), notes, absent) for level in levels]
        cells += [_cell(lookup.detection(metric, subset, MEAN), notes, "not scored") for metric in (_AUC, _ACC)]
    return cells


# --- Markdown ------------------------------------------------------------------------------------------------------

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "&#92;"}
_ESCAPES = {**_ENTITIES, **{character: f"\\{character}" for character in "|`*_[]~$#"}}


def markdown(table: Table) -> str:
    """Return a table as GitHub-flavoured Markdown; no name in it can break the table, start a link or become HTML."""
    lines = [
        f"### {_escaped(table.title)}",
        "",
        _line(table.columns),
        _line(["---"] * len(table.columns), escape=False),
    ]
    lines += [_line(row) for row in table.rows]
    if table.notes:
        lines += ["", *(f"- {_escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], escape: bool = True) -> str:
    return f"| {' | '.join(_escaped(cell) if escape else cell for cell in cells)} |"


def _escaped(text: str) -> str:
    one_line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()
    return "".join(_ESCAPES.get(character, character) for character in one_line)
