"""Several seeds as a table: what each model scores on the whole, and whether the order of the models is that of one seed."""

from __future__ import annotations

from collections.abc import Sequence

from dfad_bench.publish.ranking import ranked_by
from dfad_bench.publish.tables import LEVELS, NONE, Notes, Table, level_name, warned
from dfad_bench.records.results import MEAN
from dfad_bench.records.seeds import RankStability, SeededModel, SeededScore, SeedsRecord

Key = tuple[str, str, str, str]
"""Task, metric, level and subset of a mean over groups."""


def seeds_table(record: SeedsRecord) -> Table:
    """Return one row per model, best first, by the mean that ranks the leaderboard; each model's ranks by seed stand in front.

    A cell is the mean over seeds ± their standard deviation, with its 95 % interval over faces and seeds.
    """
    means = {(score.model, _key(score)): score for score in record.scores if score.group == MEAN}
    subsets = list(dict.fromkeys(key[3] for _, key in means))
    levels = [level for level in LEVELS if any(key[0] == "attribution" and key[2] == level for _, key in means)]
    subset, level = ranked_by(subsets, levels)
    first: Key = ("attribution", "accuracy", level, subset)
    second: Key = ("detection", "auc", "authenticity", subset)
    stable = {_key(each): each for each in record.stability}
    notes = Notes()

    def by_rank(model: SeededModel) -> tuple[float, float, str]:
        return (-_mean(means.get((model.name, first))), -_mean(means.get((model.name, second))), model.name)

    keys = [key for each in subsets for key in _columns(each, levels)]
    rows = [
        (
            _ranks(stable.get(first), model.name),
            f"{model.name} {notes.mark('; '.join(model.ineligible))}" if model.ineligible else model.name,
            ", ".join(map(str, model.seeds)),
            *(_cell(means.get((model.name, key)), notes) for key in keys),
        )
        for model in sorted(record.models, key=by_rank)
    ]
    told = [
        "Mean over seeds ± standard deviation between them, and a 95 % interval over faces and seeds, in percent; each value "
        f"is a mean over groups, face by face. Ranks are by {mean_name(*first)}, seed by seed, among models that have all "
        "seeds."
    ]
    told += _firmness([stable[key] for key in (first, second) if key in stable])
    return Table(
        title=f"{record.protocol.name} v{record.protocol.version} over seeds",
        columns=("ranks", "model", "seeds", *(mean_name(*key) for key in keys)),
        rows=tuple(rows),
        notes=(*notes.lines(), *told, *warned(record.protocol.warning)),
    )


def _key(each: SeededScore | RankStability) -> Key:
    return each.task, each.metric, each.level, each.subset


def _columns(subset: str, levels: Sequence[str]) -> list[Key]:
    attributed: list[Key] = [("attribution", "accuracy", level, subset) for level in levels]
    return [*attributed, *(("detection", metric, "authenticity", subset) for metric in ("auc", "accuracy@val"))]


def mean_name(task: str, metric: str, level: str, subset: str) -> str:
    """Return what a mean over groups is called at the head of a column."""
    if task == "attribution":
        return f"{subset} ACC {level_name(level)} %"
    return f"{subset} {'AUC' if metric == 'auc' else 'ACC@val'} %"


def _mean(score: SeededScore | None) -> float:
    return -1.0 if score is None or score.mean is None else score.mean


def _cell(score: SeededScore | None, notes: Notes) -> str:
    if score is None or score.mean is None:
        return f"{NONE} {notes.mark('not scored' if score is None or score.reason is None else score.reason)}"
    shown = f"{100 * score.mean:.1f}"
    if score.deviation is not None:
        shown += f" ± {100 * score.deviation:.1f}"
    if score.low is not None and score.high is not None:
        return f"{shown} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    return shown if score.reason is None else f"{shown} {notes.mark(score.reason)}"


def _ranks(stability: RankStability | None, model: str) -> str:
    ranks = None if stability is None else stability.ranks.get(model)
    if not ranks:
        return NONE
    return str(ranks[0]) if len(set(ranks)) == 1 else f"{min(ranks)}–{max(ranks)}"


def _firmness(stabilities: Sequence[RankStability]) -> list[str]:
    told = []
    for each in stabilities:
        best = sorted({name for name, ranks in each.ranks.items() if 1 in ranks})
        firm = sum(len(set(ranks)) == 1 for ranks in each.ranks.values())
        agreement = "undefined" if each.concordance is None else f"{each.concordance:.2f}"
        told.append(
            f"Order by {mean_name(*_key(each))} over {len(each.seeds)} seeds: Kendall's W {agreement} (1: always the same "
            f"order); {firm} of {len(each.ranks)} models keep their rank; first at least once: {', '.join(best)}."
        )
    return told
