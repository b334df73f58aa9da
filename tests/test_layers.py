"""The floors of the house: imports go down only, and each rule is seen to fail when it is broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WITHOUT_TORCH

LINT = Path(sys.executable).parent / "lint-imports"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINT, "--no-cache"], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the code, so that a violation can be planted."""
    for name in ("dfad_bench", "baselines"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_house_as_it_stands_keeps_every_rule(repository: Path) -> None:
    answer = lint(repository)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("file", "planted", "rule"),
    [
        ("dfad_bench/records/manifest.py", "import dfad_bench.prepare.crop", "Imports go down the floors"),
        ("dfad_bench/scoring/score.py", "import torch", "no torch"),
        ("dfad_bench/run.py", "import baselines.resnet18", "never mentions a model"),
        ("baselines/chance.py", "import dfad_bench.run", "A model uses modelling"),
    ],
)
def test_a_planted_violation_is_reported(copy: Path, file: str, planted: str, rule: str) -> None:
    path = copy / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{planted}\n", encoding="utf-8")
    answer = lint(copy)
    assert answer.returncode == 1
    broken = [line for line in answer.stdout.splitlines() if " BROKEN" in line]
    assert any(rule in line for line in broken), answer.stdout


def test_a_module_that_has_no_floor_is_reported(copy: Path) -> None:
    (copy / "dfad_bench" / "helpers.py").write_text("", encoding="utf-8")
    answer = lint(copy)
    assert answer.returncode == 1
    assert "helpers" in answer.stdout


def test_a_leaderboard_is_rebuilt_and_a_run_rescored_where_torch_is_not_installed(repository: Path) -> None:
    code = (
        f"{WITHOUT_TORCH}\n"
        "import dfad_bench.publish.leaderboard, dfad_bench.scoring.score, dfad_bench.analysis.audit\n"
        "import dfad_bench.prepare.pipeline, dfad_bench.records.protocol\n"
        "from dfad_bench import registry\n"
        "[registry.get('metrics', name) for name in registry.entries('metrics')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository)
