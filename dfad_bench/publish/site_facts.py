"""What the leaderboard's page says of a single result besides its numbers: facts, and marks of what to know first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dfad_bench.records.comparison import FEW_CLUSTERS
from dfad_bench.records.results import Result, Score
from dfad_bench.taxonomy import dataset, share_data

FACTS = (
    *(
        "origin of the numbers",
        "model from",
        "reference",
        "licence",
        "parameters",
        "inputs",
        "data its published weights saw",
    ),
    *("checkpoint selected on", "weights sha256", "published weights it starts from", "seed", "code", "environment"),
    *("data", "predictions sha256", "test faces", "resampling"),
)
_SELECTED = {
    "val": "val: trained here, the checkpoint chosen on val",
    "given": "given: the user's own weights",
    "nothing": "nothing: published weights and no training",
}


def facts(result: Result) -> tuple[str, ...]:
    """Return what is to be known of a result besides its numbers, in the order of ``FACTS``."""
    model, code, counts, scoring = result.model, result.code, result.counts, result.scoring
    changed = {True: ", with changes that are not committed", False: "", None: ", whether changed is unknown"}[
        code.dirty
    ]
    skipped = ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.skipped.items())) or "none"
    return (
        "reported by the model's authors" if result.origin == "reported" else "measured from stored predictions",
        *(model.origin, model.reference, model.licence, f"{model.parameters:,}", listed(model.inputs)),
        ", ".join(model.trained_on) or "none declared",
        _SELECTED[model.selected_on],
        *(model.weights_sha256 or "none", model.backbone_weights or "none", str(result.seed)),
        f"dfad-bench {code.version}, commit {code.commit or 'unknown'}{changed}",
        ", ".join(f"{name} {version}" for name, version in result.environment.items()),
        f"{listed(list(result.data))}; faces {result.protocol.fingerprint}",
        f"{result.predictions.sha256} ({result.predictions.rows:,} rows)",
        f"{counts.evaluated:,} of {counts.declared:,} evaluated; left out: {skipped}",
        f"{scoring.resamples:,} resamples of {scoring.clusters:,} clusters, by {scoring.cluster_by}",
    )


def listed(names: Sequence[str]) -> str:
    """Return names with commas between them, or that there are none."""
    return ", ".join(names) or "nothing"


def marks(result: Result, means: Sequence[Score | None], superseded: str | None) -> list[tuple[str, str]]:
    """Return what a reader must know before believing a row: words, each with its reason.

    means: the row's mean scores; superseded: how other results of the model make this one an old one, None where none does.
    """
    found = [("contaminated", reason) for reason in ["; ".join(_contamination(result))] if reason]
    clusters = [each.clusters for each in means if each is not None and each.clusters is not None]
    doubts = list(result.ineligible)
    if clusters and min(clusters) < FEW_CLUSTERS:
        doubts.append(f"a mean rests on {min(clusters)} clusters of faces, fewer than {FEW_CLUSTERS}")
    if doubts:
        found.append(("unreliable", "; ".join(doubts)))
    if superseded:
        found.append(("superseded", superseded))
    if result.origin == "reported":
        found.append(("reported", "by its authors, not measured"))
    return found


def _contamination(result: Result) -> Iterator[str]:
    """Yield which of the protocol's sources the model's published weights have seen, by whatever name they are called."""
    seen = result.model.trained_on
    sources = {dataset(source) for source in result.data}
    if same := [name for name in seen if dataset(name) in sources]:
        yield f"trained on {', '.join(same)}, a source of this protocol"
    for name in seen:
        kin = [source for source in result.data if name not in same and share_data(name, source)]
        if kin:
            yield f"trained on {name}, which shares faces with {', '.join(kin)}, a source of this protocol"
