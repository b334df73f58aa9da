"""The fixture itself: a page opens, and its scripts run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_a_page_opens_and_runs_its_script(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        "<!doctype html><title>t</title><p id=p></p><script>p.textContent = 1 + 1</script>", encoding="utf-8"
    )
    page.goto(file.as_uri())
    assert page.locator("#p").inner_text() == "2"
