"""The audit as a page: whole in itself, readable, and safe whatever names a dataset brings."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dfad_bench.analysis.audit import AuditReport, audit, tables
from dfad_bench.analysis.peer_json import audit_json
from dfad_bench.publish.audit_page import audit_page
from tests.analysis.builders import alike, face, manifest_of

HOSTILE = "<script>alert(1)</script>"


class _Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "td":
            self.cells.append("")
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    rows = alike({"real": 40, HOSTILE: 5, "ddim": 40})
    rows[0] |= {"source_split": "train", "perceptual_hash": "0123456789abcdef"}
    rows[1] |= {"source_split": '"><img src=x>', "perceptual_hash": "0123456789abcdef"}
    for number, row in enumerate(rows):
        row |= {"file_name": f"faces/{number}.png", "gaze_file_name": None}
    return audit(manifest_of(tmp_path_factory.mktemp("page"), rows))


def test_the_verdict_stands_above_problems_warnings_and_tables(report: AuditReport) -> None:
    page = audit_page(report)
    assert report.problems and report.warnings
    places = [
        page.index(text) for text in ("BROKEN: 1 problem", "Near-duplicates: 1 pairs", "Fewer than 20", "<table>")
    ]
    assert places == sorted(places)


def test_every_cell_of_every_table_is_on_the_page(report: AuditReport) -> None:
    cells = _Page(audit_page(report)).cells
    expected = [str(cell) for _, _, rows in tables(report) for row in rows for cell in row]
    assert cells == expected


def test_hostile_names_are_text(report: AuditReport) -> None:
    page = _Page(audit_page(report))
    assert "script" not in page.tags and "img" not in page.tags
    assert HOSTILE in page.cells
    assert not page.open


def test_the_page_loads_nothing_and_runs_nothing(report: AuditReport) -> None:
    page = audit_page(report)
    parsed = _Page(page)
    assert not {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "base", "form"} & set(
        parsed.tags
    )
    assert {name for name, _ in parsed.attributes} <= {"lang", "charset", "name", "content", "class", "scope"}
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert "prefers-color-scheme: dark" in style


def test_the_same_report_gives_the_same_page(report: AuditReport) -> None:
    again = AuditReport.model_validate_json(report.model_dump_json())
    assert audit_page(again) == audit_page(report)


def test_a_sound_manifest_and_a_shortcut_look_different(tmp_path: Path) -> None:
    sound = audit_page(audit(manifest_of(tmp_path / "a", alike({"real": 300, "ddim": 300}))))
    rows = [face("real", i, original_format="JPEG") for i in range(40)] + [face("ddim", i) for i in range(40)]
    shortcut = audit_page(audit(manifest_of(tmp_path / "b", rows)))
    assert 'class="verdict good"' in sound and "Problems, to be mended" not in sound
    assert 'class="verdict warned"' in shortcut


def test_an_empty_manifest_has_a_page(tmp_path: Path) -> None:
    assert 'class="verdict open"' in audit_page(audit(manifest_of(tmp_path, [])))


def test_the_audit_of_a_peers_json_has_the_same_page(tmp_path: Path) -> None:
    clip = {"label": "UADFV_Fake", "frames": [f"{HOSTILE}/{i:03}.png" for i in range(8)]}
    splits = {split: {f"{i}": clip for i in range(4)} for split in ("train", "test")}
    (tmp_path / "UADFV.json").write_text(json.dumps({"UADFV": {"UADFV_Fake": splits}}), encoding="utf-8")
    page = audit_page(audit_json(tmp_path / "UADFV.json", tmp_path))
    assert 'class="verdict bad"' in page
    assert "train and test are the same" in page
    assert "script" not in _Page(page).tags
    assert "&lt;script&gt;" in page
