"""What is sent to the leaderboard is believed in nothing: files, names, rules, labels, numbers and hashes are held against each
other, and every score is computed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfad_bench.config import file_sha256
from dfad_bench.publish import submission
from dfad_bench.publish.submission import check_submission, lost_predictions, not_recomputed, recomputed
from dfad_bench.records.predictions import COLUMNS
from dfad_bench.records.protocol import Expect, load_protocol
from dfad_bench.records.results import PerturbationRecord, read_result, write_result
from tests.publish.submissions import (
    FACES,
    FEW,
    NO_INTERVALS,
    change_json,
    change_rows,
    demo_faces,
    demo_result,
    sent,
    write_as_stored,
    write_demo_predictions,
)


def told(*files: Path, **options: Any) -> str:
    return "\n".join(map(str, check_submission(files, **options)))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(submission, "LEADERBOARD", NO_INTERVALS)
    return tmp_path / "results"


@pytest.fixture
def with_intervals(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    monkeypatch.setattr(submission, "LEADERBOARD", FEW)


# --- what is sound -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_intervals")
def test_a_sound_submission_has_no_problem_named_by_either_file_or_both(results: Path) -> None:
    path = sent(results)
    seen: list[tuple[int, int | None]] = []
    assert check_submission([path], lambda done, total: seen.append((done, total))) == []
    assert seen, "the scores were computed again"
    assert check_submission([path.with_suffix(".parquet"), path]) == []


def test_two_models_on_the_same_faces_agree(results: Path) -> None:
    assert told(sent(results, "one", draw=1), sent(results, "two", draw=2)) == ""


# --- files ---------------------------------------------------------------------------------------------------------


def test_other_files_are_refused(results: Path) -> None:
    path = sent(results)
    picture = path.with_name("face.png")
    assert f"{picture}: is neither a result nor its predictions" in told(path, picture)
    alone = path.with_name("alone.parquet")
    alone.write_bytes(path.with_suffix(".parquet").read_bytes())
    assert "has no alone.json beside it" in told(alone)


def test_a_result_without_predictions_is_checked_but_for_its_scores_and_named(results: Path) -> None:
    """So a maintainer's ``leaderboard add`` leaves its rows; what a result and its protocol say is checked all the same."""
    path, whole = sent(results), sent(results, "whole", draw=2)
    assert not_recomputed([path, path.with_suffix(".parquet"), whole]) == []
    path.with_suffix(".parquet").unlink()
    change_json(path, lambda stored: stored["scores"].pop())
    assert told(path) == ""
    assert not_recomputed([path, whole.with_suffix(".parquet")]) == [path]
    change_json(path, lambda stored: stored["protocol"].update(fingerprint="sha256:" + "0" * 64))
    assert "its faces are not those of whole" in told(path)
    change_json(path, lambda stored: stored.update(invented=1))
    assert "invented" in told(path)


def test_predictions_that_were_there_may_not_go(results: Path, tmp_path: Path) -> None:
    before, path = tmp_path / "before", sent(results)
    assert lost_predictions([path], before) == []
    sent(before)
    assert lost_predictions([path], before) == []
    path.with_suffix(".parquet").unlink()
    for named in (path, path.with_suffix(".parquet")):
        (problem,) = lost_predictions([named], before)
        assert problem.path == path and "guess.parquet is gone" in problem.told


def test_a_file_that_is_not_there_is_named(results: Path) -> None:
    assert "is not there" in told(results / "demo" / "nothing.json")


