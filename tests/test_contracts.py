"""Every registered plugin keeps its contract: a new file is tested the moment it exists."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dfad_bench import registry
from dfad_bench.errors import DataError
from dfad_bench.interfaces import FaceDetector, GazeEstimator
from dfad_bench.modelling.clip import TINY
from dfad_bench.modelling.options import options_of
from dfad_bench.records.protocol import load_protocol
from dfad_bench.taxonomy import known
from dfad_bench.testing import (
    check_face_detector,
    check_gaze_estimator,
    check_metric,
    check_model,
    check_perturbation,
    check_source,
)
from dfad_bench.types import Annotation, ModelSpec, OnDefect
from dfad_bench.weights import find
from tests.baselines.conftest import one_thread_and_no_leftovers  # noqa: F401  # two threads wait for each other
from tests.conftest import SHARED


def in_small(name: str) -> ModelSpec:
    """Return a model on small faces, and on CLIP's towers in small, where it has that as an option: the code is the same."""
    spec: ModelSpec = registry.get("models", name)
    options = {each.name: each for each in options_of(spec)}
    small: dict[str, Any] = {"size": 112} if "size" in options else {}
    if "backbone" in options and str(options["backbone"].default).startswith("ViT-"):
        small["backbone"] = TINY
    return spec if not small or spec.configure is None else replace(spec.configure(**small), configure=None)


@pytest.mark.parametrize("name", registry.entries("models"))
def test_model(name: str) -> None:
    check_model(in_small(name))


@pytest.mark.parametrize("name", registry.entries("metrics"))
def test_metric(name: str) -> None:
    check_metric(registry.get("metrics", name))


@pytest.mark.parametrize("name", registry.entries("perturbations"))
def test_perturbation(name: str) -> None:
    check_perturbation(registry.get("perturbations", name))


@pytest.mark.parametrize("name", registry.entries("protocols"))
def test_protocol(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.description and protocol.reference


def built(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A detector or estimator with the test weights; skips where a published file of its own is not among them."""
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(SHARED / "weights"))
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    plugin = registry.get(kind, name)
    try:
        return plugin()
    except DataError:
        absent = [each.name for each in plugin.weights if find(each) is None]
        if not absent:
            raise
        pytest.skip(f"weights are absent: {', '.join(absent)}")


@pytest.mark.parametrize("name", registry.entries("face_detectors"))
def test_face_detector(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = built("face_detectors", name, monkeypatch)
    assert isinstance(detector, FaceDetector)
    check_face_detector(detector)


@pytest.mark.parametrize("name", registry.entries("gaze_estimators"))
def test_gaze_estimator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = built("gaze_estimators", name, monkeypatch)
    assert isinstance(estimator, GazeEstimator)
    check_gaze_estimator(estimator)


def _files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"listed, not read")
    return root


def _table(root: Path) -> Path:
    _files(root, "a.png", "b.png")
    (root / "faces.csv").write_text("path,generator\na.png,real\nb.png,sd15\n", encoding="utf-8")
    return root


def _dataset_json(root: Path) -> Path:
    frame = "Celeb-DF-v2/Celeb-real/frames/id0_0000/000.png"
    clip = {"id0_0000": {"label": "CelebDFv2_real", "frames": [frame]}}
    (_files(root, frame) / "Celeb-DF-v2.json").write_text(
        json.dumps({"Celeb-DF-v2": {"CelebDFv2_real": {"test": clip}}}), encoding="utf-8"
    )
    return root


def _zips(root: Path) -> Path:
    root.mkdir()
    for part in ("wiki", "text2img", "inpainting", "insight"):
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            archive.writestr(f"{part}/00/10000400_1966-12-01_2011.jpg", b"listed, not read")
    return root


def _sfhq(root: Path) -> Path:
    table = "image_filename,model_used\na.jpg,SDXL\n"
    (_files(root, "images/a.jpg") / "SFHQ_T2I_dataset.csv").write_text(table, encoding="utf-8")
    return root


ROOTS: dict[str, Callable[[Path], Path]] = {
    "celebdf": lambda root: _files(root, "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4"),
    "deepfakebench": _dataset_json,
    "deepfakeface": _zips,
    "df40": lambda root: _files(root, "DF40/simswap/ff/frames/000_003/000.png"),
    "ffpp": lambda root: _files(root, "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"),
    "folder": lambda root: _files(root, "real/a.png", "stylegan2/b.png"),
    "sfhq_t2i": _sfhq,
    "table": _table,
    "video": lambda root: _files(root, "real/a.mp4", "simswap/b.mp4"),
}
"""A small root for every source that reads one, in the layout the source asks for."""


@pytest.mark.parametrize(
    "name", sorted(set(registry.entries("sources")) - {"hf"})
)  # a dataset of its own: test_hf_source
def test_source(name: str, tmp_path: Path) -> None:
    source = registry.get("sources", name)()
    assert not source.needs_root or name in ROOTS, f"add a small root for the source {name} to this test"
    check_source(source, ROOTS[name](tmp_path / "root") if source.needs_root else None)


@pytest.mark.parametrize("name", registry.entries("sources"))
def test_every_generator_a_source_declares_is_labelled_as_in_the_taxonomy(name: str) -> None:
    if name in ("hf", "folder", "video"):
        pytest.skip(f"{name} declares what the user's map says")
    for generator in registry.get("sources", name)().generators(None):
        known_one = known().find(generator.name)
        assert known_one is None or known_one == generator
        assert generator.reference and 1990 < generator.year < 2030


def test_a_source_whose_listing_changes_between_calls_breaks_the_contract() -> None:
    class Restless:
        title = homepage = licence = instructions = "x"
        default_gaze_estimator = "annotated"
        needs_root = False
        default_face_detector = "whole_image"
        calls = 0

        def generators(self, root: Path | None) -> tuple[()]:
            return ()

        def images(self, root: Path | None, on_defect: OnDefect):  # type: ignore[no-untyped-def]
            from dfad_bench.prepare.payloads import FilePayload
            from dfad_bench.types import RawImage

            self.calls += 1
            payload = FilePayload(Path(), "a.png")
            yield RawImage(f"key{self.calls}", "real", "real", "real", "d", "CC0-1.0", payload, Annotation())

    with pytest.raises(AssertionError, match="same images"):
        check_source(Restless(), None)
