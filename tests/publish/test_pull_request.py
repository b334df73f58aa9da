"""A run is sent without what must stay, and what is said about it is what is sent."""

from __future__ import annotations

import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish import submission
from dfad_bench.publish.pull_request import branch_commands, check_report, submit
from dfad_bench.publish.submission import Problem, check_submission
from dfad_bench.records.predictions import read_predictions
from dfad_bench.records.results import read_result
from tests.publish.submissions import NO_INTERVALS, a_run, change_json, files_of, sent

SENT = ["PULL_REQUEST.md", "results/demo/guess.json", "results/demo/guess.parquet"]


@pytest.fixture(autouse=True)
def _no_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "LEADERBOARD", NO_INTERVALS)


def test_a_run_without_embeddings_is_sent_byte_for_byte(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    made = submit(run, tmp_path / "out", tmp_path / "results")
    assert list(files_of(tmp_path / "out")) == SENT
    assert made.predictions_path.read_bytes() == (run / "predictions.parquet").read_bytes()
    assert made.result_path.read_bytes() == (run / "result.json").read_bytes()
    assert made.left_out == 0
    assert check_submission([made.result_path]) == []


def test_embeddings_stay_and_the_hash_is_that_of_what_is_sent(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", embeddings=True)
    before, made = read_result(run / "result.json"), submit(run, tmp_path / "out", tmp_path / "results")
    kept, all_of_it = read_predictions(made.predictions_path), read_predictions(run / "predictions.parquet")
    assert all_of_it.embedding is not None and kept.embedding is None
    assert kept.context == all_of_it.context
    columns = [name for name in pq.read_schema(made.predictions_path).names if name != "embedding"]
    assert pq.read_table(made.predictions_path, columns=columns) == pq.read_table(
        run / "predictions.parquet", columns=columns
    )
    discovery = [each for each in before.scores if each.task == "discovery"]
    assert made.left_out == len(discovery) > 0
    assert made.result.scores == [each for each in before.scores if each.task != "discovery"]
    assert read_result(made.result_path) == made.result
    assert made.result.predictions.sha256 == file_sha256(made.predictions_path) != before.predictions.sha256
    assert check_submission([made.result_path]) == []
    text = made.text_path.read_text(encoding="utf-8")
    assert f"{len(discovery)} scores that only embeddings give" in text and before.predictions.sha256 not in text


def test_the_same_run_gives_the_same_bytes_and_is_itself_left_alone(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", embeddings=True)
    before = [(run / name).read_bytes() for name in files_of(run)]
    for out in ("one", "two"):
        submit(run / "result.json", tmp_path / out, tmp_path / "results")
    assert [(tmp_path / "one" / name).read_bytes() for name in SENT] == [
        (tmp_path / "two" / name).read_bytes() for name in SENT
    ]
    assert [(run / name).read_bytes() for name in files_of(run)] == before


@pytest.mark.parametrize("said", ["the code has changes that are not committed", "limited to 5 faces"])
def test_what_may_not_stand_is_refused_with_its_reason_and_leaves_nothing(tmp_path: Path, said: str) -> None:
    run = a_run(tmp_path / "run", ineligible=[said])
    with pytest.raises(DataError, match=said):
        submit(run, tmp_path / "out", tmp_path / "results")
    assert list(files_of(tmp_path / "out")) == []


def test_a_run_whose_numbers_are_not_its_predictions_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    change_json(run / "result.json", lambda stored: stored["scores"].pop())
    with pytest.raises(DataError, match="scores, recomputed from"):
        submit(run, tmp_path / "out", tmp_path / "results")
    assert list(files_of(tmp_path / "out")) == []
    (run / "predictions.parquet").write_bytes(b"another")
    with pytest.raises(DataError, match="is not the file"):
        submit(run, tmp_path / "out", tmp_path / "results")
    (run / "predictions.parquet").unlink()
    with pytest.raises(UsageError, match=r"has no predictions\.parquet beside it"):
        submit(run, tmp_path / "out", tmp_path / "results")


def test_a_link_in_the_output_does_not_lead_elsewhere(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "results").mkdir(parents=True)
    (tmp_path / "out" / "results" / "demo").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out"):
        submit(run, tmp_path / "out", tmp_path / "results")
    assert list(files_of(tmp_path / "elsewhere")) == []


def test_the_text_compares_with_the_best_there_and_with_what_it_replaces(tmp_path: Path) -> None:
    for model, draw in (("one", 1), ("guess", 3)):
        sent(tmp_path / "results", model, draw=draw)
    made = submit(a_run(tmp_path / "run", draw=2), tmp_path / "out", tmp_path / "results")
    text = made.text_path.read_text(encoding="utf-8")
    assert "| best there %: one | difference | before %: guess | difference |" in text
    assert "of 2 on these faces" in text and "- [ ] " in text
    (line,) = [line for line in text.splitlines() if line.startswith("| unseen AUC |")]
    numbers = [float(cell.split()[0]) for cell in line.strip("| ").split(" | ")[1:]]
    this, best, difference, before, change = numbers
    assert difference == pytest.approx(this - best, abs=0.11) and change == pytest.approx(this - before, abs=0.11)
    assert difference != 0


def test_the_text_escapes_names_and_tells_of_no_machine(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    change_json(run / "result.json", lambda r: r["model"].update(reference="<script>alert(1)</script> | *x*\n# y"))
    text = submit(run, tmp_path / "out", tmp_path / "results").text_path.read_text(encoding="utf-8")
    assert "<script>" not in text and "\n# y" not in text and r"\| \*x\* \# y" in text
    assert str(tmp_path) not in text


def test_the_commands_are_offered_in_a_checkout_only_and_survive_any_folder(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout; rm -rf x"
    made = submit(a_run(tmp_path / "run"), tmp_path / "out it goes", tmp_path / "results")
    assert branch_commands(made, tmp_path / "out it goes", tmp_path) == []
    for name in (".git", "dfad_bench", "leaderboard/results"):
        (checkout / name).mkdir(parents=True)
    commands = branch_commands(made, tmp_path / "out it goes", checkout / "leaderboard")
    assert shlex.split(commands[0]) == ["cd", str(checkout)]
    assert shlex.split(commands[2]) == ["cp", "-R", "../out it goes/results/.", "leaderboard/results/"]
    assert shlex.split(commands[4])[2:] == [
        "leaderboard/results/demo/guess.json",
        "leaderboard/results/demo/guess.parquet",
    ]
    assert not list((checkout / ".git").iterdir())


# --- the report of a check -----------------------------------------------------------------------------------------


def test_the_report_sets_new_numbers_beside_those_of_the_base_branch(tmp_path: Path) -> None:
    sent(tmp_path / "base", "guess", draw=1)
    changed, new = sent(tmp_path / "pull", "guess", draw=2), sent(tmp_path / "pull", "other", draw=3)
    files = [changed, changed.with_suffix(".parquet"), new]
    text = check_report(files, [], tmp_path / "base")
    assert "Results checked: 2. Problems: 0." in text
    before, after = text.split("### other on demo v1")
    assert "It is new." in after and "It is new." not in before
    (line,) = [line for line in before.splitlines() if line.startswith("| seen AUC |")]
    old, now, difference = (float(cell.split()[0]) for cell in line.strip("| ").split(" | ")[1:])
    assert difference == pytest.approx(now - old, abs=0.11) and difference != 0


def test_the_report_says_which_numbers_nobody_recomputed(tmp_path: Path) -> None:
    one, other = sent(tmp_path / "pull", "one"), sent(tmp_path / "pull", "other")
    assert "Not recomputed" not in check_report([one, other], [], tmp_path / "base")
    one.with_suffix(".parquet").unlink()
    text = check_report([one, other], [], tmp_path / "base")
    (line,) = [
        line
        for line in text.partition("Not recomputed: no predictions in the pull request.")[2].splitlines()
        if ".json" in line
    ]
    assert line == f"    {one}"


def test_what_a_file_makes_a_problem_say_is_preformatted_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "x.json"
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    text = check_report([path], [Problem(path, "bad\n# heading\u2028@everyone <img>")], tmp_path / "base")
    (line,) = [line for line in text.splitlines() if "bad" in line]
    assert line.startswith("    ") and line.endswith("bad # heading @everyone <img>")
    assert "###" not in text
