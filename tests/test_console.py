"""Tables in a terminal: nothing is broken that fits, and what does not fit is continued below."""

from __future__ import annotations

import pytest
from rich.console import Console

from dfad_bench import console

COLUMNS = ("rank", "model", *(f"subset{number} ACC forgery type %" for number in range(8)))
ROWS = [("1", "spectral", *(["96.1 [92.5, 98.5]"] * 8)), ("2", "file_header", *(["24.6 [22.6, 25.0]"] * 8))]


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, **table: object
) -> list[str]:
    monkeypatch.setattr(console, "out", Console(width=width))
    given = {"title": "a title", "columns": COLUMNS, "rows": ROWS, "notes": ["a note"]} | table
    console.show_table(**given)  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    lines = shown(monkeypatch, capsys, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "file_header" in text
    assert text.count("[92.5,") == 8 and text.count("98.5]") == 8
    assert all(f"subset{number}" in text for number in range(8))


def test_every_part_begins_with_what_a_row_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(shown(monkeypatch, capsys, 80))
    parts = text.count("model")
    assert parts > 1
    assert text.count("spectral") == text.count("file_header") == text.count("rank") == parts
    assert text.count("a title") == text.count("a note") == 1


def test_a_table_that_fits_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\n".join(shown(monkeypatch, capsys, 300)).count("spectral") == 1


def test_a_table_of_numbers_alone_and_an_empty_one_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any("0.5" in line for line in shown(monkeypatch, capsys, 80, columns=("a", "b"), rows=[("1", "0.5")]))
    assert any("model" in line for line in shown(monkeypatch, capsys, 80, rows=[]))


def test_a_sentence_in_a_cell_is_folded_and_splits_no_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("OpenCV", "ok", "a sentence that goes on and on " * 6)]
    lines = shown(monkeypatch, capsys, 80, columns=("what", "status", "detail"), rows=rows)
    assert "\n".join(lines).count("OpenCV") == 1
    assert max(map(len, lines)) <= 80


def test_markup_in_a_cell_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(
        "[red]x[/red]" in line for line in shown(monkeypatch, capsys, 80, columns=("a",), rows=[("[red]x[/red]",)])
    )
