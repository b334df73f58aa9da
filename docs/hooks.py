"""What the site takes from the repository instead of keeping a copy: sections of its documents, and the commands."""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INCLUDE = re.compile(r"^<!-- include: (\S+?)(?:#(.+))? -->$", re.MULTILINE)
COMMANDS = re.compile(r"^<!-- commands: (\S+) -->$", re.MULTILINE)
HEADING = re.compile(r"(#+) (.+)")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)\s]+)\)")
TITLE = re.compile(r"^(```\w+ title=)([^\s\"]+)$", re.MULTILINE)
PAGES = {
    "CONTRIBUTING.md": "extend/model.md",
    "baselines/README.md": "models/baselines.md",
    "gazeclip/README.md": "models/gazeclip.md",
    "protocols/README.md": "protocols.md",
}
"""Documents of the repository that are pages of the site."""


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Fill a page's ``include`` and ``commands`` comments, and bring titles of code blocks to the form that Material reads."""
    repository = Path(config.config_file_path).parent

    def included(match: re.Match[str]) -> str:
        document, heading = match.groups()
        text = (repository / document).read_text(encoding="utf-8")
        text = text if heading is None else section(text, heading, document)
        return relinked(text, document, page.file.src_uri)

    markdown = INCLUDE.sub(included, markdown)
    markdown = COMMANDS.sub(lambda match: commands(match[1]), markdown)
    return TITLE.sub(r'\1"\2"', markdown)


def section(text: str, heading: str, document: str) -> str:
    """Return what stands below a heading, up to the next of its depth or less; raise ValueError where there is none."""
    kept: list[str] = []
    depth, in_code = 0, False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        match = None if in_code else HEADING.fullmatch(line)
        if match and depth and len(match[1]) <= depth:
            break
        if depth:
            kept.append(line)
        elif match and match[2] == heading:
            depth = len(match[1])
    if not depth:
        raise ValueError(f"{document} has no section {heading!r}")
    return "\n".join(kept).strip()


def relinked(text: str, document: str, page: str) -> str:
    """Return a document's text with its links to documents that are pages leading there, and those to other files as text."""

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target.partition("#")[0]))
        if path not in PAGES:
            return words
        return f"[{words}]({posixpath.relpath(PAGES[path], posixpath.dirname(page) or '.')})"

    return LINK.sub(link, text)


def commands(program: str) -> str:
    """Return the reference of ``dfad-bench`` or ``gazeclip`` in Markdown, from the program itself."""
    import typer

    if program == "gazeclip":
        from gazeclip.cli import app
    else:
        from dfad_bench.cli import app
    root = typer.main.get_command(app)
    return "\n".join(_described(root, typer.Context(root, info_name=program)))


def _described(command: Any, context: Any) -> Iterator[str]:
    """Yield the lines on a command and on those below it."""
    yield from (f"## `{context.command_path}`", "", *(command.help or "").replace("\b", "").split("\n"), "")
    yield from ("```text", f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}", "```", "")
    rows = [record for each in command.get_params(context) if (record := each.get_help_record(context)) is not None]
    yield from (
        "| argument or option | meaning |",
        "|---|---|",
        *(f"| {_cell(name, True)} | {_cell(told)} |" for name, told in rows),
        "",
    )
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        below = command.get_command(context, name)
        yield from _described(below, type(context)(below, parent=context, info_name=name))


def _cell(text: str, is_code: bool = False) -> str:
    shown = html.escape(text, quote=False).replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")
    return f"<code>{shown}</code>" if is_code else shown
