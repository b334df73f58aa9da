"""The list of what was asked to be taken out: what it may hold, and which rows it hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import DataError
from dfad_bench.records.tombstones import add_tombstones, read_tombstones

HEAD = "kind,value,date,reason\n"
DAY = "2026-01-31"


def a_row(**changes: Any) -> dict[str, Any]:
    row = {"id": "faces/real/a.png", "identities": ["ff/ann", "ff/ben"], "video": None, "sha256": "a" * 64}
    return row | changes


def written(root: Path, text: str) -> Path:
    folder = root / "faces"
    folder.mkdir(exist_ok=True)
    (folder / "tombstones.csv").write_text(text, encoding="utf-8")
    return folder


def test_without_a_list_nobody_asked_for_anything(tmp_path: Path) -> None:
    assert not read_tombstones(tmp_path)
    assert read_tombstones(tmp_path).hits(a_row()) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [("id", "faces/real/a.png"), ("identity", "ff/ben"), ("video", "faces/real/clip"), ("sha256", "b" * 64)],
)
def test_a_line_hits_the_rows_that_have_its_value_and_no_other(tmp_path: Path, kind: str, value: str) -> None:
    found = read_tombstones(written(tmp_path, f"{HEAD}{kind},{value},{DAY},she asked\n"))
    other = a_row(id="faces/real/b.png", identities=["ff/cleo"])
    hit = {"id": a_row(), "identity": a_row(), "video": other | {"video": value}, "sha256": other | {"sha256": value}}
    assert [stone.told for stone in found.hits(hit[kind])] == ["asked for on 2026-01-31: she asked"]
    assert found.hits(other) == []


def test_a_row_may_be_named_twice(tmp_path: Path) -> None:
    root = written(tmp_path, HEAD)
    add_tombstones(root, [("identity", "ff/ann"), ("id", "faces/real/a.png")], DAY, "both asked")
    assert {stone.kind for stone in read_tombstones(root).hits(a_row())} == {"id", "identity"}


def test_what_is_asked_for_again_is_not_written_again_and_a_reason_may_have_commas(tmp_path: Path) -> None:
    root = written(tmp_path, HEAD)
    reason = 'by letter, "at once"'
    (one,) = add_tombstones(root, [("identity", "ff/ann")] * 2, DAY, reason)
    assert (one.value, one.reason) == ("ff/ann", reason)
    before = (root / "tombstones.csv").read_bytes()
    assert add_tombstones(root, [("identity", "ff/ann")], "2027-01-01", "again") == []
    assert (root / "tombstones.csv").read_bytes() == before
    assert read_tombstones(root).listed == (one,)


def test_a_list_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    text = f"\ufeff{HEAD}identity,ff/ann,{DAY},asked\n\n".replace("\n", "\r\n")
    assert len(read_tombstones(written(tmp_path, text)).listed) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must begin with the line kind,value,date,reason"),
        ("kind,value\n", "must begin with the line kind,value,date,reason"),
        (f"{HEAD}id,faces/real/a.png\n", "line 2: 2 cells, expected kind,value,date,reason"),
        (f"{HEAD}person,ff/ann,{DAY},asked\n", "line 2: kind: Input should be 'id', 'identity', 'video' or 'sha256'"),
        (f"{HEAD}identity,ff/ann,31.1.2026,asked\n", "line 2: date: "),
        (f"{HEAD}identity,ff/ann,2026-02-31,asked\n", "line 2: date: Value error, day is out of range"),
        (f"{HEAD}identity,ff/ann,{DAY},\n", "line 2: reason: "),
        (f"{HEAD}identity,ff/ann ,{DAY},asked\n", "line 2: value: "),
        (f"{HEAD}identity,ann,{DAY},asked\n", "line 2: identity 'ann' is not of the form <domain>/<person>"),
        (f"{HEAD}id,others/real/a.png,{DAY},asked\n", "is not of the form faces/<generator>/<key>"),
        (f"{HEAD}video,clip,{DAY},asked\n", "is not of the form faces/<generator>/<clip>"),
        (f"{HEAD}sha256,{'A' * 64},{DAY},asked\n", "is not of the form 64 of 0-9a-f"),
        (f'{HEAD}id,"faces/real/a.png,{DAY},asked\n', "line 2: unexpected end of data"),
    ],
)
def test_a_list_that_is_not_sound_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        read_tombstones(written(tmp_path, text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path, HEAD)
    (root / "tombstones.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_tombstones(root)


def test_a_value_that_is_not_sound_leaves_the_list_as_it_was(tmp_path: Path) -> None:
    root = written(tmp_path, HEAD)
    with pytest.raises(DataError, match="'ann' is not of the form"):
        add_tombstones(root, [("identity", "ff/ben"), ("identity", "ann")], DAY, "asked")
    assert not read_tombstones(root)
