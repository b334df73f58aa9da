"""The leaderboard's page: it says what the leaderboard says, marks what may not be believed, is safe and whole in itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from dfad_bench.errors import DataError
from dfad_bench.publish.ranking import leaderboard_table
from dfad_bench.publish.site import site
from dfad_bench.records.pairs import ComparedMean, PairedModel, PairedTest, PairsRecord
from dfad_bench.records.results import PerturbationRecord, PredictionsRecord, ProtocolRecord, Result, Score
from dfad_bench.records.robustness import LevelRecord, RobustnessRecord, SeverityCurve
from dfad_bench.records.seeds import SeededModel, SeededScore, SeedsRecord
from tests.publish.builders import a_protocol, a_result

HOSTILE = "<script>alert(1)</script>"
AWKWARD = "a|b\"c'</script><!--\u2028&amp;"


class Page(HTMLParser):
    """The elements of a page, the table cells of its part without script, and its data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.texts: dict[str, str] = {}
        self.within = ""
        self.feed(page)
        self.data: dict[str, Any] = json.loads(self.texts["script"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within = tag
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.within == "td":
            self.cells[-1] += data
        self.texts.setdefault(self.within, data)

    def table(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.data["tables"][number]
        return found

    def row(self, model: str, table: int = 0) -> dict[str, Any]:
        (found,) = [row for row in self.table(table)["rows"] if row["model"] == model]
        return dict(found)

    def marks(self, model: str, table: int = 0) -> dict[str, str]:
        return {kind: self.data["strings"][place] for kind, place in self.row(model, table).get("marks", [])}

    def facts(self, model: str) -> dict[str, str]:
        places = self.row(model)["facts"]
        return dict(zip(self.data["facts"], [self.data["strings"][place] for place in places], strict=True))

    def cell(self, model: str, column: str, table: int = 0) -> Any:
        places = [each["id"] for each in self.table(table)["columns"]]
        return self.row(model, table)["cells"][places.index(column)]


def a_score(value: float | None, metric: str = "accuracy", group: str = "mean", **fields: Any) -> Score:
    task, level = ("attribution", "family") if metric == "accuracy" else ("detection", "authenticity")
    given = {"task": task, "level": level, "metric": metric, "subset": "unseen", "group": group, "value": value, "n": 9}
    return Score.model_validate(given | fields)


def simple(model: str, value: float | None, sha256: str = "1" * 64, **fields: Any) -> Result:
    """Return a result with one mean, and the predictions of that hash."""
    made = a_result(model, scored=[a_score(value)], **fields)
    return made.model_copy(update={"predictions": PredictionsRecord(sha256=sha256, rows=7)})


def trained_on(result: Result, *names: str) -> Result:
    return result.model_copy(update={"model": result.model.model_copy(update={"trained_on": list(names)})})


def a_pairs_record(
    models: dict[str, str], tests: Sequence[PairedTest], groups: dict[str, int], protocol: ProtocolRecord | None = None
) -> PairsRecord:
    """Return the record of models, by name the sha256 of their predictions, compared by unseen ACC family."""
    mean = ComparedMean(
        task="attribution", metric="accuracy", level="family", subset="unseen", tests=list(tests), groups=groups
    )
    return PairsRecord(
        protocol=protocol or a_protocol(),
        models=[PairedModel(name=name, predictions_sha256=sha256) for name, sha256 in models.items()],
        cluster_by="auto",
        clusters=50,
        resamples=1000,
        seed=0,
        means=[mean],
    )


# --- what it says --------------------------------------------------------------------------------------------------


def test_models_stand_in_the_leaderboards_order_with_its_ranks() -> None:
    results = [simple(name, value) for name, value in (("c", 0.5), ("a", 0.5), ("b", 0.9), ("n", None))]
    results += [simple("bad", 1.0, ineligible=["limited"]), simple("theirs", 0.7, origin="reported")]
    rows = Page(site(results)).table()["rows"]
    expected = leaderboard_table(a_protocol(), results).rows
    assert [row["model"] for row in rows] == [row[1].removesuffix(" (1)").removesuffix(" (2)") for row in expected]
    assert [row["model"] for row in rows] == ["b", "theirs", "a", "c", "n", "bad"]
    told = [row["standing"] for row in rows]
    assert told == [*(f"rank {row[0]}" for row in expected[:-1]), "not ranked"]


def test_each_set_of_faces_has_a_table_of_its_own() -> None:
    protocols = [a_protocol(), a_protocol(version=2), a_protocol(version=2, faces="sha256:b"), a_protocol("other")]
    page = Page(site([simple("m", 0.5, protocol=each) for each in reversed(protocols)]))
    titles = [table["title"] for table in page.data["tables"]]
    assert titles == ["demo v1", "demo v2, faces sha256:a", "demo v2, faces sha256:b", "other v1"]
    assert len({table["id"] for table in page.data["tables"]}) == 4


def test_values_are_rounded_as_on_the_leaderboard() -> None:
    # 6.25, 96.25 and 12.75 are ties in binary, which Python rounds to even; 0.9615 is none.
    values = [0.0625, 0.9615, 0.9625, 0.1275, 0.00049999, 1 / 3, 0.99949, 1.0, 0.0]
    page = Page(site([simple(f"m{place}", value) for place, value in enumerate(values)]))
    for place, value in enumerate(values):
        kept = page.cell(f"m{place}", "unseen.accuracy.family.mean")
        assert f"{((kept + 500) // 1000) / 10:.1f}" == f"{100 * value:.1f}"
        assert abs(kept - 1e6 * value) <= 1


def test_a_cell_has_its_interval_and_the_reasons_of_the_leaderboard() -> None:
    given = {"low": 0.4, "high": 0.6, "clusters": 7, "unknown": 3}
    page = Page(site([a_result("m", scored=[a_score(0.5, **given), a_score(None, "auc", reason="no real face")])]))
    value, low, high, *notes = page.cell("m", "unseen.accuracy.family.mean")
    assert (value, low, high) == (500_000, 400, 600)
    told = [page.data["strings"][place] for place in notes]
    assert told == [
        "leaves out 3 faces of a class that training does not have",
        "fewer than 20 clusters: the interval is too narrow",
    ]
    undefined = page.cell("m", "unseen.auc.authenticity.mean")
    assert undefined[0] is None and page.data["strings"][undefined[3]] == "no real face"
    assert page.cell("m", "unseen.accuracy@val.authenticity.mean") is None


def test_groups_have_columns_with_family_and_forgery_type() -> None:
    columns = {each["id"]: each for each in Page(site([a_result()])).table()["columns"]}
    sd15 = columns["unseen.accuracy.family.sd15"]
    assert (sd15["group"], sd15["family"], sd15["type"]) == ("sd15", "diffusion", "efs")
    assert columns["seen.accuracy.generator.real"]["family"] == "real"
    assert "seen.auc.authenticity.real" not in columns
    assert "group" not in columns["unseen.accuracy.family.mean"]
    assert not any(name.endswith(".pooled") for name in columns)
    unknown = Page(site([a_result(scored=[a_score(0.5), a_score(0.5, group="ours_v2")])])).table()["columns"]
    assert unknown[-1]["family"] == unknown[-1]["type"] == "not in the taxonomy"


def test_provenance_is_on_the_page_with_a_link_to_the_result() -> None:
    result = a_result("m+option=1", skipped={"no_face": 2})
    page = Page(site([result], links={("demo", "m+option=1"): "results/demo/m+option=1 #.json"}))
    facts = page.facts("m+option=1")
    assert facts["weights sha256"] == "0" * 64
    assert facts["predictions sha256"].startswith("1" * 64)
    assert facts["code"] == f"dfad-bench 0.1.0, commit {'c' * 40}"
    assert facts["test faces"] == "7 of 9 evaluated; left out: 2 no_face"
    assert (facts["seed"], facts["environment"], facts["licence"]) == ("0", "python 3.11", "Apache-2.0")
    assert facts["checkpoint selected on"].startswith("val")
    assert page.row("m+option=1")["link"] == "results/demo/m+option=1%20%23.json"
    dirty = result.model_copy(update={"code": result.code.model_copy(update={"dirty": True})})
    assert Page(site([dirty])).facts("m+option=1")["code"].endswith("changes that are not committed")


@pytest.mark.parametrize("link", ["javascript:alert(1)", "https://example.org/x", "//example.org/x", "/etc/passwd"])
def test_a_link_that_leads_elsewhere_is_refused(link: str) -> None:
    with pytest.raises(DataError, match="relative to the page"):
        site([a_result()], links={("demo", "xception"): link})


def test_two_results_of_one_model_on_the_same_faces_are_refused() -> None:
    with pytest.raises(DataError, match="two results of xception on demo v1"):
        site([a_result(), a_result()])


# --- marks ---------------------------------------------------------------------------------------------------------


def test_a_model_that_was_trained_on_a_source_is_contaminated() -> None:
    data: dict[str, dict[str, Any]] = {"ffpp": {}, "celebdf": {}}
    results = [
        trained_on(simple("guilty", 0.5), "FFPP", "Gaze360").model_copy(update={"data": data}),
        trained_on(simple("other", 0.5), "Gaze360").model_copy(update={"data": data}),
    ]
    page = Page(site(results))
    assert page.marks("guilty")["contaminated"] == "trained on FFPP, a source of this protocol"
    assert page.marks("other") == {}


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (["FaceForensics++"], "trained on FaceForensics++, a source of this protocol"),
        (["FF++ (c23)", "Celeb-DF-v2"], "trained on FF++ (c23), Celeb-DF-v2, a source of this protocol"),
        (["DF40"], "trained on DF40, which shares faces with ffpp, celebdf, a source of this protocol"),
        (["DeepFakeFace", "ProGAN"], None),
    ],
)
def test_a_source_is_met_by_whatever_name_it_has(seen: list[str], told: str | None) -> None:
    data: dict[str, dict[str, Any]] = {"ffpp": {}, "celebdf": {}}
    page = Page(site([trained_on(simple("model", 0.5), *seen).model_copy(update={"data": data})]))
    assert page.marks("model").get("contaminated") == told


def test_an_ineligible_result_and_few_clusters_are_unreliable_with_their_reasons() -> None:
    results = [
        a_result("limited", scored=[a_score(0.5, clusters=20)], ineligible=["limited"]),
        a_result("few", scored=[a_score(0.5, clusters=19)]),
        a_result("enough", scored=[a_score(0.5, clusters=20), a_score(0.5, group="sd15", clusters=3)]),
    ]
    page = Page(site(results))
    assert page.marks("limited") == {"unreliable": "limited"}
    assert page.marks("few") == {"unreliable": "a mean rests on 19 clusters of faces, fewer than 20"}
    assert page.marks("enough") == {}


def test_an_older_version_is_superseded_and_has_no_link() -> None:
    results = [simple("m", 0.5), simple("m", 0.6, protocol=a_protocol(version=3)), simple("other", 0.5)]
    page = Page(site(results, links={("demo", "m"): "results/demo/m.json"}))
    assert page.marks("m", 0) == {"superseded": "the model has a result on v3 of this protocol"}
    assert page.marks("m", 1) == page.marks("other", 0) == {}
    assert "link" not in page.row("m", 0) and page.row("m", 1)["link"] == "results/demo/m.json"


def test_other_faces_of_the_same_version_are_marked_on_both() -> None:
    page = Page(site([simple("m", 0.5), simple("m", 0.6, protocol=a_protocol(faces="sha256:b"))]))
    assert all("other faces of this version" in page.marks("m", table)["superseded"] for table in (0, 1))


def test_a_reported_result_is_marked() -> None:
    page = Page(site([simple("theirs", 0.5, origin="reported"), simple("ours", 0.5)]))
    assert page.marks("theirs") == {"reported": "by its authors, not measured"}
    assert page.marks("ours") == {}


# --- records beside results ----------------------------------------------------------------------------------------


def test_significance_groups_stand_for_ranks_where_the_predictions_are_the_tested_ones() -> None:
    results = [simple("a", 0.9, "a" * 64), simple("b", 0.8, "b" * 64), simple("c", 0.1, "c" * 64)]
    tests = [PairedTest(a="b", b="a", difference=-0.1, low=-0.2, high=0.05, p=0.2, p_adjusted=0.4)]
    record = a_pairs_record({"a": "a" * 64, "b": "b" * 64, "c": "0" * 64}, tests, {"a": 1, "b": 1, "c": 2})
    table = Page(site(results, pairs=[record])).table()
    assert [row["standing"] for row in table["rows"]] == ["group 1", "group 1", "rank 3, not tested"]
    assert table["grouped"] == "unseen ACC family"
    assert table["pairs"]["models"] == ["a", "b"]
    assert table["pairs"]["tests"]["unseen.accuracy.family.mean"] == [[100, -50, 200, "0.400", 0]]


def test_a_record_of_other_predictions_or_faces_is_not_heeded() -> None:
    results = [simple("a", 0.9, "a" * 64), simple("b", 0.8, "b" * 64)]
    tests = [PairedTest(a="a", b="b", difference=0.1, p_adjusted=0.01)]
    stale = a_pairs_record({"a": "0" * 64, "b": "b" * 64}, tests, {"a": 1, "b": 2})
    elsewhere = a_pairs_record({"a": "a" * 64, "b": "b" * 64}, tests, {"a": 1, "b": 2}, a_protocol(version=2))
    table = Page(site(results, pairs=[stale, elsewhere])).table()
    assert [row["standing"] for row in table["rows"]] == ["rank 1", "rank 2"]
    assert table["pairs"] is None and table["grouped"] is None


def test_significance_is_not_lost_in_rounding() -> None:
    results = [simple("a", 0.9, "a" * 64), simple("b", 0.8, "b" * 64)]
    tests = [PairedTest(a="a", b="b", difference=0.1, low=0.01, high=0.2, p=0.0499, p_adjusted=0.0499)]
    record = a_pairs_record({"a": "a" * 64, "b": "b" * 64}, tests, {"a": 1, "b": 2})
    assert Page(site(results, pairs=[record])).table()["pairs"]["tests"]["unseen.accuracy.family.mean"][0][3:] == [
        "0.050",
        1,
    ]


def test_too_many_paired_tests_are_left_out_and_named() -> None:
    names = [f"m{place:03}" for place in range(330)]
    results = [simple(name, 0.5, f"{place:064}") for place, name in enumerate(names)]
    tests = [PairedTest(a=a, b=b, difference=0.0) for a in names for b in names if a < b]
    record = a_pairs_record(
        {each.model.name: each.predictions.sha256 for each in results}, tests, dict.fromkeys(names, 1)
    )
    pairs = Page(site(results, pairs=[record])).table()["pairs"]
    assert len(tests) > 50_000
    assert pairs["tests"] == {} and pairs["left_out"] == ["unseen ACC family"]


def test_seeds_show_mean_and_deviation_of_the_same_predictions() -> None:
    seeded = SeededScore(
        **{"model": "m", "task": "attribution", "metric": "accuracy", "level": "family", "subset": "unseen"},
        **{"group": "mean", "values": [0.5, 0.6], "mean": 0.55, "deviation": 0.0707},
    )
    model = SeededModel(name="m", seeds=[0, 1], predictions_sha256=["a" * 64, "b" * 64], ineligible=[])
    record = SeedsRecord(protocol=a_protocol(), models=[model], stability=[], scores=[seeded])
    assert Page(site([simple("m", 0.5, "b" * 64)], [record])).row("m")["seeds"][:2] == [2, [550, 71]]
    assert "seeds" not in Page(site([simple("m", 0.5, "c" * 64)], [record])).row("m")


def a_robustness_record(model: str, sha256: str, value: Sequence[float | None]) -> RobustnessRecord:
    curve = SeverityCurve(
        **{"task": "attribution", "metric": "accuracy", "level": "family", "unit": "frame", "subset": "unseen"},
        **{"group": "mean", "perturbation": "jpeg", "value": list(value), "low": [None] * 6, "high": [None] * 6},
        **{"area": 0.45, "undefined": {5: "not run"}},
    )
    return RobustnessRecord(
        seed=0,
        model=model,
        weights_sha256=None,
        protocol=a_protocol(),
        clean_predictions_sha256=sha256,
        levels=[
            LevelRecord(
                perturbation=PerturbationRecord(name="jpeg", severity=1, strength="JPEG quality 80"),
                folder="jpeg-1",
                predictions_sha256="d" * 64,
            )
        ],
        curves=[curve],
        means=[],
    )


def test_robustness_gives_the_means_at_each_severity() -> None:
    record = a_robustness_record("m", "a" * 64, [0.5, 0.4, 0.3, 0.2, 0.1, None])
    page = Page(site([simple("m", 0.5, "a" * 64), simple("n", 0.5, "b" * 64)], robustness=[record]))
    assert page.table()["perturbations"] == ["jpeg"]
    first = [cells[0] for cells in page.row("m")["robust"]["0"]]
    assert first[:4] == [400_000, 300_000, 200_000, 100_000] and first[5] == 450_000
    assert page.data["strings"][first[4][3]] == "not run"
    assert "robust" not in page.row("n")


# --- the page itself -----------------------------------------------------------------------------------------------


def hostile_results() -> list[Result]:
    scored = [a_score(0.5), a_score(0.5, group=HOSTILE), a_score(0.4, group=AWKWARD)]
    return [a_result(name, scored=scored, protocol=a_protocol(HOSTILE, warning=AWKWARD)) for name in (HOSTILE, AWKWARD)]


def test_hostile_names_are_text() -> None:
    html = site(hostile_results())
    page = Page(html)
    data = html[html.index('id="data">') :]
    assert HOSTILE not in html and "<!--" not in html and "\u2028" not in data
    assert sum(tag == "script" for tag, _ in page.tags) == html.count("</script>") == 2
    assert {row["model"] for row in page.table()["rows"]} == {HOSTILE, AWKWARD}
    assert {HOSTILE, AWKWARD} <= set(page.cells)


def test_the_page_loads_nothing_and_admits_only_its_own_script_and_style() -> None:
    html = site(hostile_results())
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not any(
        name.startswith("on") or name in ("src", "style") for _, attributes in page.tags for name in attributes
    )
    (policy,) = [each["content"] for _, each in page.tags if each.get("http-equiv") == "Content-Security-Policy"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        text = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(text) == 1
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'")
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    assert all(rule in style for rule in ("prefers-color-scheme: dark", "@media print", ":focus-visible"))


def test_without_script_there_is_a_table_of_means_with_standings_marks_and_warning() -> None:
    warned = a_protocol(warning="beware")
    results = [simple("m", 0.5, protocol=warned), simple("bad", 0.6, protocol=warned, ineligible=["limited"])]
    html = site(results)
    inside = html[html.index("<noscript>") : html.index("</noscript>")]
    table = leaderboard_table(warned, results)
    cells = [cell.strip() for cell in Page(html).cells]
    for row, standing, mark in zip(table.rows, ("rank 1", "not ranked"), ("none", "unreliable: limited"), strict=True):
        place = cells.index(row[1]) - 1
        assert tuple(cells[place : place + len(row) + 1]) == (standing, *row[1:], mark)
    assert '<p class="warning">Warning: beware</p>' in inside and all(
        f">{column}" in inside for column in table.columns[1:]
    )


def test_the_same_results_in_any_order_give_the_same_page() -> None:
    results = [simple("b", 0.5), simple("a", 0.5), simple("a", 0.5, protocol=a_protocol("other"))]
    assert site(results) == site(results[::-1])


def test_no_result_gives_a_page() -> None:
    assert Page(site([])).data["tables"] == []
