"""The tables of one run: what most people look for, and all there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dfad_bench.publish.tables import NONE, Lookup, Notes, Table, cell, clusters_cell, level_name, warned
from dfad_bench.records.results import EVERY_SUBSET, MEAN, POOLED, Result, Score, ScoringRecord, Unit

_UNITS: tuple[Unit, Unit] = ("frame", "video")
_OTHER_SIDE = "real faces are the other side of every row"
_RANKING = {
    "AP %": "average_precision",
    "AUC to FPR 0.1, %": "partial_auc",
    "EER %": "eer",
    "TPR at FPR 0.01, %": "tpr_at_fpr_1pct",
    "TPR at FPR 0.001, %": "tpr_at_fpr_01pct",
}
_DECISIONS = {
    "ACC@0.5 %": "accuracy@0.5",
    "ACC@val %": "accuracy@val",
    "ACC@oracle %": "accuracy@oracle",
    "balanced ACC@0.5 %": "balanced_accuracy@0.5",
    "balanced ACC@val %": "balanced_accuracy@val",
    "balanced ACC@oracle %": "balanced_accuracy@oracle",
    "Brier %": "brier",
    "ECE %": "ece",
}
_POOLED_ATTRIBUTION = {
    "ACC": "accuracy",
    "balanced ACC": "balanced_accuracy",
    "macro F1": "macro_f1",
    "one-vs-rest AUC": "ovr_auc",
    "top-3 ACC": "top_3_accuracy",
    "ECE": "ece",
}


def result_tables(result: Result) -> list[Table]:
    """Return the tables of one run, the last one telling what is missing and why it may not stand on the leaderboard."""
    title = f"{result.model.name} on {result.protocol.name} v{result.protocol.version}"
    if result.perturbation is not None:
        title += f", perturbed: {result.perturbation.strength}"
    tables = headline_tables(title, result.scores, result.scoring, result.protocol.warning)
    notes = []
    if result.counts.skipped:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(result.counts.skipped.items()))
        notes.append(f"{result.counts.evaluated} of {result.counts.declared} faces were evaluated; left out: {told}.")
    if result.ineligible:
        notes.append(f"Not eligible for the leaderboard: {'; '.join(result.ineligible)}.")
    return [*tables[:-1], replace(tables[-1], notes=(*tables[-1].notes, *notes))]


def headline_tables(
    title: str, scores: Sequence[Score], scoring: ScoringRecord, warning: str | None = None
) -> list[Table]:
    """Return detection and attribution, a row per group of each test subset, then its mean and all faces together.

    In percent, with 95 % intervals; what is undefined is ``–`` with a note. warning: what the protocol says must stand on
    every page that shows its numbers. A pure detector has no table of attribution.
    """
    lookup = Lookup(scores)
    tables = [_detection(f"{title}: detection", lookup)]
    if lookup.levels:
        tables.append(_attribution(f"{title}: attribution", lookup))
    notes = [_resampling(scoring), *warned(warning)]
    return [*tables[:-1], replace(tables[-1], notes=(*tables[-1].notes, *notes))]


def report_tables(
    title: str, scores: Sequence[Score], scoring: ScoringRecord, warning: str | None = None
) -> list[Table]:
    """Return every score, in tables: the headline ones first. The numbers of videos are left out where they are the same."""
    lookup = Lookup(scores)
    units: tuple[Unit, ...] = _UNITS if lookup.has_videos else ("frame",)
    tables = []
    for unit in units:
        tables.append(_ranking(f"{title}: detection by {unit}, rankings", lookup, unit))
        tables.append(_decisions(f"{title}: detection by {unit}, decisions and probabilities", lookup, unit))
    if lookup.levels:
        tables.append(_attribution_together(f"{title}: attribution, all faces of a subset together", lookup, units))
        tables.append(_joint(f"{title}: detection and attribution together", lookup, units))
        tables.append(_open_set(f"{title}: faces of classes that training lacks", lookup, units))
    if lookup.scores("discovery"):
        tables.append(_discovery(f"{title}: test faces clustered by embedding", lookup))
    return [*headline_tables(title, scores, scoring), *tables[:-1], _with_warning(tables[-1], warning)]


def _with_warning(table: Table, warning: str | None) -> Table:
    return replace(table, notes=(*table.notes, *warned(warning)))


def _resampling(scoring: ScoringRecord) -> str:
    if not scoring.resamples:
        return "No intervals were asked for."
    bound = {
        "auto": "faces that share a person or a video",
        "identity": "faces that share a person",
        "video": "faces that share a video",
        "face": "each face by itself",
    }[scoring.cluster_by]
    return (
        f"[low, high]: 95 % interval, {scoring.resamples:,} resamples of the {scoring.clusters:,} clusters of test faces "
        f"({bound}). clusters: on the side that has fewer."
    )


# --- headline ------------------------------------------------------------------------------------------------------


def _detection(title: str, lookup: Lookup) -> Table:
    notes = Notes()
    videos = lookup.has_videos
    columns = ["subset", "group", "AUC %", *(["AUC by video %"] if videos else []), "EER %", "ACC@0.5 %", "ACC@val %"]
    rows = []
    for subset, group in _detection_rows(lookup):
        auc = lookup.score("detection", "auc", "authenticity", subset, group)
        if auc is None:
            continue
        cells = [cell(auc, notes, _OTHER_SIDE, True)]
        if videos:
            by_video = lookup.score("detection", "auc", "authenticity", subset, group, "video")
            cells.append(cell(by_video, notes, _OTHER_SIDE, True))
        others = {"EER": "eer", "0.5": "accuracy@0.5", "val": "accuracy@val"}
        cells += _detection_cells(lookup, notes, others, "frame", subset, group)
        rows.append((subset, group, *cells, _counted(auc), clusters_cell(auc, notes)))
    meaning = [
        "The row's fakes against real test faces. ACC@0.5, ACC@val: threshold 0.5, and that of the highest balanced "
        "accuracy on val.",
        "mean: macro average over the rows above it; pooled: all fakes together.",
    ]
    if not videos:
        meaning.append("By video the numbers are the same: no two faces are of one video.")
    return Table(title, (*columns, "faces", "clusters"), tuple(rows), (*notes.lines(), *meaning))


def _counted(score: Score) -> str:
    """Return the faces of a row; of a mean there are groups, which are no faces."""
    return NONE if score.group == MEAN else str(score.n + score.unknown)


def _attribution(title: str, lookup: Lookup) -> Table:
    notes = Notes()
    columns = ["subset", "group", *(f"ACC {level_name(level)} %" for level in lookup.levels)]
    rows = []
    for subset in lookup.subsets:
        for group in [*lookup.groups("attribution", subset), MEAN, POOLED]:
            found = [lookup.score("attribution", "accuracy", level, subset, group) for level in lookup.levels]
            present = [score for score in found if score is not None]
            if not present:
                continue
            counted = max(present, key=lambda score: score.n)
            cells = [cell(score, notes, "not scored", True) for score in found]
            rows.append((subset, group, *cells, _counted(counted), clusters_cell(counted, notes)))
    meaning = "The one class head, rolled up to each level. mean: macro average over the rows above it."
    return Table(title, (*columns, "faces", "clusters"), tuple(rows), (*notes.lines(), meaning))


# --- everything ----------------------------------------------------------------------------------------------------


def _ranking(title: str, lookup: Lookup, unit: Unit) -> Table:
    notes = Notes()
    rows = []
    for subset, group in _detection_rows(lookup):
        auc = lookup.score("detection", "auc", "authenticity", subset, group, unit)
        delong = None if auc is None or auc.delong is None else auc.delong
        closed = NONE if delong is None else f"[{100 * delong[0]:.1f}, {100 * delong[1]:.1f}]"
        cells = [cell(auc, notes, _OTHER_SIDE, True), closed]
        cells += _detection_cells(lookup, notes, _RANKING, unit, subset, group)
        rows.append((subset, group, *cells))
    meaning = (
        "DeLong: the interval of AUC in closed form, for the same clusters (Obuchowski 1997); a mean has none.",
        "EER: lower is better.",
    )
    columns = ("subset", "group", "AUC %", "DeLong %", *_RANKING)
    return Table(title, columns, tuple(rows), (*notes.lines(), *meaning))


def _decisions(title: str, lookup: Lookup, unit: Unit) -> Table:
    notes = Notes()
    rows = [
        (subset, group, *_detection_cells(lookup, notes, _DECISIONS, unit, subset, group))
        for subset, group in _detection_rows(lookup)
    ]
    meaning = (
        "@0.5, @val: threshold 0.5, and that of the highest balanced accuracy on val. @oracle: the best threshold for these "
        "very faces, a bound and no result. Brier, ECE: lower is better.",
    )
    return Table(title, ("subset", "group", *_DECISIONS), tuple(rows), (*notes.lines(), *meaning))


def _detection_rows(lookup: Lookup) -> list[tuple[str, str]]:
    return [
        (subset, group) for subset in lookup.subsets for group in [*lookup.groups("detection", subset), MEAN, POOLED]
    ]


def _detection_cells(
    lookup: Lookup, notes: Notes, metrics: Mapping[str, str], unit: Unit, subset: str, group: str
) -> list[str]:
    found = [lookup.score("detection", metric, "authenticity", subset, group, unit) for metric in metrics.values()]
    return [cell(score, notes, _OTHER_SIDE) for score in found]


def _attribution_together(title: str, lookup: Lookup, units: Sequence[Unit]) -> Table:
    notes = Notes()
    rows = [
        (
            *(subset, level_name(level), unit),
            *(
                NONE
                if level != "generator" and metric == "top_3_accuracy"
                else cell(lookup.score("attribution", metric, level, subset, POOLED, unit), notes, "not scored", True)
                for metric in _POOLED_ATTRIBUTION.values()
            ),
        )
        for subset in lookup.subsets
        for level in lookup.levels
        for unit in units
    ]
    columns = ("subset", "level", "by", *(f"{name} %" for name in _POOLED_ATTRIBUTION))
    return Table(title, columns, tuple(rows), tuple(notes.lines()))


def _joint(title: str, lookup: Lookup, units: Sequence[Unit]) -> Table:
    notes = Notes()
    rows = [
        (
            *(subset, group, level_name(level), unit),
            *(
                cell(lookup.score("joint", metric, level, subset, group, unit), notes, "not scored", True)
                for metric in ("accuracy_of_detected@val", "joint_accuracy@val")
            ),
        )
        for subset in lookup.subsets
        for group in [*lookup.groups("joint", subset), MEAN, POOLED]
        for level in lookup.levels
        for unit in units
    ]
    columns = ("subset", "group", "level", "by", "ACC of detected %", "right twice %")
    meaning = (
        "ACC of detected: of the faces called fake at the threshold chosen on val, those attributed right; a real among "
        "them is wrong. right twice: of all faces, those whose authenticity and attribution are both right.",
    )
    return Table(title, columns, tuple(rows), (*notes.lines(), *meaning))


def _open_set(title: str, lookup: Lookup, units: Sequence[Unit]) -> Table:
    notes = Notes()
    rows = []
    for level in lookup.levels:
        for group in [*_unknown_groups(lookup, level), POOLED]:
            for unit in units:
                for sign, name in (("msp", "max. probability"), ("energy", "energy")):
                    found = [
                        lookup.score("open_set", f"{metric}@{sign}", level, EVERY_SUBSET, group, unit)
                        for metric in ("auroc", "fpr95", "oscr")
                    ]
                    faces = NONE if found[0] is None else str(found[0].n)
                    cells = [cell(score, notes, "not scored", True) for score in found]
                    rows.append((level_name(level), group, unit, name, *cells, faces))
    columns = ("level", "unknown", "by", "told by", "AUROC %", "FPR at 95 % TPR %", "OSCR %", "faces")
    meaning = (
        "Known test faces against those of each value that training lacks. FPR: unknown faces taken for known ones."
    )
    return Table(title, columns, tuple(rows), (*notes.lines(), meaning))


def _unknown_groups(lookup: Lookup, level: str) -> list[str]:
    found = dict.fromkeys(score.group for score in lookup.scores("open_set") if score.level == level)
    return [group for group in found if group != POOLED]


def _discovery(title: str, lookup: Lookup) -> Table:
    notes = Notes()
    groups = dict.fromkeys(score.group for score in lookup.scores("discovery"))
    rows = []
    for group in groups:
        found = [
            lookup.score("discovery", metric, "generator", EVERY_SUBSET, group)
            for metric in ("clustering_accuracy", "nmi", "ari")
        ]
        faces = NONE if found[0] is None else str(found[0].n)
        rows.append((group, *(cell(score, notes, "not scored") for score in found), faces))
    meaning = "k-means, k being the true number. ACC: clusters matched to generators one to one (Hungarian)."
    return Table(title, ("faces", "ACC %", "NMI %", "ARI %", "number"), tuple(rows), (*notes.lines(), meaning))
