"""A predictions file comes back as it was written, its bytes depend on its rows alone, and a doubtful one is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.errors import DataError, UsageError
from dfad_bench.records.predictions import (
    COLUMNS,
    PredictionsWriter,
    add_counts,
    class_records,
    read_predictions,
)
from dfad_bench.scoring.score import Options
from dfad_bench.scoring.score import score as compute_scores
from dfad_bench.types import Leaf
from tests.records.builders import context, face, faces_table, write_predictions

FACES = [face("a"), face("b", "gan_a", video="toy/gan_a/clip", identities=["x", "y"]), face("c", "flow_a")]
SCORES = [0.0, 0.75, -3.0]
LOGITS = [[1.0, 0.0, -1.0], [0.25, 2.0, 3.0], [-0.5, 0.0, 0.125]]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def row(**changes: Any) -> dict[str, Any]:
    """Return one sound row of a predictions file as it is on disk."""
    return {
        "id": "toy/real/a",
        "subset": "seen",
        "generator": "real",
        "family": "real",
        "forgery_type": "real",
        "domain": "toyland",
        "video": None,
        "identities": [],
        "fake_score": 0.5,
        "logits": [0.0, 1.0, 2.0],
        "embedding": None,
        **changes,
    }


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema = COLUMNS, **changes: Any) -> Path:
    """Write rows past the writer's own checks."""
    metadata = {b"dfad_bench": context(**changes).model_dump_json().encode()}
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata)), path)
    return path


# --- round trip ----------------------------------------------------------------------------------------------------


def test_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    answers = {"val": (FACES[:1], SCORES[:1], LOGITS[:1]), "seen": (FACES, SCORES, LOGITS)}
    read = read_predictions(write_predictions(tmp_path / "deep" / "p.parquet", answers, declared=3))
    assert read.context == context(declared=3)
    assert read.id.to_pylist() == ["toy/flow_a/c", "toy/gan_a/b", "toy/real/a", "toy/real/a"]
    assert read.subset.tolist() == ["seen", "seen", "seen", "val"]
    assert read.labels("generator").tolist() == ["flow_a", "gan_a", "real", "real"]
    assert read.labels("family").tolist() == ["flow", "gan", "real", "real"]
    assert read.labels("forgery_type").tolist() == ["efs", "efs", "real", "real"]
    assert read.domain.tolist() == ["toyland"] * 4
    assert read.video.tolist() == [None, "toy/gan_a/clip", None, None]
    assert read.identity.tolist() == ["toyland/flow_a-c", "x", "toyland/real-a", "toyland/real-a"]
    assert read.fake_score.dtype == np.float64
    np.testing.assert_array_equal(read.fake_score, [SCORES[2], SCORES[1], SCORES[0], SCORES[0]])
    np.testing.assert_array_equal(read.logits, [LOGITS[2], LOGITS[1], LOGITS[0], LOGITS[0]])
    assert read.embedding is None


def test_the_classes_come_back_in_the_order_of_the_logits(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, LOGITS)})
    assert read_predictions(path).classes == (
        Leaf("real", "real", "real"),
        Leaf("gan_a", "gan", "efs"),
        Leaf("diffusion_a", "diffusion", "efs"),
    )
    assert class_records(read_predictions(path).classes) == context().classes


def test_a_pure_detector_has_scores_and_no_logits(tmp_path: Path) -> None:
    read = read_predictions(write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, None)}))
    assert read.logits is None
    assert read.fake_score.tolist() == SCORES[::-1]  # in the order of their ids


def test_a_file_without_rows_can_be_read(tmp_path: Path) -> None:
    read = read_predictions(write_predictions(tmp_path / "p.parquet", {}))
    assert len(read.id) == len(read.fake_score) == 0


def test_a_batch_without_faces_adds_nothing(tmp_path: Path) -> None:
    with PredictionsWriter(tmp_path / "p.parquet") as writer:
        writer.write("seen", faces_table([]), np.empty(0), np.empty((0, 3)))
        writer.write("seen", faces_table(FACES), np.asarray(SCORES), np.asarray(LOGITS))
        writer.finish(context())
    assert len(read_predictions(tmp_path / "p.parquet").id) == 3


