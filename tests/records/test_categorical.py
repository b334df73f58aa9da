"""A column of strings as integers gives the strings back, in an order of values that depends on nothing else."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.records.categorical import Categorical, concatenated

TEXT = st.one_of(
    st.none(), st.sampled_from(["real", "a", "b", "", "ä", "Z", "\U0001f600", "\uffff"]), st.text(max_size=3)
)
COLUMNS = st.lists(TEXT, max_size=20)


def pieces(column: list[str | None], size: int) -> pa.ChunkedArray:
    """The column in pieces, each with a dictionary of its own."""
    parts = [pa.array(column[i : i + size], pa.string()).dictionary_encode() for i in range(0, len(column), size)]
    return pa.chunked_array(parts, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()


@given(COLUMNS)
def test_the_strings_come_back_and_values_are_distinct_and_sorted(column: list[str | None]) -> None:
    found = Categorical.of(column)
    assert found.tolist() == column
    assert len(found) == len(column)
    assert found.values == tuple(sorted({each for each in column if each is not None}))
    assert found.code.dtype == np.int32


@given(COLUMNS, st.integers(1, 5))
def test_it_does_not_matter_how_arrow_holds_a_column(column: list[str | None], size: int) -> None:
    expected = Categorical.of(column)
    plain = pa.array(column, pa.string())
    for held in (plain, pa.chunked_array([plain[:3], plain[3:]]), plain.dictionary_encode(), pieces(column, size)):
        found = Categorical.of(held)
        assert (found.values, found.code.tolist()) == (expected.values, expected.code.tolist())


def test_a_slice_of_a_column_holds_its_own_rows() -> None:
    assert Categorical.of(pa.array(["x", "y", None, "x"])[1:]).tolist() == ["y", None, "x"]
    assert Categorical.of(pa.array(["x", "y", None, "x"]).dictionary_encode()[1:]).tolist() == ["y", None, "x"]


@given(COLUMNS, st.data())
def test_taken_rows_keep_the_codes(column: list[str | None], data: Any) -> None:
    rows = data.draw(st.lists(st.integers(0, len(column) - 1), max_size=9)) if column else []
    whole = Categorical.of(column)
    taken = whole.take(np.asarray(rows, np.intp))
    assert taken.tolist() == [column[row] for row in rows]
    assert taken.values == whole.values


@given(COLUMNS, st.text(max_size=2))
def test_rows_have_a_value_or_not_and_a_null_has_none(column: list[str | None], value: str) -> None:
    for each in (value, "real"):
        assert Categorical.of(column).is_(each).tolist() == [cell == each for cell in column]


@given(st.lists(st.sampled_from(["real", "a", "z", ""]), max_size=60), st.data())
def test_groups_hold_the_given_rows_in_their_order_the_first_value_first(column: list[str], data: Any) -> None:
    rows = data.draw(st.lists(st.integers(0, len(column) - 1), max_size=60)) if column else []
    expected: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        expected[column[row]].append(row)
    found = Categorical.of(column).groups(np.asarray(rows, np.intp), first="real")
    assert {value: part.tolist() for value, part in found.items()} == expected
    assert list(found) == sorted(expected, key=lambda value: (value != "real", value))


@pytest.mark.parametrize("parts", [[], [[]], [[3, 1], [], [2]]])
def test_rows_are_put_one_after_the_other_of_no_part_too(parts: list[list[int]]) -> None:
    found = concatenated(np.asarray(part, np.intp) for part in parts)
    assert found.tolist() == [row for part in parts for row in part]
    assert found.dtype == np.intp
