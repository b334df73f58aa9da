"""``dfad-bench gaze-fid`` as users type it, on the demo and on real faces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.records.gaze_fid import GazeFidReport, read_report
from tests.conftest import SHARED


def call(*arguments: str | Path, expect: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == expect, answer.output
    return answer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gaze") / "data"
    call("prepare", "--source", "demo", "--set", "faces=240", "--data", folder, "--workers", "2")
    return folder


def test_one_generator_several_or_all_by_name_or_alias(data: Path) -> None:
    quick = ("--data", data, "--resamples", "99", "--format", "json")
    one = json.loads(call("gaze-fid", "--generator", "demo_gan", *quick).stdout)
    assert [row["generator"] for row in one["generators"]] == ["demo_gan"]
    assert one["generators"][0]["distance"]["p"] <= 0.02
    two = json.loads(call("gaze-fid", "--generator", "demo_gan", "--generator", "demo_flow", *quick).stdout)
    assert [row["generator"] for row in two["generators"]] == ["demo_gan", "demo_flow"]
    every = json.loads(call("gaze-fid", *quick).stdout)
    assert len(every["generators"]) == 5


def test_everything_it_writes(data: Path, tmp_path: Path) -> None:
    files = ("--output", tmp_path / "g.json", "--csv", tmp_path / "g.csv", "--figures", tmp_path / "figures")
    answer = call("gaze-fid", "--generator", "demo_gan", "--data", data, "--resamples", "99", *files)
    assert "demo_gan" in answer.stdout and "fewer than 10,000 faces" in answer.stdout
    report = read_report(tmp_path / "g.json")
    assert report.generators[0].measuring is not None and report.generators[0].measuring.estimator == "annotated"
    assert set(GazeFidReport.model_json_schema()["required"]) <= set(json.loads((tmp_path / "g.json").read_text()))
    assert (tmp_path / "g.csv").read_text().splitlines()[1].startswith("demo_gan,")
    assert (tmp_path / "figures" / "demo_gan.svg").is_file() and (tmp_path / "figures" / "summary.png").is_file()


def test_directions_are_measured_without_a_unit(data: Path) -> None:
    arguments = ("--generator", "demo_gan", "--data", data, "--resamples", "99", "--format", "json")
    report = json.loads(call("gaze-fid", "--space", "direction", *arguments).stdout)
    assert (report["unit"], report["generators"][0]["distance"]["dimensions"]) == ("1", 3)


def test_mistakes_are_one_line_that_says_what_to_do(data: Path, tmp_path: Path) -> None:
    assert "There are: demo_diffusion" in call("gaze-fid", "--generator", "sd15", "--data", data, expect=2).stderr
    assert "dfad-bench prepare" in call("gaze-fid", "--data", tmp_path, expect=2).stderr
    missing = call("gaze-fid", "--gaze-estimator", "gradient", "--source", "demo", "--data", data, expect=1).stderr
    assert "prepare --only-gaze --gaze-estimator gradient" in missing.replace("\n", " ")
    assert "gives no features" in call("gaze-fid", "--space", "features", "--data", data, expect=2).stderr


def test_another_estimators_gaze_is_measured_when_it_was_added(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    call("prepare", "--only-gaze", "--gaze-estimator", "gradient", "--name", "demo", "--data", tmp_path / "data")
    arguments = ("--generator", "demo_gan", "--data", tmp_path / "data", "--resamples", "99", "--format", "json")
    report = json.loads(call("gaze-fid", "--gaze-estimator", "gradient", *arguments).stdout)
    assert report["generators"][0]["measuring"]["estimator"] == "gradient"


def test_on_real_faces_edits_keep_the_gaze_of_their_targets(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(SHARED / "weights"))
    where = ("--root", corpus, "--name", "corpus", "--data", tmp_path, "--workers", "2", "--offline")
    call("prepare", "--source", "table", *where)
    names = [part for name in ("attgan", "stgan", "vae") for part in ("--generator", name)]
    report = GazeFidReport.model_validate_json(
        call("gaze-fid", *names, "--data", tmp_path, "--resamples", "199", "--format", "json").stdout
    )
    by_name = {row.generator: row for row in report.generators}
    vae = by_name["vae"].distance
    assert vae is not None and vae.p < 0.02 and vae.low > 0
    kept = {row.name: row for row in report.preserved}
    for name in ("attgan", "stgan"):
        assert kept[name].median < 0.6 * kept[name].by_chance
    assert any(row.distance is not None for row in report.domains)
