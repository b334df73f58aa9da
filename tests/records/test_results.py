"""A result comes back as it was written, to the byte, and a file that is not one is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.json_files import write_text
from dfad_bench.records.results import Result, read_result, same_score, write_result
from tests.records.builders import result, score


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(path: Path, change: Any) -> Path:
    """Write a sound result with something changed in its JSON."""
    stored = json.loads(result().model_dump_json())
    change(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")
    return path


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_result(tmp_path / "deep" / "result.json", result())
    assert read_result(tmp_path / "deep" / "result.json") == result()


def test_the_same_result_gives_the_same_bytes_and_survives_reading(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    write_result(first, result())
    write_result(second, read_result(first))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().endswith(b"}\n")
    assert b"\r" not in first.read_bytes()


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_score_keeps_every_bit_of_its_value(value: float) -> None:
    stored = result(scores=[score(value=value)])
    assert Result.model_validate_json(stored.model_dump_json()).scores[0].value == value


@pytest.mark.parametrize("field", ["value", "low", "high"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_score_that_is_no_number_cannot_be_made_because_json_would_turn_it_into_a_null(
    field: str, number: float
) -> None:
    with pytest.raises(ValidationError, match="finite"):
        score(**{field: number})


LAST_BIT = 0.3 + 1e-12
WHOLE = {"value": 0.3, "low": 0.2, "high": 0.4, "interval": "bca", "delong": (0.25, 0.35), "clusters": 7}


@pytest.mark.parametrize(
    "change", [{"value": LAST_BIT}, {"low": 0.2 - 1e-12}, {"high": 0.4 + 1e-12}, {"delong": (0.25, 0.35 + 1e-12)}, {}]
)
def test_scores_that_differ_in_the_last_bits_are_the_same(change: dict[str, Any]) -> None:
    assert same_score(score(**WHOLE), score(**WHOLE | change))
    assert same_score(score(**WHOLE | change), score(**WHOLE))


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0.3 + 1e-6},
        {"value": None, "reason": "one class only"},
        {"low": None, "high": None, "interval": None, "no_interval": "one cluster"},
        {"low": 0.2001},
        {"delong": None},
        {"delong": (0.25, 0.36)},
        {"interval": "percentile"},
        {"clusters": 8},
        {"n": 11},
        {"group": "mean"},
        {"unit": "video"},
        {"unknown": 1},
    ],
)
def test_scores_that_differ_in_anything_else_are_not(change: dict[str, Any]) -> None:
    assert not same_score(score(**WHOLE), score(**WHOLE | change))
    assert not same_score(score(**WHOLE | change), score(**WHOLE))


def test_a_missing_result_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dfad-bench run"):
        read_result(tmp_path / "result.json")


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path / "r.json", lambda stored: stored["model"].update(surprise=1)))
    assert "model.surprise: Extra inputs" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path / "r.json", lambda stored: stored["scores"][1].pop("metric")))
    assert "scores.1.metric: Field required" in message


def test_another_schema_version_is_told_before_anything_else(tmp_path: Path) -> None:
    path = changed(tmp_path / "r.json", lambda stored: stored.update(schema_version=3, surprise=1))
    assert "has schema version 3, this dfad-bench reads 2" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"null", b'{"schema_version": 2}', b"\xff\xfe"])
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.json").write_bytes(content)
    refusal(tmp_path / "r.json")


def test_a_result_that_cannot_be_serialised_leaves_the_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, result())
    before = path.read_bytes()
    with pytest.raises(PydanticSerializationError):
        write_result(path, result(config={"oops": object()}))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_text_that_cannot_be_written_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "a lone surrogate \ud800")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.txt", "before")]


def test_a_write_that_is_stopped_before_its_end_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    write_text(tmp_path / "a.txt", "before")
    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "after")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.txt", "before")]


def test_a_result_holds_no_clock_and_no_name_of_this_machine() -> None:
    assert not {"time", "date", "timestamp", "started", "host", "hostname", "user"} & set(Result.model_fields)
