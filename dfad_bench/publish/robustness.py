"""The tables of a run under perturbations: a curve is a row."""

from __future__ import annotations

from collections.abc import Sequence

from dfad_bench.publish.tables import LEVELS, NONE, Notes, Table, level_name, warned
from dfad_bench.records.results import MEAN, Level, Task
from dfad_bench.records.robustness import MeanCurve, RobustnessRecord, SeverityCurve

_HEADLINE = "unseen"
_SEVERITIES = tuple(str(severity) for severity in range(6))
_MEANING = (
    "0: the faces as they are. 1 to 5: the severity. area: the mean height of the curve over the severities 0 to 5, "
    "by the trapezoid rule."
)


def robustness_tables(record: RobustnessRecord) -> list[Table]:
    """Return detection AUC, and attribution ACC where there is any, by perturbation and severity, and the area under each.

    In percent, face by face: means over the groups of the subset ``unseen``, or of the last subset where none has that
    name. ACC is that of the family, or of the coarsest level where the protocol has no family. What is undefined is ``–``
    with a note.
    """
    subsets = list(dict.fromkeys(curve.subset for curve in record.curves))
    subset = _HEADLINE if _HEADLINE in subsets else next(reversed(subsets), _HEADLINE)
    asked = {curve.level for curve in record.curves if curve.task == "attribution"}
    levels = [level for level in LEVELS if level in asked]
    title = f"{record.model} on {record.protocol.name} v{record.protocol.version}, perturbed"
    tables = [_table(f"{title}: detection AUC %, {subset}", record, "detection", "auc", "authenticity", subset)]
    if levels:
        level: Level = "family" if "family" in levels else levels[0]
        name = f"{title}: attribution ACC {level_name(level)} %, {subset}"
        tables.append(_table(name, record, "attribution", "accuracy", level, subset))
    return tables


def _table(title: str, record: RobustnessRecord, task: Task, metric: str, level: Level, subset: str) -> Table:
    def is_asked(curve: SeverityCurve | MeanCurve) -> bool:
        place = (curve.task, curve.metric, curve.level, curve.unit, curve.subset, curve.group)
        return place == (task, metric, level, "frame", subset, MEAN)

    notes = Notes()
    rows = [
        (_name(curve.perturbation, notes), *_cells(curve, [curve.undefined.get(each) for each in range(6)], notes))
        for curve in filter(is_asked, record.curves)
    ]
    told = [f"Every value is a mean over the groups of {subset}.", _MEANING]
    for mean in filter(is_asked, record.means):
        rows.append(("mean", *_cells(mean, [mean.reason] * 6, notes)))
        if 0 < len(mean.over) < len(rows) - 1:
            told.append(f"mean: over those with all severities, {', '.join(mean.over)}.")
    columns = ("perturbation", *_SEVERITIES, "area")
    return Table(title, columns, tuple(rows), (*notes.lines(), *told, *warned(record.protocol.warning)))


def _name(perturbation: str, notes: Notes) -> str:
    """Return a perturbation's name, with the hash of a local file in a note."""
    short = perturbation.partition(" (file ")[0]
    return short if short == perturbation else f"{short} {notes.mark(perturbation)}"


def _cells(curve: SeverityCurve | MeanCurve, reasons: Sequence[str | None], notes: Notes) -> list[str]:
    shown = zip([*curve.value, curve.area], [*reasons, curve.reason], strict=True)
    return [_cell(value, reason, notes) for value, reason in shown]


def _cell(value: float | None, reason: str | None, notes: Notes) -> str:
    return f"{NONE} {notes.mark(reason or 'undefined')}" if value is None else f"{100 * value:.1f}"
