"""What every test needs: no network, the folder of test material, and one thread per process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("shared", deadline=None)  # on a machine shared with others, time says nothing
settings.load_profile("shared")
os.environ["HF_HUB_OFFLINE"] = "1"
WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
"""
"""Code that makes an interpreter behave as if torch were not installed; put it before a test's own."""
REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's caches and prepared data."""
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("DFAD_BENCH_DATA", str(tmp_path_factory.getbasetemp() / "no-data"))
    monkeypatch.delenv("DFAD_BENCH_WEIGHTS", raising=False)
    monkeypatch.delenv("DFAD_BENCH_OFFLINE", raising=False)  # which --offline sets for the process


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real faces and known fakes beside the repository; skips where it is absent."""
    folder = SHARED / "data" / "corpus"
    if not (folder / "corpus.csv").is_file():
        pytest.skip(f"test material is absent: {folder} holds no corpus.csv")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return REPOSITORY
