"""A table of plain text cells, shared by the console and by Markdown, and how a score becomes a cell of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dfad_bench.records.comparison import FEW_CLUSTERS
from dfad_bench.records.results import MEAN, POOLED, Score, Task, Unit

NONE = "–"
LEVELS = ("forgery_type", "family", "generator")


@dataclass(frozen=True, slots=True)
class Table:
    """A title, C column names, rows of C cells each, and notes that stand below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Notes:
    """Numbers the reasons that cells refer to, in the order in which they are first given."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        """Return the sign of a reason, such as ``(1)``."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"({self.reasons.index(reason) + 1})"

    def lines(self) -> list[str]:
        """Return the reasons, a line each."""
        return [f"({number}) {reason}." for number, reason in enumerate(self.reasons, start=1)]


class Lookup:
    """Finds a score by its coordinates."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self._found: dict[tuple[str, ...], Score] = {
            (s.task, s.metric, s.level, s.unit, s.subset, s.group): s for s in scores
        }
        asked = [s for s in self._found.values() if s.task in ("detection", "attribution")]
        self.subsets = list(dict.fromkeys(s.subset for s in asked))
        self.levels = [level for level in LEVELS if any(s.task == "attribution" and s.level == level for s in asked)]

    def score(self, task: Task, metric: str, level: str, subset: str, group: str, unit: Unit = "frame") -> Score | None:
        """Return the score, None where there is none."""
        return self._found.get((task, metric, level, unit, subset, group))

    def groups(self, task: Task, subset: str) -> list[str]:
        """Return the groups of a subset, in the order of their scores, without mean and pooled."""
        found = dict.fromkeys(s.group for s in self._found.values() if s.task == task and s.subset == subset)
        return [group for group in found if group not in (MEAN, POOLED)]

    def scores(self, task: Task) -> list[Score]:
        """Return all scores of a task."""
        return [s for s in self._found.values() if s.task == task]

    @property
    def has_videos(self) -> bool:
        """Whether pooling by video changes any number."""
        return any(
            (s.value, s.n) != (other.value, other.n)
            for s in self._found.values()
            if s.unit == "video"
            for other in (self.score(s.task, s.metric, s.level, s.subset, s.group),)
            if other is not None
        )


def cell(score: Score | None, notes: Notes, absent: str, interval: bool = False) -> str:
    """Return a score in percent, with its interval where asked for, or a dash with the reason."""
    if score is None:
        return f"{NONE} {notes.mark(absent)}"
    if score.value is None:
        return f"{NONE} {notes.mark(score.reason or 'undefined')}"
    shown = f"{100 * score.value:.1f}"
    if interval and score.low is not None and score.high is not None:
        shown += f" [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    elif interval and score.no_interval is not None:
        shown += f" {notes.mark(f'no interval: {score.no_interval}')}"
    if not score.unknown:
        return shown
    faces = "face" if score.unknown == 1 else "faces"
    return f"{shown} {notes.mark(f'leaves out {score.unknown} {faces} of a class that training does not have')}"


def clusters_cell(score: Score | None, notes: Notes) -> str:
    """Return how many clusters a score rests on, marked where they are few."""
    if score is None or score.clusters is None:
        return NONE
    if score.clusters >= FEW_CLUSTERS or score.low is None:
        return str(score.clusters)
    return f"{score.clusters} {notes.mark(f'fewer than {FEW_CLUSTERS} clusters: the interval is too narrow')}"


def level_name(level: str) -> str:
    """Return a level as words."""
    return level.replace("_", " ")


def warned(warning: str | None) -> list[str]:
    """Return the note that a protocol wants on every page that shows its numbers."""
    return [] if warning is None else [f"Warning: {warning}"]


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
