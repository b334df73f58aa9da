"""A run under perturbations, as users type it: one model, one training, one threshold, and curves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError
from dfad_bench.modelling.perturb import parse_perturbations
from dfad_bench.publish.robustness import robustness_tables
from dfad_bench.records.predictions import PredictionsWriter, read_predictions
from dfad_bench.records.results import PerturbationRecord, Score, read_result
from dfad_bench.records.robustness import read_robustness, write_robustness
from tests.records.builders import context, face, faces_table

FACES = 60
LEVELS = ["gaussian_noise-1", "gaussian_noise-2", "gaussian_noise-3", "gaussian_noise-4", "gaussian_noise-5", "jpeg-3"]
NOISE_AND_JPEG = ("--perturb", "gaussian_noise", "--perturb", "jpeg:3")

DARKENING = """
from dfad_bench.modelling.perturb import Perturbation

def darken(face, share, rng):
    return (face * share).astype(face.dtype)

PERTURBATION = Perturbation(darken, severities=(0.9, 0.7, 0.5, 0.3, 0.1), unit="share of the light", reference="ours")
"""


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


def run(data: Path, runs: Path, *more: str | Path, model: str = "spectral", expect: int = 0) -> Result:
    where = ("--protocol", "demo", "--data", data, "--runs", runs, "--device", "cpu")
    return call("run", "--model", model, *where, *more, expect=expect)


def folder_of(runs: Path) -> Path:
    return runs / "demo" / "spectral" / "seed-0"


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that a run must reproduce byte by byte: everything but what the clock said."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "timing.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def written(folder: Path) -> dict[str, int]:
    """Return when each file of a run was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared demo faces."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    call("prepare", "--source", "demo", "--set", f"faces={FACES}", "--data", folder, "--workers", "2")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a run on faces as they are."""
    runs = tmp_path_factory.mktemp("trained")
    run(data, runs)
    return runs