def test_the_same_face_may_stand_in_two_subsets(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, None), "unseen": (FACES, SCORES, None)})
    assert len(read_predictions(path).id) == 6


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(7)), st.integers(1, 8))
def test_rows_come_back_sorted_by_id_and_subset_each_with_what_is_its_own(
    order: list[int], rows_per_group: int
) -> None:
    # Row 2 n is a face in "seen", row 2 n + 1 the same face in "unseen".
    rows = [
        row(
            id=f"{number // 2}",
            subset=("seen", "unseen")[number % 2],
            generator=f"g{number}",
            domain=f"d{number % 3}",
            video=None if number % 4 == 0 else f"v{number}",
            identities=[[], ["x"], ["y", "x"], [None]][number % 4],
            fake_score=float(number),
            logits=[float(number), 0.0, 1.0],
            embedding=[np.float16(number), np.float16(1)],
        )
        for number in range(7)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder, "p.parquet"), [rows[number] for number in order])
        pq.write_table(pq.read_table(path), path, row_group_size=rows_per_group)
        read = read_predictions(path)
    assert read.id.to_pylist() == list("0011223")
    assert read.subset.tolist() == [("seen", "unseen")[number % 2] for number in range(7)]
    assert read.generator.tolist() == [f"g{number}" for number in range(7)]
    assert read.domain.tolist() == [f"d{number % 3}" for number in range(7)]
    assert read.video.tolist() == [None if number % 4 == 0 else f"v{number}" for number in range(7)]
    assert read.identity.tolist() == [[None, "x", "y", None][number % 4] for number in range(7)]
    assert read.fake_score.tolist() == list(range(7))
    assert read.logits is not None and read.logits[:, 0].tolist() == list(range(7))
    assert read.embedding is not None and read.embedding.tolist() == [[number, 1] for number in range(7)]


def test_an_embedding_comes_back_in_half_precision(tmp_path: Path) -> None:
    with PredictionsWriter(tmp_path / "p.parquet") as writer:
        embedding = np.asarray([[0.1, 1.0], [2.0, 3.0], [4.0, 60000.0]])
        writer.write("seen", faces_table(FACES), np.asarray(SCORES), np.asarray(LOGITS), embedding)
        writer.finish(context())
    read = read_predictions(tmp_path / "p.parquet")
    assert read.embedding is not None and read.embedding.dtype == np.float32
    np.testing.assert_array_equal(read.embedding, embedding[::-1].astype(np.float16))


def test_an_embedding_that_half_precision_cannot_hold_names_its_face_and_leaves_no_file(tmp_path: Path) -> None:
    embedding = np.asarray([[0.0], [7e4], [0.0]])
    with (
        pytest.raises(DataError, match="toy/gan_a/b is not finite"),
        PredictionsWriter(tmp_path / "p.parquet") as writer,
    ):
        writer.write("seen", faces_table(FACES), np.asarray(SCORES), np.asarray(LOGITS), embedding)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subset", ["val", "seen"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_file_of_few_rows_of_one_kind_can_be_scored(tmp_path: Path, subset: str, count: int) -> None:
    answers = {subset: (FACES[:count], SCORES[:count], LOGITS[:count])}
    report = compute_scores(read_predictions(write_predictions(tmp_path / "p.parquet", answers)), Options(resamples=9))
    assert all((each.value is None) == (each.reason is not None) for each in report.scores)
    assert report.scoring.clusters == (count if subset == "seen" else 0)


# --- bytes ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_the_bytes_depend_on_the_rows_and_not_on_the_batches_they_came_in(
    first: int, second: int, rows_per_group: int, attributes: bool
) -> None:
    rows = [face(str(number), "gan_a", video="v" if number % 3 else None) for number in range(8)]
    answers = {"seen": (rows, np.arange(8), np.arange(24).reshape(8, 3) if attributes else None)}
    with tempfile.TemporaryDirectory() as folder:
        one = write_predictions(Path(folder, "1.parquet"), answers, first, rows_per_group)
        two = write_predictions(Path(folder, "2.parquet"), answers, second, rows_per_group)
        assert one.read_bytes() == two.read_bytes()
        assert read_predictions(one).fake_score.tolist() == list(range(8))


def test_a_row_group_holds_at_most_the_rows_it_may(tmp_path: Path) -> None:
    rows = [face(str(number)) for number in range(8)]
    path = write_predictions(tmp_path / "p.parquet", {"seen": (rows, np.arange(8), None)}, 5, 3)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [3, 3, 2]


def test_another_score_gives_other_bytes(tmp_path: Path) -> None:
    one = write_predictions(tmp_path / "1.parquet", {"seen": (FACES, SCORES, LOGITS)})
    two = write_predictions(tmp_path / "2.parquet", {"seen": (FACES, [0.0, 0.75, -3.5], LOGITS)})
    assert one.read_bytes() != two.read_bytes()


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_fake_score_that_is_not_finite_on_disk_names_its_face_and_leaves_no_file(tmp_path: Path, bad: float) -> None:
    with pytest.raises(DataError, match="toy/gan_a/b is not finite"):
        write_predictions(tmp_path / "p.parquet", {"seen": (FACES, [0.0, bad, 0.0], LOGITS)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e300])
