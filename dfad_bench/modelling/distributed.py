"""The ranks of a run: processes that train and test one model together, what each does, and all that they tell each other.

``torchrun`` starts them (``joined``), or Ray Train, which forms their group itself. For one process everything here does
nothing. How a module's parameters lie on the ranks is in ``sharding``; no other file knows ``torch.distributed``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.rendezvous import rendezvous

from dfad_bench.errors import FAILED, DfadError, RankDied

Rows = NDArray[np.int64]
T = TypeVar("T")

_TIMEOUT = timedelta(hours=24)
"""The others wait in a collective while the first rank fetches weights, measures or scores; a rank that died is noticed by
its closed connection, or by torchrun, and never by the clock."""
_GRACE = 5.0
"""Seconds that a rank has to end by itself after torchrun told it to stop; torchrun kills it after 30."""
_TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
_ERROR = "error"
"""The key under which a rank that found an error leaves it for the first one to tell."""


# --- what each rank does -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ranks:
    """The place of this process among those that run one model together; ``local_rank`` counts on its own machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank reads and writes the run's folder and talks to the user."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there is another rank."""
        return self.world_size > 1

    def part_of_each(self, batches: list[Rows]) -> list[Rows]:
        """Return this rank's part of every batch; the parts of a batch differ by one face at most."""
        return [np.array_split(rows, self.world_size)[self.rank] for rows in batches]

    def whole_ones(self, batches: list[Rows], padded: bool = False) -> list[Rows]:
        """Return this rank's batches: batch i is rank i % world_size's, so that every face is shown to one rank, once.

        padded: end with the last batch again where other ranks have one more, for a module that runs on all ranks at
        once; ``owned`` and ``in_order`` leave those answers out.
        """
        own = batches[self.rank :: self.world_size]
        rounds = -(-len(batches) // self.world_size)
        return own + batches[-1:] * (rounds - len(own)) if padded else own

    def owned(self, batches: int) -> int:
        """Return how many of so many whole batches are this rank's."""
        return len(range(self.rank, batches, self.world_size))

    # --- what they tell each other: every rank must make the same calls in the same order ---

    def first_says(self, ask: Callable[[], T]) -> T:
        """Return on every rank what the first one finds, and raise on every rank the error that it meets.

        What it finds must be small, since it is copied to all.
        """
        if not self.are_several:
            return ask()
        answers: list[T] = []
        error = _error_of(lambda: answers.append(ask())) if self.is_first else None
        told: list[Any] = [(answers, _as_told(error))]
        dist.broadcast_object_list(told, src=0, group=_cpu_group(), device=torch.device("cpu"))
        answers, failed = told[0]
        if failed is not None:
            raise _agreed(error or _from_told(failed))
        return answers[0]

    def together(self, do: Callable[[], T]) -> T:
        """Do something on every rank and return this one's answer; an error of any rank is raised on all of them."""
        if not self.are_several:
            return do()
        answers: list[T] = []
        error = _error_of(lambda: answers.append(do()))
        told: list[Any] = [None] * self.world_size
        dist.all_gather_object(told, _as_told(error), group=_cpu_group())
        failed = next((each for each in told if each is not None), None)
        if failed is not None:
            raise _agreed(error or _from_told(failed))
        return answers[0]

    def first_then_others(self, do: Callable[[], T]) -> T:
        """Do something on the first rank, then on the others: what it fetched once is there for all."""
        if not self.are_several:
            return do()
        answers: list[T] = []
        self.first_says(lambda: answers.append(do()))
        self.together(lambda: None if self.is_first else answers.append(do()))
        return answers[0]

    def sum(self, value: float) -> float:
        """Return the sum of a number over all ranks, in float64, the same on each."""
        if not self.are_several:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=_cpu_group())
        return total.item()

    def copy_from_first(self, tensor: torch.Tensor) -> None:
        """Overwrite a contiguous tensor on the CPU, of any type, with the first rank's."""
        if self.are_several:
            # as bytes: gloo does not carry every type
            dist.broadcast(tensor.view(-1).view(torch.uint8), src=0, group=_cpu_group())

    def in_order(self, own: Iterator[T], count: int) -> Iterator[T]:
        """Yield on the first rank the ``count`` items of all ranks, item i being of rank i % world_size; elsewhere nothing.

        own: this rank's items. Every rank exhausts the iterator. One item of each rank is in memory at a time.
        """
        if not self.are_several:
            yield from own
            return
        for start in range(0, count, self.world_size):
            found: list[Any] | None = [None] * self.world_size if self.is_first else None
            dist.gather_object(next(own, None), found, dst=0, group=_cpu_group())
            yield from (found or [])[: count - start]

    @contextmanager
    def watched(self, resumption: Callable[[], str]) -> Iterator[None]:
        """Raise RankDied where a rank is lost meanwhile; ``resumption`` says what is kept and how to go on."""
        if not self.are_several:
            yield
            return
        _resumptions.append(resumption)
        try:
            yield
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            raise RankDied(f"Another rank of this run has died. {resumption()}") from error
        finally:
            _resumptions.pop()


