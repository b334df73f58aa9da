"""The leaderboard takes what may stand on it, trusts no path, and is the same bytes each time it is built."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish.leaderboard import BEGIN, END, add, build, collect, place, tables, update_readme
from dfad_bench.records.results import Result, read_result, write_result
from tests.publish.builders import a_protocol, a_result


def a_file(folder: Path, result: Result) -> Path:
    path = folder / "run" / "result.json"
    write_result(path, result)
    return path


def filled(folder: Path, *results: Result) -> Path:
    for result in results:
        place(a_file(folder, result), folder / "results")
    return folder / "results"


def built(folder: Path, name: str) -> Path:
    (found,) = (path for path in build(folder) if path.name == name)
    return found


# --- adding --------------------------------------------------------------------------------------------------------


def test_a_result_is_copied_to_its_protocol_and_model(tmp_path: Path) -> None:
    run = a_file(tmp_path, a_result())
    target = add(run, tmp_path / "results")
    assert target == tmp_path / "results" / "demo" / "xception.json"
    assert target.read_bytes() == run.read_bytes()


def test_an_ineligible_result_is_refused_with_its_reasons(tmp_path: Path) -> None:
    run = a_file(tmp_path, a_result(ineligible=["limited to 5 faces", "incomplete: 2 unreadable"]))
    with pytest.raises(DataError, match="limited to 5 faces; incomplete: 2 unreadable"):
        add(run, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", ".hidden", "", "a|b<script>", "Xception", "a\\b", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    for result in (a_result(name), a_result(protocol=a_protocol(name))):
        with pytest.raises(DataError, match="is no file name"):
            add(a_file(tmp_path, result), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_model_with_options_is_a_row_of_its_own_and_nothing_else_may_follow_its_name(tmp_path: Path) -> None:
    names = ["xception", "xception+depth=3", "xception+depth=3+tower=ViT-B_16.pt"]
    results = filled(tmp_path, *map(a_result, names))
    assert [each.model.name for each in collect(results)] == names
    page = built(results.parent, "leaderboard.md").read_text(encoding="utf-8")
    escaped = [name.replace("_", r"\_") for name in names]
    assert all(f"| {name} |" in page for name in escaped)
    for name in ("xception+", "xception+depth", "xception+depth=a/b", "xception+=3", "xception+depth=3+", "+depth=3"):
        with pytest.raises(DataError, match="is no file name"):
            add(a_file(tmp_path, a_result(name)), results)
    with pytest.raises(DataError, match="the protocol is named"):
        add(a_file(tmp_path, a_result(protocol=a_protocol("demo+depth=3"))), results)


def test_a_link_does_not_lead_out_of_the_results(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results" / "demo").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out"):
        add(a_file(tmp_path, a_result()), tmp_path / "results")
    assert not list((tmp_path / "elsewhere").iterdir())


# --- collecting ----------------------------------------------------------------------------------------------------


def test_results_are_collected_in_one_order(tmp_path: Path) -> None:
    results = filled(tmp_path, a_result("b"), a_result("a"), a_result("c", protocol=a_protocol("another")))
    assert [(each.protocol.name, each.model.name) for each in collect(results)] == [
        ("another", "c"),
        ("demo", "a"),
        ("demo", "b"),
    ]


@pytest.mark.parametrize("path", ["demo/other.json", "other/xception.json", "xception.json", "demo/deep/xception.json"])
def test_a_path_that_disagrees_with_its_contents_is_refused(tmp_path: Path, path: str) -> None:
    write_result(tmp_path / path, a_result())
    with pytest.raises(DataError, match=r"must lie at demo/xception\.json"):
        collect(tmp_path)


def test_a_link_among_the_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results" / "demo").mkdir(parents=True)
    (tmp_path / "results" / "demo" / "xception.json").symlink_to(a_file(tmp_path, a_result()))
    with pytest.raises(DataError, match="reached by a link"):
        collect(tmp_path / "results")


def test_a_missing_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaderboard add"):
        collect(tmp_path / "nowhere")


def test_a_broken_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "xception.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"xception\.json is not valid JSON"):
        collect(tmp_path)


def test_different_faces_and_versions_are_never_in_one_table() -> None:
    results = [
        a_result("a"),
        a_result("b", protocol=a_protocol(faces="sha256:b")),
        a_result("c", protocol=a_protocol(version=2)),
        a_result("d"),
    ]
    made = tables(results)
    assert [[row[1] for row in sorted(table.rows, key=lambda row: row[1])] for table in made] == [
        ["a", "d"],
        ["b"],
        ["c"],
    ]
    assert [table.title for table in made] == ["demo v1, faces sha256:a", "demo v1, faces sha256:b", "demo v2"]


# --- building ------------------------------------------------------------------------------------------------------


def test_building_twice_gives_the_same_bytes_whatever_the_order_of_adding(tmp_path: Path) -> None:
    one, two = a_result("a"), a_result("b", ineligible=["dirty"])
    first = build(filled(tmp_path / "1", one, two).parent)
    second = build(filled(tmp_path / "2", two, one).parent)
    names = ["index.html", "leaderboard.md", "leaderboard.csv", "leaderboard.tex", "leaderboard.json"]
    assert [path.name for path in first] == names
    before = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in second] == before
    build(tmp_path / "1")
    assert [path.read_bytes() for path in first] == before


def test_the_json_holds_every_mean_and_pooled_score_with_its_run(tmp_path: Path) -> None:
    results = filled(tmp_path, a_result("a"), a_result("b", ineligible=["dirty"]))
    board = json.loads(built(results.parent, "leaderboard.json").read_text(encoding="utf-8"))
    assert board["schema_version"] == 2
    assert [(run["model"], run["ineligible"]) for run in board["runs"]] == [("a", []), ("b", ["dirty"])]
    stored = [s for s in read_result(results / "demo" / "a.json").scores if s.group in ("mean", "pooled")]
    coordinates = {"protocol": "demo", "protocol_version": 1, "protocol_fingerprint": "sha256:a", "model": "a"}
    assert board["scores"][: len(stored)] == [coordinates | each.model_dump(exclude_none=True) for each in stored]


def test_the_page_holds_each_table_and_its_warning(tmp_path: Path) -> None:
    results = filled(tmp_path, a_result(protocol=a_protocol(warning="beware")), a_result(protocol=a_protocol("other")))
    page = built(results.parent, "leaderboard.md").read_text(encoding="utf-8")
    assert "### demo v1\n" in page
    assert "### other v1\n" in page
    assert "- Warning: beware\n" in page


def test_no_result_is_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert "No result yet." in built(tmp_path, "leaderboard.md").read_text(encoding="utf-8")


# --- the README ----------------------------------------------------------------------------------------------------


def test_only_the_region_between_the_markers_is_replaced(tmp_path: Path) -> None:
    results = filled(tmp_path, a_result())
    readme = tmp_path / "README.md"
    before, after = "# Title\r\n\r\ntext ü  \n", "\n\nmore\n\n\n"
    readme.write_bytes(f"{before}{BEGIN}\nold table\n{END}{after}".encode())
    assert update_readme(readme, results.parent) == readme
    once = readme.read_bytes()
    assert once.decode().startswith(f"{before}{BEGIN}\n\n### demo v1\n")
    assert once.decode().endswith(f"{END}{after}")
    assert b"old table" not in once
    update_readme(readme, results.parent)
    assert readme.read_bytes() == once


@pytest.mark.parametrize("text", ["no markers", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_the_two_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="each once"):
        update_readme(readme, filled(tmp_path, a_result()))
    assert readme.read_text(encoding="utf-8") == text


def test_a_missing_readme_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        update_readme(tmp_path / "README.md", tmp_path)


def test_publishing_needs_no_torch() -> None:
    code = "import sys; import dfad_bench.publish.leaderboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_committed_tables_are_those_of_the_committed_results(repository: Path, tmp_path: Path) -> None:
    results = repository / "leaderboard" / "results"
    assert all(not each.ineligible for each in collect(results))
    shutil.copytree(repository / "leaderboard", tmp_path / "leaderboard")
    for path in build(tmp_path / "leaderboard"):
        assert path.read_bytes() == (repository / "leaderboard" / path.name).read_bytes(), "run 'make leaderboard'"
    readme = tmp_path / "README.md"
    readme.write_bytes((repository / "README.md").read_bytes())
    update_readme(readme, results.parent)
    assert readme.read_bytes() == (repository / "README.md").read_bytes(), "run 'make leaderboard'"
