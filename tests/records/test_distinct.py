"""Hashes tell which texts may be the same: none that is goes unnoticed, whatever the parts they come in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records import distinct
from dfad_bench.records.distinct import DistinctHashes, Repeats, among, hashes, once

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2), max_size=12)


def as_array(numbers: list[int]) -> np.ndarray:
    return np.asarray(numbers, np.int64)


@settings(deadline=None)
@given(NUMBERS)
def test_numbers_come_once_and_in_order(numbers: list[int]) -> None:
    assert once(as_array(numbers)).tolist() == sorted(set(numbers))


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_what_is_among_known_numbers_is_found(some: list[int], known: list[int]) -> None:
    assert among(as_array(some), once(as_array(known))).tolist() == [each in known for each in some]


@settings(deadline=None)
@given(st.lists(NUMBERS, max_size=6), st.integers(0, 5))
def test_hashes_in_parts_are_the_same_as_at_once(parts: list[list[int]], few: int) -> None:
    collected = DistinctHashes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "_FEW", few)
        for part in parts:
            collected.add(as_array(part))
    assert collected.sorted().tolist() == sorted({each for part in parts for each in part})


@settings(deadline=None)
@given(st.lists(st.lists(st.text(max_size=1), max_size=5), max_size=5))
def test_a_text_that_occurs_twice_is_suspected(parts: list[list[str]]) -> None:
    seen = Repeats()
    for part in parts:
        seen.add(pa.array(part, pa.string()))
    texts = [text for part in parts for text in part]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    assert set(hashes(pa.array(twice, pa.string())).tolist()) == set(seen.suspects().tolist())
    assert set(seen.suspects().tolist()) == set(hashes(pa.array(twice, pa.string())).tolist()), "asked once more"


@settings(deadline=None)
@given(st.lists(st.text(max_size=5)))
def test_equal_texts_have_equal_hashes(texts: list[str]) -> None:
    found = hashes(pa.array(texts, pa.string()))
    assert found.dtype == np.int64
    assert found.tolist() == hashes(pa.concat_arrays([pa.array(["x"]), pa.array(texts, pa.string())])[1:]).tolist()