@pytest.mark.parametrize("which", ["demo/guess.json", "demo/guess.parquet", "demo"])
def test_links_are_not_followed(results: Path, which: str) -> None:
    path = sent(results)
    linked = results / which
    moved = results.with_name("elsewhere")
    linked.rename(moved)
    linked.symlink_to(moved)
    assert f"{linked.name} is a link" in told(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not valid JSON"),
        ('{"schema_version": 2, "origin', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("\udcff", "is not valid JSON"),
        ("[]", "is not a valid"),
        ('{"schema_version": 99}', "has schema version 99"),
        ('{"schema_version": 2}', "Field required"),
        ('{"schema_version": 2, "seed": NaN}', "holds NaN"),
        ('{"schema_version": 2, "seed": -Infinity}', "holds -Infinity"),
        ('{"schema_version": 2, "seed": 1e999}', "not finite"),
        ('{"schema_version": 2, "seed": 1, "seed": 2}', "says 'seed' twice"),
    ],
)
def test_a_broken_result_is_a_problem_and_no_traceback(results: Path, text: str, complaint: str) -> None:
    path = sent(results)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    problems = check_submission([path])
    assert len(problems) == 1 and problems[0].path == path
    assert complaint in problems[0].told or "valid dictionary" in problems[0].told
    assert "\n" not in problems[0].told


def test_a_truncated_result_is_a_problem_wherever_it_ends(results: Path) -> None:
    path = sent(results)
    whole = path.read_bytes()
    for end in range(1, len(whole) - 2, len(whole) // 7):
        path.write_bytes(whole[:end])
        assert "is not valid JSON" in told(path)


def test_a_tower_of_brackets_in_the_free_part_is_refused(results: Path) -> None:
    path = sent(results)
    tower: dict[str, Any] = {}
    for _ in range(300):
        tower = {"deeper": tower}
    change_json(path, lambda stored: stored["config"].update(tower=tower))
    assert "nested more than" in told(path)


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "a/b", "<script>", "", "A", "a\nb", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused_and_nothing_is_written(results: Path, name: str) -> None:
    path = sent(results)
    before = sorted(results.parent.rglob("*"))
    for key in ("model", "protocol"):
        kept = path.read_bytes()
        change_json(path, lambda stored, key=key: stored[key].update(name=name))  # type: ignore[misc]
        assert "is no file name" in told(path)
        path.write_bytes(kept)
    assert sorted(results.parent.rglob("*")) == before


def test_a_result_must_lie_where_it_says(results: Path) -> None:
    path = sent(results)
    for suffix in (".json", ".parquet"):
        path.with_suffix(suffix).rename(path.with_name(f"other{suffix}"))
    assert "must be called demo/guess.json" in told(path.with_name("other.json"))


# --- eligibility ---------------------------------------------------------------------------------------------------


def test_what_a_result_says_against_itself_is_told(results: Path) -> None:
    answer = told(sent(results, ineligible=["limited to 5 faces", "incomplete: 2 unreadable"]))
    assert "limited to 5 faces" in answer and "incomplete: 2 unreadable" in answer


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r["code"].update(dirty=True), "not committed"),
        (lambda r: r["config"].update(limit=5), "limited to 5 faces"),
        (lambda r: r["counts"].update(evaluated=17, skipped={"unreadable": 1}), "incomplete"),
        (lambda r: r["counts"].update(declared=19), "incomplete"),
        (lambda r: r.update(perturbation={"name": "jpeg", "severity": 1, "strength": "…"}), "perturbed"),
        (lambda r: r.update(origin="reported"), "reported, not measured"),
        (lambda r: r["model"].update(origin="m (file sha256:0)"), "a local file"),
        (lambda r: r["scoring"].update(resamples=1), "scored with resamples 1, the leaderboard's is 0"),
        (lambda r: r["scoring"].update(resamples=10**9), "scored with resamples 1000000000"),
        (lambda r: r["scoring"].update(seed=7), "scored with seed 7"),
        (lambda r: r["scoring"].update(cluster_by="face"), "scored with cluster by face"),
    ],
)
def test_reasons_that_were_wiped_off_are_found_again(
    results: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    path = sent(results)
    change_json(path, change)
    assert complaint in told(path)


# --- the protocol --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "nowhere"}, "its protocol nowhere is not registered"),
        ({"version": 99}, "which is at version 1"),
        ({"warning": None}, "its warning are not those"),
        ({"origin": "paper"}, "its origin are not those"),
    ],
)
def test_a_protocol_that_is_not_the_registered_one_is_refused(
    results: Path, change: dict[str, Any], complaint: str
) -> None:
    path = sent(results)
    change_json(path, lambda stored: stored["protocol"].update(change))
    assert complaint in told(path)


