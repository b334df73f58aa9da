from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.weights import (
    fetch,
    load_backbone,
    load_pickled_state,
    load_state,
    load_weights,
    read_metadata,
    save_weights,
)
from dfad_bench.types import ModelSpec, WeightsFile
from tests.modelling.builders import SHADE

BODY = b"weights" * 1000


@dataclass
class Server:
    """A web server on this machine and the paths it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)

    def weights(self, path: str = "good.bin", body: bytes = BODY) -> WeightsFile:
        return WeightsFile(
            name="toy.bin",
            url=f"{self.url}/{path}",
            sha256=hashlib.sha256(body).hexdigest(),
            bytes=len(body),
            licence="none",
            training_data="none",
        )


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            if self.path == "/moved.bin":
                self.send_response(302)
                self.send_header("Location", "/good.bin")
                self.end_headers()
                return
            if self.path == "/absent.bin":
                self.send_error(404)
                return
            body = {"/good.bin": BODY, "/wrong.bin": BODY[::-1], "/endless.bin": BODY * 3}.get(self.path, BODY[:-9])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) if self.path != "/cut.bin" else len(BODY)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        told = Server(f"http://127.0.0.1:{running.server_address[1]}")
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DFAD_BENCH_WEIGHTS", raising=False)
    return tmp_path / "home" / "weights"


def _contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_weights_are_downloaded_once_and_then_found_in_the_cache(server: Server, cache: Path) -> None:
    progress: list[tuple[int, int]] = []
    path = fetch(server.weights(), on_progress=lambda *numbers: progress.append(numbers))
    assert path == cache / "toy.bin" and path.read_bytes() == BODY
    assert progress[-1] == (len(BODY), len(BODY))
    assert fetch(server.weights(), offline=True) == path
    assert server.asked == ["/good.bin"] and _contents(cache) == ["toy.bin"]


def test_a_redirect_is_followed(server: Server) -> None:
    assert fetch(server.weights("moved.bin")).read_bytes() == BODY
    assert server.asked == ["/moved.bin", "/good.bin"]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("wrong.bin", "is not the published toy.bin: its sha256 is"),
        ("short.bin", "6991 of 7000 bytes arrived"),
        ("cut.bin", "could not be downloaded"),
        ("endless.bin", "more than 7000 bytes arrived"),
        ("absent.bin", "404"),
    ],
)
def test_a_download_that_is_not_the_published_file_leaves_nothing(
    server: Server, cache: Path, path: str, complaint: str
) -> None:
    with pytest.raises(DataError) as error:
        fetch(server.weights(path))
    assert complaint in str(error.value) and server.url in str(error.value)
    assert "\n" not in str(error.value)
    assert _contents(cache) == []


def test_an_interrupted_download_leaves_nothing(server: Server, cache: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.weights(), on_progress=interrupt)
    assert _contents(cache) == []


def test_no_server_and_offline_say_the_address_and_where_to_put_the_file(cache: Path) -> None:
    weights = Server("http://127.0.0.1:1").weights()
    for offline in (False, True):
        with pytest.raises(DataError) as error:
            fetch(weights, offline)
        for part in (weights.url, str(cache), "DFAD_BENCH_WEIGHTS"):
            assert part in str(error.value)


def test_an_address_that_is_not_of_the_web_is_refused() -> None:
    with pytest.raises(DataError, match="not an http or https address"):
        fetch(replace(Server("file:///etc").weights("passwd")))


def test_the_users_own_folder_comes_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "toy.bin").write_bytes(BODY)
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(own))
    assert fetch(server.weights()) == own / "toy.bin"
    (own / "toy.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"own/toy\.bin is not the published toy\.bin"):
        fetch(server.weights())
    assert server.asked == []


def test_saved_weights_load_exactly_and_their_bytes_depend_on_the_state_alone(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    metadata = {"classes": ["real", "ddim"], "seed": 1, "a": 2.5}
    save_weights(module, tmp_path / "a.safetensors", metadata)
    save_weights(module, tmp_path / "b.safetensors", dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert load_weights(other, tmp_path / "a.safetensors") == metadata == read_metadata(tmp_path / "b.safetensors")
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key])


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    def build() -> nn.Module:
        tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        tied[1].weight = tied[0].weight
        return tied

    module, other = build(), build()
    save_weights(module, tmp_path / "tied.safetensors", {})
    load_weights(other, tmp_path / "tied.safetensors")
    assert torch.equal(other[1].weight, module[0].weight)  # type: ignore[index]


def test_weights_that_do_not_fit_end_the_run_naming_the_keys_and_leave_the_module_untouched(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False)), path, {})
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(2, affine=False, track_running_stats=True))
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(DataError) as error:
        load_weights(module, path)
    for told in ("missing 1.num_batches_tracked", "unexpected 1.weight", "of another shape 0.bias [2] for [4]"):
        assert told in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_only_the_named_keys_may_be_missing(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    load_state(module, {"weight": torch.zeros(2, 3)}, tmp_path, but_for=["bias"])
    assert not module.weight.any() and module.bias.any()
    with pytest.raises(DataError, match="unexpected bias"):
        load_state(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path, but_for=["bias"])
    with pytest.raises(DataError, match="missing weight"):
        load_state(module, {}, tmp_path, but_for=["bias"])


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match="There is no weights file"):
        load_weights(nn.Linear(1, 1), path)
    path.write_bytes(b"\x80\x02 pickle")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_weights(nn.Linear(1, 1), path)


class _Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"weight": _Malice()}, path)
    with pytest.raises(DataError, match=r"evil\.pth cannot be read as PyTorch weights"):
        load_pickled_state(path)
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("contents", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_damaged_pickle_is_refused_in_one_line(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(contents)
    with pytest.raises(DataError) as error:
        load_pickled_state(path)
    assert "\n" not in str(error.value)


def test_a_state_dict_is_read_and_anything_else_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "state.pth")
    assert load_pickled_state(tmp_path / "state.pth")["weight"].tolist() == [1, 1]
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(DataError, match="holds a Tensor"):
        load_pickled_state(tmp_path / "tensor.pth")


def test_a_backbone_must_be_offered_and_its_weights_must_be_had(cache: Path) -> None:
    def fill(module: nn.Module, path: Path) -> None:
        raise AssertionError("there is nothing to fill from")

    weights = Server("http://127.0.0.1:1").weights()
    spec: ModelSpec = replace(SHADE, backbone_weights={"imagenet": weights}, load_backbone=fill)
    with pytest.raises(UsageError, match=r"shade offers no backbone weights 'imagnet'\. Did you mean 'imagenet'\?"):
        load_backbone(nn.Linear(1, 1), "shade", spec, "imagnet")
    with pytest.raises(UsageError, match="Offered: none"):
        load_backbone(nn.Linear(1, 1), "shade", SHADE, "imagenet")
    with pytest.raises(DataError, match="downloads are off"):
        load_backbone(nn.Linear(1, 1), "shade", spec, "imagenet", offline=True)
