"""The leaderboard as CSV and as LaTeX: the same numbers, and no name in them does anything."""

from __future__ import annotations

import csv as csv_files
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dfad_bench.publish.formats import csv, latex
from dfad_bench.publish.leaderboard import tables
from dfad_bench.records.results import MEAN, POOLED, Result, Score
from tests.publish.builders import a_protocol, a_result

HOSTILE = [
    r"a_b & \input{x}",
    "a|b",
    "100% $x^2$ #1 ~ {",
    'quote" and `tick`',
    "^^M\\def",
    "line\n\\end{table*}",
    "Σ→é日",
    "\\",
]


def a_score(value: float | None, *, low: float | None = None, high: float | None = None, **fields: object) -> Score:
    given = {
        "task": "attribution",
        "metric": "accuracy",
        "level": "family",
        "subset": "unseen",
        "group": MEAN,
        "n": 3,
        "reason": None if value is not None else "no face",
    }
    return Score(value=value, low=low, high=high, **{**given, **fields})


def scored(name: str, *values: float | None, **fields: object) -> Result:
    """Return a result of family ACC, and where a second value is given the AUC, on unseen faces."""
    kinds = [{}, {"task": "detection", "metric": "auc", "level": "authenticity"}]
    return a_result(name, scored=[a_score(v, **kind) for v, kind in zip(values, kinds, strict=False)], **fields)


# --- CSV -----------------------------------------------------------------------------------------------------------


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv_files.DictReader(io.StringIO(text, newline="")))


def test_csv_holds_every_mean_and_pooled_score_as_a_fraction_with_its_interval() -> None:
    result = a_result("m", resamples=100)
    rows = parsed(csv([result]))
    kept = [each for each in result.scores if each.group in (MEAN, POOLED)]
    assert len(rows) == len(kept) > 0
    assert any(each.low is not None for each in kept) and any(each.value is None for each in kept)
    for row, score in zip(rows, kept, strict=True):
        assert (row["task"], row["metric"], row["subset"], row["group"]) == (
            *(score.task, score.metric, score.subset, score.group),
        )
        for column in ("value", "low", "high"):
            value = getattr(score, column)
            assert row[column] == ("" if value is None else repr(value))
        assert (row["reason"] != "") == (score.value is None)


def test_csv_is_rfc_4180_with_one_header_over_all_protocols() -> None:
    results = [a_result("m", protocol=a_protocol(name, warning='says "no",\nor not')) for name in ("demo", "other")]
    text = csv(results)
    lines = list(csv_files.reader(io.StringIO(text, newline=""), strict=True))
    assert text.endswith("\r\n") and text.count("protocol,protocol_version,") == 1
    assert {len(line) for line in lines} == {len(lines[0])}
    assert {row["protocol"] for row in parsed(text)} == {"demo", "other"}
    assert {row["warning"] for row in parsed(text)} == {'says "no",\nor not'}


def test_the_ranks_are_those_of_the_leaderboard() -> None:
    results = [
        *(scored("low", 0.1), scored("high", 0.9), scored("twin", 0.9), scored("none", None)),
        scored("refused", 1.0, ineligible=["dirty"]),
        scored("theirs", 0.5, origin="reported"),
        scored("elsewhere", 0.2, protocol=a_protocol(faces="sha256:b")),
    ]
    ranks = {row["model"]: row["rank"] for row in parsed(csv(results))}
    shown = {row[1].partition(" ")[0]: row[0] for table in tables(results) for row in table.rows}
    assert ranks == {name: "" if rank == "–" else rank for name, rank in shown.items()}
    assert ranks["high"] == ranks["twin"] == ranks["elsewhere"] == "1" and ranks["refused"] == ""


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "﹣1"])
def test_a_text_that_a_spreadsheet_would_compute_gets_an_apostrophe(name: str) -> None:
    (row,) = parsed(csv([scored(name, 0.5, ineligible=[name])]))
    assert row["model"] == row["ineligible"] == f"'{name}"


def test_numbers_and_harmless_names_get_no_apostrophe() -> None:
    (row,) = parsed(csv([scored("m+depth=-3", 0.0)]))
    assert (row["model"], row["value"]) == ("m+depth=-3", "0.0")


# --- LaTeX ---------------------------------------------------------------------------------------------------------


def row_of(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if re.match(rf"\S+ & {re.escape(name)}\b", line)]
    return [cell.strip() for cell in line.removesuffix(r" \\").split(" & ")]


