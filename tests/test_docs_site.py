"""The documentation site builds without a warning, asks no other host for anything, and says nothing that does not run."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml

from dfad_bench import registry
from dfad_bench.cli import app
from dfad_bench.prepare.options import build_source, split_hub
from dfad_bench.prepare.sources.hf import HubMap
from dfad_bench.records.results import Result, Score
from dfad_bench.records.schemas import RECORDS
from gazeclip.cli import app as gazeclip_app
from tests.conftest import REPOSITORY
from tests.test_docs import Block, blocks, reader, run_bash

__all__ = ["reader"]  # a fixture of test_docs: the folder of somebody who reads along

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PROGRAMS = {"dfad-bench": typer.main.get_command(app), "gazeclip": typer.main.get_command(gazeclip_app)}


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


# --- the site ------------------------------------------------------------------------------------------------------


FETCHED = frozenset(
    (("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data"), ("link", "href"))
)
"""Tags and attributes that make a browser fetch something to show a page."""


class Requests(HTMLParser):
    """Collects what a browser fetches by itself to show a page, and the page's links and anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.policy: str | None = None
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.fetched += [value for key, value in given.items() if (tag, key) in FETCHED or key == "srcset"]
        self.fetched += re.findall(r"url\(([^)]*)\)", given.get("style", ""))
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.anchors |= {given["id"]} if "id" in given else set()
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI builds it: a warning is an error."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'dfad-bench[docs]'")
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'dfad-bench[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install 'dfad-bench[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_listed(site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")}
    assert built - {"404.md"} == {name(page) for page in PAGES}
    start = Requests(site / "index.html")
    listed = {link.partition("#")[0].replace(".html", ".md") for link in start.links}
    assert {name(page) for page in PAGES} <= listed | {"index.md"}
    assert not list(site.rglob("hooks*"))


@pytest.mark.slow
def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = Requests(page)
        assert found.fetched
        assert [each for each in found.fetched if "//" in each] == [], page.name
        assert found.policy is not None, page.name
        assert "http" not in found.policy, page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    # Material's script asks GitHub for stars where a page shows a repository, and a CDN for diagrams where it has one
    shown = "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    assert 'data-md-component="source"' not in shown
    assert 'class="mermaid"' not in shown


@pytest.mark.slow
def test_links_and_anchors_between_pages_lead_somewhere(site: Path) -> None:
    pages = {page: Requests(page) for page in site.rglob("*.html") if page.name != "404.html"}
    checked = 0
    for page, found in pages.items():
        for link in found.links:
            target, _, anchor = link.partition("#")
            if target.startswith(("http:", "https:")):
                continue
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), f"{page.name}: {link}"
            if there in pages and anchor:
                assert anchor in pages[there].anchors | {"__toc"}, f"{page.name}: {link}"
            checked += 1
    assert checked > len(pages)


@pytest.mark.slow
def test_the_reference_has_every_command_and_option(site: Path) -> None:
    shown = (site / "cli.html").read_text(encoding="utf-8")
    for path, command in every_command():
        assert f"<code>{path}</code>" in shown, path
        assert all(option in shown for parameter in command.params for option in parameter.opts), path


@pytest.mark.slow
def test_included_sections_keep_their_code_and_lose_links_that_lead_nowhere(site: Path) -> None:
    source = (site / "extend" / "source.html").read_text(encoding="utf-8")
    assert "pairs.py" in source
    assert "include:" not in re.sub(r"<script.*?</script>", "", source, flags=re.DOTALL)
    assert 'href="baselines.html"' in (site / "models" / "gazeclip.html").read_text(encoding="utf-8")


# --- what the pages take from the repository -----------------------------------------------------------------------


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("hooks")


def test_a_section_ends_where_one_of_its_depth_begins_and_code_has_no_headings(hooks: Any) -> None:
    text = "# A\n\n## B\n\none\n\n### C\n\n```bash\n# no heading\n```\n\ntwo\n\n## D\n\nthree\n"
    assert hooks.section(text, "B", "x.md") == "one\n\n### C\n\n```bash\n# no heading\n```\n\ntwo"
    assert hooks.section(text, "D", "x.md") == "three"
    with pytest.raises(ValueError, match=r"x\.md has no section 'no heading'"):
        hooks.section(text, "no heading", "x.md")


def test_links_of_an_included_document_lead_to_pages_or_become_text(hooks: Any) -> None:
    text = "[b](../baselines/README.md#x), [`a[:, 0]`](gie.py#L1), [p](https://example.org), [q](#here)"
    expected = "[b](baselines.md), `a[:, 0]`, [p](https://example.org), [q](#here)"
    assert hooks.relinked(text, "gazeclip/README.md", "models/gazeclip.md") == expected


def test_a_page_with_a_section_that_is_gone_is_an_error(hooks: Any) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="extend/x.md"))
    config = SimpleNamespace(config_file_path=str(REPOSITORY / "mkdocs.yml"))
    with pytest.raises(ValueError, match="no section 'Nothing'"):
        hooks.on_page_markdown("<!-- include: CONTRIBUTING.md#Nothing -->", page=page, config=config)


# --- what the pages say --------------------------------------------------------------------------------------------


def pages_that_run() -> list[Path]:
    return [page for page in PAGES if any(block.language == "bash" for block in blocks(page))]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's faces, that each page prepares first, and finds prepared: rendering them takes longer than all the rest."""
    folder = tmp_path_factory.mktemp("rendered")
    run_bash("dfad-bench prepare --source demo --set faces=120 --workers 2", folder, REPOSITORY)
    return folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_that_run(), ids=name)
