"""The groups of models that nobody can tell apart, as a table."""

from __future__ import annotations

from dfad_bench.publish.pairs import groups_table
from dfad_bench.records.pairs import ComparedMean, PairedModel, PairsRecord
from tests.publish.builders import a_protocol


def a_mean(metric: str, groups: dict[str, int]) -> ComparedMean:
    task, level = ("attribution", "family") if metric == "accuracy" else ("detection", "authenticity")
    told = {"task": task, "metric": metric, "level": level, "subset": "unseen", "tests": [], "groups": groups}
    return ComparedMean.model_validate(told)


def test_models_stand_by_their_groups_and_those_without_one_last() -> None:
    record = PairsRecord(
        protocol=a_protocol(warning="beware"),
        models=[PairedModel(name=name, predictions_sha256="0" * 64) for name in ("detector", "b", "a", "c")],
        cluster_by="auto",
        clusters=40,
        resamples=1000,
        seed=0,
        means=[
            a_mean("accuracy", {"c": 1, "b": 1, "a": 2}),
            a_mean("auc", {"detector": 1, "b": 2, "c": 1, "a": 2}),
            a_mean("accuracy@val", {}),
        ],
    )
    table = groups_table(record)
    assert table.columns == ("model", "unseen ACC family %", "unseen AUC %")
    assert table.rows == (("c", "1", "1"), ("b", "1", "2"), ("a", "2", "2"), ("detector", "–", "1"))
    assert "1,000 resamples of 40 clusters" in table.notes[0]
    assert table.notes[1] == "Warning: beware"
