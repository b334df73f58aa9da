"""A fingerprint is the sha256 of the sorted rows, to the byte, whatever their number, order and contents."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records import sorted_lines
from dfad_bench.records.fingerprint import Fingerprint

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("angle", pa.float32()),
        ("width", pa.int32()),
        ("quality", pa.int16()),
        ("people", pa.list_(pa.string())),
    ]
)
TEXT = st.text(st.sampled_from("ab ,\"'\\\n\x00\x7f\x1fé€😀[]/-"), max_size=4) | st.text(max_size=3)
ROW = st.tuples(
    st.sampled_from(["train", "val", 'te"st', "größer"]),
    st.none() | TEXT,
    st.none() | st.floats(width=32),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-(2**15), 2**15 - 1),
    st.none() | st.lists(st.none() | TEXT, max_size=3),
)


def plain(rows: Sequence[Sequence[Any]]) -> str:
    """The definition, for rows that fit into memory."""
    text = "\n".join(sorted(json.dumps([first, *map(str, values)]) for first, *values in rows))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def streamed(rows: Sequence[Sequence[Any]], cuts: Sequence[int] = (), schema: pa.Schema = SCHEMA) -> str:
    """The same of rows that are told in several batches, each of which is a slice of a longer one."""
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    columns = list(zip(*rows, strict=True))[1:] or [()] * len(schema)
    whole = pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
    with TemporaryDirectory() as folder, Fingerprint(Path(folder)) as mark:
        for start, end in pairwise(edges):
            for first in {row[0] for row in rows[start:end]}:
                mask = [row[0] == first for row in rows[start:end]]
                mark.add(first, whole.slice(start, end - start).filter(pa.array(mask, pa.bool_())))
                mark.add(first, whole.slice(start, 0))
        return mark.value()


def of_text(rows: Sequence[Sequence[str]]) -> str:
    """The fingerprint of rows of text."""
    schema = pa.schema([(f"column {number}", pa.string()) for number in range(len(rows[0]) - 1)])
    assert streamed(rows, schema=schema) == plain(rows)
    return plain(rows)


def as_stored(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows as a table gives them back: an angle has 32 bits."""
    return [[row[0], row[1], None if row[2] is None else in_32_bits(row[2]), *row[3:]] for row in rows]


def in_32_bits(number: float) -> float:
    (stored,) = struct.unpack("f", struct.pack("f", number))
    return float(stored)


@settings(deadline=None, max_examples=200)
@given(st.lists(ROW, max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_it_is_that_of_the_plain_definition_for_any_cells(rows: list[tuple[Any, ...]], cuts: list[int]) -> None:
    assert streamed(rows, cuts) == plain(as_stored(rows))


@settings(deadline=None)
@given(st.floats(width=32))
def test_an_angle_is_written_as_python_writes_it(angle: float) -> None:
    schema = pa.schema([("angle", pa.float32())])
    assert streamed([("a", angle)], schema=schema) == plain([("a", in_32_bits(angle))])


def test_angles_of_every_size_are_written_as_python_writes_them() -> None:
    dice = random.Random(0)
    numbers = [struct.unpack("f", struct.pack("I", dice.getrandbits(32)))[0] for _ in range(20_000)]
    numbers += [in_32_bits(dice.gauss(0, 0.3)) for _ in range(20_000)]
    numbers += [in_32_bits(sign * 10.0**power) for power in range(-45, 39) for sign in (1, -1)]
    rows = [("a", number) for number in numbers]
    assert streamed(rows, schema=pa.schema([("angle", pa.float32())])) == plain(rows)


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6), st.randoms())
def test_it_does_not_depend_on_the_order_of_rows(rows: list[tuple[Any, ...]], dice: random.Random) -> None:
    shuffled = list(rows)
    dice.shuffle(shuffled)
    assert streamed(rows) == streamed(shuffled)


@settings(deadline=None)
@given(st.lists(ROW, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_it_is_the_same_when_lines_do_not_fit_into_memory(rows: list[tuple[Any, ...]], cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_lines, "_MOST", 40)
        patch.setattr(sorted_lines, "_BLOCK", 2)
        assert streamed(rows, cuts) == plain(as_stored(rows))


# --- what it tells apart -------------------------------------------------------------------------------------------

TEXT_ROWS = st.lists(st.lists(st.text(max_size=4), min_size=2, max_size=2), min_size=1, max_size=5)


@settings(deadline=None)
@given(TEXT_ROWS, TEXT_ROWS)
def test_two_sets_of_rows_share_a_fingerprint_only_where_they_are_the_same(
    first: list[list[str]], second: list[list[str]]
) -> None:
    assert (of_text(first) == of_text(second)) == (sorted(first) == sorted(second))


@settings(deadline=None)
@given(TEXT_ROWS, st.data())
def test_it_depends_on_every_field(rows: list[list[str]], data: st.DataObject) -> None:
    changed = [list(row) for row in rows]
    row, field = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 1))
    changed[row][field] = data.draw(st.text(max_size=4).filter(lambda text: text != rows[row][field]))
    assert of_text(changed) != of_text(rows)


@pytest.mark.parametrize("separator", ["\x1f", "\n", "|", ",", '","', "\\", '"'])
def test_text_that_looks_like_a_separator_does_not_hide_a_change(separator: str) -> None:
    assert of_text([["x", f"a{separator}b", "c"]]) != of_text([["x", "a", f"b{separator}c"]])
    assert of_text([["x", f"a{separator}b"]]) != of_text([["x", "a"], ["x", "b"]])


def test_a_repeated_row_changes_it() -> None:
    assert of_text([["a", "b"], ["a", "b"]]) != of_text([["a", "b"]])


def test_no_rows_have_the_fingerprint_of_an_empty_text() -> None:
    assert streamed([]) == plain([]) == f"sha256:{hashlib.sha256(b'').hexdigest()}"
