"""MobileGaze on a network that stands in for the published one: it measures where a picture is bright, exactly."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench.errors import DataError, UsageError
from dfad_bench.interfaces import GazeEstimator
from dfad_bench.prepare.gaze_bins import BINS, SIDE
from dfad_bench.prepare.gaze_estimators.mobilegaze import MobileGaze
from dfad_bench.testing import check_gaze_estimator

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EXACT = 582
"""Side of a crop whose central part is as large as the network's input, so that nothing is resized."""
ROUNDING = 0.1
"""Degrees that the stand-in is off because it adds up 200,000 pixels in float32."""
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def network(
    names: tuple[str, str] = ("yaw", "pitch"), batch: int | str = "faces", side: int = SIDE, gain: float = 20
) -> bytes:
    """A graph whose first angle is ``gain`` bins × (red at image left − red at image right, each 0..1), and whose
    second is ``gain`` bins × (green above − green below). Its softmax is a Gaussian of one bin's deviation."""
    from onnx import TensorProto, helper, numpy_helper

    half = np.ones(side, np.float32)
    half[side // 2 :] = -1
    measure = np.zeros((2, 3, side, side), np.float32)
    measure[0, 0], measure[1, 1] = half[None, :], half[:, None]
    measure *= gain * DEVIATION[None, :, None, None] / (side * side / 2)
    bins = np.arange(BINS, dtype=np.float32) - 45
    nodes = [helper.make_node("Conv", ["input", "measure"], ["map"]), helper.make_node("Flatten", ["map"], ["both"])]
    constants = {"measure": measure, "bias": -(bins**2) / 2}
    for index, name in enumerate(names):
        constants[f"to_{name}"] = np.stack([bins * (index == 0), bins * (index == 1)])
        nodes.append(helper.make_node("Gemm", ["both", f"to_{name}", "bias"], [name]))
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, BINS]) for name in names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


Build = Callable[..., MobileGaze]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds the estimator on a stand-in whose hash is the pinned one."""

    def with_network(**options: Any) -> MobileGaze:
        data = network(**options)
        (tmp_path / "resnet34_gaze.onnx").write_bytes(data)
        file = replace(MobileGaze.weights[0], sha256=hashlib.sha256(data).hexdigest())
        monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))
        monkeypatch.setattr(MobileGaze, "weights", (file,))
        return MobileGaze()

    return with_network


def face(left: int = 0, right: int = 0, above: int = 0, below: int = 0, side: int = EXACT) -> NDArray[np.uint8]:
    """A crop whose red tells left from right and whose green tells above from below."""
    crop = np.zeros((side, side, 3), np.uint8)
    crop[:, : side // 2, 0], crop[:, side // 2 :, 0] = left, right
    crop[: side // 2, :, 1], crop[side // 2 :, :, 1] = above, below
    return crop


def degrees(estimator: GazeEstimator, *faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pitch and yaw [N, 2] in degrees."""
    unknown = np.full((len(faces), 5, 2), np.nan, np.float32)
    gaze = estimator.estimate(np.stack(faces), unknown, [None] * len(faces))
    return np.degrees(np.stack([gaze.pitch, gaze.yaw], axis=1).astype(np.float64))


def test_the_first_output_is_yaw_towards_image_left_and_the_second_pitch_upwards(build: Build) -> None:
    estimator = build()
    found = degrees(estimator, face(left=255), face(right=102), face(above=51), face(right=51, below=51), face())
    assert found == pytest.approx(np.array([[0, -80], [0, 32], [16, 0], [-16, 16], [0, 0]]), abs=ROUNDING)


@pytest.mark.parametrize("side", [224, 256, 257])
def test_a_crop_of_any_size_is_seen_alike(build: Build, side: int) -> None:
    found = degrees(build(), face(right=102, above=51, side=side))
    assert found == pytest.approx(np.array([[16, 32]]), abs=0.3)


def test_what_lies_beyond_the_face_box_is_not_seen(build: Build) -> None:
    crop = face(right=102)
    crop[:60], crop[:, :60] = 255, 255
    assert degrees(build(), crop) == pytest.approx(np.array([[0, 32]]), abs=ROUNDING)


@pytest.mark.parametrize(("batch", "expected"), [("faces", [16, 16, 5]), (1, [1] * 37)])
def test_each_face_has_its_own_gaze_whether_the_graph_takes_many_or_one(
    build: Build, monkeypatch: pytest.MonkeyPatch, batch: int | str, expected: list[int]
) -> None:
    estimator = build(batch=batch)
    faces = [face(right=level, side=64) for level in range(0, 255, 7)]
    alone = degrees(estimator, faces[30])
    session, batches = estimator._session, []

    def run(outputs: None, inputs: dict[str, NDArray[np.float32]]) -> Any:
        batches.append(len(inputs["input"]))
        return session.run(outputs, inputs)

    monkeypatch.setattr(estimator, "_session", SimpleNamespace(run=run))
    found = degrees(estimator, *faces)
    assert batches == expected
    assert np.all(np.diff(found[:, 1]) > 1) and found[30] == pytest.approx(alone[0], abs=1e-5)