def test_a_logit_that_is_not_finite_on_disk_names_its_face_and_leaves_no_file(tmp_path: Path, bad: float) -> None:
    logits = [LOGITS[0], LOGITS[1], [0.0, bad, 0.0]]
    with pytest.raises(DataError, match="toy/flow_a/c is not finite"):
        write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, logits)})
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_never_finished_leaves_no_file(tmp_path: Path) -> None:
    with PredictionsWriter(tmp_path / "p.parquet", rows_per_group=1) as writer:
        writer.write("seen", faces_table(FACES), np.asarray(SCORES), None)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_leaves_the_earlier_file_as_it_was(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, None)})
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), PredictionsWriter(path) as writer:
        writer.write("seen", faces_table(FACES), np.asarray(SCORES), None)
        raise ZeroDivisionError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_no_file_of_that_name_and_the_next_one_is_not_disturbed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, numpy, pathlib\n"
        "from dfad_bench.records.predictions import PredictionsWriter\n"
        "from tests.records.builders import face, faces_table\n"
        "with PredictionsWriter(pathlib.Path(sys.argv[1]), rows_per_group=1) as writer:\n"
        "    writer.write('seen', faces_table([face('a')]), numpy.zeros(1), None)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "p.parquet"
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=root, check=False)
    assert killed.returncode == -9
    assert not path.exists()
    write_predictions(path, {"seen": (FACES, SCORES, LOGITS)})
    assert list(tmp_path.iterdir()) == [path]
    assert len(read_predictions(path).id) == 3


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_sound_row_is_read(tmp_path: Path) -> None:
    assert len(read_predictions(write_rows(tmp_path / "p.parquet", [row()])).id) == 1


def test_a_missing_file_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dfad-bench run"):
        read_predictions(tmp_path / "p.parquet")


def test_a_face_that_stands_twice_in_a_subset_is_refused(tmp_path: Path) -> None:
    assert "stands twice" in refusal(write_rows(tmp_path / "p.parquet", [row(), row(fake_score=0.25)]))


def test_a_subset_the_context_does_not_know_is_named(tmp_path: Path) -> None:
    assert "unknown subset 'tset'" in refusal(write_rows(tmp_path / "p.parquet", [row(), row(subset="tset")]))


@pytest.mark.parametrize("logits", [[0.0, 1.0], [0.0, 1.0, 2.0, 3.0], [], None])
def test_a_face_with_the_wrong_number_of_logits_is_refused(tmp_path: Path, logits: list[float] | None) -> None:
    path = write_rows(tmp_path / "p.parquet", [row(), row(id="b", logits=logits)])
    assert "every face needs 3 logits" in refusal(path)


def test_wrong_numbers_of_logits_that_make_up_for_each_other_are_refused(tmp_path: Path) -> None:
    rows = [row(logits=[0.0, 1.0]), row(id="b", logits=[2.0, 3.0, 4.0, 5.0])]
    assert "every face needs 3 logits" in refusal(write_rows(tmp_path / "p.parquet", rows))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", ["fake_score", "logits"])
def test_a_score_that_is_not_finite_is_refused(tmp_path: Path, column: str, bad: float) -> None:
    changes: dict[str, Any] = {column: bad if column == "fake_score" else [0.0, bad, 0.0]}
    assert "is not finite" in refusal(write_rows(tmp_path / "p.parquet", [row(**changes)]))


def test_a_logit_that_is_null_is_refused(tmp_path: Path) -> None:
    assert "is not finite" in refusal(write_rows(tmp_path / "p.parquet", [row(logits=[0.0, None, 0.0])]))


@pytest.mark.parametrize("column", COLUMNS.names)
def test_a_missing_column_is_refused(tmp_path: Path, column: str) -> None:
    schema = pa.schema([field for field in COLUMNS if field.name != column])
    rows = [{key: value for key, value in row().items() if key != column}]
    assert "its columns are not those" in refusal(write_rows(tmp_path / "p.parquet", rows, schema))


def test_a_column_too_many_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", [row(extra=1)], COLUMNS.append(pa.field("extra", pa.int32())))
    assert "its columns are not those" in refusal(path)


def test_a_file_without_our_footer_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([row()], schema=COLUMNS), tmp_path / "p.parquet")
    assert "footer is missing" in refusal(tmp_path / "p.parquet")