def test_the_fingerprint_is_held_against_the_one_the_protocol_was_published_with(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = sent(results), "sha256:" + "e" * 64
    for fingerprint, is_right in ((expected, False), (FACES, True)):
        protocol = load_protocol("demo").model_copy(update={"expect": Expect(fingerprint=fingerprint)})
        monkeypatch.setattr("dfad_bench.publish.submission.load_protocol", lambda name, p=protocol: p)
        answer = told(path)
        assert (answer == "") == is_right
    assert "not those that demo was published with" not in answer


def test_faces_that_are_not_those_of_the_others_are_refused(results: Path, tmp_path: Path) -> None:
    sent(results, "earlier")
    other = "sha256:" + "0" * 64
    predictions = write_demo_predictions(tmp_path / "new" / "demo" / "guess.parquet", protocol_fingerprint=other)
    result = demo_result(predictions)
    protocol = result.protocol.model_copy(update={"fingerprint": other})
    path = predictions.with_suffix(".json")
    write_result(path, result.model_copy(update={"protocol": protocol}))
    assert told(path) == ""
    assert "its faces are not those of earlier on demo v1" in told(path, results=results)


RULES = [
    ({"assume": {"family": {"flow": "diffusion"}}}, "assume"),
    ({"levels": ["family"]}, "levels"),
    ({"reals": "all"}, "reals"),
    ({"pooling": "median"}, "pooling"),
    ({"subsets": {"seen": "family", "unseen": "generator"}}, "subsets"),
]


@pytest.mark.parametrize(("changes", "rule"), RULES)
def test_rules_in_the_predictions_that_are_not_the_protocols_are_found(
    results: Path, changes: dict[str, Any], rule: str
) -> None:
    path = sent(results)
    predictions = write_demo_predictions(path.with_suffix(".parquet"), **changes)
    write_result(path, demo_result(predictions))
    assert f"other rules than protocol demo has: {rule}" in told(path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": "another"}, "its model is guess, that of its predictions another"),
        ({"seed": 4}, "its seed is 0, that of its predictions 4"),
        ({"protocol": "other"}, "its protocol is demo"),
        ({"protocol_version": 2}, "its version of the protocol is 1"),
        ({"protocol_fingerprint": "sha256:1"}, "its fingerprint is"),
        ({"protocol_warning": "none"}, "its warning is"),
        ({"declared": 99}, "its number of declared faces is 18"),
        ({"skipped": {"unreadable": 1}}, "its faces left out is {}"),
        (
            {"perturbation": PerturbationRecord(name="jpeg", severity=1, strength="…")},
            "its perturbation is None",
        ),
    ],
)
def test_predictions_of_another_run_are_found(results: Path, changes: dict[str, Any], what: str) -> None:
    path = sent(results)
    model = changes.pop("model", "guess")
    predictions = write_demo_predictions(path.with_suffix(".parquet"), model, **changes)
    write_result(path, demo_result(predictions))
    assert what in told(path)


def test_labels_that_differ_from_those_of_others_on_the_same_faces_are_found(results: Path) -> None:
    sent(results, "earlier")

    def relabelled(subset: str) -> list[dict[str, Any]]:
        faces = demo_faces(subset)
        faces[0] |= {"identities": ["somebody else"]}
        return faces

    path = sent(results)
    predictions = write_demo_predictions(path.with_suffix(".parquet"), faces=relabelled)
    write_result(path, demo_result(predictions))
    assert "guess.parquet names other faces than earlier.parquet does" in told(path)


# --- numbers -------------------------------------------------------------------------------------------------------


def test_a_number_that_was_changed_is_found_by_its_coordinates(results: Path) -> None:
    path = sent(results)

    def improve(stored: dict[str, Any]) -> None:
        better = next(each for each in stored["scores"] if each["metric"] == "auc" and each.get("value") is not None)
        better["value"] = 0.999

    change_json(path, improve)
    assert "guess.json: detection auc of seen" in told(path) and "is 0.999, recomputed from guess.parquet" in told(path)


