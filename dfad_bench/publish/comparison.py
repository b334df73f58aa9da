"""The tables of a comparison: who is better at what, by how much, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Collection

from dfad_bench.publish.tables import NONE, Notes, Table, level_name, warned
from dfad_bench.records.comparison import FEW_CLUSTERS, Comparison, Difference, McNemarTest, SideRecord
from dfad_bench.records.results import MEAN, POOLED

HEADLINE = ("auc", "eer", "accuracy@val", "accuracy", "joint_accuracy@val")
"""The metrics that are shown where nobody asks for others."""
HEADLINE_OF_DETECTION = HEADLINE[:3]
_BOUND = {
    "auto": "faces that share a person or a video",
    "identity": "faces that share a person",
    "video": "faces that share a video",
    "face": "each face by itself",
}
_NO_RESAMPLES = "There are no intervals, and no p-values by bootstrap, without resamples."


def comparison_tables(comparison: Comparison, metrics: Collection[str] | None = None) -> list[Table]:
    """Return one table per subset, in percent: a row per metric and group, then their mean and all faces together.

    metrics: recorded names, or what stands before the @; None: the headline ones. Numbers by video are left out where
    no two faces are of one video, and for headline metrics but the AUC.
    """
    rows = [each for each in comparison.differences if _is_wanted(each, metrics)]
    if not _has_videos(comparison.differences):
        rows = [each for each in rows if each.unit == "frame"]
    elif metrics is None:
        rows = [each for each in rows if each.unit == "frame" or each.metric == "auc"]
    subsets = list(dict.fromkeys(each.subset for each in rows))
    places = {place: index for index, place in enumerate(dict.fromkeys((each.task, each.level) for each in rows))}
    metric = {name: index for index, name in enumerate(dict.fromkeys([*HEADLINE, *(each.metric for each in rows)]))}
    # A metric's groups stand together, in the order in which they come.
    rows.sort(key=lambda each: (places[each.task, each.level], metric[each.metric], each.unit))
    return [
        _table(comparison, subset, [each for each in rows if each.subset == subset], is_last=subset == subsets[-1])
        for subset in subsets
    ]


def _is_wanted(row: Difference, metrics: Collection[str] | None) -> bool:
    if metrics is None:
        return row.metric in HEADLINE
    return row.metric in metrics or row.metric.partition("@")[0] in metrics


def _has_videos(rows: Collection[Difference]) -> bool:
    """Return whether pooling by video changes any number."""

    def told(unit: str) -> dict[tuple[str, ...], tuple[float | None, float | None, int, int]]:
        return {
            (each.task, each.metric, each.level, each.subset, each.group): (each.a, each.b, each.n_a, each.n_b)
            for each in rows
            if each.unit == unit
        }

    return told("video") != told("frame")


def _table(comparison: Comparison, subset: str, rows: Collection[Difference], is_last: bool) -> Table:
    notes = Notes()
    cells = tuple(
        (
            *(_metric(row), row.group, _value(row.a), _value(row.b)),
            *(_difference(row, notes), _interval(row, notes), _p(row, notes), _holm(row), _test(row)),
            _clusters(row, notes),
        )
        for row in rows
    )
    columns = ("metric", "group", "A %", "B %", "A − B", "95 % interval", "p", "Holm p", "test", "clusters")
    meaning = _meaning(comparison, rows) if is_last else []
    return Table(f"{_title(comparison)}: {subset}", columns, cells, (*notes.lines(), *meaning))


def _title(comparison: Comparison) -> str:
    named = f"A = {_name(comparison.a)}, B = {_name(comparison.b)}"
    perturbed = "" if comparison.perturbation is None else f", perturbed: {comparison.perturbation.strength}"
    return f"{named} on {comparison.protocol.name} v{comparison.protocol.version}{perturbed}"


def _name(side: SideRecord) -> str:
    return f"{side.model} (seed {side.seed})"


# --- cells ---------------------------------------------------------------------------------------------------------


def _metric(row: Difference) -> str:
    level = "" if row.level == "authenticity" else f", {level_name(row.level)}"
    return row.metric + level + (" by video" if row.unit == "video" else "")


def _value(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _difference(row: Difference, notes: Notes) -> str:
    if row.difference is None:
        return f"{NONE} {notes.mark(row.reason or 'undefined')}"
    return f"{100 * row.difference:+.1f}" if row.difference else "0.0"


def _interval(row: Difference, notes: Notes) -> str:
    if row.low is None or row.high is None:
        return NONE if row.no_interval is None else f"{NONE} {notes.mark(row.no_interval)}"
    return f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]"


def _p(row: Difference, notes: Notes) -> str:
    if row.p is None:
        return NONE if row.no_p is None else f"{NONE} {notes.mark(row.no_p)}"
    return _probability(row.p)


def _holm(row: Difference) -> str:
    return NONE if row.p_holm is None else _probability(row.p_holm)


def _probability(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _test(row: Difference) -> str:
    if row.p is None:
        return NONE
    if row.mcnemar is not None:
        return f"McNemar, {_method(row.mcnemar)}"
    return "DeLong" if row.test == "delong" else "bootstrap"


def _method(test: McNemarTest) -> str:
    return {"exact": "exact", "sign flips": "sign flips", "chi-square": "χ²"}[test.method]


def _clusters(row: Difference, notes: Notes) -> str:
    if row.clusters is None:
        return NONE
    if not row.few_clusters or row.difference is None:
        return str(row.clusters)
    few = f"fewer than {FEW_CLUSTERS} clusters: the interval is too narrow, and p by bootstrap too small"
    return f"{row.clusters} {notes.mark(few)}"


# --- notes ---------------------------------------------------------------------------------------------------------


def _meaning(comparison: Comparison, rows: Collection[Difference]) -> list[str]:
    """Return what every table of a comparison needs to be read."""
    resampling = comparison.resampling
    faces = sum(count for subset, count in comparison.faces.items() if subset != "val")
    told = [f"Both models on the same {faces:,} test faces."]
    for name, side, other in (("A", comparison.a, "B"), ("B", comparison.b, "A")):
        if side.left_out:
            counts = ", ".join(f"{count:,} of {subset}" for subset, count in side.left_out.items())
            told.append(f"Left out, since {other} has no answer to them: {counts} that {name} has.")
    if comparison.detection_only:
        told.append("Only detection is compared: a model gives no class logits.")
    clusters = f"{resampling.clusters:,} clusters of test faces ({_BOUND[resampling.cluster_by]})"
    if resampling.resamples:
        told.append(
            f"A − B in percentage points; its interval: {resampling.resamples:,} resamples of the {clusters}, the same ones "
            "for both models."
        )
    else:
        told.append(f"A − B in percentage points. {_NO_RESAMPLES} There are {clusters}.")
    told.append(
        "p, that chance alone makes a difference so large: for auc DeLong's test, for accuracy McNemar's, both with "
        "clusters; otherwise by bootstrap. It need not agree with the interval to the last digit."
    )
    told.append(
        f"Holm p: p adjusted for all groups of a metric; {MEAN} (over the groups) and {POOLED} (all faces together) are one "
        "question each, and not adjusted. Over the metrics nothing is adjusted."
    )
    lower = sorted({row.metric for row in rows if not row.higher_is_better})
    if lower:
        told.append(f"Lower is better: {', '.join(lower)}. @val: each model at the threshold chosen on val for it.")
    else:
        told.append("@val: each model at the threshold chosen on val for it.")
    return told + warned(comparison.protocol.warning)
