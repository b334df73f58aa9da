"""The doctor says what can run, what cannot, and the one command that mends it; it fetches nothing and changes nothing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from dfad_bench import doctor, registry
from dfad_bench.doctor import Finding, examine
from dfad_bench.errors import UsageError
from dfad_bench.modelling.weights import BY_PATH
from dfad_bench.types import ModelSpec, WeightsFile
from dfad_bench.weights import fetch

CONTENTS = b"weights"


def a_file(name: str = "net.onnx", contents: bytes = CONTENTS, **changes: Any) -> WeightsFile:
    given = {
        "url": f"https://example.org/{name}?a=1&b=2",
        "sha256": hashlib.sha256(contents).hexdigest(),
        "bytes": len(contents),
        "licence": "MIT",
        "training_data": "none",
    } | changes
    return WeightsFile(name=name, **given)


def a_detector(*files: WeightsFile) -> type:
    class Detector:
        weights: ClassVar[tuple[WeightsFile, ...]] = files

        def __init__(self) -> None:
            for file in files:
                fetch(file)

    return Detector


def a_model(**changes: Any) -> ModelSpec:
    return ModelSpec(build=lambda classes: None, inputs=(), reference="", licence="", **changes)  # type: ignore[arg-type,return-value]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What is registered, by kind: a test fills it. Torch is not looked at."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in registry.KINDS}

    def entries(kind: str) -> dict[str, registry.Entry]:
        return {name: registry.Entry(name, "a test") for name in found[kind]}

    def load(kind: str, entry: registry.Entry) -> Any:
        plugin = found[kind][entry.name]
        if isinstance(plugin, Exception):
            raise plugin
        return plugin

    monkeypatch.setattr(registry, "entries", entries)
    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(doctor, "_torch", lambda: [])
    return found


def finding(what: str, **options: Any) -> Finding:
    (found,) = [each for each in examine(**options) if each.what == what]
    return found


def kept(file: WeightsFile, contents: bytes = CONTENTS) -> Path:
    path = Path(os.environ["DFAD_BENCH_HOME"]) / "weights" / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))


# --- this installation ---------------------------------------------------------------------------------------------


def test_every_model_detector_and_estimator_is_told_and_what_cannot_run_names_a_command() -> None:
    found = {each.what: each for each in examine()}
    for kind in ("models", "face_detectors", "gaze_estimators"):
        for name in registry.entries(kind):
            told = found[f"{registry.KINDS[kind].singular} {name}"]
            assert told.status == "ok" or (told.status == "note" and told.mend), told
    assert found["model chance"].detail == "can run, it needs no weights"
    assert found["face detector haar"].status == "ok"
    assert "--backbone-weights FILE" in str(found["model xception"].mend)
    assert "L2CSNet_gaze360.pkl" in str(found["gaze estimator l2cs"].mend)
    assert {"data", "cache", "runs", "packages", "weights file ViT-B-16.pt"} <= found.keys()
    assert [each for each in found.values() if each.status == "problem"] == []


def test_nothing_is_fetched_and_the_process_is_left_as_it_was(
    plugins: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr("dfad_bench.weights._download", refuse)
    plugins["face_detectors"]["yolo"] = a_detector(a_file())
    for value in (None, "", "1"):
        monkeypatch.delenv("DFAD_BENCH_OFFLINE", raising=False)
        if value is not None:
            monkeypatch.setenv("DFAD_BENCH_OFFLINE", value)
        assert finding("face detector yolo").status == "note"
        assert os.environ.get("DFAD_BENCH_OFFLINE") == value
    assert not (Path(os.environ["DFAD_BENCH_HOME"])).exists()


def test_the_form_of_a_finding_is_what_json_readers_know() -> None:
    assert list(asdict(Finding("a", "ok", "b"))) == ["what", "status", "detail", "mend"]


# --- what can run --------------------------------------------------------------------------------------------------


def test_missing_weights_are_mended_by_one_command_that_puts_every_file_where_it_is_looked_for(
    plugins: dict[str, Any],
) -> None:
    files = (a_file("a.xml"), a_file("b c.bin"))
    plugins["gaze_estimators"]["eyes"] = a_detector(*files)
    told = finding("gaze estimator eyes")
    assert told.status == "note" and "a.xml, b c.bin" in told.detail and told.mend is not None
    command = shlex.split(told.mend)
    for file in files:
        place = command.index(file.url)
        assert command[place - 2] == "--output"
        path = Path(command[place - 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS)
    assert finding("gaze estimator eyes") == Finding("gaze estimator eyes", "ok", "can run")


def test_a_missing_package_is_mended_by_the_command_that_the_plugin_names(plugins: dict[str, Any]) -> None:
    class Needy:
        weights: ClassVar[tuple[WeightsFile, ...]] = (a_file(),)

        def __init__(self) -> None:
            raise UsageError("needy needs ONNX Runtime. Install it: pip install 'dfad-bench[onnx]'.")

    plugins["face_detectors"]["needy"] = Needy
    told = finding("face detector needy")
    assert (told.status, told.mend) == ("note", "pip install 'dfad-bench[onnx]'")


def test_a_file_that_is_not_the_published_one_is_a_problem_and_the_command_replaces_it(plugins: dict[str, Any]) -> None:
    file = a_file()
    path = kept(file, b"weighty")  # of the right size
    plugins["face_detectors"]["yolo"] = a_detector(file)
    told = finding("face detector yolo")
    assert told.status == "problem" and "is not the published" in told.detail
    assert str(path) in shlex.split(str(told.mend))


def test_a_model_can_run_when_the_file_it_starts_from_is_here(plugins: dict[str, Any]) -> None:
    file = a_file("clip.pt")
    starts = {"backbone_weights": {"openai": file}, "load_backbone": lambda module, path: None}
    plugins["models"] |= {
        "alone": a_model(),
        "optional": a_model(**starts),
        "starts": a_model(**starts, default_backbone_weights="openai"),
        "given": a_model(load_backbone=lambda module, path: None, default_backbone_weights=BY_PATH),
        "wrong": a_model(default_backbone_weights="nothing"),
    }
    assert {name: finding(f"model {name}").status for name in plugins["models"]} == {
        **{"alone": "ok", "optional": "ok", "starts": "note", "given": "note", "wrong": "problem"}
    }
    assert file.url in shlex.split(str(finding("model starts").mend))
    kept(file)
    assert finding("model starts").status == "ok"


@pytest.mark.parametrize(
    "error", [SyntaxError("bad"), AttributeError("no"), RuntimeError("\n"), UsageError("two\nlines")]
)
def test_a_plugin_that_cannot_be_imported_is_a_problem_of_its_own(plugins: dict[str, Any], error: Exception) -> None:
    plugins["models"] |= {"broken": error, "sound": a_model()}
    told = finding("model broken")
    assert told.status == "problem" and "\n" not in told.detail
    assert finding("models").status == "problem" and finding("model sound").status == "ok"


def test_a_module_that_a_plugin_lacks_is_named(plugins: dict[str, Any]) -> None:
    plugins["models"]["broken"] = ModuleNotFoundError("No module named 'deep.sub'", name="deep.sub")
    assert finding("model broken").mend == "pip install deep"


def test_a_network_that_crashes_while_it_is_built_is_a_problem(plugins: dict[str, Any]) -> None:
    class Crash:
        weights: ClassVar[tuple[WeightsFile, ...]] = ()

        def __init__(self) -> None:
            raise RuntimeError("no such operator")

    plugins["face_detectors"]["crash"] = Crash
    assert finding("face detector crash").detail == "RuntimeError: no such operator"


# --- files ---------------------------------------------------------------------------------------------------------


def test_each_published_file_is_told_once_with_all_that_use_it(plugins: dict[str, Any]) -> None:
    file = a_file("clip.pt")
    plugins["models"] |= {name: a_model(backbone_weights={"openai": file}) for name in ("a", "b")}
    told = finding("weights file clip.pt")
    assert told.status == "note" and told.detail.startswith("of a, b: not here")
    kept(file)
    assert finding("weights file clip.pt").detail.endswith("sha256 not verified")
    assert finding("weights file clip.pt", verify=True).detail.endswith("sha256 verified")


def test_a_hash_is_verified_only_where_that_is_asked_for_and_a_size_always(plugins: dict[str, Any]) -> None:
    file = a_file("clip.pt", refused={hashlib.sha256(b"weighty").hexdigest()[:8]: "pitch and yaw are swapped"})
    plugins["models"]["a"] = a_model(backbone_weights={"openai": file})
    kept(file, b"weighty")
    assert finding("weights file clip.pt").status == "ok"
    told = finding("weights file clip.pt", verify=True)
    assert told.status == "problem" and told.detail.endswith("pitch and yaw are swapped") and told.mend
    kept(file, b"weighta")
    assert "its sha256 is" in finding("weights file clip.pt", verify=True).detail
    kept(file, b"short")
    assert "it has 5 bytes, expected 7" in finding("weights file clip.pt").detail


# --- folders -------------------------------------------------------------------------------------------------------


def test_folders_tell_where_they_are_and_how_much_is_free(
    plugins: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "not" / "there" / "runs"
    assert str(runs) in finding("runs", runs=runs).detail and not runs.parent.exists()
    for free, status in ((100.0, "ok"), (2.0, "note"), (0.1, "problem")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("", (), {"free": int(free * 2**30)}))
        told = finding("runs", runs=runs)
        assert told.status == status and f"{free:.1f} GiB free" in told.detail
        assert (told.mend is None) == (status == "ok")


def test_a_folder_that_is_a_file_is_a_problem(
    plugins: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("DFAD_BENCH_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path / "no where"))
    assert finding("data").status == "problem"
    assert finding("weights").mend == f"mkdir -p '{tmp_path / 'no where'}'"


# --- packages and devices ------------------------------------------------------------------------------------------


def test_packages_that_are_absent_or_of_another_version_are_named_in_one_command(
    plugins: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        "numpy>=99",
        "surely_absent_package>=1",
        "not_installed_extra; extra == 'onnx'",
        "numpy>=98; extra == 'hub'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked[:3])
    told = finding("packages")
    assert told.status == "problem" and f"numpy is {np.__version__}" in told.detail
    assert shlex.split(str(told.mend)) == ["pip", "install", "numpy>=99", "surely_absent_package>=1"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked[3:])
    assert finding("packages").status == "problem"


@pytest.mark.parametrize(
    ("prefix", "wheels", "what", "mend"),
    [
        (
            "opencv-",
            ["opencv-python", "opencv-python-headless"],
            "OpenCV",
            "pip uninstall --yes opencv-python opencv-python-headless && pip install --no-deps opencv-python",
        ),
        (
            "onnxruntime",
            ["onnxruntime", "onnxruntime-gpu"],
            "ONNX Runtime",
            "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu",
        ),
    ],
)
def test_wheels_that_overwrite_each_other_are_mended_by_leaving_one(
    plugins: dict[str, Any], monkeypatch: pytest.MonkeyPatch, prefix: str, wheels: list[str], what: str, mend: str
) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda asked: wheels if asked == prefix else ["opencv-python"])
    told = finding(what)
    assert (told.status, told.mend) == ("problem", mend)


def test_the_graph_that_tells_the_provider_is_one_that_runs() -> None:
    onnx.checker.check_model(onnx.load_from_string(doctor._IDENTITY))
    session = onnxruntime.InferenceSession(doctor._IDENTITY, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([3.0], np.float32)})[0].tolist() == [3.0]


def test_a_runtime_that_is_built_for_cuda_and_does_not_start_it_is_told(
    plugins: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    session = type("Session", (), {"get_providers": lambda self: offered[1:]})
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session())
    told = finding("ONNX Runtime")
    assert told.status == "note" and told.detail.endswith("it starts CPUExecutionProvider") and told.mend
