"""The sections of a run's report that its result and what lies beside it give, as blocks that a template shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from dfad_bench.config import Strict
from dfad_bench.publish import report_figures as figures
from dfad_bench.publish.report_faces import Picture, operating_points
from dfad_bench.publish.report_figures import Drawing
from dfad_bench.publish.robustness import robustness_tables
from dfad_bench.publish.scores import headline_tables, report_tables, result_tables
from dfad_bench.publish.tables import NONE, Lookup, Notes, Table, cell, level_name
from dfad_bench.records.predictions import Predictions
from dfad_bench.records.results import MEAN, POOLED, ConfusionRecord, Result
from dfad_bench.records.robustness import RobustnessRecord

# --- blocks of the page --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, of one tone."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "small", "bad", "warned", "good", "missing"] = "plain"


@dataclass(frozen=True, slots=True)
class Tiles:
    """Headline numbers of one subset: what they are called, and the cell of each."""

    kind: ClassVar[str] = "tiles"
    title: str
    numbers: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A table, folded away where few look for it."""

    kind: ClassVar[str] = "table"
    table: Table
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures beside each other."""

    kind: ClassVar[str] = "figures"
    drawings: Sequence[Drawing]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix: rows of a true value, (count, tenth of the row from 0 to 10) per column, and the faces in all."""

    kind: ClassVar[str] = "matrix"
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, int]], int]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Faces with what they are and were taken for."""

    kind: ClassVar[str] = "gallery"
    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of a command."""

    kind: ClassVar[str] = "code"
    text: str


Block = Text | Tiles | Shown | Figures | Matrix | Gallery | Facts | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a place in its table of contents."""

    id: str
    title: str
    blocks: Sequence[Block]


class Epoch(Strict):
    """A line of ``training.jsonl``."""

    epoch: int
    train_loss: float
    val_loss: float
    learning_rate: float
    best_epoch: int


def title_of(result: Result) -> str:
    """Return what a run is called."""
    perturbed = "" if result.perturbation is None else f", perturbed: {result.perturbation.strength}"
    return f"{result.model.name} on {result.protocol.name} v{result.protocol.version}{perturbed}"


# --- numbers -------------------------------------------------------------------------------------------------------


def summary(result: Result) -> Section:
    """Return what must be known first: the protocol's warning, whether the result may be ranked, means with intervals."""
    blocks: list[Block] = []
    if result.protocol.warning is not None:
        blocks.append(Text(f"Warning: {result.protocol.warning}", "warned"))
    if result.ineligible:
        blocks.append(Text(f"Not eligible for the leaderboard: {'; '.join(result.ineligible)}.", "bad"))
    else:
        blocks.append(Text("Eligible for the leaderboard.", "good"))
    lookup, notes = Lookup(result.scores), Notes()
    for subset in lookup.subsets:
        numbers = [
            (f"ACC {level_name(level)}", lookup.score("attribution", "accuracy", level, subset, MEAN))
            for level in lookup.levels
        ]
        for name, metric in (("AUC", "auc"), ("ACC@val", "accuracy@val")):
            numbers.append((name, lookup.score("detection", metric, "authenticity", subset, MEAN)))
        told = [(f"{name} %", cell(score, notes, "not scored", True)) for name, score in numbers]
        blocks.append(Tiles(f"{subset}, mean over groups", told))
    blocks += [Text(note, "small") for note in notes.lines()]
    blocks.append(
        Text(
            "Face by face, with 95 % intervals. ACC: attribution, who made it. AUC, ACC@val: detection, is it fake, the "
            "latter at the threshold chosen on val."
        )
    )
    return Section("summary", "Headline numbers", blocks)


def scores(result: Result) -> Section:
    """Return the tables by generator."""
    return Section("groups", "By generator", [Shown(table) for table in result_tables(result)])


def everything(result: Result) -> Section:
    """Return all tables that are not among those by generator."""
    tables = report_tables(title_of(result), result.scores, result.scoring, result.protocol.warning)
    more = tables[len(headline_tables("", result.scores, result.scoring)) :]
    return Section("everything", "Every other number", [Shown(table, folded=True) for table in more])