@pytest.fixture(scope="module")
def perturbed(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run after five levels of noise and one of JPEG. Read only."""
    runs = tmp_path_factory.mktemp("perturbed")
    shutil.copytree(trained, runs, dirs_exist_ok=True)
    run(data, runs, *NOISE_AND_JPEG)
    return folder_of(runs)


@pytest.fixture
def runs(perturbed: Path, tmp_path: Path) -> Path:
    """A runs folder with that run, to be changed."""
    shutil.copytree(perturbed, folder_of(tmp_path / "runs"))
    return tmp_path / "runs"


# --- what a level is -----------------------------------------------------------------------------------------------


def test_every_level_that_is_asked_for_has_predictions_a_result_and_a_timing(perturbed: Path) -> None:
    found = [path.name for path in (perturbed / "perturbed").iterdir() if not path.name.startswith(".")]
    assert sorted(found) == LEVELS
    clean = read_result(perturbed / "result.json")
    for name in LEVELS:
        level = perturbed / "perturbed" / name
        result = read_result(level / "result.json")
        assert sorted(path.name for path in level.iterdir()) == ["predictions.parquet", "result.json", "timing.json"]
        assert result.predictions.sha256 == file_sha256(level / "predictions.parquet")
        assert result.counts == clean.counts and result.model == clean.model and result.protocol == clean.protocol
        assert result.perturbation == read_predictions(level / "predictions.parquet").context.perturbation
    assert clean.perturbation is None
    assert read_result(perturbed / "perturbed" / "jpeg-3" / "result.json").perturbation == PerturbationRecord(
        name="jpeg", severity=3, strength="libjpeg quality: 40"
    )


def test_nothing_is_trained_or_tested_again_for_a_level(trained: Path, perturbed: Path) -> None:
    before = contents(folder_of(trained))
    assert {"model.safetensors", "training.jsonl", "predictions.parquet", "result.json"} == set(before)
    assert {name: content for name, content in contents(perturbed).items() if name in before} == before
    assert not list((perturbed / "perturbed").rglob("model.safetensors"))


def test_the_threshold_stays_that_of_the_run_because_val_is_never_perturbed(perturbed: Path) -> None:
    clean = pq.read_table(perturbed / "predictions.parquet")
    thresholds = read_result(perturbed / "result.json").scoring.thresholds
    assert all(threshold is not None for threshold in thresholds.values())
    for name in LEVELS:
        level = pq.read_table(perturbed / "perturbed" / name / "predictions.parquet")
        is_val = pc.equal(level["subset"], "val")
        assert level["id"].equals(clean["id"]) and level["subset"].equals(clean["subset"])
        assert level.filter(is_val).equals(clean.filter(pc.equal(clean["subset"], "val")))
        assert level.filter(pc.invert(is_val))["fake_score"] != clean.filter(pc.invert(is_val))["fake_score"]
        assert read_result(perturbed / "perturbed" / name / "result.json").scoring.thresholds == thresholds


def test_strong_noise_costs_a_pixel_model_its_auc(perturbed: Path) -> None:
    auc = next(
        curve
        for curve in read_robustness(perturbed / "robustness.json").curves
        if (curve.metric, curve.subset, curve.group, curve.unit) == ("auc", "seen", "mean", "frame")
        and curve.perturbation == "gaussian_noise"
    )
    assert auc.value[0] is not None and auc.value[5] is not None
    assert auc.value[5] < auc.value[0] - 0.1


def test_a_perturbed_result_can_be_checked_and_scored_but_never_stands_on_the_leaderboard(
    perturbed: Path, tmp_path: Path
) -> None:
    level = perturbed / "perturbed" / "jpeg-3"
    call("check", "result", level / "result.json")
    scored = json.loads(call("score", level / "predictions.parquet", "--format", "json").stdout)
    assert [Score.model_validate(each) for each in scored["scores"]] == read_result(level / "result.json").scores
    reason = "the faces were perturbed (jpeg:3)"
    assert reason in read_result(level / "result.json").ineligible
    assert reason not in read_result(perturbed / "result.json").ineligible
    answer = call("leaderboard", "add", level / "result.json", "--folder", tmp_path, expect=1)
    assert reason in answer.stderr.replace("\n", " ")
    assert not (tmp_path / "results").exists()


# --- work that is done, half done, or of another run ---------------------------------------------------------------


def test_a_second_call_does_nothing(data: Path, runs: Path) -> None:
    before = written(folder_of(runs))
    answer = run(data, runs, *NOISE_AND_JPEG)
    assert "6 of 6 perturbed levels were finished before" in answer.stderr
    assert written(folder_of(runs)) == before


def test_a_level_that_was_killed_is_done_anew_and_the_finished_ones_are_kept(data: Path, runs: Path) -> None:
    folder = folder_of(runs)
    sound = contents(folder)
    levels = folder / "perturbed"
    (levels / "gaussian_noise-1" / "result.json").unlink()
    (levels / "gaussian_noise-1" / ".predictions.parquet.part").write_bytes(b"PAR1")
    half = (levels / "gaussian_noise-3" / "predictions.parquet").read_bytes()
    (levels / "gaussian_noise-3" / "predictions.parquet").write_bytes(half[: len(half) // 2])
    (levels / "gaussian_noise-5" / "result.json").write_text('{"schema_version": 2,', encoding="utf-8")
    shutil.rmtree(levels / "jpeg-3")
    before = written(folder)
    answer = run(data, runs, *NOISE_AND_JPEG)
    assert "2 of 6 perturbed levels were finished before" in answer.stderr
    assert contents(folder) == sound
    kept = {name for name, when in written(folder).items() if before.get(name) == when}
    assert {name.split("/")[1] for name in kept if name.startswith("perturbed/")} >= {
        "gaussian_noise-2",
        "gaussian_noise-4",
    }
    assert "model.safetensors" in kept and "training.jsonl" in kept and "result.json" in kept


def test_a_level_of_other_weights_is_done_anew_and_enters_no_curve(data: Path, trained: Path, runs: Path) -> None:
    folder = folder_of(runs)
    clean = read_result(folder / "result.json")
    sound = contents(folder)
    stored = json.loads((folder / "perturbed" / "jpeg-3" / "result.json").read_text())
    for name in ("jpeg-3", "gaussian_noise-2"):
        level = json.loads((folder / "perturbed" / name / "result.json").read_text())
        level["model"]["weights_sha256"] = "0" * 64
        (folder / "perturbed" / name / "result.json").write_text(json.dumps(level), encoding="utf-8")
    assert clean.model.weights_sha256 == stored["model"]["weights_sha256"]
    run(data, runs, "--perturb", "jpeg:3")
    record = read_robustness(folder / "robustness.json")
    assert {level.folder for level in record.levels} == {
        f"perturbed/{name}" for name in LEVELS if name != "gaussian_noise-2"
    }
    assert {curve.reason for curve in record.curves if curve.perturbation == "gaussian_noise" and not curve.area} >= {
        "not run at severity 2"
    }
    run(data, runs, "--perturb", "gaussian_noise:2")
    assert contents(folder) == sound


def test_weights_that_are_gone_are_not_trained_again_for_a_level(data: Path, runs: Path) -> None:
    weights = folder_of(runs) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"0000")
    answer = run(data, runs, "--perturb", "webp:1", expect=2)
    assert "is not what" in answer.stderr and "--overwrite" in answer.stderr
    weights.unlink()
    run(data, runs, "--perturb", "webp:1", expect=2)
    assert not weights.exists()
    run(data, runs, "--perturb", "jpeg:3")  # finished, so nobody needs the weights


def test_overwriting_does_all_of_it_anew_with_the_same_bytes(data: Path, runs: Path) -> None:
    before, when = contents(folder_of(runs)), written(folder_of(runs))
    run(data, runs, *NOISE_AND_JPEG, "--overwrite")
    assert contents(folder_of(runs)) == before
    assert all(moment != when[name] for name, moment in written(folder_of(runs)).items())


def test_a_run_whose_levels_come_with_its_training_is_the_same_as_one_that_got_them_later(
    data: Path, perturbed: Path, tmp_path: Path
) -> None:
    run(data, tmp_path, "--perturb", "jpeg:3,gaussian_noise", "--workers", "1")
    assert contents(folder_of(tmp_path)) == contents(perturbed)


def test_given_weights_are_tested_at_every_level(data: Path, perturbed: Path, tmp_path: Path) -> None:
    weights = tmp_path / "given.safetensors"
    shutil.copy(perturbed / "model.safetensors", weights)
    run(data, tmp_path / "runs", "--weights", weights, "--perturb", "jpeg:3")
    level = folder_of(tmp_path / "runs") / "perturbed" / "jpeg-3"
    assert (level / "predictions.parquet").read_bytes() == (
        perturbed / "perturbed" / "jpeg-3" / "predictions.parquet"
    ).read_bytes()
    assert read_result(level / "result.json").model.selected_on == "given"
    assert not (folder_of(tmp_path / "runs") / "training.jsonl").exists()


# --- what is refused, and what may be a plugin ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("jpg", "Did you mean 'jpeg'?"),
        ("jpeg:6", "a severity is a number from 1, mild, to 5, severe"),
        ("jpeg:3,", "No perturbation is named ''"),
        ("./nowhere.py", "There is no perturbation file"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, asked: str, told: str
) -> None:
    answer = run(data, tmp_path / "runs", "--perturb", "webp:1", "--perturb", asked, expect=2)
    assert told in answer.stderr.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("model", ["chance", "file_header"])
def test_a_model_that_never_looks_at_pixels_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, model: str
) -> None:
    answer = run(data, tmp_path / "runs", "--perturb", "all", model=model, expect=2)
    assert f"{model} never looks at a face's pixels" in answer.stderr.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


def test_a_plugin_given_by_its_path_is_recorded_with_its_hash_and_a_changed_one_is_not_taken_for_it(
    data: Path, runs: Path, tmp_path: Path
) -> None:
    plugins = []
    for share, severity in ((0.9, ""), (0.8, ":1")):
        plugins.append(tmp_path / f"keeps {share}, at most" / "darkness.py")
        plugins[-1].parent.mkdir()
        plugins[-1].write_text(DARKENING.replace("(0.9,", f"({share},"), encoding="utf-8")
        answer = run(data, runs, "--perturb", f"{plugins[-1]}{severity}", "--perturb", "jpeg:3")
        level = read_result(folder_of(runs) / "perturbed" / "darkness-1" / "result.json")
        assert level.perturbation is not None
        assert level.perturbation.name == f"darkness (file sha256:{file_sha256(plugins[-1])})"
        assert level.perturbation.strength == f"share of the light: {share}"
        assert "the faces were perturbed (darkness:1)" in level.ineligible
    assert "1 of 2 perturbed levels were finished before" in answer.stderr
    curves = read_robustness(folder_of(runs) / "robustness.json").curves
    named = {curve.perturbation: curve.reason for curve in curves if curve.metric == "auc"}
    assert len(named) == 4, "gaussian_noise, jpeg, and darkness twice"
    assert sorted(reason for name, reason in named.items() if name.startswith("darkness") and reason) == [
        "not run at severity 1",
        "not run at severity 2, 3, 4, 5",
    ]


def test_a_face_that_cannot_be_read_is_counted_at_every_level_and_the_run_ends_with_3(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    rows = pq.read_table(tmp_path / "data" / "demo" / "metadata.parquet").to_pylist()
    lost = next(row for row in rows if row["source_split"] == "test" and row["generator"] == "demo_flow")
    (tmp_path / "data" / "demo" / lost["file_name"]).write_bytes(b"")
    run(tmp_path / "data", tmp_path / "runs", "--perturb", "jpeg:3", expect=3)
    result = read_result(folder_of(tmp_path / "runs") / "perturbed" / "jpeg-3" / "result.json")
    assert result.counts.skipped == {"unreadable face": 1}


# --- curves --------------------------------------------------------------------------------------------------------


def test_the_curves_are_the_scores_of_the_results_and_their_areas_are_as_computed_by_hand(perturbed: Path) -> None:
    record = read_robustness(perturbed / "robustness.json")
    results = [
        read_result(perturbed / "result.json"),
        *(read_result(perturbed / "perturbed" / name / "result.json") for name in LEVELS[:5]),
    ]
    noise = [curve for curve in record.curves if curve.perturbation == "gaussian_noise"]
    assert {(curve.task, curve.unit) for curve in noise} == {
        (task, unit) for task in ("detection", "attribution", "joint") for unit in ("frame", "video")
    }
    for curve in noise:
        place = (curve.task, curve.metric, curve.level, curve.unit, curve.subset, curve.group)
        scores = [
            score
            for result in results
            for score in result.scores
            if (score.task, score.metric, score.level, score.unit, score.subset, score.group) == place
        ]
        assert curve.value == [score.value for score in scores]
        assert curve.low == [score.low for score in scores] and curve.high == [score.high for score in scores]
        if all(score.value is not None for score in scores):
            heights = np.array([score.value for score in scores])
            assert curve.area == pytest.approx(float(np.trapezoid(heights, dx=1 / 5)), abs=1e-12)
        else:
            assert curve.area is None and curve.reason
    assert any(curve.area is not None for curve in noise) and any(curve.area is None for curve in noise)
    jpeg = [curve for curve in record.curves if curve.perturbation == "jpeg"]
    assert {curve.reason for curve in jpeg} == {"not run at severity 1, 2, 4, 5"}
    assert all(mean.over == (["gaussian_noise"] if mean.area is not None else []) for mean in record.means)


def test_the_record_names_its_levels_its_weights_and_its_faces(perturbed: Path) -> None:
    record, clean = read_robustness(perturbed / "robustness.json"), read_result(perturbed / "result.json")
    assert record.weights_sha256 == file_sha256(perturbed / "model.safetensors")
    assert record.protocol == clean.protocol
    assert record.clean_predictions_sha256 == clean.predictions.sha256
    assert [level.folder for level in record.levels] == [f"perturbed/{name}" for name in LEVELS]
    for level in record.levels:
        assert level.predictions_sha256 == file_sha256(perturbed / level.folder / "predictions.parquet")


def test_a_record_comes_back_as_it_was_written_and_a_broken_one_is_refused(perturbed: Path, tmp_path: Path) -> None:
    record = read_robustness(perturbed / "robustness.json")
    write_robustness(tmp_path / "again.json", record)
    assert (tmp_path / "again.json").read_bytes() == (perturbed / "robustness.json").read_bytes()
    stored = record.model_dump()
    stored["curves"][0]["value"].pop()
    (tmp_path / "short.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(DataError, match=r"curves\.0\.value"):
        read_robustness(tmp_path / "short.json")
    (tmp_path / "old.json").write_text(json.dumps({**stored, "schema_version": 0}), encoding="utf-8")
    with pytest.raises(DataError, match="schema version 0"):
        read_robustness(tmp_path / "old.json")


def test_json_has_the_result_as_ever_and_the_curves_beside_it_only_where_levels_are_asked_for(
    data: Path, perturbed: Path
) -> None:
    both = json.loads(run(data, perturbed.parents[2], *NOISE_AND_JPEG, "--format", "json").stdout)
    alone = json.loads(run(data, perturbed.parents[2], "--format", "json").stdout)
    assert both["result"] == alone
    assert both["robustness"]["curves"] == json.loads((perturbed / "robustness.json").read_text())["curves"]
    assert set(both) == {"result", "robustness"} and "scores" in alone


def test_the_tables_show_a_perturbation_a_row_and_say_why_something_is_missing(perturbed: Path) -> None:
    record = read_robustness(perturbed / "robustness.json")
    detection, attribution = robustness_tables(record)
    for table, title in ((detection, "detection AUC %, unseen"), (attribution, "attribution ACC family %, unseen")):
        assert table.title == f"spectral on demo v1, perturbed: {title}"
        assert table.columns == ("perturbation", "0", "1", "2", "3", "4", "5", "area")
        assert [row[0] for row in table.rows] == ["gaussian_noise", "jpeg", "mean"]
    (noise,) = (
        curve
        for curve in record.curves
        if (curve.perturbation, curve.metric, curve.subset, curve.group, curve.unit)
        == ("gaussian_noise", "auc", "unseen", "mean", "frame")
    )
    assert noise.area is not None
    assert detection.rows[0][1:] == tuple(f"{100 * (value or 0):.1f}" for value in [*noise.value, noise.area])
    jpeg = detection.rows[1]
    assert jpeg[1] == detection.rows[0][1] and [cell for cell in jpeg if "–" in cell] == ["– (1)"] * 4 + ["– (2)"]
    assert detection.notes[:2] == ("(1) not run.", "(2) not run at severity 1, 2, 4, 5.")
    assert "mean: over those with all severities, gaussian_noise." in detection.notes
    assert any("prove nothing" in note for note in detection.notes)


# --- parts ---------------------------------------------------------------------------------------------------------


def test_a_level_is_recorded_with_its_strength_and_unit() -> None:
    jpeg, upload = parse_perturbations(["jpeg:5", "social_media:5"])
    assert jpeg.record.strength == "libjpeg quality: 15"
    assert upload.record.strength == "scale of each side, and libjpeg quality of both JPEGs: scale 0.4, quality 35"


def test_copied_predictions_are_those_that_were_written_embeddings_and_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = faces_table([face(f"{number}", "gan_a") for number in range(7)])
    logits, embedding = rng.normal(size=(7, 3)), rng.normal(size=(7, 5))
    for name, size in (("first", 2), ("second", 3)):
        with PredictionsWriter(tmp_path / name, rows_per_group=size) as writer:
            if name == "first":
                for start in range(0, 7, 3):
                    rows = slice(start, start + 3)
                    part = faces.take(pa.array(range(7)[rows]))
                    writer.write(
                        ("val", "seen")[start % 2], part, rng.random(part.num_rows), logits[rows], embedding[rows]
                    )
            else:
                writer.copy(tmp_path / "first", "val")
                writer.copy(tmp_path / "first", "seen")
            writer.finish(context())
    first, second = (pq.read_table(tmp_path / name) for name in ("first", "second"))
    is_val = pc.equal(first["subset"], "val")
    assert second.equals(pa.concat_tables([first.filter(is_val), first.filter(pc.invert(is_val))]))
    assert 0 < pc.sum(is_val).as_py() < 7