def test_every_code_block_of_a_page_does_what_it_says(page: Path, reader: Path, rendered: Path) -> None:
    shutil.copytree(rendered, reader / "data")
    for block in blocks(page):
        if block.title is not None:
            (reader / block.title).write_text(block.text, encoding="utf-8")
        if block.language == "bash":
            run_bash(block.text, reader, REPOSITORY)
        else:
            assert is_read(block), f"nothing reads {block.language} blocks"


def is_read(block: Block) -> bool:
    """Return whether a block is one that nobody runs: it is read here, or used by a command of the page."""
    if block.language == "yaml":
        return bool(yaml.safe_load(block.text))
    if block.language == "json":
        return bool(json.loads(block.text))
    return block.language == "text" or block.title is not None


def test_every_fenced_block_is_one_that_this_file_knows() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(?=\S)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(list(blocks(page))), name(page)


def test_the_label_map_of_the_hub_is_one() -> None:
    maps = [block.text for block in blocks(DOCS / "prepare.md") if block.text.startswith("labels:")]
    assert [HubMap.model_validate(yaml.safe_load(text)).labels["Unknown"] for text in maps] == ["ignore"]


def mentioned() -> Iterator[tuple[str, list[str]]]:
    """Yield every command that a page mentions, in a block or in a sentence, as words."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            line for block in blocks(page) if block.language in ("bash", "text") for line in block.text.splitlines()
        ]
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for command in lines + [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose)]:
            words = shlex.split(command) if command.startswith(tuple(f"{program} " for program in PROGRAMS)) else []
            if words:
                yield name(page), words


def every_command() -> Iterator[tuple[str, Any]]:
    """Yield every command of both programs by the words that call it."""
    waiting = list(PROGRAMS.items())
    while waiting:
        path, command = waiting.pop()
        yield path, command
        waiting += [(f"{path} {each}", below) for each, below in getattr(command, "commands", {}).items()]


def parsed(words: list[str]) -> tuple[Any, Any]:
    """Return the command that words call, and its context; None where they only name a command."""
    command, rest = PROGRAMS[words[0]], words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    assert rest or command is not PROGRAMS[words[0]]
    if not rest and any(parameter.required for parameter in command.params):
        return command, None
    assert not hasattr(command, "commands"), f"{shlex.join(words)}: there is no such command"
    return command, command.make_context(command.name, rest)


def test_every_command_that_is_mentioned_is_one_that_the_program_takes() -> None:
    found = list(mentioned())
    for page, words in found:
        try:
            parsed(words)
        except Exception as error:  # noqa: BLE001 - typer's own errors do not name the page
            pytest.fail(f"{page}: {shlex.join(words)}: {error}")
    called = {" ".join(words[:2]) for _, words in found}
    expected = ("prepare", "audit", "run", "score", "compare", "gaze-fid", "list", "schema", "doctor", "leaderboard")
    assert called >= {f"dfad-bench {command}" for command in expected}


def test_every_prepare_command_builds_its_source_and_every_source_has_one() -> None:
    prepare = PROGRAMS["dfad-bench"].commands["prepare"]  # type: ignore[attr-defined]
    sources = set()
    for _, words in mentioned():
        command, context = parsed(words)
        if command is not prepare or context is None or context.params["only_gaze"]:
            continue
        given = context.params
        source, settings = split_hub(given["source"])
        settings = [
            *settings,
            *(given["settings"] or ()),
            *([f"path_map={given['path_map']}"] if given["path_map"] else ()),
        ]
        assert build_source(source, settings)
        sources.add(source)
    headings = re.findall(r"^### `(\w+)`", (DOCS / "prepare.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(headings) == sources == set(registry.entries("sources"))


def test_every_option_that_is_mentioned_exists() -> None:
    known = {"--help"} | {
        option for _, command in every_command() for parameter in command.params for option in parameter.opts
    }
    for page in PAGES:
        for option in re.findall(r"`(--[a-z][a-z0-9-]*)", page.read_text(encoding="utf-8")):
            assert option in known, f"{name(page)}: {option}"


def test_every_name_that_a_page_lists_is_registered() -> None:
    gaze = (DOCS / "gaze.md").read_text(encoding="utf-8").partition("## Estimators")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", gaze, re.MULTILINE)) == set(registry.entries("gaze_estimators"))
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", results.partition("## `result.json`")[2].partition("## Several seeds")[0]))
    assert set(Result.model_fields) <= told
    assert set(Score.model_fields) <= told
    assert set(RECORDS) <= set(re.findall(r"`([\w-]+)`", results.partition("## Schemas")[2]))


def test_the_reasons_that_the_ledger_gives_are_those_that_the_page_explains() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "dfad_bench" / "prepare").rglob("*.py"))
    given = set(re.findall(r"(?:SkippedInput|Unsound)\(\s*\"(\w+)\"", code))
    page = (DOCS / "prepare.md").read_text(encoding="utf-8").partition("### The ledger")[2].partition("###")[0]
    explained = set(re.findall(r"`([a-z]+_[a-z_]+|truncated|undecodable|encrypted)`", page))
    assert len(given) > 10
    assert given <= explained
    assert all(f'"{reason}"' in code for reason in explained)