# --- details -------------------------------------------------------------------------------------------------------


def roc(result: Result, predictions: Predictions) -> Section:
    """Return a ROC per test subset, with thresholds marked; ``predictions`` must be in order."""
    lookup = Lookup(result.scores)
    drawn = []
    curves = [each for each in result.details.curves if each.kind == "roc" and each.unit == "frame"]
    for number, subset in enumerate(dict.fromkeys(curve.subset for curve in curves)):
        threshold = result.scoring.thresholds.get("frame")
        points, table = operating_points(predictions, subset, threshold)
        aucs = {group: lookup.score("detection", "auc", "authenticity", subset, group) for group, *_ in table.rows}
        values = {group: score.value for group, score in aucs.items() if score is not None and score.value is not None}
        of_all = f"AUC of all fakes {100 * values[POOLED]:.1f} %. " if POOLED in values else ""
        marked = ", ".join(f"{each.label}: TPR {100 * each.tpr:.1f} %, FPR {100 * each.fpr:.1f} %" for each in points)
        own = [curve for curve in curves if curve.subset == subset]
        coloured = f" Coloured: the {figures.COLOURED} with the lowest AUC." if len(own) > figures.COLOURED + 1 else ""
        caption = f"{of_all}{f'All fakes {marked}.' if marked else ''}{coloured}"
        drawn.append(figures.roc(f"roc-{number}", f"ROC, {subset}", caption, own, points, values, table))
    if not drawn:
        return Section("roc", "ROC", [Text("There is no ROC: no subset has both reals and fakes.", "missing")])
    return Section("roc", "ROC", [Figures(drawn)])


def confusion(result: Result) -> Section:
    """Return the confusion matrices of each subset and level."""
    matrices = [_matrix(each) for each in result.details.confusion if each.unit == "frame"]
    if not matrices:
        absent = "There is no confusion matrix: the model gives no class logits."
        return Section("confusion", "Who is taken for whom", [Text(absent, "missing")])
    told = (
        "Rows: what a face is; columns: what it was taken for, the values of training; numbers: faces. Shade: share of the "
        "row. In a subset of unseen generators most rows have no column of their own."
    )
    return Section("confusion", "Who is taken for whom", [Text(told), *matrices])


