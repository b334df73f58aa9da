"""Which models nobody can tell apart, as a table."""

from __future__ import annotations

from dfad_bench.publish.seeds import mean_name
from dfad_bench.publish.tables import NONE, Table, warned
from dfad_bench.records.pairs import PairsRecord


def groups_table(record: PairsRecord) -> Table:
    """Return one row per model and one column per mean over groups: the number of its significance group, 1 the best."""
    means = [mean for mean in record.means if mean.groups]

    def by_groups(name: str) -> tuple[list[int], str]:
        return [_place(mean.groups, name) for mean in means], name

    names = sorted((model.name for model in record.models), key=by_groups)
    rows = [(name, *(str(mean.groups.get(name, NONE)) for mean in means)) for name in names]
    protocol = record.protocol
    notes = (
        "Groups of models that are not shown to differ from the best of their group: paired bootstrap of the same faces "
        f"({record.resamples:,} resamples of {record.clusters} clusters), adjusted for all pairs (maxT), 5 %. Neighbours in "
        "different groups may still not be shown to differ from each other.",
        *warned(protocol.warning),
    )
    columns = ("model", *(mean_name(mean.task, mean.metric, mean.level, mean.subset) for mean in means))
    return Table(f"{protocol.name} v{protocol.version}: significance groups", columns, tuple(rows), notes)


def _place(groups: dict[str, int], name: str) -> int:
    """Return a model's group; one that has none comes last."""
    return groups.get(name, len(groups) + 1)
