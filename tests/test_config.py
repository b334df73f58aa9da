"""A configuration file is read strictly and safely, and what is wrong with it is told in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from dfad_bench.config import Strict, data_dir, file_sha256, home_dir, read_yaml, validate, variables, weights_dir
from dfad_bench.errors import DataError, UsageError


class Inner(Strict):
    size: int
    names: list[str] = Field(default_factory=list)


class Outer(Strict):
    name: str
    inner: Inner
    ratio: float = 0.5


SOUND = "name: größer\ninner: {size: 3, names: [a, b]}\n"


def refusal(folder: Path, content: str | bytes) -> str:
    """Read a file that must be refused; return the message, one line that names the file."""
    path = folder / "some.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read_yaml(path, Outer)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    return str(caught.value)


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_sound_file_becomes_its_model(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(SOUND, encoding="utf-8")
    assert read_yaml(tmp_path / "some.yaml", Outer) == Outer(name="größer", inner=Inner(size=3, names=["a", "b"]))


def test_a_missing_file_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no file .*some\.yaml"):
        read_yaml(tmp_path / "some.yaml", Outer)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").mkdir()
    with pytest.raises(DataError, match=r"some\.yaml cannot be read as text"):
        read_yaml(tmp_path / "some.yaml", Outer)


@pytest.mark.parametrize("content", [b"name: \xff\xfe\n", "name: größer".encode("latin-1"), SOUND.encode("utf-16")])
def test_text_that_is_not_utf_8_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "cannot be read as text" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        "name: [a, b",
        "name: 'a",
        "a: b: c",
        "\tname: a",
        "name: *nobody",
        "a: 1\n---\nb: 2\n",
        "name: a\0b",
        "? [a, b]\n: 1\n",
        "{a: 1}: 2",
        "!!map a: 1",
    ],
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, content: str) -> None:
    assert "is not valid YAML" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    "value", ["2020-99-99", "!!int many", "!!float much", "!!bool perhaps", "!!timestamp now", "0x_", "[" * 500]
)
def test_a_value_that_yaml_itself_cannot_make_is_refused(tmp_path: Path, value: str) -> None:
    assert "is not valid YAML" in refusal(tmp_path, f"name: {value}\ninner: {{size: 3}}\n")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("name: a\nname: b\ninner: {size: 3}\n", "name"),
        ("name: a\ninner: {size: 3, size: 4}\n", "size"),
        ("name: a\ninner:\n  size: 3\n  'size': 4\n", "size"),
        ("name: a\ninner: {size: 3, names: [{x: 1, x: 2}]}\n", "x"),
        ("1: a\n1: b\n", "1"),
        ("1: a\n0x1: b\n", "1"),
        ("yes: a\non: b\n", "True"),
        ("name: a\ninner: {<<: {size: 1}, size: 2, size: 3}\n", "size"),
    ],
)
def test_a_repeated_key_is_named_wherever_it_is(tmp_path: Path, content: str, key: str) -> None:
    message = refusal(tmp_path, content)
    assert f"repeated key '{key}'" in message
    assert "line " in message


def test_the_same_key_in_two_places_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: size\ninner: {size: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml", Outer).inner.size == 3


def test_a_merged_mapping_may_be_overridden(tmp_path: Path) -> None:
    text = "name: &n a\ninner: {<<: {size: 1, names: [x]}, size: 2}\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml", Outer).inner == Inner(size=2, names=["x"])


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch hacked']",
        "!!python/object:dfad_bench.errors.DataError {}",
        "!!python/name:os.system",
        "!!python/tuple [1, 2]",
        "!custom a",
    ],
)
def test_a_tag_that_would_make_a_python_object_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "could not determine a constructor" in refusal(tmp_path, f"name: {value}\n")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "top level: Input should be"),
        ("- a\n", "top level: Input should be"),
        ("just text", "top level: Input should be"),
        ("name: a\n", "inner: Field required"),
        ("name: a\ninner: {size: big}\n", "inner.size: Input should be a valid integer"),
        ("name: a\ninner: {size: 3, names: [a, 1]}\n", "inner.names.1: Input should be a valid string"),
        ("name: no\ninner: {size: 3}\n", "name: Input should be a valid string"),
        ("name: a\ninner: {size: 3, sise: 4}\n", "inner.sise: Extra inputs are not permitted"),
        ('name: a\ninner: {size: 3, "si\\nse": 4}\n', "inner.si se: Extra inputs are not permitted"),
        ("name: a\ninner: {size: 3}\nexplicit_typo: 1\n", "explicit_typo: Extra inputs"),
    ],
)
def test_what_does_not_fit_the_model_is_named_by_its_key(tmp_path: Path, content: str, complaint: str) -> None:
    assert complaint in refusal(tmp_path, content)


def test_many_complaints_are_counted_and_three_are_told(tmp_path: Path) -> None:
    message = refusal(tmp_path, "name: a\ninner: {size: 1, a: 1, b: 1, c: 1, d: 1}\n")
    assert message.count("Extra inputs") == 3
    assert message.endswith("; and 1 more.")


YAML_LIKE = st.text(st.sampled_from("abn:{}[]\"'#&*!|>-?%@`,\n \t019.ex_~=<"), max_size=30)


@settings(deadline=None)
@given(YAML_LIKE)
def test_no_text_at_all_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_yaml(path, Outer)
    assert "\n" not in str(caught.value)


def test_data_from_elsewhere_is_named_by_what_the_caller_says() -> None:
    with pytest.raises(DataError, match=r"^protocol x: name: Field required; inner: Field required"):
        validate({}, Outer, "protocol x")


def test_what_was_read_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Inner(size=1).size = 2  # type: ignore[misc]


# --- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "variable", "default"),
    [
        (data_dir, "DFAD_BENCH_DATA", Path("data")),
        (home_dir, "DFAD_BENCH_HOME", Path.home() / ".cache" / "dfad-bench"),
        (weights_dir, "DFAD_BENCH_WEIGHTS", None),
    ],
)
def test_a_place_is_what_the_environment_says_or_its_default(
    monkeypatch: pytest.MonkeyPatch, place: Any, variable: str, default: Path | None
) -> None:
    monkeypatch.setenv(variable, "/some/where")
    assert place() == Path("/some/where")
    monkeypatch.setenv(variable, "")
    assert place() == default
    monkeypatch.delenv(variable)
    assert place() == default


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_a_file_hash_is_the_sha256_of_its_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_another_process_is_given_our_variables_with_whole_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"DATA": "faces", "WEIGHTS": "", "HOME": "/home", "OFFLINE": "1"}.items():
        monkeypatch.setenv(f"DFAD_BENCH_{name}", value)
    monkeypatch.setenv("DFAD", "other")
    assert variables() == {
        "DFAD_BENCH_DATA": str(tmp_path / "faces"),
        "DFAD_BENCH_HOME": "/home",
        "DFAD_BENCH_OFFLINE": "1",
    }