def _matrix(record: ConfusionRecord) -> Matrix:
    rows = []
    for name, counts in zip(record.rows, record.counts, strict=True):
        total = sum(counts)
        shaded = [(count, -(-10 * count // total) if total else 0) for count in counts]
        rows.append((name, shaded, total))
    return Matrix(f"{record.subset}, {level_name(record.level)}", record.columns, rows)


def reliability(result: Result) -> Section:
    """Return the reliability diagrams."""
    lookup = Lookup(result.scores)
    drawn = []
    for number, each in enumerate(each for each in result.details.reliability if each.unit == "frame"):
        what = "detection" if each.task == "detection" else f"attribution, {level_name(each.level)}"
        ece = lookup.score(each.task, "ece", each.level, each.subset, POOLED)
        told = "" if ece is None or ece.value is None else f" ECE {100 * ece.value:.1f} %."
        edges = range(len(each.faces) + 1)
        numbers = Table(
            "Reliability",
            ("confidence", "faces", "mean confidence %", "fraction that is so %"),
            tuple(
                (
                    f"{low / len(each.faces):.2f} to {high / len(each.faces):.2f}",
                    str(faces),
                    _percent(mean),
                    _percent(so),
                )
                for low, high, faces, mean, so in zip(
                    edges, edges[1:], each.faces, each.confidence, each.fraction, strict=False
                )
            ),
        )
        less = "faces are fake" if each.task == "detection" else "it is right"
        caption = f"{sum(each.faces):,} faces.{told} Below the dotted line {less} less often than it says."
        title = f"Reliability of {what}, {each.subset}"
        drawn.append(figures.reliability(f"reliability-{number}", title, caption, each, numbers))
    blocks: list[Block] = [Figures(drawn)] if drawn else []
    if not any(each.task == "detection" for each in result.details.reliability):
        blocks.append(Text("There is no diagram of detection: fake scores are no probabilities.", "missing"))
    return Section("reliability", "Can its confidence be believed?", blocks)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def open_set(result: Result) -> Section:
    """Return the OSCR curves."""
    curves = [each for each in result.details.curves if each.kind == "oscr" and each.unit == "frame"]
    title = "Does it know what it does not know?"
    if not curves:
        absent = "There is no OSCR curve: no test face is of a class that training lacks, or the model gives no class logits."
        return Section("open-set", title, [Text(absent, "missing")])
    lookup, notes = Lookup(result.scores), Notes()
    rows = []
    for curve in curves:
        scores = [
            lookup.score("open_set", f"{metric}@msp", curve.level, curve.subset, POOLED) for metric in ("oscr", "auroc")
        ]
        rows.append((level_name(curve.level), *(cell(score, notes, "not scored", True) for score in scores)))
    table = Table("OSCR", ("level", "OSCR %", "AUROC %"), tuple(rows), tuple(notes.lines()))
    areas = "; ".join(f"{level} {area}" for level, area, _ in rows)
    caption = (
        f"Area under the curve in percent: {areas}. Faces are accepted from the highest maximum probability on; "
        "all test subsets together."
    )
    return Section("open-set", title, [Figures([figures.oscr("oscr", "OSCR", caption, curves, table)])])


def robustness(record: RobustnessRecord | None, result: Result) -> Section:
    """Return the curves under perturbations; a record of other predictions than the result's is not shown."""
    title = "Under perturbations"
    if record is not None and record.clean_predictions_sha256 != result.predictions.sha256:
        told = "robustness.json is of other predictions than this result, so it is not shown. Run with --perturb again."
        return Section("robustness", title, [Text(told, "missing")])
    if record is None:
        told = "Not measured for this run: 'dfad-bench run --perturb …' writes robustness.json."
        return Section("robustness", title, [Text(told, "missing")])
    tables = robustness_tables(record)
    drawn = []
    for number, table in enumerate(tables):
        curves = {row[0]: [_plotted(text) for text in row[1:7]] for row in table.rows}
        name = table.title.rpartition(": ")[2]
        areas = "; ".join(f"{row[0]} {row[7]}" for row in table.rows)
        caption = f"By severity. Mean height of each curve: {areas}."
        shown = f"{name[:1].upper()}{name[1:]}"
        drawn.append(figures.severities(f"robustness-{number}", shown, caption, name.rpartition(",")[0], curves))
    return Section("robustness", title, [Figures(drawn), *map(Shown, tables)])


def _plotted(text: str) -> float:
    return float("nan") if text.startswith(NONE) else float(text)


def training(epochs: Sequence[Epoch]) -> Section:
    """Return the losses of training."""
    if not epochs:
        absent = "There is no training.jsonl: this run trained nothing, or the file was not kept."
        return Section("training", "Training", [Text(absent, "missing")])
    losses = {
        "training": [each.train_loss for each in epochs],
        "val": [each.val_loss for each in epochs],
    }
    best = epochs[-1].best_epoch
    rows = tuple(
        (str(each.epoch), f"{each.train_loss:.4f}", f"{each.val_loss:.4f}", f"{each.learning_rate:.3g}")
        for each in epochs
    )
    numbers = Table("Losses", ("epoch", "training loss", "val loss", "learning rate"), rows)
    lowest = next((each.val_loss for each in epochs if each.epoch == best), min(losses["val"]))
    caption = f"{len(epochs)} epochs; the checkpoint of epoch {best} was chosen, val loss {lowest:.4f}."
    drawn = figures.training("training-losses", "Losses by epoch", caption, losses, best, numbers)
    return Section("training", "Training", [Figures([drawn])])
