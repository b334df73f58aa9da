"""What of a run goes between an object store and its mirror, and in which order, so that nobody takes half of it for whole."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError
from dfad_bench.evaluation import PREDICTIONS, RESULT
from dfad_bench.modelling.train import CHECKPOINT, HISTORY, WEIGHTS
from dfad_bench.records.results import Result, read_result
from dfad_bench.robustness import PERTURBED
from dfad_bench.run import is_whole
from dfad_bench.stores import Store

log = logging.getLogger(__name__)


def bring_result(store: Store, folder: str) -> None:
    """Bring the result in a folder of the store, and its predictions; keep neither where they do not belong together."""
    if not store.is_here:
        _bring_result(store, folder, store.files(folder))


def bring_levels(store: Store, folder: str, anew: bool = True) -> None:
    """Bring the results of all perturbed levels of a run; not ``anew``, those that are whole in the mirror are left."""
    if store.is_here:
        return
    top = f"{folder}/{PERTURBED}"
    files = store.files(top)
    for name in files:
        level, _, file = name.rpartition("/")
        here = store.folder / top / level
        if file == RESULT and "/" not in level and (anew or _whole(here) is None):
            _bring_result(store, f"{top}/{level}", [each.removeprefix(f"{level}/") for each in files])


def bring_results(store: Store, folder: str) -> None:
    """Bring what all runs in a protocol's folder found, those of other calls and machines too; not their levels."""
    if store.is_here:
        return
    files = store.files(folder)
    for name in files:
        parts = name.split("/")
        if len(parts) == 3 and parts[2] == RESULT and _whole(store.folder / folder / parts[0] / parts[1]) is None:
            run = f"{parts[0]}/{parts[1]}"
            there = [each.removeprefix(f"{run}/") for each in files if each.startswith(f"{run}/")]
            _bring_result(store, f"{folder}/{run}", there)


def bring_work(store: Store, folder: str) -> None:
    """Bring all that a machine needs to go on with a run: its result and weights, or how far its training has come."""
    if store.is_here:
        return
    there, here = store.files(folder), store.folder / folder
    _bring_result(store, folder, there)
    result = _whole(here)
    if result is None:
        _bring_training(store, folder, there)
    elif WEIGHTS in there and not _has_weights(here, result):
        store.bring(f"{folder}/{WEIGHTS}")  # whoever loads them looks at their hash


def send_run(store: Store, folder: str) -> None:
    """Send the files of a run, or of one of its levels; the result last, since it makes all the others count."""
    if store.is_here:
        return
    here = store.folder / folder
    names = [path.name for path in sorted(here.iterdir()) if _is_sent(path) and path.name != RESULT]
    for name in names:
        store.send(f"{folder}/{name}")
    if (here / RESULT).is_file():
        store.send(f"{folder}/{RESULT}")
        store.remove(f"{folder}/{CHECKPOINT}")


class TrainingSender:
    """Sends a training's checkpoint whenever there is a new one, so that another machine can go on with it."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._sent: dict[str, int] = {}
        self._sending, self._is_over = threading.Lock(), False

    def end(self) -> None:
        """Wait for what is being sent, and send nothing more: the training is over, and its checkpoint will be removed."""
        with self._sending:
            self._is_over = True

    def send(self) -> None:
        """Send what is new since the last call; of a file that is being replaced, the old one as it was or the new one."""
        with self._sending:
            if not (self._is_over or self._store.is_here):
                self._send()

    def _send(self) -> None:
        here = self._store.folder / self._folder
        for name in (CHECKPOINT, WEIGHTS, HISTORY):  # the history last: it says how far the checkpoint has come
            held = here / f".{name}.sent"
            held.unlink(missing_ok=True)
            try:
                os.link(here / name, held)
            except FileNotFoundError:
                continue
            try:
                if (made := held.stat().st_mtime_ns) != self._sent.get(name):
                    self._store.send(f"{self._folder}/{name}", held)
                    self._sent[name] = made
            finally:
                held.unlink()


def _bring_result(store: Store, folder: str, there: list[str]) -> None:
    if RESULT not in there:
        return
    here = store.folder / folder
    path = store.bring(f"{folder}/{RESULT}")
    if _whole(here) is None and PREDICTIONS in there:
        store.bring(f"{folder}/{PREDICTIONS}")
    if _whole(here) is None:
        log.warning("%s/%s holds a result without the predictions it was computed from.", store.url, folder)
        path.unlink(missing_ok=True)


def _bring_training(store: Store, folder: str, there: list[str]) -> None:
    """Bring the training in the store where it has come farther than the mirror's."""
    here = store.folder / folder
    if WEIGHTS in there and not (here / WEIGHTS).is_file():
        store.bring(f"{folder}/{WEIGHTS}")
    if CHECKPOINT not in there or HISTORY not in there:
        return
    ours = _epochs(here) if (here / CHECKPOINT).is_file() else 0
    store.bring(f"{folder}/{HISTORY}")
    if _epochs(here) > ours:
        store.bring(f"{folder}/{CHECKPOINT}")


def _epochs(folder: Path) -> int:
    history = folder / HISTORY
    return len(history.read_bytes().splitlines()) if history.is_file() else 0


def _whole(folder: Path) -> Result | None:
    """Return the result in a folder whose predictions are those it was computed from, None for anything else."""
    if not (folder / RESULT).is_file():
        return None
    try:
        result = read_result(folder / RESULT)
    except DataError:
        return None
    return result if is_whole(folder, result) else None


def _has_weights(folder: Path, result: Result) -> bool:
    weights = folder / WEIGHTS
    return weights.is_file() and file_sha256(weights) == result.model.weights_sha256


def _is_sent(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")
