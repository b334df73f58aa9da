"""Published weights, fetched from a web server on this machine that does all that goes wrong with web servers."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from dfad_bench import weights as weights_module
from dfad_bench.errors import DataError
from dfad_bench.types import WeightsFile
from dfad_bench.weights import fetch, fetch_any, find, forbid_downloads, joint_sha256

BODY = b"weights" * 1000


@dataclass
class Server:
    """A web server on this machine and the paths it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)
    before_body: Callable[[], object] = field(default=lambda: None)
    """Called for every file, after its header was sent."""

    def weights(self, path: str = "good.bin", body: bytes = BODY, name: str = "toy.bin") -> WeightsFile:
        return WeightsFile(
            name=name,
            url=f"{self.url}/{path}",
            sha256=hashlib.sha256(body).hexdigest(),
            bytes=len(body),
            licence="none",
            training_data="none",
        )


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``/good.bin`` and what is wrong with it: ``/to/ADDRESS`` redirects there, ``/status/404`` is that answer."""

    told: Server

    def do_GET(self) -> None:
        self.told.asked.append(self.path)
        _, what, *parts = self.path.split("/", 2)
        if what == "to":
            self.send_response(302)
            self.send_header("Location", parts[0])
            self.end_headers()
        elif what == "status":
            self.send_error(int(parts[0]))
        else:
            self.send_file(what)

    def send_file(self, name: str) -> None:
        body = {"wrong.bin": BODY[::-1], "endless.bin": BODY * 3, "short.bin": BODY[:-9], "cut.bin": BODY[:-9]}.get(
            name, BODY
        )
        self.send_response(200)
        if name != "unmeasured.bin":
            self.send_header("Content-Length", str(len(BODY if name == "cut.bin" else body)))
        self.end_headers()
        self.wfile.flush()
        self.told.before_body()
        with suppress(OSError):  # where the other side has hung up, as it should
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    class Told(Handler):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told) as running:
        Told.told = Server(f"http://127.0.0.1:{running.server_address[1]}")
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Told.told
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DFAD_BENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("DFAD_BENCH_OFFLINE", "")
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
    assert fetch(server.weights("to//good.bin")).read_bytes() == BODY
    assert server.asked == ["/to//good.bin", "/good.bin"]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("wrong.bin", "is not the published toy.bin: its sha256 is"),
        ("short.bin", "6991 of 7000 bytes arrived"),
        ("cut.bin", "could not be downloaded"),
        ("endless.bin", "more than 7000 bytes arrived"),
        ("status/404", "404"),
        ("status/503", "503"),
        ("to//to//to//status/410", "410"),
        ("to/file:///etc/passwd", "file:///etc/passwd' is not allowed"),
        ("to/data:,weights", "data:,weights' is not allowed"),
        ("to/http:", "could not be downloaded"),
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


def test_a_redirect_out_of_the_web_is_not_followed(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        with pytest.raises(DataError) as error:
            fetch(server.weights(f"to/ftp://127.0.0.1:{elsewhere.getsockname()[1]}/good.bin"))
        assert "\n" not in str(error.value) and _contents(cache) == []
        elsewhere.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has called
            elsewhere.accept()


def test_a_redirect_in_a_circle_is_given_up(server: Server, cache: Path) -> None:
    weights = server.weights("circle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "send_file", lambda handler, name: _redirect(handler, f"/{name}"))
        with pytest.raises(DataError, match="redirect") as error:
            fetch(weights)
    assert "\n" not in str(error.value) and _contents(cache) == []


def _redirect(handler: http.server.BaseHTTPRequestHandler, where: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", where)
    handler.end_headers()


def test_a_server_that_stalls_is_given_up(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "_TIMEOUT", 0.1)
    over = threading.Event()
    server.before_body = lambda: over.wait(10)
    try:
        with pytest.raises(DataError, match="timed out") as error:
            fetch(server.weights())
    finally:
        over.set()
    assert "\n" not in str(error.value) and _contents(cache) == []


@pytest.mark.parametrize("path", ["good.bin", "unmeasured.bin"])
def test_weights_of_unpublished_size_are_downloaded_whole(server: Server, cache: Path, path: str) -> None:
    progress: list[tuple[int, int | None]] = []
    fetch(replace(server.weights(path), bytes=None), on_progress=lambda *numbers: progress.append(numbers))
    assert (cache / "toy.bin").read_bytes() == BODY
    assert progress[-1] == (len(BODY), len(BODY) if path == "good.bin" else None)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("cut.bin", "6991 of 7000 bytes arrived"),
        ("short.bin", "is not the published toy.bin"),
        ("endless.bin", "more than 10000 bytes arrived"),
    ],
)
def test_a_download_of_unpublished_size_is_judged_by_promise_limit_and_hash(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, path: str, complaint: str
) -> None:
    monkeypatch.setattr(weights_module, "_MOST", 10_000)
    with pytest.raises(DataError) as error:
        fetch(replace(server.weights(path), bytes=None))
    assert complaint in str(error.value) and "\n" not in str(error.value)
    assert _contents(cache) == []


def test_an_endless_download_is_hung_up_on_rather_than_stored(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "_CHUNK", 1000)
    arrived: list[int] = []
    with pytest.raises(DataError, match="more than 7000 bytes"):
        fetch(server.weights("endless.bin"), on_progress=lambda so_far, _: arrived.append(so_far))
    assert len(BODY) < arrived[-1] <= len(BODY) + 1000


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


def test_the_switch_for_downloads_stops_before_the_network(server: Server, cache: Path) -> None:
    forbid_downloads()
    with pytest.raises(DataError, match="downloads are off"):
        fetch(server.weights())
    assert server.asked == [] and not cache.exists()
    cache.mkdir(parents=True)
    (cache / "toy.bin").write_bytes(BODY)
    assert fetch(server.weights()) == cache / "toy.bin"


def test_a_refused_file_is_told_why(server: Server, cache: Path) -> None:
    found = hashlib.sha256(BODY[::-1]).hexdigest()
    weights = replace(server.weights("wrong.bin"), refused={"00000000": "not this", found[:8]: "its axes are swapped"})
    with pytest.raises(DataError, match="refused: its axes are swapped") as error:
        fetch(weights)
    assert "not this" not in str(error.value) and "\n" not in str(error.value)
    assert _contents(cache) == []


def test_a_damaged_file_in_the_cache_is_refused_rather_than_replaced(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.bin").write_bytes(BODY[:-1])
    with pytest.raises(DataError, match="Remove it") as error:
        fetch(server.weights())
    assert str(cache / "toy.bin") in str(error.value) and server.asked == []
    (cache / "toy.bin").unlink()
    assert fetch(server.weights()).read_bytes() == BODY


def test_of_interchangeable_files_the_first_at_hand_is_taken(server: Server, cache: Path) -> None:
    first, second, third = (server.weights(name=f"{number}.bin") for number in "123")
    cache.mkdir(parents=True)
    for name in ("3.bin", "2.bin"):
        (cache / name).write_bytes(BODY)
    assert fetch_any((first, second, third)) == (cache / "2.bin", second)
    assert server.asked == [] and find(first) is None and find(third) == cache / "3.bin"


def test_of_interchangeable_files_none_at_hand_the_first_is_downloaded(server: Server, cache: Path) -> None:
    first, second = (server.weights(name=f"{number}.bin") for number in "12")
    assert fetch_any((first, second)) == (cache / "1.bin", first)
    assert _contents(cache) == ["1.bin"] and server.asked == ["/good.bin"]


def test_the_hash_of_one_file_is_its_own_and_of_several_depends_on_all_and_their_order() -> None:
    one, two = (replace(Server("").weights(), sha256=digit * 64) for digit in "ab")
    assert joint_sha256([one]) == one.sha256
    assert joint_sha256([one, two]) == hashlib.sha256(f"{'a' * 64}\n{'b' * 64}".encode()).hexdigest()
    assert joint_sha256([two, one]) != joint_sha256([one, two])


def test_two_processes_that_fetch_at_once_leave_one_good_file(server: Server, cache: Path) -> None:
    together = threading.Barrier(2)
    server.before_body = lambda: together.wait(30)  # neither gets a byte before both have asked
    code = (
        "import json, sys\n"
        "from dfad_bench.types import WeightsFile\n"
        "from dfad_bench.weights import fetch\n"
        "print(fetch(WeightsFile(**json.loads(sys.argv[1]))))"
    )
    arguments = [sys.executable, "-c", code, json.dumps(asdict(server.weights()))]
    running = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    told = [process.communicate(timeout=60)[0].strip() for process in running]
    assert told == [str(cache / "toy.bin")] * 2 and [process.returncode for process in running] == [0, 0]
    assert server.asked == ["/good.bin"] * 2
    assert _contents(cache) == ["toy.bin"] and (cache / "toy.bin").read_bytes() == BODY


def test_a_cache_that_cannot_be_written_is_told_in_one_line(server: Server, cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True, exist_ok=True)
    cache.parent.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(DataError) as error:
        fetch(server.weights())
    assert str(cache) in str(error.value) and "\n" not in str(error.value)


def test_what_is_cached_can_be_read_by_others(server: Server) -> None:
    assert fetch(server.weights()).stat().st_mode & 0o444 == 0o444
