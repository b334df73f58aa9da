"""Who is at work on what, where several machines share a folder or an object store: a file that one of them alone creates."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from fsspec import AbstractFileSystem
from pydantic import ValidationError

from dfad_bench.config import Strict
from dfad_bench.errors import DfadError

log = logging.getLogger(__name__)

STALE = 600.0
"""Seconds without a renewal after which a claim belongs to a dead machine. Machines' clocks must agree better than that."""
_BEATS = {"hf": 3}
_MOST_BEATS = 10
"""How often a claim is renewed before it would be stale: where a renewal is a commit, the Hub counts them by the hour."""


class Claim(Strict):
    """The contents of a claim.

    key: of the work; host, process: who does it; folder: where on that host; worklist: of which call, whichever of its
    workers; renewed: seconds since 1970 by the host's clock.
    """

    key: str
    host: str
    process: int
    folder: str
    worklist: str
    renewed: float

    @property
    def told(self) -> str:
        """Who holds it, for a table."""
        return f"{self.host}, process {self.process}"


class ClaimedElsewhere(DfadError):
    """Somebody else, who is alive as far as one can tell, is at work on it; the message says who."""


@dataclass(frozen=True, slots=True)
class Place:
    """What can be claimed: a folder, by its path on a file system. The claim lies beside it, as ``.<name>.claim-<number>``.

    A claim that is stale is taken over by the creation of the next number, which again succeeds once, wherever the file
    system creates files exclusively: on disks and on S3 (a conditional PUT). The Hub does not: what was written is read
    back, so that of two machines at the same moment the later one goes on, and seldom both do.
    """

    fs: AbstractFileSystem
    path: str
    stale: float = STALE

    def holder(self, worklist: str) -> str | None:
        """Return who holds a place, None where it is free or its claim is stale, or left behind by a worker of this list."""
        _, found = self._newest()
        return None if found is None or self._is_dead(found, worklist) else found.told

    @contextmanager
    def claimed(
        self, key: str, folder: str, worklist: str, meanwhile: Callable[[], None] = lambda: None
    ) -> Iterator[Callable[[], bool]]:
        """Hold a place for the length of a ``with``, and yield a function that says whether it is still ours.

        The caller holds the lock of ``folder`` on this host, so that a claim by another process for that folder on this host
        was left behind by one that was killed. A thread renews the claim, and calls ``meanwhile`` each time. Raises
        ClaimedElsewhere where somebody else holds it.
        """

        def now() -> Claim:
            host, process = socket.gethostname(), os.getpid()
            return Claim(key=key, host=host, process=process, folder=folder, worklist=worklist, renewed=time.time())

        number, found = self._newest()
        if found is not None and not (
            self._is_dead(found, worklist) or (found.host, found.folder) == (now().host, folder)
        ):
            raise ClaimedElsewhere(found.told)
        mine = number + 1
        self._create(mine, now())
        stop = threading.Event()
        renewing = functools.partial(self._renew, mine, now, meanwhile, stop)
        thread = threading.Thread(target=renewing, name="claim", daemon=True)
        thread.start()
        try:
            yield lambda: self._newest()[0] == mine
        finally:
            stop.set()
            thread.join()
            self._remove(mine)

    def _path(self, number: int) -> str:
        place = PurePosixPath(self.path)
        return f"{place.parent}/.{place.name}.claim-{number}"

    def _newest(self) -> tuple[int, Claim | None]:
        """Return the highest number and its claim; -1 and None where there is none."""
        prefix = self._path(0).removesuffix("0")
        self.fs.invalidate_cache()  # others write too
        try:
            names = self.fs.ls(prefix.rpartition("/")[0], detail=False)
        except FileNotFoundError:
            return -1, None
        ends = [str(name).rpartition("/")[2].removeprefix(PurePosixPath(prefix).name) for name in names]
        number = max((int(end) for end in ends if end.isascii() and end.isdigit()), default=-1)
        return number, None if number < 0 else self._read(number)

    def _read(self, number: int) -> Claim | None:
        """Return a claim, None where it has just been removed."""
        path = self._path(number)
        try:
            text = self.fs.cat_file(path)
            return _read(text) or _somebodys(self.fs.modified(path).timestamp())
        except FileNotFoundError:
            return None

    def _is_dead(self, claim: Claim, worklist: str) -> bool:
        return claim.worklist == worklist or time.time() - claim.renewed > self.stale

    def _create(self, number: int, claim: Claim) -> None:
        path = self._path(number)
        try:
            with self.fs.open(path, "xb") as file:
                file.write(claim.model_dump_json().encode())
        except FileExistsError:
            found = self._read(number)
            raise ClaimedElsewhere("another machine" if found is None else found.told) from None
        # where files are not created exclusively, the last one to write holds the place
        found = self._read(number)
        if found is not None and found != claim:
            raise ClaimedElsewhere(found.told)

    def _renew(self, mine: int, now: Callable[[], Claim], meanwhile: Callable[[], None], stop: threading.Event) -> None:
        protocol = self.fs.protocol if isinstance(self.fs.protocol, str) else self.fs.protocol[0]
        while not stop.wait(self.stale / _BEATS.get(protocol, _MOST_BEATS)):
            try:
                if self._newest()[0] != mine:
                    log.warning("%s was taken over by another machine: this one had not renewed its claim.", self.path)
                    return
                self.fs.pipe_file(self._path(mine), now().model_dump_json().encode())
                meanwhile()
            except Exception as error:  # noqa: BLE001 - every store raises its own; the next beat tries again
                log.warning("The claim of %s could not be renewed (%s).", self.path, " ".join(str(error).split()))

    def _remove(self, mine: int) -> None:
        """Remove our claim and those it succeeded, ours last, so that the place is never taken for free before."""
        try:
            if self._newest()[0] != mine:
                return
            for number in range(mine + 1):
                if self.fs.exists(self._path(number)):
                    self.fs.rm_file(self._path(number))
        except Exception as error:  # noqa: BLE001 - every store raises its own; a claim that stays goes stale
            log.warning("The claim of %s could not be removed (%s).", self.path, " ".join(str(error).split()))


def _read(text: bytes) -> Claim | None:
    """Return what a claim says, None where it is half written."""
    try:
        return Claim.model_validate_json(text)
    except ValidationError:
        return None


def _somebodys(modified: float) -> Claim:
    return Claim(key="", host="an unknown machine", process=0, folder="", worklist="", renewed=modified)
