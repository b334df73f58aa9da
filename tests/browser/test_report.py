"""A run's report as a reader meets it: contents that lead somewhere, a dark room, a phone, paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfad_bench.publish.report import report
from tests.publish.test_report import GENERATORS, HOSTILE, write_faces, write_run

PHONES = (320, 360)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    names = [*GENERATORS, *(f"generator_{number}_of_a_rather_long_name" for number in range(12))]
    write_run(folder / "run", names, resamples=20)
    page = report(folder / "run", faces=write_faces(folder / "data", names), include_real=True)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def test_the_table_of_contents_leads_to_every_section(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    links = page.get_by_role("navigation").get_by_role("link")
    assert links.count() == page.locator("main > section").count() > 10
    for link in links.all():
        link.click()
        section = page.locator(page.evaluate("location.hash"))
        assert section.get_by_role("heading", level=2).inner_text() == link.inner_text()
        assert section.get_by_role("heading", level=2).is_visible()


def test_the_numbers_of_a_figure_are_folded_away_and_open_by_keyboard(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    details = page.locator("#roc details").first
    table = details.get_by_role("region")
    assert not table.is_visible()
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    assert table.is_visible()
    assert "pooled" in table.inner_text()
    page.keyboard.press("Tab")
    assert table.evaluate("each => each === document.activeElement")


def test_a_figure_is_a_picture_with_a_name(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    figures = page.get_by_role("img", name="ROC, unseen")
    assert figures.count() == 1
    assert figures.bounding_box()["width"] > 200


def test_figures_stand_on_white_in_the_dark(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert _brightness(light) > 240 > 60 > _brightness(dark)
    for plot in page.locator(".plot").all():
        assert plot.evaluate("each => getComputedStyle(each).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shaded_counts_can_be_read(page: Any, file: Path, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    page.evaluate(
        "document.querySelector('.matrix tbody tr').innerHTML ="
        " [...Array(11).keys()].map(tenth => `<td class=\"s${tenth}\">1</td>`).join('')"
    )
    paper = _rgb(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for cell in page.locator(".matrix tbody tr").first.locator("td").all():
        ink, *shade = (
            _rgb(cell.evaluate(f"each => getComputedStyle(each).{name}")) for name in ("color", "backgroundColor")
        )
        assert _contrast(ink, _over(shade[0], paper)) >= 4.5


@pytest.mark.parametrize("width", PHONES)
def test_a_phone_scrolls_downwards_only(page: Any, file: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate("[...document.querySelectorAll('.scroll')].some(each => each.scrollWidth > each.clientWidth)")
    assert wide  # what is too wide for a phone scrolls by itself


def test_paper_has_what_is_folded_away_and_no_contents(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    assert not page.get_by_role("navigation").is_visible()
    assert page.locator("#everything table").first.is_visible()


def test_a_hostile_name_runs_nothing(page: Any, file: Path) -> None:
    opened: list[str] = []
    page.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    assert page.get_by_text(HOSTILE, exact=True).count() > 0
    assert page.locator("script").count() == 0
    assert opened == []


def _rgb(colour: str) -> tuple[float, float, float, float]:
    """Return red, green, blue in 0..255 and alpha in 0..1 of a computed colour."""
    numbers = [float(each) for each in colour[colour.index("(") + 1 : -1].split(",")]
    red, green, blue, alpha = [*numbers, 1.0][:4]
    return red, green, blue, alpha


def _over(above: tuple[float, ...], below: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(above[3] * a + (1 - above[3]) * b for a, b in zip(above[:3], below[:3], strict=True))


def _brightness(colour: str) -> float:
    return sum(_rgb(colour)[:3]) / 3


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it, 1..21."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in colour[:3])
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
