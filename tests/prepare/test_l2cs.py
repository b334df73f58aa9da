"""L2CS on random weights, against torchvision's ResNet-50; the two heads are planted."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dfad_bench.errors import DataError
from dfad_bench.interfaces import GazeEstimator
from dfad_bench.prepare.gaze_bins import BINS, network_input
from dfad_bench.prepare.gaze_estimators.l2cs import L2CS, read_state, state_shapes
from dfad_bench.testing import check_gaze_estimator

FACES = np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), np.uint8)
UNKNOWN = np.full((2, 5, 2), np.nan, np.float32)


def random_state() -> dict[str, torch.Tensor]:
    """Random parameters of the network; the head called yaw says about +20°, the one called pitch about +8°."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in state_shapes().items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            values = 0.5 + torch.rand(shape, generator=generator)
            values *= 0.2 if "bn3.weight" in name else 1  # or sixteen residual sums would blow up
        elif len(shape) == 4:
            values *= (2 / values[0].numel()) ** 0.5
        elif len(shape) == 2:
            values *= 0.005
        state[name] = values
    bins = torch.arange(BINS) - 45
    state["fc_yaw_gaze.bias"], state["fc_pitch_gaze.bias"] = -((bins - 5.0) ** 2) / 2, -((bins - 2.0) ** 2) / 2
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / L2CS.weights[0].name
    torch.save(random_state(), path)
    return path


@pytest.fixture(scope="module")
def estimator(weights: Path) -> Iterator[L2CS]:
    file = replace(L2CS.weights[0], sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFAD_BENCH_WEIGHTS", str(weights.parent))
        patch.setattr(L2CS, "weights", (file,))
        yield L2CS()


def reference_features(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The pooled features of torchvision's ResNet-50 with the same parameters."""
    from dfad_bench.modelling.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from torchvision.models import resnet50

    model = resnet50(weights=None)
    loaded = model.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc_")}, strict=False)
    assert loaded.unexpected_keys == []
    assert {k for k in loaded.missing_keys if not k.endswith("num_batches_tracked")} == {"fc.weight", "fc.bias"}
    model.fc = torch.nn.Identity()
    with torch.inference_mode():
        features: torch.Tensor = model.eval()(torch.from_numpy(network_input(FACES)))
    return features


def expectation(logits: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(logits.double().softmax(1) @ (4 * torch.arange(BINS, dtype=torch.float64) - 180))


def test_the_network_is_torchvisions_and_each_head_is_what_it_is_called(estimator: L2CS) -> None:
    state = random_state()
    gaze = estimator.estimate(FACES, UNKNOWN, [None, None])
    features = reference_features(state)
    assert gaze.features is not None and gaze.features.shape == (2, estimator.feature_dim)
    assert float(features.std()) > 0.1
    assert np.allclose(gaze.features, features, atol=1e-4 * float(features.abs().max()))
    yaw, pitch = (
        expectation(features @ state[f"fc_{head}.weight"].T + state[f"fc_{head}.bias"])
        for head in ("yaw_gaze", "pitch_gaze")
    )
    assert np.abs(yaw - 20).max() < 6 and np.abs(pitch - 8).max() < 6
    assert np.degrees(gaze.yaw) == pytest.approx(-yaw, abs=0.01)
    assert np.degrees(gaze.pitch) == pytest.approx(pitch, abs=0.01)
    assert gaze.flags == (None, None) and gaze.confidence is not None and (gaze.confidence > 0.5).all()


def test_the_contract_of_estimators_holds(estimator: L2CS) -> None:
    assert isinstance(estimator, GazeEstimator)
    assert estimator.weights_sha256 is not None and len(estimator.weights_sha256) == 64
    check_gaze_estimator(estimator)


def test_no_face_is_no_gaze(estimator: L2CS) -> None:
    gaze = estimator.estimate(np.zeros((0, 64, 64, 3), np.uint8), np.zeros((0, 5, 2), np.float32), [])
    assert gaze.pitch.shape == (0,) and gaze.features is not None and gaze.features.shape == (0, 2048)


def test_in_a_worker_one_thread_is_taken(estimator: L2CS, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(weights.parent))
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    L2CS()
    assert taken == []
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the main process")
    L2CS()
    assert taken == [1]


def hollow_state() -> dict[str, torch.Tensor]:
    """Every name and shape of the network in a file of a few kilobytes."""
    return {name: torch.zeros(1).expand(shape) for name, shape in state_shapes().items()}


def test_counters_of_batches_are_neither_needed_nor_in_the_way(tmp_path: Path) -> None:
    torch.save(hollow_state() | {"bn1.num_batches_tracked": torch.tensor(7)}, tmp_path / "w.pkl")
    assert read_state(tmp_path / "w.pkl").keys() == state_shapes().keys()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layer3.5.conv2.weight": None}, "it lacks layer3.5.conv2.weight."),
        ({"fc.weight": torch.zeros(1)}, "it has the unknown fc.weight."),
        ({"fc_yaw_gaze.bias": torch.zeros(28)}, "it has the wrong shape of fc_yaw_gaze.bias."),
        (
            {"module.conv1.weight": torch.zeros(1), "conv1.weight": None},
            "it lacks conv1.weight; it has the unknown module.conv1.weight.",
        ),
    ],
)
def test_parameters_of_another_network_are_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    state = {name: value for name, value in (hollow_state() | changes).items() if value is not None}
    torch.save(state, tmp_path / "w.pkl")
    with pytest.raises(DataError) as error:
        read_state(tmp_path / "w.pkl")
    assert str(error.value).endswith(complaint) and "\n" not in str(error.value)


class Trap:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_before_it_does(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "w.pkl")
    with pytest.raises(DataError, match="does not hold plain weights") as error:
        read_state(tmp_path / "w.pkl")
    assert "\n" not in str(error.value) and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", b"PK\x03\x04" + bytes(100), b"\x80\x02."])
def test_what_is_no_weights_file_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.pkl").write_bytes(data)
    with pytest.raises(DataError, match="does not hold plain weights") as error:
        read_state(tmp_path / "w.pkl")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}])
def test_weights_of_another_form_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pkl")
    with pytest.raises(DataError, match="expected the tensors of L2CS-Net"):
        read_state(tmp_path / "w.pkl")


def test_other_weights_than_the_pinned_are_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(hollow_state(), tmp_path / L2CS.weights[0].name)
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(DataError, match=r"is not the published L2CSNet_gaze360\.pkl"):
        L2CS()


def test_missing_weights_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "1")
    with pytest.raises(DataError, match=r"drive\.google\.com.*DFAD_BENCH_WEIGHTS"):
        L2CS()
