"""Every registered plugin keeps its contract: a new file is tested the moment it exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfad_bench import registry
from dfad_bench.interfaces import FaceDetector, GazeEstimator
from dfad_bench.records.protocol import load_protocol
from dfad_bench.testing import check_face_detector, check_gaze_estimator, check_metric, check_model, check_source
from dfad_bench.types import Annotation


@pytest.mark.parametrize("name", registry.entries("models"))
def test_model(name: str) -> None:
    check_model(registry.get("models", name))


@pytest.mark.parametrize("name", registry.entries("metrics"))
def test_metric(name: str) -> None:
    check_metric(registry.get("metrics", name))


@pytest.mark.parametrize("name", registry.entries("protocols"))
def test_protocol(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.description and protocol.reference


@pytest.mark.parametrize("name", registry.entries("face_detectors"))
def test_face_detector(name: str) -> None:
    detector = registry.get("face_detectors", name)()
    assert isinstance(detector, FaceDetector)
    check_face_detector(detector)


@pytest.mark.parametrize("name", registry.entries("gaze_estimators"))
def test_gaze_estimator(name: str) -> None:
    estimator = registry.get("gaze_estimators", name)()
    assert isinstance(estimator, GazeEstimator)
    check_gaze_estimator(estimator)


@pytest.fixture
def root_of(tmp_path: Path) -> dict[str, Path | None]:
    """A small root for every source that reads one, in the layout the source asks for."""
    import cv2

    rng = np.random.default_rng(0)
    for generator in ("real", "stylegan2"):
        (tmp_path / "folder" / generator).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "folder" / generator / f"{index}.png"), pixels)
    table = tmp_path / "table"
    table.mkdir()
    (table / "faces.csv").write_text("path,generator\na.png,real\nb.png,sd15\n", encoding="utf-8")
    return {"folder": tmp_path / "folder", "table": table}


@pytest.mark.parametrize("name", registry.entries("sources"))
def test_source(name: str, root_of: dict[str, Path | None]) -> None:
    source = registry.get("sources", name)()
    assert not source.needs_root or name in root_of, f"add a small root for the source {name} to this test"
    check_source(source, root_of.get(name))


def test_a_source_whose_listing_changes_between_calls_breaks_the_contract() -> None:
    class Restless:
        title = homepage = licence = instructions = "x"
        needs_root = False
        default_face_detector = "whole_image"
        calls = 0

        def generators(self, root: Path | None) -> tuple[()]:
            return ()

        def images(self, root: Path | None):  # type: ignore[no-untyped-def]
            from dfad_bench.prepare.payloads import FilePayload
            from dfad_bench.types import RawImage

            self.calls += 1
            payload = FilePayload(Path(), "a.png")
            yield RawImage(f"key{self.calls}", "real", "real", "real", "d", "CC0-1.0", payload, Annotation())

    with pytest.raises(AssertionError, match="same images"):
        check_source(Restless(), None)