def test_the_best_is_bold_the_second_underlined_and_equal_ones_share_that() -> None:
    text = latex([scored("a", 0.9004), scored("b", 0.9), scored("c", 0.5), scored("d", 0.5), scored("e", 0.1)])
    cells = {name: row_of(text, name)[2] for name in "abcde"}
    assert cells["a"] == cells["b"] == r"\textbf{90.0}"
    assert cells["c"] == cells["d"] == r"\underline{50.0}"
    assert cells["e"] == "10.0"


def test_each_column_has_its_own_best() -> None:
    text = latex([scored("a", 0.9, 0.1), scored("b", 0.2, 0.8)])
    assert row_of(text, "a")[2:4] == [r"\textbf{90.0}", r"\underline{10.0}"]
    assert row_of(text, "b")[2:4] == [r"\underline{20.0}", r"\textbf{80.0}"]


def test_what_is_not_ranked_and_what_is_undefined_is_never_the_best() -> None:
    text = latex([scored("a", 0.4), scored("b", 0.3), scored("c", 0.9, ineligible=["dirty"]), scored("d", None)])
    assert row_of(text, "c")[2] == "90.0" and row_of(text, "c")[0] == "--"
    assert row_of(text, "a")[2] == r"\textbf{40.0}"
    assert row_of(text, "d")[2].startswith(r"--\,\textsuperscript{")
    assert "not ranked: dirty." in text and "no face." in text


def test_one_result_alone_is_not_called_the_best() -> None:
    assert row_of(latex([scored("a", 0.4)]), "a")[2] == "40.0"


def test_an_interval_is_a_small_pair_of_numbers() -> None:
    result = a_result("m", scored=[a_score(0.5, low=0.25, high=0.75), a_score(0.5, subset="seen", no_interval="few")])
    cells = row_of(latex([result]), "m")
    assert "50.0$_{25.0}^{75.0}$" in cells
    (letter,) = re.findall(r"\\textsuperscript\{(\w)\} no interval: few\.", latex([result]))
    assert rf"50.0\,\textsuperscript{{{letter}}}" in cells


def test_one_table_per_protocol_version_and_faces_each_with_its_own_label_and_warning() -> None:
    results = [
        scored("a", 0.1, protocol=a_protocol(warning="Beware of 100%")),
        scored("b", 0.1, protocol=a_protocol(faces="sha256:bbbb")),
        scored("c", 0.1, protocol=a_protocol(version=2)),
        scored("d", 0.1, protocol=a_protocol("de_mo")),
        scored("e", 0.1, protocol=a_protocol("de.mo")),
    ]
    text = latex(results)
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == len(tables(results)) == 5
    labels = re.findall(r"\\label\{(.*)\}", text)
    assert len(set(labels)) == 5 and all(re.fullmatch(r"[a-z0-9.:-]+", label) for label in labels)
    captions = re.findall(r"\\caption\{(.*)\}", text)
    assert [r"Warning: Beware of 100\%" in caption for caption in captions] == [
        each.protocol.warning is not None for each in sorted(results, key=lambda r: (r.protocol.name, r.model.name))
    ]
    assert sum("bbbb" in caption for caption in captions) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_the_table_or_runs(name: str) -> None:
    result = a_result(name, protocol=a_protocol(name, faces=name, warning=name), ineligible=[name])
    text = latex([result])
    plain = latex([a_result("m", protocol=a_protocol("m", faces="m", warning="m"), ineligible=["m"])])
    assert text.isascii() and text.count("\n") == plain.count("\n")
    commands, allowed = re.findall(r"\\[a-zA-Z]+", text), set(re.findall(r"\\[a-zA-Z]+", plain))
    harmless = {r"\textbackslash", r"\textasciicircum", r"\textasciitilde", r"\textbar", r"\char", r"\to"}
    assert set(commands) - allowed <= harmless
    bare = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert bare.count("{") == bare.count("}") and "^^" not in text
    assert text.count(" & ") == plain.count(" & ")


def test_the_same_results_in_any_order_give_the_same_bytes() -> None:
    results = [scored("a", 0.2), scored("b", 0.9), scored("c", 0.5, protocol=a_protocol("other"))]
    assert latex(results) == latex(results[::-1]) and csv(results) == csv(results[::-1])


def test_no_result_is_a_header_alone() -> None:
    assert len(csv([]).splitlines()) == 1 and "table" not in latex([])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles_whatever_the_names(tmp_path: Path) -> None:
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, text=True)
    if not found.stdout.strip():
        pytest.skip("LaTeX's package booktabs is not installed")
    results = [a_result(name, resamples=20) for name in HOSTILE]
    results += [a_result(name, protocol=a_protocol(name, warning=name)) for name in HOSTILE]
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{latex(results)}\end{{document}}"
    (tmp_path / "page.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert answer.returncode == 0, answer.stdout[-2000:]
    assert (tmp_path / "page.pdf").is_file()