def current() -> Ranks:
    """Return the place of this process in the group that ``joined``, or Ray Train, has formed; alone without one."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def is_agreed(error: BaseException) -> bool:
    """Return whether every rank knows of an error and raised it at the same place, so that they can go on together."""
    return getattr(error, "agreed", False) or not current().are_several


def _error_of(do: Callable[[], None]) -> Exception | None:
    try:
        do()
    except Exception as error:  # noqa: BLE001  # raised again once the others know
        return error
    return None


def _as_told(error: Exception | None) -> tuple[type[DfadError], str] | None:
    """Return an error as other ranks are told it; a bug keeps its traceback on its own rank alone."""
    if error is None:
        return None
    if isinstance(error, DfadError):
        return type(error), str(error)
    return DfadError, f"{type(error).__name__}: {error}"


def _from_told(told: tuple[type[DfadError], str]) -> DfadError:
    kind, message = told
    return kind.__new__(kind, message)  # without __init__, which makes messages of other arguments


def _agreed(error: Exception) -> Exception:
    error.agreed = True  # type: ignore[attr-defined]
    return error


_beside: tuple[Any, Any] | None = None


def _cpu_group() -> Any:
    """Return the group that carries what lies on the CPU: the default one or, where that is NCCL's alone, one beside it."""
    global _beside
    default = dist.group.WORLD
    if "cpu:" in dist.get_backend_config():
        return default
    if _beside is None or _beside[0] is not default:
        _beside = (default, dist.new_group(backend="gloo", timeout=_TIMEOUT))
    return _beside[1]


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors that name its source file or what the socket said
    said = str(error)
    signs = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, dist.DistError) or any(sign in said for sign in signs)


# --- the ranks that torchrun started -------------------------------------------------------------------------------

_resumptions: list[Callable[[], str]] = []
"""What to say of going on, innermost last."""


def _go_on() -> str:
    return "What was finished is kept; run the same command to go on."


@contextmanager
def joined(fail: Callable[[str], None]) -> Iterator[Ranks]:
    """Join the ranks that torchrun started, for as long as the context lasts; alone where it did not, or they are joined.

    An error of any rank ends all of them, and the first one raises it: as its rank said it, or RankDied where that could
    say nothing. fail: tells the user the error of a rank that cannot raise one, since it waits for one that is gone; it is
    to be silent on ranks other than the first. To be entered in the main thread. After an error the group is left to the
    end of the process: closing it may wait for ranks that are gone.
    """
    if current().are_several or not os.environ.keys() >= _TORCHRUN or os.environ["WORLD_SIZE"] == "1":
        yield current()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    store, rank, world_size = next(rendezvous("env://", timeout=_TIMEOUT))
    errors = dist.PrefixStore("dfad-bench", store)  # type: ignore[attr-defined]
    with _stopped_by_torchrun(errors, fail):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=dist.PrefixStore("default", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=world_size,
            timeout=_TIMEOUT,
        )
        ranks = Ranks(rank, world_size, local_rank)
        try:
            with ranks.watched(_go_on):
                yield ranks
                ranks.first_says(
                    _nothing
                )  # torchrun stops the first rank as well, where another ends with an exit code
        except RankDied as error:
            raise _left_behind(errors) or error from error.__cause__
        except DfadError as error:
            errors.set(_ERROR, json.dumps([error.exit_code, str(error)]))
            raise
        dist.destroy_process_group()


def _nothing() -> None:
    """Say nothing; the others wait until the first rank comes to it."""


def _left_behind(errors: Any) -> DfadError | None:
    """Return the error that ended the rank which is gone, None where that could not say."""
    try:
        if not errors.check([_ERROR]):
            return None
        exit_code, message = json.loads(errors.get(_ERROR))
    except dist.DistError:  # the store was the lost rank's
        return None
    error = DfadError(message)
    error.exit_code = exit_code
    return error


@contextmanager
def _stopped_by_torchrun(errors: Any, fail: Callable[[str], None]) -> Iterator[None]:
    """End this process some seconds after SIGTERM if it has not ended by then.

    torchrun sends that to all others when one rank has died. Most then meet a lost connection and end by themselves, with
    that as their error; but NCCL waits for the lost rank without end, and in C++, where no Python handler is run.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch(reader: socket.socket, writer: socket.socket) -> None:
        while received := reader.recv(1):
            if received[0] == signal.SIGTERM and not ended.wait(_GRACE):
                error = _left_behind(errors)
                told = "This run was told to stop, as torchrun does when another rank has died."
                fail(f"{told} {_resumptions[-1]() if _resumptions else _go_on()}" if error is None else str(error))
                os._exit(FAILED if error is None else error.exit_code)

    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watching = threading.Thread(target=watch, args=(reader, writer), daemon=True)
    watching.start()
    yield  # after an error the watch goes on: what is left of this process may wait for the lost rank, too
    ended.set()
    signal.set_wakeup_fd(descriptor)
    signal.signal(signal.SIGTERM, before)
    writer.close()
    watching.join()
    reader.close()