def test_another_schema_version_is_told_before_anything_else(tmp_path: Path) -> None:
    stored = json.dumps({"schema_version": 3, "a key of the future": 1}).encode()
    table = pa.Table.from_pylist([row()], schema=COLUMNS.with_metadata({b"dfad_bench": stored}))
    pq.write_table(table, tmp_path / "p.parquet")
    assert "has schema version 3, this dfad-bench reads 2" in refusal(tmp_path / "p.parquet")


@pytest.mark.parametrize("stored", [b"[]", b"{", b"1", b"\xff", b"{}"])
def test_a_footer_that_is_no_context_is_refused(tmp_path: Path, stored: bytes) -> None:
    table = pa.Table.from_pylist([row()], schema=COLUMNS.with_metadata({b"dfad_bench": stored}))
    pq.write_table(table, tmp_path / "p.parquet")
    refusal(tmp_path / "p.parquet")


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, LOGITS)})
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 499), *range(len(whole) - 9, len(whole))]:
        path.write_bytes(whole[:length])
        refusal(path)


def test_the_protocol_rules_survive_in_the_footer(tmp_path: Path) -> None:
    rules: dict[str, Any] = {
        "assume": {"family": {"flow": "diffusion"}},
        "reals": "all",
        "subsets": {"seen": "family"},
        "skipped": {"unreadable": 2},
    }
    path = write_predictions(tmp_path / "p.parquet", {"seen": (FACES, SCORES, None)}, **rules)
    assert read_predictions(path).context == context(**rules)


def test_a_face_that_stands_twice_is_found_across_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_rows(path, [row(id=name) for name in "abcabd"])
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=2)
    assert "stands twice" in refusal(path)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_row_groups_without_rows_hold_nothing_and_break_nothing(tmp_path: Path, count: int) -> None:
    path = write_rows(tmp_path / "p.parquet", [row(id=str(number), embedding=[1.0]) for number in range(count)])
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 2), table.slice(0, 0), table.slice(2)):
            writer.write_table(part)
    read = read_predictions(path)
    assert read.id.to_pylist() == [str(number) for number in range(count)]
    assert (read.logits is None) == (read.embedding is None) == (count == 0)


@pytest.mark.parametrize(
    ("one", "other"), [([1.0], [1.0, 2.0]), ([1.0], None), (None, [1.0]), ([1.0], []), ([1.0, 2.0], [])]
)
@pytest.mark.parametrize("rows_per_group", [1, 2])
def test_embeddings_that_differ_in_length_are_refused(
    tmp_path: Path, one: list[float] | None, other: list[float] | None, rows_per_group: int
) -> None:
    path = write_rows(tmp_path / "p.parquet", [row(id="a", embedding=one), row(id="b", embedding=other)])
    pq.write_table(pq.read_table(path), path, row_group_size=rows_per_group)
    assert "its faces need embeddings of one length" in refusal(path)


def test_embeddings_without_a_number_are_refused(tmp_path: Path) -> None:
    assert "of one length, at least 1" in refusal(write_rows(tmp_path / "p.parquet", [row(embedding=[])]))


@pytest.mark.parametrize("bad", [np.float16(math.nan), np.float16(math.inf), None])
def test_an_embedding_that_is_not_finite_is_refused(tmp_path: Path, bad: Any) -> None:
    path = write_rows(tmp_path / "p.parquet", [row(id="a", embedding=[np.float16(1), bad])])
    assert "a score of a is not finite" in refusal(path)


@pytest.mark.parametrize("names", [[], ["real"], ["gan_a", "diffusion_a"], ["real", "gan_a", "gan_a"]])
def test_classes_that_are_not_real_and_others_each_once_are_refused(tmp_path: Path, names: list[str]) -> None:
    stored = json.loads(context().model_dump_json())
    leaf = {each["name"]: each for each in stored["classes"]}
    stored["classes"] = [leaf[name] for name in names]
    table = pa.Table.from_pylist([row()], schema=COLUMNS.with_metadata({b"dfad_bench": json.dumps(stored).encode()}))
    pq.write_table(table, tmp_path / "p.parquet")
    assert "classes: Value error, must be real and at least one other, each once" in refusal(tmp_path / "p.parquet")


# --- counts --------------------------------------------------------------------------------------------------------


def test_counts_add_up_by_reason_in_order() -> None:
    assert add_counts({"b": 1}, {"a": 2, "b": 3}, {}) == {"a": 2, "b": 4}
    assert list(add_counts({"b": 1}, {"a": 2})) == ["a", "b"]
    assert add_counts() == {}
