"""The leaderboard's page as a reader uses it: sorting, filtering, comparing, citing; by mouse, by keys, on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfad_bench.publish.site import site
from dfad_bench.records.pairs import PairedTest
from dfad_bench.records.results import Result
from tests.publish.builders import a_protocol
from tests.publish.test_site import AWKWARD, HOSTILE, a_pairs_record, a_robustness_record, a_score, simple, trained_on

FAMILY = "unseen.accuracy.family.mean"
AUC = "unseen.auc.authenticity.mean"
GENERATORS = ("sd15", "flux1_dev", "stylegan3", "simswap")


def result(model: str, family: float | None, auc: float | None, **fields: Any) -> Result:
    """Return a result with both ranking means, and for each of four generators an ACC."""
    scored = [a_score(family, low=0.01, high=0.99), a_score(auc, "auc")]
    scored += [a_score(0.25, group=generator) for generator in GENERATORS]
    return simple(model, 0.5, f"{model:x>64}"[:64], **fields).model_copy(update={"scores": scored})


def shown(page: Any) -> list[str]:
    return list(page.locator("#results tbody th b").all_inner_texts())


def sort_by(page: Any, column: str) -> Any:
    return page.locator(f'#results thead button[data-sort="{column}"]')


def cell_of(page: Any, model: str, column: str) -> str:
    place = (
        page.locator("#results thead button").evaluate_all("all => all.map(each => each.dataset.sort)").index(column)
    )
    row = page.locator("#results tbody tr").filter(
        has=page.get_by_role("button", name=f"provenance of {model}", exact=True)
    )
    return str(row.locator("th, td").nth(place).inner_text())


@pytest.fixture
def opened(page: Any, tmp_path: Path) -> Any:
    """The page of four models on demo, one of them tested against another, and one model on another protocol."""
    results = [
        result("alpha", 0.9, 0.5),
        result("beta", 0.8, 0.9),
        result("gamma", None, 0.7),
        trained_on(result("delta", 0.1, None), "demo").model_copy(update={"data": {"demo": {}}}),
        result("alpha", 0.3, 0.3, protocol=a_protocol("other", warning="beware of this")),
    ]
    tested = {name: f"{name:x>64}" for name in ("alpha", "beta", "delta")}
    tests = [
        PairedTest(a="alpha", b="beta", difference=0.1, low=-0.02, high=0.2, p=0.1, p_adjusted=0.2),
        PairedTest(a="delta", b="alpha", difference=-0.8, low=-0.9, high=-0.7, p=0.0001, p_adjusted=0.0003),
    ]
    pairs = a_pairs_record(tested, tests, {"alpha": 1, "beta": 1, "delta": 2})
    robust = a_robustness_record("beta", f"{'beta':x>64}", [0.8, 0.7, 0.6, 0.5, 0.4, None])
    file = tmp_path / "index.html"
    links = {("demo", "alpha"): "results/demo/alpha.json"}
    file.write_text(site(results, pairs=[pairs], robustness=[robust], links=links), encoding="utf-8")
    page.set_default_timeout(5000)
    page.goto(file.as_uri())
    return page


def test_a_click_sorts_and_another_turns_it_round_and_undefined_stays_last(opened: Any) -> None:
    assert shown(opened) == ["alpha", "beta", "delta", "gamma"]
    sort_by(opened, AUC).click()
    assert shown(opened) == ["beta", "gamma", "alpha", "delta"]
    sort_by(opened, AUC).click()
    assert shown(opened) == ["alpha", "gamma", "beta", "delta"]
    sort_by(opened, "model").click()
    assert shown(opened) == ["alpha", "beta", "delta", "gamma"]


def test_keys_sort_and_the_focus_stays_and_the_order_is_announced(opened: Any) -> None:
    sort_by(opened, AUC).focus()
    opened.keyboard.press("Enter")
    sorted_by = opened.locator("#results th[aria-sort]")
    assert sorted_by.count() == 1 and sorted_by.get_attribute("aria-sort") == "descending"
    assert opened.evaluate("document.activeElement.dataset.sort") == AUC
    assert opened.get_by_role("status").first.inner_text() == "4 of 4 models, sorted by unseen AUC %, highest first."
    opened.keyboard.press("Space")
    assert sorted_by.get_attribute("aria-sort") == "ascending"
    assert shown(opened)[0] == "alpha"


def test_models_are_found_by_parts_of_their_names(opened: Any) -> None:
    opened.get_by_label("Models whose name contains").fill("TA")
    assert shown(opened) == ["beta", "delta"]
    assert opened.get_by_role("status").first.inner_text().startswith("2 of 4 models")


def test_another_protocol_has_its_own_table_and_a_visible_warning(opened: Any) -> None:
    assert not opened.locator("#warning").is_visible()
    opened.get_by_label("Protocol", exact=True).select_option("other v1")
    assert shown(opened) == ["alpha"]
    assert opened.locator("#warning").inner_text() == "Warning: beware of this"
    assert cell_of(opened, "alpha", FAMILY).startswith("30.0 [1.0, 99.0]")


def test_levels_families_and_forgery_types_choose_columns(opened: Any) -> None:
    columns = opened.locator("#results thead button")

    def ids() -> list[str]:
        return [
            each
            for each in columns.evaluate_all("all => all.map(each => each.dataset.sort)")
            if each.startswith("unseen")
        ]

    assert ids() == [FAMILY, AUC, "unseen.accuracy@val.authenticity.mean"]
    opened.get_by_label("Level", exact=True).select_option("family")
    assert ids() == [FAMILY]
    opened.get_by_label("Family of test groups").select_option("gan")
    gans = ["unseen.accuracy.family.stylegan3", "unseen.accuracy.family.simswap"]
    assert ids() == [FAMILY, *gans]
    opened.get_by_label("Forgery type of test groups").select_option("fs")
    assert ids() == [FAMILY, gans[1]]
    opened.get_by_label("Test groups", exact=True).select_option("single groups")
    assert ids() == [gans[1]]


def test_columns_are_picked(opened: Any) -> None:
    opened.get_by_text("Columns").first.click()
    opened.get_by_label("unseen AUC %", exact=True).uncheck()
    assert sort_by(opened, AUC).count() == 0 and sort_by(opened, FAMILY).count() == 1
    opened.get_by_role("button", name="show all").click()
    assert sort_by(opened, AUC).count() == 1


def test_a_perturbation_shows_the_values_under_it_and_says_what_was_not_run(opened: Any) -> None:
    opened.get_by_label("Perturbation").select_option("jpeg")
    opened.get_by_label("Severity").select_option("3")
    assert cell_of(opened, "beta", FAMILY) == "50.0"
    assert cell_of(opened, "alpha", FAMILY).startswith("– (")
    assert "no record of this model under perturbations" in opened.locator("#notes").inner_text()
    sort_by(opened, FAMILY).click()
    assert shown(opened)[0] == "beta"
    opened.get_by_label("Severity").select_option("area")
    assert cell_of(opened, "beta", FAMILY) == "45.0"


def test_two_models_are_compared_in_words(opened: Any) -> None:
    words = opened.locator("#comparison tbody tr").first.locator("td").first
    assert words.inner_text() == (
        "A is higher by 10.0 points; not shown to differ (95 % interval of A − B: −2.0 to +20.0; adjusted p 0.200)"
    )
    opened.get_by_label("A", exact=True).select_option("delta")
    opened.get_by_label("B", exact=True).select_option("alpha")
    assert words.inner_text() == (
        "B is higher by 80.0 points; shown to differ (95 % interval of A − B: −90.0 to −70.0; adjusted p <0.001)"
    )
    opened.get_by_label("B", exact=True).select_option("gamma")
    assert words.inner_text() == "no paired test"
    assert "nothing here tells whether they differ" in opened.locator("#paired").inner_text()


def test_standings_marks_and_provenance_are_in_words(opened: Any) -> None:
    told = dict(zip(shown(opened), opened.locator("#results tbody td:first-child").all_inner_texts(), strict=True))
    assert told == {"alpha": "group 1", "beta": "group 1", "delta": "group 2", "gamma": "rank 4, not tested"}
    assert opened.locator("#results .mark").all_inner_texts() == [
        "contaminated: trained on demo, a source of this protocol"
    ]
    opened.get_by_role("button", name="provenance of alpha").press("Enter")
    dialog = opened.get_by_role("dialog", name="alpha on demo v1")
    assert "0" * 64 in dialog.inner_text() and "x" * 59 + "alpha" in dialog.inner_text()
    assert dialog.get_by_role("link").get_attribute("href") == "results/demo/alpha.json"
    opened.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert opened.evaluate("document.activeElement.dataset.model") == "alpha"


def test_a_view_comes_back_from_its_address(opened: Any) -> None:
    opened.get_by_label("Models whose name contains").fill("a")
    opened.get_by_label("Level", exact=True).select_option("family")
    opened.get_by_label("Family of test groups").select_option("diffusion")
    opened.get_by_text("Columns").first.click()
    opened.get_by_label("unseen, sd15: ACC family %").uncheck()
    opened.get_by_label("B", exact=True).select_option("gamma")
    for _ in range(2):
        sort_by(opened, FAMILY).click()
    before = opened.locator("#results").inner_text(), opened.locator("#comparison").inner_text()
    address = opened.url
    assert address.endswith(opened.get_by_role("link", name="Link to this view").get_attribute("href"))
    opened.get_by_role("button", name="Reset the view").click()
    assert opened.url != address and opened.locator("#results").inner_text() != before[0]
    opened.goto("about:blank")
    opened.goto(address)
    assert (opened.locator("#results").inner_text(), opened.locator("#comparison").inner_text()) == before
    assert sort_by(opened, "unseen.accuracy.family.sd15").count() == 0
    assert opened.url == address


def test_a_link_to_what_is_not_there_says_so(opened: Any) -> None:
    opened.evaluate("location.hash = '#table=gone.v1.0&sort=nothing&level=<b>&a=nobody'")
    opened.wait_for_function("document.getElementById('status').textContent.includes('gone.v1.0')")
    assert shown(opened) == ["alpha", "beta", "delta", "gamma"]


def test_hostile_names_stay_text(page: Any, tmp_path: Path) -> None:
    results = [result(name, 0.5, 0.5, protocol=a_protocol(HOSTILE, warning=HOSTILE)) for name in (HOSTILE, AWKWARD)]
    file = tmp_path / "index.html"
    file.write_text(site(results), encoding="utf-8")
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    assert page.locator("#results tbody th b").all_text_contents() == [HOSTILE, AWKWARD]
    page.get_by_role("button", name="provenance of").first.click()
    assert page.locator("script").count() == 2 and alerts == []


@pytest.mark.parametrize("width", [320, 360, 768])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_does_not_scroll_sideways(opened: Any, width: int, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": width, "height": 740})
    opened.get_by_label("Test groups", exact=True).select_option("both")
    opened.get_by_text("Columns").first.click()
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.evaluate(
        "document.querySelector('.scroll').scrollWidth > document.querySelector('.scroll').clientWidth"
    )
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(253, 253, 251)", "dark": "rgb(22, 25, 28)"}[scheme]
    opened.get_by_role("button", name="provenance of alpha").click()
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_paper_shows_the_table_without_controls(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert opened.locator("#results").is_visible()
    for control in (".controls", ".compare", ".more"):
        assert not opened.locator(control).first.is_visible()


def test_without_script_the_means_are_there(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(site([result("alpha", 0.9, 0.5), result("beta", 0.8, 0.9)]), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(file.as_uri())
    cells = page.locator("noscript td")
    assert cells.nth(1).is_visible() and cells.nth(1).inner_text().strip() == "alpha"
    assert "80.0 [1.0, 99.0]" in [text.strip() for text in cells.all_inner_texts()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not page.get_by_label("Protocol", exact=True).is_visible()
    context.close()


def test_two_hundred_models_on_twelve_protocols(page: Any, tmp_path: Path) -> None:
    """Sorts and filters right, holds one table's rows at a time, and stays below 5 MB."""
    levels, groups = (
        ("forgery_type", "family", "generator"),
        ("mean", "real", "sd15", "flux1_dev", "stylegan3", "simswap"),
    )
    values = {(p, m): ((m * 7919 + p * 104729) % 100_003) / 100_003 for p in range(12) for m in range(200)}
    results = []
    for (p, m), value in values.items():
        scored = [
            a_score(value, group=group, level=level, subset=subset, low=value / 2, high=value, clusters=40)
            for subset in ("seen", "unseen")
            for group in groups
            for level in levels
        ]
        scored += [
            a_score(1 - value, metric, group, subset=subset, low=0.1, high=0.9, clusters=40)
            for subset in ("seen", "unseen")
            for group in groups
            if group != "real"
            for metric in ("auc", "accuracy@val")
        ]
        made = simple(f"model_{m:03}", 0.5, f"{p:032x}{m:032x}", protocol=a_protocol(f"protocol_{p:02}"))
        own = made.model.model_copy(update={"weights_sha256": f"{m:032x}{p:032x}"})
        results.append(made.model_copy(update={"scores": scored, "model": own}))
    links = {
        (each.protocol.name, each.model.name): f"results/{each.protocol.name}/{each.model.name}.json"
        for each in results
    }
    html = site(results, links=links)
    assert len(html.encode()) < 5_000_000
    file = tmp_path / "index.html"
    file.write_text(html, encoding="utf-8")
    page.goto(file.as_uri())
    page.get_by_label("Protocol", exact=True).select_option("protocol_07 v1")
    best = sorted(range(200), key=lambda m: -values[7, m])
    assert shown(page) == [f"model_{m:03}" for m in best]
    sort_by(page, AUC).click()
    assert shown(page) == [f"model_{m:03}" for m in reversed(best)]
    page.get_by_label("Models whose name contains").fill("_19")
    assert shown(page) == [f"model_{m:03}" for m in reversed(best) if m >= 190]
    page.get_by_label("Models whose name contains").fill("")
    page.get_by_label("Protocol", exact=True).select_option("protocol_11 v1")
    assert page.locator("#results tbody tr").count() == 200
    assert page.locator("tr").count() == 200 + 1 + page.locator("#comparison tr").count()
