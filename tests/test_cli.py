"""The command line: what goes where, how it ends, and what it says to a user who erred."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dfad_bench import doctor
from dfad_bench.cli import app

CROPS = ("--face-detector", "whole_image", "--gaze-estimator", "annotated")
"""For images that are faces already, and no weights."""
PROGRAM = Path(sys.executable).parent / "dfad-bench"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder source of 12 images, one of them cut short."""
    rng = np.random.default_rng(0)
    for generator in ("real", "sd15"):
        (tmp_path / "photos" / generator).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / generator / f"{index}.jpg"), pixels)
    broken = tmp_path / "photos" / "sd15" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:1000])
    return tmp_path / "photos"


def test_help_and_listing_import_neither_torch_nor_a_plugin() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from dfad_bench.cli import app\n"
        "for call in (['--help'], ['list', 'models'], ['list', 'generators', 'flow'], ['run', '--help']):\n"
        "    assert CliRunner().invoke(app, call).exit_code == 0\n"
        "heavy = {'torch', 'cv2', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not [name for name in sys.modules if name.startswith('dfad_bench.baselines.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "kind",
    ["models", "protocols", "sources", "generators", "face-detectors", "gaze-estimators", "perturbations", "metrics"],
)
def test_everything_can_be_listed_for_people_and_for_programs(kind: str) -> None:
    assert call("list", kind).exit_code == 0
    rows = json.loads(call("list", kind, "--format", "json").stdout)
    assert rows and all(row["name"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "model"), "Did you mean 'models'?"),
        (("run", "--model", "resnet19", "--protocol", "demo"), "Did you mean 'resnet18'?"),
        (("run", "--model", "chance", "--protocol", "dmeo"), "Did you mean 'demo'?"),
        (("run", "--model", "chance", "--protocol", "demo", "--set", "depth=3"), "model chance has no options"),
        (("prepare", "--source", "tabel"), "Did you mean 'table'?"),
        (("prepare", "--source", "demo", "--set", "face=100"), "Did you mean 'faces'?"),
        (("prepare", "--source", "folder"), "needs --root"),
        (("prepare", "--source", "folder", "--root", "/nowhere"), "There is no folder /nowhere"),
        (("prepare", "--source", "demo", "--name", "../x"), "lower-case letters"),
        (("prepare", "--source", "demo", "--face-detector", "anotated"), "Did you mean 'annotated'?"),
        (("audit", "nothing"), "There is no manifest in nothing"),
        (("score", "nothing.parquet"), "There is no predictions file nothing.parquet"),
        (("check", "modell", "chance"), "Choose one of model,"),
        (("run", "--model", "chance", "--protocol", "demo"), "dfad-bench prepare --source demo"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    answer = call(*arguments)
    assert answer.exit_code == 2, answer.output
    assert said in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stdout == ""


def test_a_damaged_file_is_exit_code_1_and_debug_shows_where_it_was_noticed(tmp_path: Path) -> None:
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 is how it begins")
    answer = call("audit", tmp_path)
    assert answer.exit_code == 1
    assert "Traceback" not in answer.stderr
    assert "Traceback" in call("--debug", "audit", tmp_path).stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfad_bench.registry.entries", lambda kind: 1 / 0)
    answer = call("list", "models")
    assert isinstance(answer.exception, ZeroDivisionError)


def test_json_on_stdout_is_nothing_but_json_and_skips_are_exit_code_3(photos: Path, tmp_path: Path) -> None:
    answer = call(
        "prepare", "--source", "folder", "--root", photos, "--data", tmp_path / "d", "--format", "json", *CROPS
    )
    assert answer.exit_code == 3
    report = json.loads(answer.stdout)
    counts = {row["generator"]: row for row in report["generators"]}
    assert counts["real"]["kept"] == 6
    assert counts["sd15"] == {
        "generator": "sd15",
        "declared": 6,
        "kept": 5,
        "enlarged": 5,
        "with_gaze": 0,
        "without_gaze": {},
        "skipped": {"truncated": 1},
    }
    assert set(report["seconds"]) == {"read", "decode", "detect", "crop", "gaze", "encode", "write"}


def test_a_dry_run_counts_and_writes_nothing(photos: Path, tmp_path: Path) -> None:
    answer = call("prepare", "--source", "folder", "--root", photos, "--data", tmp_path / "d", "--dry-run", *CROPS)
    assert answer.exit_code == 0
    assert "sd15" in answer.stdout
    assert not (tmp_path / "d").exists()


def test_check_manifest_names_an_altered_face(photos: Path, tmp_path: Path) -> None:
    call("prepare", "--source", "folder", "--root", photos, "--data", tmp_path, "--name", "ours", *CROPS)
    assert call("check", "manifest", "ours", "--data", tmp_path).exit_code == 0
    face = sorted((tmp_path / "ours" / "faces").rglob("*.png"))[0]
    cv2.imwrite(str(face), np.zeros((256, 256, 3), np.uint8))
    answer = call("check", "manifest", "ours", "--data", tmp_path)
    assert answer.exit_code == 1
    assert "holds other pixels" in answer.stderr


def test_an_audit_of_a_manifest_is_a_table_a_file_and_a_page(photos: Path, tmp_path: Path) -> None:
    call("prepare", "--source", "folder", "--root", photos, "--data", tmp_path, "--name", "ours", *CROPS)
    answer = call("audit", "ours", "--data", tmp_path, "--output", tmp_path / "a.json", "--html", tmp_path / "a.html")
    assert answer.exit_code == 0, answer.output
    report = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert report["faces"] == 11 and report["verdict"] in " ".join(answer.stdout.split())
    assert report["verdict"].split(":")[0] in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_an_audit_of_a_peers_json_finds_val_equal_to_test_and_files_that_are_missing(tmp_path: Path) -> None:
    clips = {name: {"label": "DFDC_Fake", "frames": [f"DFDC/{name}/0.png"]} for name in ("a", "b")}
    path = tmp_path / "DFDC.json"
    path.write_text(json.dumps({"DFDC": {"DFDC_Fake": {"val": clips, "test": clips}}}), encoding="utf-8")
    (tmp_path / "DFDC" / "a").mkdir(parents=True)
    (tmp_path / "DFDC" / "a" / "0.png").write_bytes(b"x")
    answer = call("audit", path, "--root", tmp_path, "--html", tmp_path / "a.html", "--format", "json")
    assert answer.exit_code == 1
    report = json.loads(answer.stdout)
    assert report["files"]["missing"] == 1
    assert any("val" in problem and "test" in problem for problem in report["problems"])
    assert "DFDC.json" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_root_for_a_manifest_is_refused(tmp_path: Path) -> None:
    answer = call("audit", "ours", "--root", tmp_path)
    assert answer.exit_code == 2 and "dataset's .json" in answer.stderr


GATED = """
from dfad_bench.prepare.sources.folder import FolderSource

class Gated(FolderSource):
    pass

SOURCE = Gated
"""


def test_terms_that_are_not_accepted_are_shown_and_end_with_exit_code_4(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "gated.py").write_text(GATED, encoding="utf-8")
    (tmp_path / "gated.terms.md").write_text("Do not redistribute.", encoding="utf-8")
    command = ("prepare", "--source", tmp_path / "gated.py", "--root", photos, "--data", tmp_path / "d", *CROPS)
    refused = call(*command)
    assert refused.exit_code == 4
    assert "Do not redistribute." in refused.stderr and "--accept-terms" in refused.stderr
    assert not (tmp_path / "d").exists()
    accepted = call(*command, "--accept-terms")
    assert accepted.exit_code == 3 and "Do not redistribute." in accepted.stderr
    again = call(*command)
    assert again.exit_code == 3 and "Do not redistribute." not in again.stderr


def test_without_weights_and_network_the_error_names_both_ways_on(photos: Path, tmp_path: Path) -> None:
    answer = call("prepare", "--source", "folder", "--root", photos, "--data", tmp_path / "d", "--offline")
    assert answer.exit_code == 1
    assert "DFAD_BENCH_WEIGHTS" in answer.stderr and "--face-detector haar" in answer.stderr
    assert not (tmp_path / "d" / "folder" / "metadata.parquet").exists()


def test_weights_are_listed_with_their_terms_and_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet34_gaze.onnx").write_bytes(b"")
    rows = json.loads(call("list", "weights", "--format", "json").stdout)
    by_file = {row["file"]: row for row in rows}
    assert {row["here"] for row in rows if row["file"] != "resnet34_gaze.onnx"} == {"no"}
    mobile = by_file["resnet34_gaze.onnx"]
    assert (mobile["commercial use"], mobile["here"]) == ("no", str(tmp_path))
    assert {row["commercial use"] for row in rows} <= {"yes", "no", "unclear"}
    assert all(row["url"].startswith("https://") and row["licence"] and row["training data"] for row in rows)
    shown = "".join(call("list", "weights").stdout.split())
    assert all(f"sha256{row['sha256']}" in shown and row["url"] in shown for row in rows)
    assert "0.23MB" in shown and "notpublished" in shown


def test_defects_of_a_dataset_are_told_and_kept(photos: Path, tmp_path: Path) -> None:
    (photos / "sdxl").mkdir()
    answer = call("prepare", "--source", "folder", "--root", photos, "--data", tmp_path / "d", *CROPS)
    assert "empty_folder (1)" in answer.stderr and "sdxl" in answer.stderr
    assert "empty_folder" in (tmp_path / "d" / "folder" / "report.json").read_text(encoding="utf-8")


def test_ctrl_c_ends_with_130_and_names_the_command_that_goes_on(tmp_path: Path) -> None:
    command = [str(PROGRAM), "prepare", "--source", "demo", "--set", "faces=5000", "--data", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # what runs in the background ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "demo" / ".prepare" / "parts").glob("*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "go on with: dfad-bench prepare --source demo --set faces=5000" in messages
    assert "Traceback" not in messages


def test_doctor_finds_this_installation_sound() -> None:
    answer = call("doctor", "--format", "json")
    assert answer.exit_code == 0, answer.output
    assert {finding["what"] for finding in json.loads(answer.stdout)} >= {
        *("torch", "torchvision", "OpenCV", "OpenVINO", "ONNX Runtime", "models"),
    }


def test_doctor_names_wheels_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = {"opencv-": ["opencv-python", "opencv-python-headless"], "onnxruntime": ["onnxruntime", "onnxruntime-gpu"]}
    monkeypatch.setattr(doctor, "_installed", wheels.__getitem__)
    problems = {each.what: each.detail for each in doctor.examine() if each.status == "problem"}
    assert set(problems) == {"OpenCV", "ONNX Runtime"}
    assert "onnxruntime-gpu overwrite each other" in problems["ONNX Runtime"]


def test_version_is_that_of_the_package() -> None:
    import importlib.metadata

    assert call("--version").stdout.strip() == importlib.metadata.version("dfad-bench")
