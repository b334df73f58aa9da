"""``dfad-bench compare`` as a user calls it: what it takes, what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.config import file_sha256
from dfad_bench.errors import FAILED, OK, USAGE, DataError, UsageError
from dfad_bench.publish.comparison import comparison_tables
from dfad_bench.publish.tables import Table
from dfad_bench.records.comparison import Comparison, find_predictions, read_comparison, write_comparison
from dfad_bench.records.predictions import VAL, Predictions, PredictionsWriter
from dfad_bench.records.results import PredictionsRecord, write_result
from dfad_bench.scoring.compare import compare
from dfad_bench.scoring.score import Options
from dfad_bench.types import REAL
from tests.records.builders import result
from tests.scoring.builders import Face, predictions

FEW = Options(resamples=50)
FILE = PredictionsRecord(sha256="0" * 64, rows=1)
GENERATORS = (REAL, "ddpm", "simswap")


def call(*arguments: str | Path, code: int = OK) -> Result:
    answer = CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])
    assert answer.exit_code == code, answer.output
    return answer


def answered(model: str, *, better: float, each: int = 24, in_videos: bool = False) -> Predictions:
    """Return a model's answers to faces of 24 people a generator, right the more often the higher ``better``."""
    rng = np.random.default_rng(len(model))
    faces = [
        Face(
            generator,
            subset,
            says=generator if rng.random() < better else REAL,
            fake_score=float(np.clip(0.5 + rng.normal() / 4 + (generator != REAL) * better / 2, 0, 1)),
            id=f"{subset}/{generator}/{number:02d}",
            identity=f"{subset} {generator} {number % 24}",
            video=f"{subset} {generator} {number % 24}" if in_videos else None,
        )
        for subset in ("seen", VAL)
        for generator in GENERATORS
        for number in range(each)
    ]
    found = predictions(faces, subsets={"seen": "generator"})
    return replace(found, context=found.context.model_copy(update={"model": model}))