@pytest.mark.parametrize("field", ["low", "high"])
@pytest.mark.usefixtures("with_intervals")
def test_an_interval_that_was_narrowed_is_found(results: Path, field: str) -> None:
    path = sent(results)
    change_json(
        path, lambda stored: next(s for s in stored["scores"] if s.get("low") is not None).update({field: 0.4321})
    )
    assert "recomputed from" in told(path)


def test_many_wrong_numbers_are_counted_and_some_named(results: Path) -> None:
    path = sent(results)
    change_json(path, lambda stored: [s.update(value=0.123) for s in stored["scores"] if s.get("value") is not None])
    problems = check_submission([path])
    assert len(problems) == 6 and "more numbers are not as recomputed" in problems[-1].told


def test_scores_that_were_left_out_or_added_are_found(results: Path) -> None:
    path = sent(results)
    change_json(path, lambda stored: stored["scores"].pop())
    assert "scores, recomputed from guess.parquet there are" in told(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["details"]["confusion"][0]["counts"][0].__setitem__(0, 99),
        lambda r: r["details"]["curves"].pop(),
        lambda r: r["details"]["reliability"][0]["confidence"].__setitem__(0, 0.123),
    ],
)
def test_a_confusion_matrix_or_a_curve_that_was_changed_is_found(
    results: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = sent(results)
    change_json(path, change)
    assert "its confusion matrices and curves is recorded otherwise" in told(path)


def test_a_threshold_that_was_changed_is_found(results: Path) -> None:
    path = sent(results)
    change_json(path, lambda stored: stored["scoring"]["thresholds"].update(frame=0.123))
    assert "how it was scored is recorded otherwise" in told(path)


def test_another_predictions_file_is_found_by_its_hash(results: Path) -> None:
    path = sent(results)
    write_demo_predictions(path.with_suffix(".parquet"), draw=9)
    assert "guess.parquet is not the file that it was computed from" in told(path)
    assert recomputed(read_result(path), path.with_suffix(".parquet")) == [
        "guess.parquet is not the file that the result was computed from"
    ]


# --- what must not be sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("face", lambda n: pa.array([b"\x89PNG"] * n, pa.binary())),
        ("path", lambda n: pa.array(["x"] * n)),
        ("name", lambda n: pa.array(["Ada"] * n)),
    ],
)
def test_columns_beside_ids_and_scores_are_refused(
    results: Path, column: str, values: Callable[[int], pa.Array]
) -> None:
    path = sent(results)
    predictions = path.with_suffix(".parquet")
    table, footer = pq.read_table(predictions), pq.read_metadata(predictions).metadata[b"dfad_bench"]
    write_as_stored(predictions, table.append_column(column, values(len(table))).replace_schema_metadata(), footer)
    assert f"holds more than ids and scores: take away '{column}'" in told(path)


def test_text_that_hides_in_the_footer_or_beside_the_columns_is_refused(results: Path) -> None:
    path = sent(results)
    predictions = path.with_suffix(".parquet")
    table, footer = pq.read_table(predictions), pq.read_metadata(predictions).metadata[b"dfad_bench"]
    write_as_stored(predictions, table.replace_schema_metadata(), footer, notes="a face in base64")
    assert "in its footer" in told(path)
    write_as_stored(predictions, table.replace_schema_metadata({b"pandas": b"{}"}), footer)
    assert "holds more than ids and scores" in told(path)


def test_embeddings_are_refused(results: Path) -> None:
    path = sent(results)
    predictions = write_demo_predictions(path.with_suffix(".parquet"), embeddings=True)
    write_result(path, demo_result(predictions))
    assert "guess.parquet holds embeddings" in told(path)


