"""Every code block of README and CONTRIBUTING is run, from top to bottom, as a reader would."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
import yaml

from dfad_bench import registry
from dfad_bench.cli import app
from dfad_bench.prepare.options import build_source, split_hub

BLOCK = re.compile(r"^```(\w*)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language, the file it becomes (if any), its text."""

    language: str
    title: str | None
    text: str


def blocks(document: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(document.read_text(encoding="utf-8")):
        yield Block(match[1], match[2], match[3])


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """A reader's folder with the images that the documents speak of."""
    rng = np.random.default_rng(0)
    for folder, name in (
        *((f"photos/{generator}", "{i}_a.png") for generator in ("real", "SD1.5", "ours_v2")),
        *(("pairs", f"{generator}__person{{i}}.png") for generator in ("real", "sd15")),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            cv2.imwrite(str(tmp_path / folder / name.format(i=i)), rng.integers(0, 256, (300, 300, 3), np.uint8))
    return tmp_path


def run_bash(text: str, folder: Path, repository: Path) -> None:
    """Run a block's commands one by one; of `make`, only what it would do, since it is what runs these tests."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DFAD_BENCH")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in text.splitlines():
        command, where = line.split("#")[0].strip(), folder
        if command.startswith("make "):
            command, where = command.replace("make ", "make --dry-run ", 1), repository
        if command:
            done = subprocess.run(["bash", "-c", command], cwd=where, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "gazeclip/README.md"])
def test_every_code_block_does_what_it_says(name: str, reader: Path, repository: Path) -> None:
    for block in blocks(repository / name):
        if block.title is not None:
            (reader / block.title).write_text(block.text, encoding="utf-8")
        if block.language == "bash":
            run_bash(block.text, reader, repository)
        elif block.language == "python" and block.title is None:
            exec(compile(block.text, name, "exec"), {})
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)
        elif block.language == "toml":
            assert tomllib.loads(block.text)
        else:
            # text: a drawing, or a command for data that no test has
            assert block.language in ("", "python", "text"), f"nothing runs {block.language} blocks"


def inline_commands(document: Path) -> list[str]:
    """The commands that stand in tables and sentences: they need data that no test has, but they must be right."""
    return re.findall(r"`(dfad-bench prepare [^`]+)`", document.read_text(encoding="utf-8"))


def test_every_command_of_the_table_of_datasets_is_one_that_prepare_takes(repository: Path) -> None:
    commands = [shlex.split(each)[2:] for each in inline_commands(repository / "README.md")]
    prepare = typer.main.get_command(app).commands["prepare"]  # type: ignore[attr-defined]
    taken = [prepare.make_context("prepare", list(words)).params for words in commands]
    sources = {split_hub(each["source"])[0] for each in taken}
    assert sources == set(registry.entries("sources")) - {"demo"}
    for each in taken:
        name, settings = split_hub(each["source"])
        given = [*settings, *(each["settings"] or ()), *([f"path_map={each['path_map']}"] if each["path_map"] else ())]
        assert build_source(name, given)


def test_the_figures_of_the_readme_are_those_that_the_benchmarks_kept(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    readme = importlib.import_module("readme")
    shown = (repository / "README.md").read_text(encoding="utf-8").partition(readme.BEGIN)[2].partition(readme.END)[0]
    assert shown.strip().splitlines() == readme.lines()
    models = (repository / "baselines" / "README.md").read_text(encoding="utf-8")
    assert models.partition("<!-- baselines:begin -->")[2].partition("<!-- baselines:end -->")[
        0
    ].strip().splitlines() == (readme.baselines_lines())
    assert {row["model"] for row in readme.rows("baselines")} == set(registry.entries("models"))
    assert {"Fréchet distance", "gaze-FID"} <= set(re.findall(r"^\| (Fréchet distance|gaze-FID)", shown, re.MULTILINE))


def test_ci_runs_the_test_command_of_the_readme(repository: Path) -> None:
    commands = next(block.text for block in blocks(repository / "README.md") if block.language == "bash")
    assert "make test" in commands
    assert "make test" in (repository / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "gazeclip/README.md",
        "protocols/README.md",
        "baselines/README.md",
    ],
)
def test_links_between_documents_lead_somewhere(name: str, repository: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (repository / name).read_text(encoding="utf-8")):
        assert target.startswith("https://") or (repository / name).parent.joinpath(target).exists(), target