def stored(path: Path, found: Predictions) -> Path:
    """Write predictions to a file."""
    with PredictionsWriter(path) as writer:
        for subset in dict.fromkeys(found.subset.tolist()):
            part = found.take(np.flatnonzero(found.subset.is_(str(subset))))
            labels = {
                name: pa.array(getattr(part, name).tolist(), pa.string())
                for name in ("generator", "family", "forgery_type", "domain", "video")
            }
            owners = [[] if name is None else [name] for name in part.identity.tolist()]
            table = pa.table({"id": part.id, **labels, "identities": pa.array(owners, pa.list_(pa.string()))})
            writer.write(str(subset), table, part.fake_score, part.logits)
        writer.finish(found.context)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of two runs, the first of the better model."""
    folders = (tmp_path / "good", tmp_path / "poor")
    for folder, better in zip(folders, (0.95, 0.5), strict=True):
        file = stored(folder / "predictions.parquet", answered(folder.name, better=better))
        write_result(folder / "result.json", result(predictions=PredictionsRecord(sha256=file_sha256(file), rows=144)))
    return folders


# --- calls ---------------------------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_result_mean_the_same(runs: tuple[Path, Path]) -> None:
    good, poor = runs
    meant = [good, good / "predictions.parquet", good / "result.json"]
    told = [call(each, poor, "--resamples", "50", "--metric", "auc", "--format", "json").stdout for each in meant]
    assert told[0] == told[1] == told[2]
    record = Comparison.model_validate_json(told[0])
    assert (record.a.model, record.b.model) == ("good", "poor")
    assert record.a.predictions == PredictionsRecord(sha256=file_sha256(good / "predictions.parquet"), rows=144)


def test_the_table_shows_the_headline_and_says_what_it_means(runs: tuple[Path, Path]) -> None:
    out = " ".join(call(*runs, "--resamples", "100").stdout.split())
    assert "A = good (seed 0), B = poor (seed 0) on a_protocol v1: seen" in out
    for name in ("auc", "eer", "accuracy@val", "accuracy, family", "joint_accuracy@val, generator", "pooled", "mean"):
        assert f"│ {name} " in out
    assert "brier" not in out and "by video" not in out
    assert "Both models on the same 72 test faces." in out
    assert "100 resamples of the 72 clusters of test faces" in out
    assert "DeLong" in out and "McNemar" in out and "Holm" in out and "Lower is better: eer." in out


def test_json_holds_every_number_and_so_does_the_file(runs: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "deep" / "comparison.json"
    answer = call(*runs, "--resamples", "50", "--output", output, "--format", "json")
    record = read_comparison(output)
    assert Comparison.model_validate_json(answer.stdout) == record
    assert {row.metric for row in record.differences} >= {"auc", "brier", "macro_f1", "auroc@msp", "tpr_at_fpr_1pct"}
    assert {row.unit for row in record.differences} == {"frame", "video"}
    assert call(*runs, "--resamples", "50", "--output", output) and read_comparison(output) == record


def test_options_reach_the_comparison(runs: tuple[Path, Path]) -> None:
    options = ("--resamples", "20", "--resampling-seed", "3", "--cluster-by", "face", "--pooling", "top2")
    record = Comparison.model_validate_json(call(*runs, *options, "--metric", "eer", "--format", "json").stdout)
    assert record.resampling.model_dump() == {
        "pooling": "top2",
        "cluster_by": "face",
        "clusters": 72,
        "resamples": 20,
        "seed": 3,
    }
    assert {row.metric for row in record.differences} == {"eer"}


def test_a_pure_detector_is_compared_by_default_too(runs: tuple[Path, Path], tmp_path: Path) -> None:
    detector = stored(tmp_path / "d.parquet", replace(answered("poor", better=0.5), logits=None))
    out = call(runs[0], detector, "--resamples", "20").stdout
    assert "Only detection is compared" in out and "accuracy@val" in out and "joint" not in out


def test_comparing_needs_no_torch(runs: tuple[Path, Path]) -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from dfad_bench.cli import app\n"
        "answer = CliRunner().invoke(app, ['compare', *sys.argv[1:], '--resamples', '20'])\n"
        "assert answer.exit_code == 0, answer.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, runs)], check=True)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_wrong_call_ends_with_a_line_that_says_what_to_do(runs: tuple[Path, Path], tmp_path: Path) -> None:
    good, poor = runs
    other = answered("poor", better=0.5)
    other = replace(other, context=other.context.model_copy(update={"protocol_fingerprint": "sha256:1"}))
    elsewhere = stored(tmp_path / "other.parquet", other)
    for arguments, message in (
        ((good, tmp_path / "absent"), "There is no predictions file"),
        ((good, tmp_path), "There is no predictions file"),
        ((good, elsewhere), "differ in their selection of faces: sha256:0 and sha256:1. Run both"),
        ((good, poor, "--metric", "acc"), "There is no metric 'acc'"),
        ((good, poor, "--subset", "test"), "There is no subset 'test'"),
        ((good, poor, "--cluster-by", "face "), "cannot be clustered by"),
    ):
        errors = call(*arguments, code=USAGE).stderr.strip()
        assert message in errors and errors.startswith("Error: ") and "\n" not in errors


def test_predictions_that_contradict_each_other_end_in_an_error(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = answered("poor", better=0.5)
    found = replace(found, domain=replace(found.domain, values=("other",)))
    errors = call(runs[0], stored(tmp_path / "other.parquet", found), code=FAILED).stderr
    assert "contradict each other about seen/ddpm/00: its domain is 'ffhq' and 'other'." in errors


def test_a_result_beside_which_lie_other_predictions_is_refused(runs: tuple[Path, Path]) -> None:
    good, poor = runs
    (good / "predictions.parquet").write_bytes((poor / "predictions.parquet").read_bytes())
    with pytest.raises(DataError, match="was not computed from"):
        find_predictions(good / "result.json")
    (good / "predictions.parquet").unlink()
    with pytest.raises(UsageError, match="no predictions file"):
        find_predictions(good / "result.json")


# --- records -------------------------------------------------------------------------------------------------------


def a_comparison(a: Predictions, b: Predictions, options: Options = FEW) -> Comparison:
    return compare(a, b, options).record(FILE, FILE)


def test_a_comparison_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = a_comparison(answered("good", better=0.9), answered("poor", better=0.5))
    path = tmp_path / "deep" / "c.json"
    write_comparison(path, record)
    assert read_comparison(path) == record
    first = path.read_bytes()
    write_comparison(path, record)
    assert path.read_bytes() == first
    assert sum(line.startswith('  {"task":') for line in first.decode().splitlines()) == len(record.differences)


def test_a_file_that_is_no_comparison_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(UsageError, match="There is no comparison"):
        read_comparison(path)
    for text, message in (("{", "not valid JSON"), ('{"schema_version": 99}', "schema version 99"), ("[]", "c.json")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_comparison(path)
    write_comparison(path, a_comparison(answered("good", better=0.9), answered("poor", better=0.5), Options(0)))
    changed = json.loads(path.read_text(encoding="utf-8"))
    changed["differences"][0]["p"] = float("nan")
    path.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(DataError, match=r"differences\.0\.p"):
        read_comparison(path)


# --- tables --------------------------------------------------------------------------------------------------------


def row(table: Table, *begins: str) -> dict[str, str]:
    """Return the one row that begins so, by column."""
    found = [cells for cells in table.rows if cells[: len(begins)] == begins]
    assert len(found) == 1, table.rows
    return dict(zip(table.columns, found[0], strict=True))


def test_a_row_says_who_is_better_by_how_much_and_by_which_test() -> None:
    record = a_comparison(answered("good", better=0.95), answered("poor", better=0.5))
    (table,) = comparison_tables(record)
    difference = next(
        each for each in record.differences if (each.metric, each.group, each.unit) == ("auc", "ddpm", "frame")
    )
    assert difference.a is not None and difference.b is not None and difference.difference is not None
    assert difference.low is not None and difference.high is not None
    shown = row(table, "auc", "ddpm")
    assert shown["A %"] == f"{100 * difference.a:.1f}" and shown["B %"] == f"{100 * difference.b:.1f}"
    assert shown["A − B"] == f"+{100 * difference.difference:.1f}"
    assert shown["95 % interval"] == f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    assert (shown["test"], shown["clusters"]) == ("DeLong", "24")
    assert row(table, "auc", "mean")["Holm p"] == "–"
    assert row(table, "accuracy, family", "real")["Holm p"] != "–"
    names = [cells[0] for cells in table.rows]
    assert list(dict.fromkeys(names))[:4] == ["auc", "eer", "accuracy@val", "accuracy, forgery type"]
    assert names == sorted(names, key=list(dict.fromkeys(names)).index)


def test_few_clusters_and_what_is_undefined_are_marked_and_explained() -> None:
    a = answered("good", better=0.9, each=5)
    (table,) = comparison_tables(a_comparison(a, a))
    shown = row(table, "auc", "ddpm")
    assert shown["A − B"] == "0.0"
    marks = {column: shown[column].split()[-1] for column in ("95 % interval", "p", "clusters")}
    for column, reason in (
        ("95 % interval", "the two models are alike in every resample."),
        ("p", "the two models answer alike."),
        ("clusters", "fewer than 20 clusters: the interval is too narrow"),
    ):
        assert any(note.startswith(f"{marks[column]} {reason}") for note in table.notes), table.notes


def test_what_was_left_out_stands_below_the_table() -> None:
    a, b = answered("good", better=0.9), answered("poor", better=0.5)
    (table,) = comparison_tables(a_comparison(a, b.take(np.arange(3, len(b))), Options(0)))
    assert "Left out, since B has no answer to them: 3 of seen that A has." in table.notes
    assert "Both models on the same 69 test faces." in table.notes
    assert not any("since A has no answer" in note for note in table.notes)


def test_numbers_by_video_stand_where_videos_change_them() -> None:
    a, b = (answered(name, better=0.7, each=48, in_videos=True) for name in ("good", "poor one"))
    record = a_comparison(a, b, Options(0))
    (table,) = comparison_tables(record)
    assert row(table, "auc by video", "ddpm")["clusters"] == "24"
    assert "eer by video" not in {cells[0] for cells in table.rows}
    (table,) = comparison_tables(record, ["eer"])
    assert {cells[0] for cells in table.rows} == {"eer", "eer by video"}
