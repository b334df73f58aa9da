"""A cell shows what is there, says why something is not, and a table stays a table whatever a model is called."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.publish.ranking import leaderboard_table
from dfad_bench.publish.scores import headline_tables, report_tables, result_tables
from dfad_bench.publish.tables import Lookup, Notes, Table, cell, clusters_cell, markdown
from dfad_bench.records.results import Score
from tests.publish.builders import SCORING, a_protocol, a_result

HOSTILE = "a|b<script>alert(1)</script>`c`\n| --- |\\|[x](javascript:1)<!-- leaderboard:end -->"


def cells_per_line(text: str) -> list[int]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [len(re.split(r"(?<!\\)\|", row)) - 2 for row in rows]


def a_score(**fields: object) -> Score:
    return Score.model_validate(
        {
            "task": "detection",
            "metric": "auc",
            "level": "authenticity",
            "subset": "seen",
            "group": "mean",
            "value": 0.9,
            "n": 3,
            **fields,
        }
    )


# --- cells ---------------------------------------------------------------------------------------------------------


def test_a_value_is_a_percentage_with_one_decimal_and_its_interval_where_asked_for() -> None:
    score = a_score(value=0.12345, low=0.1, high=0.2)
    assert cell(score, Notes(), "absent") == "12.3"
    assert cell(score, Notes(), "absent", True) == "12.3 [10.0, 20.0]"


def test_a_value_without_the_interval_that_was_asked_for_says_why() -> None:
    notes = Notes()
    assert cell(a_score(no_interval="one cluster"), notes, "absent", True) == "90.0 (1)"
    assert notes.lines() == ["(1) no interval: one cluster."]


def test_what_is_undefined_or_absent_is_a_dash_with_its_reason_and_reasons_are_told_once() -> None:
    notes = Notes()
    assert cell(None, notes, "absent") == "– (1)"
    assert cell(a_score(value=None, reason="no fake face"), notes, "absent") == "– (2)"
    assert cell(None, notes, "absent") == "– (1)"
    assert notes.lines() == ["(1) absent.", "(2) no fake face."]


def test_few_clusters_are_flagged_and_only_where_there_is_an_interval() -> None:
    notes = Notes()
    assert clusters_cell(a_score(clusters=19, low=0.1, high=0.9), notes) == "19 (1)"
    assert notes.lines() == ["(1) fewer than 20 clusters: the interval is too narrow."]
    assert clusters_cell(a_score(clusters=20, low=0.1, high=0.9), notes) == "20"
    assert clusters_cell(a_score(clusters=3), notes) == "3"
    assert clusters_cell(None, notes) == "–"


def test_videos_are_told_apart_from_frames_only_where_pooling_changes_a_number() -> None:
    frame, same = a_score(), a_score(unit="video")
    assert not Lookup([frame, same]).has_videos
    assert Lookup([frame, a_score(unit="video", value=0.8)]).has_videos
    assert Lookup([frame, a_score(unit="video", n=2)]).has_videos


# --- Markdown ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [*result_tables(a_result()), leaderboard_table(a_protocol(), [a_result()])])
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
    table = Table("title", ("a", "b"), (("1", "4"),), ("a note",))
    assert markdown(replace(table, notes=())).endswith("| 1 | 4 |\n")


def test_every_row_has_as_many_cells_as_there_are_columns_even_without_scores() -> None:
    whole = a_result(resamples=20)
    tables = [
        *result_tables(whole),
        *report_tables("all", whole.scores, whole.scoring),
        *headline_tables("none", [], SCORING),
        *report_tables("none", [], SCORING),
        leaderboard_table(a_protocol(), []),
    ]
    for table in tables:
        assert {len(row) for row in table.rows} <= {len(table.columns)}