@pytest.mark.parametrize("column", ["id", "video", "identities"])
@pytest.mark.parametrize(
    "text",
    [
        "/home/ada/faces/1.png",
        "C:\\Users\\ada\\1.png",
        "\\\\server\\share",
        "~/faces/1",
        "file:///x",
        "demo/../../etc/passwd",
        "made by /home/ada/tool",
        "x" * 1001,
    ],
)
def test_paths_of_a_machine_and_texts_that_are_no_names_are_refused(results: Path, column: str, text: str) -> None:
    path = sent(results)
    number = iter(range(10**6))
    value = [text] if column == "identities" else text
    change_rows(path.with_suffix(".parquet"), lambda row: row.update({column: value}) if next(number) == 5 else None)
    answer = told(path)
    assert f"column {column} holds a " in answer and len(answer) < 400


@pytest.mark.parametrize("text", ["ffhq/home/00012", "celeb/id0_id1/0001.mp4", "a:b", "…/x", "demo/tmp/1", "a..b"])
def test_ids_that_look_a_little_like_paths_are_fine(results: Path, text: str) -> None:
    path = sent(results)
    change_rows(path.with_suffix(".parquet"), lambda row: row.update(identities=[f"{text} {row['id']}"]))
    assert "holds a" not in told(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["config"].update(map="/home/ada/faces.yaml"),
        lambda r: r["data"].update({"x": {"source_options": {"map": "C:\\faces.yaml"}}}),
        lambda r: r["environment"].update(device="see /root/notes"),
        lambda r: r["config"].update({"/home/ada": 1}),
        lambda r: r["model"].update(reference="A" * 5000),
    ],
)
def test_a_result_that_tells_of_a_machine_is_refused(results: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = sent(results)
    change_json(path, change)
    assert "it holds a" in told(path)


def test_addresses_and_licences_are_no_paths(results: Path) -> None:
    path = sent(results)
    change_json(
        path, lambda r: r["model"].update(reference="https://example.org/home/x/tmp/y", licence="MIT / Apache-2.0")
    )
    assert told(path) == ""


# --- predictions that are broken -----------------------------------------------------------------------------------


def test_predictions_that_are_cut_off_or_no_parquet_are_a_problem_and_no_traceback(results: Path) -> None:
    path = sent(results)
    predictions = path.with_suffix(".parquet")
    whole = predictions.read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2], b"no parquet at all", whole[::-1]):
        predictions.write_bytes(broken)
        assert "cannot be read as Parquet" in told(path)


@pytest.mark.parametrize("column", ["fake_score", "logits"])
def test_a_score_that_is_no_number_is_refused(results: Path, column: str) -> None:
    path = sent(results)
    value = {"fake_score": float("nan"), "logits": [np.inf, 0.0, 0.0, 0.0]}[column]
    change_rows(path.with_suffix(".parquet"), lambda row: row.update({column: value}))
    assert "is not finite" in told(path)


def test_a_face_that_stands_twice_is_refused(results: Path) -> None:
    path = sent(results)
    change_rows(path.with_suffix(".parquet"), lambda row: row.update(id="demo/real/1"))
    assert "stands twice" in told(path)


def test_columns_of_other_types_and_footers_that_are_none_are_refused(results: Path) -> None:
    path = sent(results)
    predictions = path.with_suffix(".parquet")
    table, footer = pq.read_table(predictions), pq.read_metadata(predictions).metadata[b"dfad_bench"]
    bare = table.replace_schema_metadata()
    write_as_stored(predictions, bare.drop_columns(["logits"]), footer)
    assert "columns are not those of a predictions file" in told(path)
    for broken in (b"{", b"[" * 100_000, b"{}", json.dumps({"schema_version": 99}).encode()):
        write_as_stored(predictions, bare.cast(COLUMNS), broken)
        problems = check_submission([path])
        assert len(problems) == 1 and problems[0].path == path


def test_nothing_of_what_is_checked_is_changed(results: Path) -> None:
    path = sent(results)
    files = (path, path.with_suffix(".parquet"))
    before = [file_sha256(each) for each in files]
    check_submission([path])
    assert [file_sha256(each) for each in files] == before
    assert sorted(path.parent.iterdir()) == sorted(files)
