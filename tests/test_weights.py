from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dfad_bench.errors import DataError
from dfad_bench.types import WeightsFile
from dfad_bench.weights import fetch

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
