"""The fingerprint of a protocol's faces: sha256 over their rows as sorted lines of JSON, whatever their number."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfad_bench.records.sorted_lines import SortedLines

_ODD = np.ones(256, dtype=bool)
_ODD[0x20:0x7F] = False
_ODD[[ord('"'), ord("\\")]] = True
"""Bytes that JSON would not write as they are."""
_ODD_TEXT = r"[^ !#-\[\]-~]"
_ODD_IN_LIST = _ODD.copy()
_ODD_IN_LIST[ord("'")] = True
"""Bytes for which Python would write a string of a list in another way than between two apostrophes, too."""
_PLAIN_FLOATS = (1e-4, 1e15)
"""The magnitudes at which Arrow writes a float as Python does, unless it is whole; beyond them the exponents differ."""
_MOST_WAITING = 4
"""Batches of rows that may wait for the thread that turns them into lines."""


class Fingerprint:
    """``sha256:…`` over rows, independent of their order.

    Each row is one line of JSON, a list of ``str(value)``, so that no text inside a field can pass for the border between
    two. The lines are made and sorted in a thread of its own, while the caller reads the next rows. folder: where lines
    are kept that memory should not hold.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = SortedLines(folder)
        self._thread = ThreadPoolExecutor(1)
        self._running: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, first: str, rows: pa.RecordBatch) -> None:
        """Take in rows; ``first`` stands before the columns of each. Raises OSError where the folder's disk is full."""
        if rows.num_rows:
            self._running.append(self._thread.submit(self._add, first, rows))
        if len(self._running) > _MOST_WAITING:
            self._running.popleft().result()

    def _add(self, first: str, rows: pa.RecordBatch) -> None:
        self._lines.add(_as_lines(first, rows))

    def value(self) -> str:
        """Return the fingerprint of all rows that were added, once. Raises as ``add``."""
        while self._running:
            self._running.popleft().result()
        digest = hashlib.sha256()
        for number, lines in enumerate(self._lines.blocks()):
            if number:
                digest.update(b"\n")
            # every line ends with a line break, the last of all should not
            digest.update(_bytes(lines)[:-1].data)
        return f"sha256:{digest.hexdigest()}"


def _as_lines(first: str, rows: pa.RecordBatch) -> pa.Array:
    *before, last = map(_as_json, rows.columns)
    opening = pa.scalar(f"[{json.dumps(first)[:-1]}")
    return pc.binary_join_element_wise(opening, *before, pc.binary_join_element_wise(last, '"]\n', ""), '", "')


def _as_json(cells: pa.Array) -> pa.Array:
    """Return [N] ``str(value)`` as JSON writes it, without the quotes."""
    if pa.types.is_list(cells.type):
        return _lists_as_json(cells)
    if pa.types.is_floating(cells.type):
        return _floats_as_json(cells)
    if not pa.types.is_string(cells.type):
        return cells.cast(pa.string()).fill_null("None")
    text = cells.fill_null("None")
    if not _ODD[_bytes(text)].any():
        return text
    return _replaced(text, pc.match_substring_regex(text, _ODD_TEXT), cells)


def _floats_as_json(cells: pa.Array) -> pa.Array:
    numbers = cells.cast(pa.float64())
    size = pc.abs(numbers)
    plain = pc.and_(pc.greater_equal(size, _PLAIN_FLOATS[0]), pc.less(size, _PLAIN_FLOATS[1]))
    plain = pc.and_(plain, pc.not_equal(size, pc.floor(size)))
    return _replaced(numbers.cast(pa.string()).fill_null("None"), pc.invert(plain).fill_null(False), cells)


def _lists_as_json(cells: pa.Array) -> pa.Array:
    inside = cells.flatten()
    if cells.null_count or inside.null_count or _ODD_IN_LIST[_bytes(inside)].any():
        return pa.array(list(map(_told, cells.to_pylist())), pa.string())
    text = pc.binary_join_element_wise("['", pc.binary_join(cells, "', '"), "']", "")
    return pc.if_else(pc.equal(pc.list_value_length(cells), 0), "[]", text)


def _replaced(text: pa.Array, odd: pa.Array, cells: pa.Array) -> pa.Array:
    """Return the text, written anew by Python itself where it is odd."""
    if not pc.any(odd).as_py():
        return text
    return pc.replace_with_mask(text, odd, pa.array(list(map(_told, cells.filter(odd).to_pylist())), pa.string()))


def _told(value: object) -> str:
    return json.dumps(str(value))[1:-1]


def _bytes(text: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the UTF-8 of all strings of an array, one after the other, without copying them."""
    _, offsets, data = text.buffers()
    if not len(text) or data is None:
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
