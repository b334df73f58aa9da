"""What is installed is what is here: the wheel holds every package and data file, under the names that imports use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked wheel of this checkout, built as pip builds it."""
    repository = Path(__file__).resolve().parent.parent
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "demo", "data", "runs", "tests")
    shutil.copytree(repository, folder / "checkout", ignore=left_out)
    build = ("-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", ".")
    subprocess.run([sys.executable, *build, "./checkout"], cwd=folder, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_source_file_is_in_the_wheel(wheel: Path, repository: Path) -> None:
    for root, installed in (("dfad_bench", ""), ("baselines", "dfad_bench/"), ("protocols", "dfad_bench/")):
        for path in (repository / root).rglob("*"):
            if path.suffix in (".py", ".yaml", ".csv", ".typed", ".md", ".j2") and "__pycache__" not in path.parts:
                assert (wheel / installed / path.relative_to(repository)).is_file(), path


def test_the_wheel_takes_no_common_name_at_the_top(wheel: Path) -> None:
    assert {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")} == {"dfad_bench", "gazeclip"}


def test_an_installed_wheel_lists_what_the_checkout_lists_and_claims_no_commit(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import json\n"
        "from dfad_bench import provenance, registry, taxonomy\n"
        "listed = {kind: list(registry.entries(kind)) for kind in registry.KINDS}\n"
        "registry.get('models', 'chance'), registry.get('protocols', 'demo')\n"
        "print(json.dumps([listed, len(taxonomy.known().generators), provenance.code().commit]))\n"
    )
    answers = []
    for site in (wheel, Path(__file__).resolve().parent.parent):
        environment = os.environ | {"PYTHONPATH": str(site)}
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        answers.append(json.loads(run.stdout))
    assert answers[0][:2] == answers[1][:2]
    assert answers[0][2] is None


def test_the_pinned_versions_lie_within_the_declared_ranges(repository: Path) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    ranges = {requirement.name.lower(): requirement.specifier for requirement in map(Requirement, declared)}
    ours = (repository / "constraints.txt").read_text().partition("\n# What those bring")[0]
    pins = [Requirement(line) for line in ours.splitlines() if "==" in line]
    assert {"torch", "torchvision", "opencv-python"} <= {pin.name.lower() for pin in pins}
    for pin in pins:
        version = next(iter(pin.specifier)).version
        assert pin.name.lower() in ranges, f"{pin.name} is pinned but not declared"
        assert ranges[pin.name.lower()].contains(version), pin