def test_features_are_the_logits_of_yaw_and_then_of_pitch(build: Build) -> None:
    estimator = build()
    gaze = estimator.estimate(face(left=102)[None], np.full((1, 5, 2), np.nan, np.float32), [None])
    assert gaze.features is not None and gaze.features.shape == (1, estimator.feature_dim)
    assert gaze.features.dtype == np.float32
    bins = np.arange(BINS) - 45
    expected = np.concatenate([8 * bins - bins**2 / 2, -(bins**2) / 2])
    assert gaze.features[0] == pytest.approx(expected, rel=1e-3, abs=0.5)


def test_confidence_is_that_of_a_gaussian_of_one_bin(build: Build) -> None:
    gaze = build().estimate(face()[None], np.full((1, 5, 2), np.nan, np.float32), [None])
    expected = 1 - np.log(2 * np.pi * np.e) / 2 / np.log(BINS)
    assert gaze.confidence == pytest.approx([expected], abs=1e-5)


def test_a_face_turned_away_is_flagged_and_its_neighbour_is_not(build: Build) -> None:
    faces = np.stack([face(left=255), face(left=51)])
    gaze = build(gain=30).estimate(faces, np.full((2, 5, 2), np.nan, np.float32), [None, None])
    assert gaze.flags == ("profile", None)
    assert np.isnan(gaze.yaw[0]) and np.isnan(gaze.pitch[0])
    assert np.degrees(gaze.yaw[1]) == pytest.approx(-24, abs=ROUNDING)


def test_the_contract_of_estimators_holds(build: Build) -> None:
    estimator = build()
    assert isinstance(estimator, GazeEstimator)
    assert estimator.weights_sha256 == MobileGaze.weights[0].sha256
    check_gaze_estimator(estimator)


def test_no_face_is_no_gaze(build: Build) -> None:
    gaze = build().estimate(np.zeros((0, 64, 64, 3), np.uint8), np.zeros((0, 5, 2), np.float32), [])
    assert gaze.pitch.shape == (0,) and gaze.features is not None and gaze.features.shape == (0, 2 * BINS)


def test_other_weights_than_the_published_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet34_gaze.onnx").write_bytes(network())
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(DataError, match=r"is not the published resnet34_gaze\.onnx") as error:
        MobileGaze()
    assert "\n" not in str(error.value)


def test_weights_from_before_the_fix_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = MobileGaze.weights
    assert set(file.refused) == {"23d5d7e4", "4457ee5f", "e1eaf98f", "fdcdb84e", "c0b5a4f4"}
    data = network()
    (tmp_path / file.name).write_bytes(data)
    why = next(iter(file.refused.values()))
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(MobileGaze, "weights", (replace(file, refused={hashlib.sha256(data).hexdigest()[:8]: why}),))
    with pytest.raises(DataError, match="before February 2026, with pitch and yaw swapped"):
        MobileGaze()


def test_outputs_in_the_order_of_the_swapped_files_are_refused_whatever_their_hash(build: Build) -> None:
    with pytest.raises(DataError, match="pitch and yaw in this order"):
        build(names=("pitch", "yaw"))


def test_a_graph_of_another_shape_is_refused(build: Build) -> None:
    with pytest.raises(DataError, match=r"expected \[faces, 3, 448, 448\]"):
        build(side=224)


def test_missing_weights_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    with pytest.raises(DataError, match=r"github\.com/yakhyo/gaze-estimation.*DFAD_BENCH_WEIGHTS"):
        MobileGaze()


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"dfad-bench\[onnx\]"):
        MobileGaze()


def test_a_cuda_build_that_falls_back_to_the_cpu_says_so(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted: list[str] = []

    def start(path: str, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
        wanted.extend(name for name, _ in providers)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    broken = SimpleNamespace(
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=start,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", broken)
    with caplog.at_level(logging.WARNING):
        build()
    assert wanted == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert "runs on the CPU" in caplog.text


def test_on_a_cpu_build_the_provider_is_told_without_alarm(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        build()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "mobilegaze runs on CPUExecutionProvider.")
    ]


@pytest.mark.parametrize("name", ["mobilegaze", "l2cs"])
def test_the_module_imports_no_network_library(name: str) -> None:
    code = (
        f"import sys, dfad_bench.prepare.gaze_estimators.{name}\n"
        "print(*{'torch', 'torchvision', 'onnxruntime', 'uniface'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
