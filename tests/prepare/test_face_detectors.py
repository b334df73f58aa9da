from __future__ import annotations

import csv
import hashlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare.choose import choose, overlap
from dfad_bench.prepare.face_detectors import haar, insightface, retinaface, yunet
from dfad_bench.testing import check_face_detector
from tests.conftest import SHARED

WEIGHTS = SHARED / "weights"
PER_GENERATOR = 3
"""Images of each generator that the tests look at: 69 of 23 kinds."""


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (WEIGHTS / "yunet_n_dynamic.onnx").is_file():
        pytest.skip(f"test material is absent: {WEIGHTS} holds no yunet_n_dynamic.onnx")
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(WEIGHTS))


@pytest.fixture(scope="session")
def portraits(corpus: Path) -> list[NDArray[np.uint8]]:
    taken: dict[str, list[str]] = {}
    with (corpus / "corpus.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            taken.setdefault(row["generator"], []).append(row["path"])
    return [
        cv2.imread(str(corpus / path), cv2.IMREAD_COLOR_RGB)
        for paths in taken.values()
        for path in paths[:: max(len(paths) // PER_GENERATOR, 1)][:PER_GENERATOR]
    ]


def framed(face: NDArray[np.uint8], width: int, height: int, left: int, top: int) -> NDArray[np.uint8]:
    """A grey frame that shows a picture at a place."""
    frame = np.full((height, width, 3), 110, np.uint8)
    frame[top : top + face.shape[0], left : left + face.shape[1]] = face
    return frame


# --- YuNet ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("published")
def test_yunet_keeps_the_contract() -> None:
    check_face_detector(yunet.YuNet())


@pytest.mark.usefixtures("published")
def test_yunet_finds_a_face_in_every_portrait_with_points_in_order(portraits) -> None:
    found = yunet.YuNet().detect(portraits, [None] * len(portraits))
    assert all(found)
    for faces in found:
        face = choose(faces, None, None)
        assert face.score is not None
        assert yunet.SCORE <= face.score <= 1
        eye_left, eye_right, nose, mouth_left, mouth_right = face.landmarks
        assert face.landmarks.dtype == np.float32
        assert eye_left[0] < eye_right[0]
        assert mouth_left[0] < mouth_right[0]
        assert max(eye_left[1], eye_right[1]) < min(mouth_left[1], mouth_right[1])
        x0, y0, x1, y1 = face.box
        assert x0 < nose[0] < x1
        assert y0 < nose[1] < y1


@pytest.mark.usefixtures("published")
def test_yunet_says_the_same_alone_and_among_others(portraits) -> None:
    detector = yunet.YuNet()
    several = portraits[:4]
    together = detector.detect(several, [None] * 4)
    for image, faces in zip(reversed(several), reversed(together), strict=True):
        (alone,) = detector.detect([image], [None])
        assert [face.box for face in alone] == [face.box for face in faces]


@pytest.mark.usefixtures("published")
def test_yunet_gives_boxes_in_the_pixels_of_a_large_image(portraits) -> None:
    detector = yunet.YuNet()
    portrait = next(image for image in portraits if min(image.shape[:2]) >= 225)
    (plain,) = detector.detect([portrait], [None])
    (large,) = detector.detect([framed(portrait, 1920, 1080, 1300, 500)], [None])
    moved = tuple(np.add(plain[0].box, (1300, 500, 1300, 500)))
    assert overlap(large[0].box, moved) > 0.6
    assert np.abs(large[0].landmarks - plain[0].landmarks - (1300, 500)).max() < 20


@pytest.mark.usefixtures("published")
def test_yunet_looks_closer_where_a_large_frame_shows_no_face_at_first(portraits, monkeypatch) -> None:
    portrait = next(image for image in portraits if min(image.shape[:2]) >= 225)
    small = cv2.resize(portrait, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA)
    frame = framed(small, 1920, 1080, 700, 400)
    detector = yunet.YuNet()
    (found,) = detector.detect([frame], [None])
    assert len(found) == 1
    monkeypatch.setattr(yunet, "LONGER_SIDES", (320,))
    assert detector.detect([frame], [None]) == [[]]


@pytest.mark.usefixtures("published")
def test_yunet_finds_none_in_a_thin_an_empty_and_a_noisy_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    thin, empty = np.zeros((1, 3000, 3), np.uint8), np.full((500, 700, 3), 128, np.uint8)
    assert yunet.YuNet().detect([thin, empty, noise], [None] * 3) == [[], [], []]


@pytest.mark.usefixtures("published")
def test_yunet_names_the_weights_in_use() -> None:
    digest = hashlib.sha256((WEIGHTS / "yunet_n_dynamic.onnx").read_bytes()).hexdigest()
    assert yunet.YuNet().weights_sha256 == digest


def test_without_weights_yunet_says_both_ways_on(monkeypatch) -> None:
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    with pytest.raises(DataError) as told:
        yunet.YuNet()
    message = str(told.value)
    assert "\n" not in message
    assert "face_detection_yunet_2023mar.onnx" in message
    assert "DFAD_BENCH_WEIGHTS" in message
    assert "--face-detector haar" in message


@pytest.fixture
def fixed(tmp_path: Path, published: None) -> Path:
    """The same network exported for 640 x 640 px alone, as the file of March 2023 is, and as OpenCV 4 wants it."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(WEIGHTS / "yunet_n_dynamic.onnx")
    for each in (*graph.graph.input, *graph.graph.output):
        for size, number in zip(each.type.tensor_type.shape.dim, (1, 3, 640, 640), strict=False):
            if each.name == "input":
                size.dim_value = number
    onnx.save(graph, tmp_path / "fixed.onnx")
    return tmp_path / "fixed.onnx"


def test_yunet_finds_the_faces_that_opencv_finds(portraits, fixed) -> None:
    detector = yunet.YuNet()
    squares = [cv2.resize(image, (320, 320)) for image in portraits]
    theirs = cv2.FaceDetectorYN.create(str(fixed), "", (320, 320), yunet.SCORE, 0.3)
    for image, found in zip(squares, detector.detect(squares, [None] * len(squares)), strict=True):
        rows = theirs.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        rows = sorted(rows.tolist(), key=lambda row: -row[14])
        assert len(rows) == len(found)
        for row, face in zip(rows, found, strict=True):
            x, y, width, height = row[:4]
            np.testing.assert_allclose(face.box, (x, y, x + width, y + height), atol=0.01)
            np.testing.assert_allclose(face.landmarks.ravel(), row[4:14], atol=0.01)
            assert face.score == pytest.approx(row[14], abs=1e-4)


def test_an_export_for_one_size_runs_at_any(portraits, fixed, monkeypatch) -> None:
    digest = hashlib.sha256(fixed.read_bytes()).hexdigest()
    expected = [face.box for found in yunet.YuNet().detect(portraits, [None] * len(portraits)) for face in found]
    entry = replace(yunet.WEIGHTS[0], name=fixed.name, sha256=digest, bytes=None)
    monkeypatch.setattr(yunet.YuNet, "weights", (entry,))
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(fixed.parent))
    found = yunet.YuNet().detect(portraits, [None] * len(portraits))
    np.testing.assert_allclose([face.box for faces in found for face in faces], expected, atol=0.01)


# --- Haar ----------------------------------------------------------------------------------------------------------


def test_haar_keeps_the_contract() -> None:
    check_face_detector(haar.Haar())


def test_haar_finds_most_frontal_faces_where_yunet_finds_them(portraits, published) -> None:
    found = haar.Haar().detect(portraits, [None] * len(portraits))
    surer = yunet.YuNet().detect(portraits, [None] * len(portraits))
    agree = [
        overlap(choose(faces, None, None).box, choose(same, None, None).box) > 0.35
        for faces, same in zip(found, surer, strict=True)
        if faces
    ]
    assert len(agree) >= 0.85 * len(portraits)
    assert sum(agree) >= 0.95 * len(agree)


def test_haar_gives_boxes_in_the_pixels_of_a_large_image(portraits) -> None:
    detector = haar.Haar()
    portrait = next(image for image in portraits if min(image.shape[:2]) >= 225)
    plain, large = detector.detect([portrait, framed(portrait, 1280, 720, 700, 300)], [None, None])
    moved = tuple(np.add(plain[0].box, (700, 300, 700, 300)))
    assert max(overlap(face.box, moved) for face in large) > 0.6


def test_haar_names_its_cascade_by_hash_and_needs_no_download() -> None:
    path = Path(cv2.data.haarcascades) / haar.CASCADE
    assert haar.Haar().weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert haar.Haar.weights == ()


def test_without_cascades_haar_says_which_opencv_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(UsageError, match="opencv-python<5"):
        haar.Haar()
    monkeypatch.undo()
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(UsageError, match="opencv-python<5"):
        haar.Haar()


# --- RetinaFace: a network whose answer is planted ---------------------------------------------------------------


def planted_graph(path: Path, outputs: dict[str, NDArray[np.float32]], means_into: str | None, side: int) -> None:
    """Write a network that answers ``outputs``, whatever it is shown; to one of them the input's channel means are added."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0)]
    constants = [numpy_helper.from_array(value, f"{name}_planted") for name, value in outputs.items()]
    constants.append(numpy_helper.from_array(np.zeros((3, 1), np.float32), "nothing"))
    nodes.append(helper.make_node("MatMul", ["means", "nothing"], ["zero"]))
    for name, value in outputs.items():
        if name != means_into:
            nodes.append(helper.make_node("Add", [f"{name}_planted", "zero"], [name]))
            continue
        spread = np.zeros((3, value.shape[-1]), np.float32)
        spread[:, :3] = np.eye(3)
        constants.append(numpy_helper.from_array(spread, "spread"))
        nodes.append(helper.make_node("MatMul", ["means", "spread"], ["added"]))
        nodes.append(helper.make_node("Add", [f"{name}_planted", "added"], [name]))
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in outputs.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


Plant = Callable[..., Any]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Put a planted network in the place of a detector's weights and build the detector."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))

    def build(
        detector: type, outputs: dict[str, NDArray[np.float32]], means_into: str | None = None, side: int = 64
    ) -> Any:
        (published,) = detector.weights
        path = tmp_path / published.name
        planted_graph(path, outputs, means_into, side)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(detector, "weights", (replace(published, sha256=digest),))
        built = detector()
        assert built.weights_sha256 == digest
        return built

    return build


def retinaface_outputs(faces: dict[int, tuple[float, NDArray[np.float64], NDArray[np.float64]]], count: int) -> Any:
    """Outputs of ``count`` anchors, of which those of ``faces`` see one: score, offsets [4], points [10]."""
    offsets, points = np.zeros((1, count, 4), np.float32), np.zeros((1, count, 10), np.float32)
    scores = np.tile(np.array([1, 0], np.float32), (1, count, 1))
    for index, (score, offset, point) in faces.items():
        scores[0, index] = 1 - score, score
        offsets[0, index], points[0, index] = offset, point
    return {"loc": offsets, "conf": scores, "landmarks": points}


def encoded(anchor: NDArray[np.float64], box: tuple[float, ...], points: NDArray[np.float64]) -> tuple[Any, Any]:
    """A box and points as SSD encodes them relative to an anchor, with variances 0.1 and 0.2."""
    x0, y0, x1, y1 = box
    middle, size = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), np.array([x1 - x0, y1 - y0])
    offsets = np.concatenate([(middle - anchor[:2]) / anchor[2:] / 0.1, np.log(size / anchor[2:]) / 0.2])
    return offsets, ((points - anchor[:2]) / anchor[2:] / 0.1).ravel()


POINTS = np.array([[20, 22], [36, 22], [28, 30], [22, 38], [34, 38]], float)


def test_anchors_of_640_px_are_those_of_the_paper() -> None:
    every = retinaface.anchors(640, 640)
    assert every.shape == (16800, 4)
    assert every[0].tolist() == [4, 4, 16, 16]
    assert every[1].tolist() == [4, 4, 32, 32]
    assert every[2].tolist() == [12, 4, 16, 16]
    assert every[160].tolist() == [4, 12, 16, 16]
    assert every[12800].tolist() == [8, 8, 64, 64]
    assert every[-1].tolist() == [624, 624, 512, 512]


def test_retinaface_decodes_a_planted_face_into_the_pixels_of_the_image(plant) -> None:
    anchors = retinaface.anchors(64, 64)
    index = 57
    answer = encoded(anchors[index], (14, 10, 42, 46), POINTS)
    detector = plant(retinaface.RetinaFace, retinaface_outputs({index: (0.9, *answer)}, len(anchors)))
    wide, tall = np.zeros((120, 256, 3), np.uint8), np.zeros((32, 16, 3), np.uint8)
    (one,), (other,) = detector.detect([wide, tall], [None, None])
    assert one.box == pytest.approx((56, 40, 168, 184), abs=1e-3)
    assert one.score == pytest.approx(0.9)
    assert one.landmarks == pytest.approx(POINTS * 4, abs=1e-3)
    assert one.landmarks.dtype == np.float32
    assert other.box == pytest.approx((7, 5, 21, 23), abs=1e-3)


def test_retinaface_drops_doubles_and_doubtful_faces_and_puts_the_best_first(plant) -> None:
    anchors = retinaface.anchors(64, 64)
    where = {
        5: ((2, 2, 22, 22), 0.7),
        21: ((3, 2, 23, 22), 0.8),
        90: ((40, 40, 60, 60), 0.95),
        60: ((2, 40, 20, 60), 0.4),
    }
    faces = {index: (score, *encoded(anchors[index], box, POINTS)) for index, (box, score) in where.items()}
    detector = plant(retinaface.RetinaFace, retinaface_outputs(faces, len(anchors)))
    (found,) = detector.detect([np.zeros((64, 64, 3), np.uint8)], [None])
    assert [round(face.score, 2) for face in found] == [0.95, 0.8]


def test_retinaface_shows_the_network_blue_first_without_the_mean(plant) -> None:
    anchors = retinaface.anchors(64, 64)
    index = 57
    zeros = np.zeros(10)
    outputs = retinaface_outputs({index: (0.9, np.zeros(4), zeros)}, len(anchors))
    detector = plant(retinaface.RetinaFace, outputs, means_into="landmarks")
    image = np.empty((64, 64, 3), np.uint8)
    image[:] = 123 + 10, 117 + 20, 104 + 30  # red, green, blue
    ((face,),) = detector.detect([image], [None])
    raw = (face.landmarks.ravel() - np.tile(anchors[index, :2], 5)) / 0.1 / anchors[index, 2]
    assert raw[:3] == pytest.approx([30, 20, 10], abs=0.01)


def test_retinaface_keeps_the_contract(plant) -> None:
    anchors = retinaface.anchors(64, 64)
    faces = {index: (0.9, *encoded(anchors[index], (14, 10, 42, 46), POINTS)) for index in (57, 58)}
    check_face_detector(plant(retinaface.RetinaFace, retinaface_outputs(faces, len(anchors))))


# --- InsightFace: a stand-in of SCRFD's nine outputs ---------------------------------------------------------------


def scrfd_outputs(cell: int, score: float) -> dict[str, NDArray[np.float32]]:
    """Nine outputs for 640 px, in which one cell of stride 16 sees a face: distances and points in strides."""
    counts = {8: 12800, 16: 3200, 32: 800}
    outputs = {
        f"{kind}_{stride}": np.zeros((count, size), np.float32)
        for kind, size in (("score", 1), ("box", 4), ("points", 10))
        for stride, count in counts.items()
    }
    outputs["score_16"][cell] = score
    outputs["box_16"][cell] = 2, 3, 4, 5
    outputs["points_16"][cell] = np.arange(10)
    return outputs


@pytest.fixture
def has_insightface() -> None:
    if importlib.util.find_spec("insightface") is None:
        pytest.skip("insightface is not installed")


@pytest.mark.usefixtures("has_insightface")
def test_insightface_decodes_a_planted_face_and_tells_its_terms_and_its_processor(plant, caplog) -> None:
    cell = 2 * (10 * 40 + 7)  # row 10, column 7, the first of two anchors
    with caplog.at_level(logging.INFO, logger="dfad_bench"):
        detector = plant(insightface.InsightFace, scrfd_outputs(cell, 0.8), side=640)
    assert "non-commercial" in caplog.text
    assert "CPUExecutionProvider" in caplog.text
    ((face,),) = detector.detect([np.zeros((320, 320, 3), np.uint8)], [None])
    x, y = 7 * 16, 10 * 16
    assert face.box == pytest.approx(((x - 32) / 2, (y - 48) / 2, (x + 64) / 2, (y + 80) / 2))
    assert face.score == pytest.approx(0.8)
    assert face.landmarks == pytest.approx((np.arange(10).reshape(5, 2) * 16 + (x, y)) / 2)
    check_face_detector(detector)


def test_insightface_is_marked_as_not_for_commercial_use() -> None:
    assert [weights.commercial_use for weights in insightface.InsightFace.weights] == ["no"]


@pytest.mark.parametrize(
    ("detector", "extra"), [(retinaface.RetinaFace, "onnx"), (insightface.InsightFace, "insightface")]
)
def test_without_onnx_runtime_the_extra_to_install_is_named(detector, extra, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=rf"dfad-bench\[{extra}\]"):
        detector()
