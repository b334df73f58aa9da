"""A result names the commit it was made from, says when files had changed since, and claims no commit that is not ours."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfad_bench import provenance
from dfad_bench.records.results import CodeRecord

ROOT = Path(__file__).parents[1]
VERSION = importlib.metadata.version("dfad-bench")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(autouse=True)
def fresh_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was found before, and keep the user's git settings out of it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    provenance.code.cache_clear()
    yield
    provenance.code.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    answer = subprocess.run(["git", "-C", str(folder), *person, *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def code_of(package: Path, monkeypatch: pytest.MonkeyPatch) -> CodeRecord:
    """Ask for the code record as if dfad_bench lay in this folder."""
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    provenance.code.cache_clear()
    return provenance.code()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean checkout of something laid out like this project; return its top."""
    top = tmp_path / "checkout"
    for name in ("dfad_bench/provenance.py", "baselines/chance.py", "protocols/demo.yaml", "README.md", "docs/a.md"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("1\n")
    (top / "pyproject.toml").write_text("1\n")
    (top / ".gitignore").write_text("*.log\n")
    git(tmp_path, "init", "-q", str(top))
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "all")
    return top


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not run from a checkout")
def test_in_this_checkout_the_commit_is_the_one_git_names() -> None:
    record = provenance.code()
    assert record.version == VERSION
    assert record.commit is not None
    assert re.fullmatch(r"[0-9a-f]{40}", record.commit)
    assert record.dirty in (True, False)


def test_a_clean_checkout_has_its_commit_and_is_not_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = code_of(checkout / "dfad_bench", monkeypatch)
    assert record == CodeRecord(version=VERSION, commit=git(checkout, "rev-parse", "HEAD"), dirty=False)


@pytest.mark.parametrize("name", ["dfad_bench/provenance.py", "baselines/chance.py", "protocols/demo.yaml"])
@pytest.mark.parametrize("staged", [False, True])
def test_a_changed_file_of_the_code_is_dirty(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, staged: bool
) -> None:
    (checkout / name).write_text("2\n")
    if staged:
        git(checkout, "add", "-A")
    assert code_of(checkout / "dfad_bench", monkeypatch).dirty is True


@pytest.mark.parametrize("name", ["pyproject.toml", "gazeclip/new.py", "baselines/new.py"])
def test_a_new_or_missing_file_of_the_code_is_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = checkout / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("2\n")
    assert code_of(checkout / "dfad_bench", monkeypatch).dirty is True


def test_a_deleted_file_of_the_code_is_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "baselines" / "chance.py").unlink()
    assert code_of(checkout / "dfad_bench", monkeypatch).dirty is True


@pytest.mark.parametrize("name", ["README.md", "docs/a.md", "runs/result.json", "data.bin", "dfad_bench/some.log"])
def test_a_changed_file_that_is_no_code_is_not_dirty(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("2\n")
    assert code_of(checkout / "dfad_bench", monkeypatch).dirty is False


def test_a_deleted_folder_of_the_code_is_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(checkout / "protocols")
    assert code_of(checkout / "dfad_bench", monkeypatch).dirty is True


def test_a_new_commit_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = code_of(checkout / "dfad_bench", monkeypatch).commit
    (checkout / "dfad_bench" / "provenance.py").write_text("2\n")
    git(checkout, "commit", "-q", "-a", "-m", "more")
    second = code_of(checkout / "dfad_bench", monkeypatch)
    assert second.commit == git(checkout, "rev-parse", "HEAD") != first
    assert second.dirty is False


def test_a_checkout_reached_through_a_link_is_the_same(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(checkout)
    assert code_of(tmp_path / "link" / "dfad_bench", monkeypatch).dirty is False


@pytest.mark.parametrize("where", [".venv/lib/python3.11/site-packages/dfad_bench", "third_party/dfad_bench"])
def test_a_copy_inside_another_repository_claims_no_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    shutil.copytree(checkout / "dfad_bench", checkout / where)
    assert code_of(checkout / where, monkeypatch) == CodeRecord(version=VERSION, commit=None, dirty=None)


def test_a_copy_outside_any_repository_claims_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dfad_bench").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert code_of(tmp_path / "dfad_bench", monkeypatch).commit is None


def test_a_repository_without_a_commit_claims_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dfad_bench").mkdir()
    git(tmp_path, "init", "-q")
    assert code_of(tmp_path / "dfad_bench", monkeypatch).commit is None


def test_without_git_no_commit_is_claimed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert code_of(checkout / "dfad_bench", monkeypatch) == CodeRecord(version=VERSION, commit=None, dirty=None)


def test_a_hook_of_another_repository_does_not_lend_its_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    git(other, "commit", "-q", "--allow-empty", "-m", "foreign")
    ours = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(checkout))
    assert code_of(checkout / "dfad_bench", monkeypatch) == CodeRecord(version=VERSION, commit=ours, dirty=False)


def test_the_environment_names_every_library_a_number_depends_on() -> None:
    environment = provenance.environment()
    assert {"python", "platform", "torch", "numpy", "pyarrow", "scikit-learn"} <= set(environment)
    assert all(re.match(r"\d", version) for name, version in environment.items() if name != "platform")
