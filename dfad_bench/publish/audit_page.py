"""Writes an audit as one HTML page that needs nothing else: no network, no script, no picture of a face."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined

from dfad_bench.analysis.audit import AuditReport, tables
from dfad_bench.analysis.peer_json import PeerReport, peer_tables

Tone = Literal["bad", "warned", "good", "open"]
_MEANINGS = {
    "unrelated pairs": "pairs of faces that share no declared person, video or pixels",
    "one picture": "of the pairs that were opened, those that show one picture",
    "related pairs": "pairs of one person or video, such as an edit and its input",
    "AUC": "of a classifier that sees format, size and JPEG tables of the file, and never a face",
    "with colour": "the same with the mean colour of the whole image added, which is content",
    "chance stays below": "what this AUC stays below in 95 of 100 audits if the files tell nothing",
    "told by": "what differs most between the generator's files and those of the reals",
    "enlarged": "faces smaller than the crop, whose pixels are interpolated",
    "sharpness": "median variance of the Laplacian",
}


def audit_page(report: AuditReport | PeerReport) -> str:
    """Return a report as an HTML document; every name in it is escaped. The same report gives the same bytes."""
    template = importlib.resources.files("dfad_bench.publish").joinpath("templates", "audit.html.j2")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = tables(report) if isinstance(report, AuditReport) else peer_tables(report)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=f"Audit of {report.source}",
        facts=_facts(report),
        tone=_tone(report),
        verdict=report.verdict,
        problems=report.problems,
        warnings=report.warnings,
        tables=[_table(*each) for each in shown],
    )


def _tone(report: AuditReport | PeerReport) -> Tone:
    if report.problems:
        return "bad"
    if report.verdict.startswith("SHORTCUT"):
        return "warned"
    return "good" if report.verdict.startswith("No ") else "open"


def _facts(report: AuditReport | PeerReport) -> list[tuple[str, str]]:
    """Return what a report is about, as names and values."""
    counted = {"problems": len(report.problems), "warnings": len(report.warnings)}
    if isinstance(report, AuditReport):
        sizes = {"faces": report.faces, "generators": sum(each.generator != "real" for each in report.balance)}
        splits = report.source_splits
    else:
        sizes = {"clips": report.clips, "frames": report.frames}
        splits = report.splits
    facts = [(name, f"{number:,}") for name, number in (sizes | counted).items()]
    return [*facts, ("splits", ", ".join(splits) or "none")]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, Any]:
    """Return a table for the template: columns of numbers are aligned to the right, and told what they mean."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    numeric = [
        all(_is_number(row[index]) for row in cells) and any(row[index] != "–" for row in cells)
        for index in range(len(columns))
    ]
    return {
        "title": title[:1].upper() + title[1:],
        "columns": [{"name": name, "numeric": number} for name, number in zip(columns, numeric, strict=True)],
        "rows": [list(zip(row, numeric, strict=True)) for row in cells],
        "meanings": [(name, _MEANINGS[name]) for name in dict.fromkeys(columns) if name in _MEANINGS],
    }


def _is_number(cell: str) -> bool:
    return cell == "–" or (cell.strip("0123456789.,%") == "" and cell != "")
