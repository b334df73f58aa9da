"""A table shows what is there, says why something is not, and stays a table whatever a model is called."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.publish.tables import Table, leaderboard_table, markdown, result_table, scores_table
from dfad_bench.records.results import Score
from tests.publish.builders import FACES, a_protocol, a_result
from tests.scoring.builders import predictions

HOSTILE = "a|b<script>alert(1)</script>`c`\n| --- |\\|[x](javascript:1)<!-- leaderboard:end -->"


def row_of(table: Table, *first: str) -> dict[str, str]:
    found = [row for row in table.rows if row[: len(first)] == first]
    assert len(found) == 1
    return dict(zip(table.columns, found[0], strict=True))


def note_of(table: Table, cell: str) -> str:
    """Return the reason that a cell's number points at."""
    number = re.fullmatch(r".* (\(\d+\))", cell)
    assert number is not None
    found = [note for note in table.notes if note.startswith(number[1])]
    assert len(found) == 1
    return found[0]


def cells_per_line(text: str) -> list[int]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [len(re.split(r"(?<!\\)\|", row)) - 2 for row in rows]


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


# --- one run -------------------------------------------------------------------------------------------------------


def test_a_run_has_a_row_per_group_and_then_its_mean() -> None:
    table = result_table(a_result())
    assert [row[:2] for row in table.rows] == [
        *(("seen", group) for group in ("real", "ddpm", "stylegan3", "mean")),
        *(("unseen", group) for group in ("real", "flux", "sd15", "mean")),
    ]


def test_values_are_percentages_with_one_decimal() -> None:
    table = result_table(a_result())
    found = row_of(table, "seen", "stylegan3")
    assert (found["ACC forgery type %"], found["ACC family %"], found["AUC %"], found["ACC@0.5 %"], found["faces"]) == (
        *("0.0", "100.0", "100.0", "66.7", "1"),
    )
    assert row_of(table, "unseen", "mean")["faces"] == "4"


def test_a_level_that_training_has_no_class_for_is_a_dash_that_says_so() -> None:
    table = result_table(a_result())
    cell = row_of(table, "unseen", "sd15")["ACC generator %"]
    assert cell.startswith("–")
    assert note_of(table, cell).endswith("training has no such class at this level.")


def test_a_value_that_leaves_faces_out_says_how_many() -> None:
    table = result_table(a_result())
    cell = row_of(table, "unseen", "mean")["ACC family %"]
    assert cell.startswith("75.0 (")
    assert "leaves out 1 face " in note_of(table, cell)


def test_a_pure_detector_has_no_attribution_columns() -> None:
    table = result_table(a_result(scored=predictions(FACES, detector=True)))
    assert table.columns == ("subset", "group", "AUC %", "ACC@0.5 %", "faces with reals")
    assert row_of(table, "seen", "ddpm")["faces with reals"] == "3"


def test_the_notes_tell_what_is_missing_why_it_is_not_eligible_and_the_protocols_warning() -> None:
    table = result_table(
        a_result(
            skipped={"unreadable": 2, "absent": 1},
            ineligible=["limited to 5 faces"],
            protocol=a_protocol(warning="reals and fakes differ in format"),
        )
    )
    assert "7 of 10 faces were evaluated; left out: 1 absent, 2 unreadable." in table.notes
    assert "Not eligible for the leaderboard: limited to 5 faces." in table.notes
    assert "Warning: reals and fakes differ in format" in table.notes


def test_a_whole_run_has_no_such_notes() -> None:
    told = " ".join(result_table(a_result()).notes)
    assert "evaluated" not in told
    assert "eligible" not in told
    assert "Warning" not in told


def test_scores_make_a_table_without_a_result() -> None:
    assert scores_table("a title", a_result().scores).rows == result_table(a_result()).rows


def test_every_row_has_as_many_cells_as_there_are_columns_even_without_scores() -> None:
    for table in (result_table(a_result()), scores_table("none", []), leaderboard_table(a_protocol(), [])):
        assert {len(row) for row in table.rows} <= {len(table.columns)}


# --- the leaderboard -----------------------------------------------------------------------------------------------


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


# --- Markdown ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [result_table(a_result()), leaderboard_table(a_protocol(), [a_result()])])
def test_markdown_has_the_same_number_of_cells_in_every_row(table: Table) -> None:
    counts = cells_per_line(markdown(table))
    assert len(counts) == len(table.rows) + 2
    assert set(counts) == {len(table.columns)}


def test_a_hostile_name_stays_one_cell_of_text() -> None:
    text = markdown(leaderboard_table(a_protocol(), [a_result(HOSTILE), a_result("b", ineligible=[HOSTILE])]))
    assert len(set(cells_per_line(text))) == 1
    assert len(cells_per_line(text)) == 4
    assert "<" not in text
    assert r"a\|b&lt;script&gt;" in text
    assert r"\`c\`" in text
    assert r"\[x\](javascript:1)" in text


@given(st.text(max_size=40))
def test_no_name_breaks_a_table(name: str) -> None:
    table = Table(name, ("a", name), ((name, "1"), ("2", name)), (name,))
    text = markdown(table)
    # A separator of lines that str.splitlines knows and Markdown does not is replaced all the same.
    assert len(text.splitlines()) == 8
    assert set(cells_per_line(text)) == {2}


def test_a_table_without_notes_ends_with_its_last_row() -> None:
    assert markdown(replace(result_table(a_result()), notes=())).endswith("| 4 |\n")
