"""Terms of use are shown until they are accepted, and again when they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfad_bench import registry
from dfad_bench.errors import TERMS, DataError
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.terms import accept, is_accepted, refusal, terms_of
from tests.prepare.builders import write

SOURCE = '''
from dataclasses import dataclass
from dfad_bench.prepare.sources.folder import FolderSource

class Gated(FolderSource):
    """A folder with terms."""

SOURCE = Gated
'''


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def gated(folder: Path, text: str = "Be kind.") -> str:
    write(folder / "gated.terms.md", text.encode())
    return str(write(folder / "gated.py", SOURCE.encode()))


def test_terms_are_accepted_once_and_asked_again_when_they_change(tmp_path: Path) -> None:
    path = gated(tmp_path)
    terms = terms_of(build_source(path, ()), "gated")
    assert terms is not None and terms.text == "Be kind." and not is_accepted(terms)
    accept(terms)
    assert is_accepted(terms)
    gated(tmp_path, "Be kinder.")
    changed = terms_of(build_source(path, ()), "gated")
    assert changed is not None and not is_accepted(changed)


def test_accepting_one_dataset_accepts_no_other(tmp_path: Path) -> None:
    terms = terms_of(build_source(gated(tmp_path), ()), "gated")
    other = terms_of(build_source(gated(tmp_path), ()), "other")
    assert terms is not None and other is not None
    accept(terms)
    assert not is_accepted(other)


def test_a_source_without_terms_asks_for_nothing() -> None:
    assert terms_of(build_source("folder", ()), "folder") is None


def test_the_refusal_says_what_to_do_and_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    terms = terms_of(build_source(gated(tmp_path), ()), "gated")
    assert terms is not None
    error = refusal(terms)
    assert error.exit_code == TERMS == 4
    assert "--accept-terms" in str(error) and "gated" in str(error)


@pytest.mark.parametrize("damage", ["not JSON", "[]"])
def test_a_damaged_record_of_acceptance_is_one_line(tmp_path: Path, home: Path, damage: str) -> None:
    write(home / "accepted_terms.json", damage.encode())
    terms = terms_of(build_source(gated(tmp_path), ()), "gated")
    assert terms is not None
    with pytest.raises(DataError, match=r"accepted_terms\.json .*Remove it"):
        is_accepted(terms)


def test_no_terms_file_lies_beside_no_source() -> None:
    sources = registry.entries("sources")
    folder = next(entry.path for entry in sources.values() if entry.path is not None).parent
    orphans = {path.name.removesuffix(".terms.md") for path in folder.glob("*.terms.md")} - set(sources)
    assert orphans == set()
