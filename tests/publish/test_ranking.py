"""Models are ranked by what the protocol's hardest part says, and a result that may not rank says why."""

from __future__ import annotations

from dfad_bench.publish.ranking import leaderboard_table
from dfad_bench.records.results import Score
from tests.publish.builders import FACES, a_protocol, a_result, note_of, row_of
from tests.scoring.builders import predictions


def a_score(value: float | None, group: str = "mean", subset: str = "unseen", reason: str | None = None) -> Score:
    return Score(
        task="attribution",
        metric="accuracy",
        level="family",
        subset=subset,
        group=group,
        value=value,
        n=2,
        reason=reason,
    )


def test_models_are_ranked_by_unseen_family_accuracy() -> None:
    results = [a_result(name, scored=[a_score(value)]) for name, value in (("a", 0.2), ("b", 0.9), ("c", 0.5))]
    table = leaderboard_table(a_protocol(), results)
    assert [row[:2] for row in table.rows] == [("1", "b"), ("2", "c"), ("3", "a")]
    assert any(note.startswith("Ranked by unseen ACC family, then by unseen AUC.") for note in table.notes)


def test_equal_models_share_a_rank_and_stand_in_alphabetical_order() -> None:
    results = [a_result(name, scored=[a_score(value)]) for name, value in (("z", 0.5), ("y", 0.5), ("x", 0.1))]
    assert [row[:2] for row in leaderboard_table(a_protocol(), results).rows] == [("1", "y"), ("1", "z"), ("3", "x")]


def test_a_value_that_is_undefined_ranks_last_with_its_reason() -> None:
    results = [a_result("a", scored=[a_score(None, reason="no real face")]), a_result("b", scored=[a_score(0.0)])]
    table = leaderboard_table(a_protocol(), results)
    assert [row[1] for row in table.rows] == ["b", "a"]
    assert note_of(table, row_of(table, "2", "a")["unseen ACC family %"]).endswith("no real face.")


def test_without_an_unseen_subset_the_last_one_ranks() -> None:
    scored = [[a_score(1 - rank, subset="first"), a_score(rank, subset="second")] for rank in (0.1, 0.9)]
    table = leaderboard_table(a_protocol(), [a_result("a", scored=scored[0]), a_result("b", scored=scored[1])])
    assert [row[1] for row in table.rows] == ["b", "a"]


def test_a_pure_detector_is_ranked_below_by_its_auc() -> None:
    results = [a_result("detector", scored=predictions(FACES, detector=True)), a_result("attributor")]
    table = leaderboard_table(a_protocol(), results)
    assert [row[1] for row in table.rows] == ["attributor", "detector"]
    assert note_of(table, row_of(table, "2", "detector")["unseen ACC family %"]).endswith("no class logits.")


def test_an_ineligible_result_stands_last_without_a_rank_and_with_its_reason() -> None:
    table = leaderboard_table(a_protocol(), [a_result("good"), a_result("bad", ineligible=["limited", "dirty"])])
    assert [row[:2] for row in table.rows] == [("1", "good"), ("–", "bad")]
    assert "Not ranked: bad: limited; dirty." in table.notes


def test_a_reported_result_is_marked_as_such() -> None:
    table = leaderboard_table(a_protocol(), [a_result("theirs", origin="reported")])
    assert note_of(table, table.rows[0][1]).endswith("reported by its authors, not measured.")


def test_the_leaderboard_carries_the_protocols_warning() -> None:
    assert "Warning: beware" in leaderboard_table(a_protocol(warning="beware"), [a_result()]).notes
