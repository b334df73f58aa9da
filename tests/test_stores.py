"""Runs on a folder or an object store: what is brought and sent, and that one machine alone does a piece of work."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dfad_bench.claims import Claim, ClaimedElsewhere, Place
from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.train import CHECKPOINT, HISTORY, WEIGHTS
from dfad_bench.shared_runs import TrainingSender, bring_result, bring_work, send_run
from dfad_bench.stores import Store
from tests.object_store import BUCKET, served


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment in which an S3 is found."""
    with served() as environment:
        yield environment


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind."""
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    if request.param == "folder":
        return Store(str(tmp_path / "runs"))
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}/runs")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}/runs")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store with a mirror."""
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path / "home"))
    return Store(f"memory://{uuid.uuid4().hex}/runs")


def put(store: Store, relative: str, data: bytes) -> None:
    store.fs.pipe_file(store.path(relative), data)


# --- stores --------------------------------------------------------------------------------------------------------


def test_a_folder_is_its_own_mirror(tmp_path: Path) -> None:
    for url in ("runs", str(tmp_path), f"file://{tmp_path}"):
        store = Store(url)
        assert store.is_here
        assert store.folder == Path(url.removeprefix("file://"))


def test_two_prefixes_have_two_mirrors_below_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFAD_BENCH_HOME", str(tmp_path))
    folders = {Store(url).folder for url in ("s3://a/b-c", "s3://a/b/c", "s3://a-b/c")}
    assert len(folders) == 3
    assert all(folder.parent == tmp_path / "runs" for folder in folders)


def test_files_are_brought_and_sent_as_they_are(remote: Store) -> None:
    put(remote, "demo/chance/a.bin", b"there")
    assert remote.files("demo") == ["chance/a.bin"]
    assert remote.bring("demo/chance/a.bin").read_bytes() == b"there"
    (remote.folder / "demo" / "chance" / "b.bin").write_bytes(b"here")
    remote.send("demo/chance/b.bin")
    assert remote.files("") == ["demo/chance/a.bin", "demo/chance/b.bin"]
    remote.remove("demo/chance")
    assert remote.files("demo") == []
    remote.remove("demo/chance")


def test_a_file_that_breaks_off_is_not_there(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(remote, "a.bin", b"new")
    remote.folder.mkdir(parents=True)
    (remote.folder / "a.bin").write_bytes(b"old")

    def breaks_off(path: str, here: str, **_: Any) -> None:
        Path(here).write_bytes(b"n")
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(remote.fs, "get_file", breaks_off)
    with pytest.raises(DataError, match=r"cannot be read \(ConnectionError: reset by peer\).*to go on"):
        remote.bring("a.bin")
    assert [path.read_bytes() for path in remote.folder.iterdir()] == [b"old"]


def test_names_that_lead_out_of_the_prefix_or_are_hidden_are_not_seen(remote: Store) -> None:
    for name in ("good.bin", "../evil.bin", "a/../../evil.bin", "a\\..\\evil.bin", ".claim-0", "a/.hidden/x"):
        remote.fs.store[f"{remote.path('demo')}/{name}"] = remote.fs.open(remote.path("x"), "wb")
    assert remote.files("demo") == ["good.bin"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://a", "Protocol not known: nonsense"),
        ("simplecache::s3://a/b", "is a chain of stores"),
    ],
)
def test_a_url_that_nothing_can_open_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Store(url).check()


def test_without_the_package_of_a_store_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", absent)
    with pytest.raises(UsageError, match=r"pip install 'dfad-bench\[s3\]'"):
        Store("s3://somewhere/else").check()


