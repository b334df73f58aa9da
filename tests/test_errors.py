"""An error is one line that says what to do next, and its kind decides the exit code."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.errors import (
    FAILED,
    USAGE,
    DataError,
    DfadError,
    UnknownName,
    UsageError,
    did_you_mean,
    shorten,
)


@pytest.mark.parametrize(
    ("kind", "code"), [(DfadError, FAILED), (DataError, FAILED), (UsageError, USAGE), (UnknownName, USAGE)]
)
def test_the_kind_of_error_decides_the_exit_code(kind: type[DfadError], code: int) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, DfadError)


def test_an_unknown_name_is_told_the_nearest_and_where_to_look() -> None:
    error = UnknownName("model", "gazclip", ["gazeclip", "chance"], "See 'dfad-bench list models'.")
    assert str(error) == "No model is named 'gazclip'. Did you mean 'gazeclip'? See 'dfad-bench list models'."


def test_an_unknown_name_unlike_any_other_is_told_no_nearest() -> None:
    assert str(UnknownName("model", "zzz", ["gazeclip"], "Look.")) == "No model is named 'zzz'. Look."
    assert str(UnknownName("model", "zzz", [], "")) == "No model is named 'zzz'."


def test_a_suggestion_ignores_case_and_keeps_the_spelling_that_exists() -> None:
    assert did_you_mean("GAZECLIP", ["GazeCLIP"]) == " Did you mean 'GazeCLIP'?"


@settings(deadline=None)
@given(st.text(min_size=1, max_size=12), st.lists(st.text(max_size=12), max_size=6))
def test_a_suggestion_is_always_a_name_that_exists(name: str, known: list[str]) -> None:
    suggestion = did_you_mean(name, known)
    assert suggestion == "" or suggestion in {f" Did you mean {each!r}?" for each in known}


@settings(deadline=None)
@given(st.lists(st.text("ab", min_size=1), max_size=12), st.integers(1, 6))
def test_a_shortened_list_names_some_and_counts_the_rest(names: list[str], most: int) -> None:
    told = shorten(iter(names), most)
    assert told.startswith(", ".join(names[:most]))
    assert told.endswith(f" and {len(names) - most} more") == (len(names) > most)