def test_a_store_that_does_not_answer_is_told_in_a_line(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(remote.fs, "find", lost)
    with pytest.raises(DataError, match=r"Access Denied.*credentials"):
        remote.check()


# --- claims --------------------------------------------------------------------------------------------------------


def claim(place: Place, worklist: str = "", folder: str = "") -> Any:
    return place.claimed("key", folder or uuid.uuid4().hex, worklist or uuid.uuid4().hex)


def leave(store: Store, name: str, number: int, age: float, **of: str) -> None:
    """Leave a claim as a machine does that died so many seconds ago."""
    told = {"key": "key", "host": "elsewhere", "folder": "/x", "worklist": "theirs"} | of
    left = Claim(process=1, renewed=time.time() - age, **told)
    if store.is_here:
        store.folder.mkdir(parents=True, exist_ok=True)
    put(store, f".{name}.claim-{number}", left.model_dump_json().encode())


def claims(store: Store) -> list[str]:
    store.fs.invalidate_cache()
    try:
        return sorted(name.rpartition("/")[2] for name in store.fs.ls(store.path("").rstrip("/"), detail=False))
    except FileNotFoundError:
        return []


def at_once(do: Callable[[], None], times: int = 6) -> list[str]:
    """Return how each of several threads ended that did something at one moment."""
    barrier, ends = threading.Barrier(times), list[str]()

    def one() -> None:
        barrier.wait()
        try:
            do()
        except ClaimedElsewhere:
            ends.append("elsewhere")
        else:
            ends.append("held")

    threads = [threading.Thread(target=one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ends)


def test_of_many_one_holds_a_place_and_leaves_nothing_behind(store: Store) -> None:
    place, over = Place(store.fs, store.path("seed-0")), threading.Event()
    if place.fs.protocol == "memory":
        pytest.skip("a store in memory is one process's, and looks before it writes")
    counted = threading.Semaphore(0)

    def hold() -> None:
        try:
            with claim(place):
                over.wait(30)
        except ClaimedElsewhere:
            counted.release()
            raise

    thread = threading.Thread(target=lambda: [counted.acquire() for _ in range(5)] and over.set())
    thread.start()
    assert at_once(hold) == ["elsewhere"] * 5 + ["held"]
    thread.join()
    assert claims(store) == []


def test_who_holds_a_place_is_told(store: Store) -> None:
    place = Place(store.fs, store.path("seed-0"))
    assert place.holder("mine") is None
    leave(store, "seed-0", 0, age=5)
    assert place.holder("mine") == "elsewhere, process 1"
    with pytest.raises(ClaimedElsewhere, match="elsewhere, process 1"), claim(place):
        pass
    assert Place(store.fs, store.path("seed-00")).holder("mine") is None


def test_a_dead_machines_place_is_taken_over_by_one(store: Store) -> None:
    leave(store, "seed-0", 3, age=700)
    place, over = Place(store.fs, store.path("seed-0")), threading.Event()
    assert place.holder("mine") is None
    with claim(place) as is_ours:
        assert claims(store) == [".seed-0.claim-3", ".seed-0.claim-4"]
        assert is_ours()
        assert at_once(lambda: claim(place).__enter__()) == ["elsewhere"] * 6
        over.set()
    assert claims(store) == []


def test_a_machine_that_was_only_asleep_knows_that_it_was_taken_over_and_removes_nothing(store: Store) -> None:
    place = Place(store.fs, store.path("seed-0"))
    with claim(place) as is_ours:
        assert is_ours()
        leave(store, "seed-0", 1, age=0)
        assert not is_ours()
    assert claims(store) == [".seed-0.claim-0", ".seed-0.claim-1"]


def test_a_claim_is_renewed_as_long_as_it_is_held(store: Store) -> None:
    place, beats = Place(store.fs, store.path("seed-0"), stale=2.0), list[float]()
    with place.claimed("key", "/f", "mine", lambda: beats.append(time.monotonic())):
        time.sleep(3)
        assert place.holder("theirs") is not None
    assert len(beats) > 3


def test_a_renewal_that_fails_is_tried_again(remote: Store, caplog: pytest.LogCaptureFixture) -> None:
    place, beats = Place(remote.fs, remote.path("seed-0"), stale=1.0), list[int]()

    def meanwhile() -> None:
        beats.append(len(beats))
        if len(beats) == 1:
            raise ConnectionError("reset by peer")

    with caplog.at_level(logging.WARNING, "dfad_bench.claims"), place.claimed("key", "/f", "mine", meanwhile):
        time.sleep(0.8)
    assert len(beats) > 1
    assert "reset by peer" in caplog.text


def test_a_claim_that_is_half_written_is_somebodys_until_it_is_stale(store: Store) -> None:
    if store.is_here:
        store.folder.mkdir(parents=True)
    put(store, ".seed-0.claim-0", b'{"key": "12')
    with pytest.raises(ClaimedElsewhere, match="an unknown machine"), claim(Place(store.fs, store.path("seed-0"))):
        pass
    time.sleep(2.1)  # S3 tells times in seconds
    assert Place(store.fs, store.path("seed-0"), stale=1.0).holder("mine") is None


def test_what_a_dead_worker_of_the_same_list_left_is_free_at_once(store: Store) -> None:
    leave(store, "seed-0", 0, age=1, worklist="mine")
    place = Place(store.fs, store.path("seed-0"))
    assert place.holder("mine") is None
    with claim(place, worklist="mine"):
        pass
    assert claims(store) == []


def test_what_a_killed_process_left_for_a_folder_whose_lock_we_hold_is_free_at_once(store: Store) -> None:
    place = Place(store.fs, store.path("seed-0"))
    leave(store, "seed-0", 0, age=1, host=socket.gethostname(), folder="/one/folder")
    with pytest.raises(ClaimedElsewhere), claim(place, folder="/another/folder"):
        pass
    with claim(place, folder="/one/folder"):
        pass
    assert claims(store) == []


# --- runs ----------------------------------------------------------------------------------------------------------


def files(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / {"history": HISTORY, "checkpoint": CHECKPOINT, "weights": WEIGHTS}[name]).write_bytes(data)


def test_a_result_is_sent_last(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    here = remote.folder / "demo" / "chance" / "seed-0"
    here.mkdir(parents=True)
    for name in ("result.json", "a.txt", "predictions.parquet", "z.txt", ".z.part"):
        (here / name).write_text(name, encoding="utf-8")
    (here / "link.txt").symlink_to(here / "a.txt")
    put(remote, f"demo/chance/seed-0/{CHECKPOINT}", b"of a training that is over")
    sent: list[str] = []
    whole = type(remote.fs).put_file
    monkeypatch.setattr(
        remote.fs, "put_file", lambda a, b, **k: (sent.append(b.rpartition("/")[2]), whole(remote.fs, a, b, **k))
    )
    send_run(remote, "demo/chance/seed-0")
    assert sent == ["a.txt", "predictions.parquet", "z.txt", "result.json"]
    assert CHECKPOINT not in remote.files("demo/chance/seed-0")


def test_a_result_without_its_predictions_is_never_taken_for_one(
    remote: Store, caplog: pytest.LogCaptureFixture
) -> None:
    put(remote, "demo/chance/seed-0/result.json", json.dumps({"schema_version": 2}).encode())
    with caplog.at_level(logging.WARNING, "dfad_bench.shared_runs"):
        bring_result(remote, "demo/chance/seed-0")
    assert not (remote.folder / "demo" / "chance" / "seed-0" / "result.json").exists()
    assert "without the predictions" in caplog.text


@pytest.mark.parametrize(("theirs", "ours", "taken"), [(3, 0, True), (3, 2, True), (2, 2, False), (1, 2, False)])
def test_of_two_trainings_the_farther_one_goes_on(remote: Store, theirs: int, ours: int, taken: bool) -> None:
    folder = "demo/mine/seed-0"
    put(remote, f"{folder}/{CHECKPOINT}", b"theirs")
    put(remote, f"{folder}/{HISTORY}", b"{}\n" * theirs)
    here = remote.folder / folder
    if ours:
        files(here, checkpoint=b"ours", history=b"{}\n" * ours)
    bring_work(remote, folder)
    assert (here / CHECKPOINT).read_bytes() == (b"theirs" if taken else b"ours")


def test_a_training_is_sent_while_it_runs_each_checkpoint_once(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    here, sender = remote.folder / "demo" / "mine" / "seed-0", TrainingSender(remote, "demo/mine/seed-0")
    sender.send()
    files(here, checkpoint=b"1", history=b"{}\n")
    sent: list[str] = []
    send = Store.send
    monkeypatch.setattr(Store, "send", lambda *given: (sent.append(given[1].rpartition("/")[2]), send(*given))[1])
    sender.send()
    sender.send()
    assert sent == [CHECKPOINT, HISTORY]
    (here / "new").write_bytes(b"2")
    (here / "new").replace(here / CHECKPOINT)
    sender.send()
    assert sent == [CHECKPOINT, HISTORY, CHECKPOINT]
    assert remote.fs.cat_file(remote.path(f"demo/mine/seed-0/{CHECKPOINT}")) == b"2"
    assert sorted(path.name for path in here.iterdir()) == sorted([CHECKPOINT, HISTORY])
    sender.end()
    (here / HISTORY).write_bytes(b"{}\n{}\n")
    sender.send()
    assert sent == [CHECKPOINT, HISTORY, CHECKPOINT]
