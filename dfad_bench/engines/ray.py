"""The engine of a cluster: tasks stream through ``ray.data``, which places, throttles and repeats them."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError, RayTaskError

from dfad_bench.config import variables
from dfad_bench.errors import DataError, DfadError, RankDied, UsageError
from dfad_bench.registry import PLUGIN_MODULE

Task = TypeVar("Task")
Result = TypeVar("Result")

_CELL = "pickled"
"""The one column that Ray sees. Tasks are names and rows, results are counts: pixels stay with the worker. What is unpickled
was pickled by this run's own processes, in the memory of the cluster; nothing of it ever was a file of somebody's."""
_LOST_AT_START = 10
"""Workers in a row that may be lost while they start. A stage is built with its first task, so that is the nodes' fault."""
_LOST_RANKS = 3
"""How often a training begins again because a rank was lost."""
_LISTING_CPUS = 0
"""Listing waits for the workers nearly always; on a small cluster it must not keep a CPU from them."""


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Does tasks on the workers of a Ray cluster.

    It is the cluster that RAY_ADDRESS names or that runs on this machine, or else one of this machine alone, started for
    this process. workers: stages to be built, None for as many as there are CPUs, or GPUs where each needs a share of one;
    gpus_per_worker: that share. A task whose worker is lost is done again elsewhere, so it must come to the same twice.
    """

    workers: int | None = None
    gpus_per_worker: float = 0.0
    is_here = False

    def map(
        self,
        tasks: Callable[[], Iterator[Task]],
        build: Callable[[], Callable[[Task], Result]],
        *,
        in_order: bool = False,
    ) -> Iterator[Result]:
        """Yield what each task comes to; see ``interfaces.Engine``.

        Raises UsageError where the cluster has too little room for one worker, DataError where it is lost.
        """
        size = self.size()
        _by_value()
        given = variables()
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_max_block_size = 1  # a block is one task, so that no worker waits for a block to fill
        context.execution_options.preserve_order = in_order
        context.max_consecutive_actor_init_deaths = _LOST_AT_START
        with DataContext.current(context):
            answers = (
                ray.data.read_datasource(
                    _Tasks(tasks, given), concurrency=1, override_num_blocks=1, num_cpus=_LISTING_CPUS
                )
                .map_batches(
                    _Stage,
                    fn_constructor_args=(build, given),
                    batch_size=1,
                    batch_format="pyarrow",
                    compute=ActorPoolStrategy(min_size=1, initial_size=size, max_size=size),
                    num_cpus=1,
                    num_gpus=self.gpus_per_worker,
                )
                .iter_batches(batch_size=1, batch_format="pyarrow")
            )
        try:
            for answer in answers:
                result = cloudpickle.loads(answer[_CELL][0].as_py())
                if isinstance(result, DfadError):
                    raise result
                yield result
        except RayTaskError:
            raise  # a bug in a stage, with the traceback of its worker
        except RayError as error:
            told = " ".join(str(error).split())[:300]
            raise DataError(f"The Ray cluster failed ({told}). Run the same command to go on.") from None

    def ranks(self) -> int:
        """Return as many as ``workers`` says, or else as there are GPUs for, or 1."""
        return self.size() if self.workers is not None or self.gpus_per_worker else 1

    def together(self, work: Callable[[], None]) -> None:
        """Do work on ``ranks`` workers at once, as the process group that Ray Train forms; see ``interfaces.Engine``.

        Where one is lost all begin again, from what the work itself has kept.
        """
        # it brings torch, which the workers of a preparation, who import this module too, do without
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        ranks = self.ranks()
        _by_value()
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        mistake: Any = ray.remote(num_cpus=0)(_Mistake).remote()
        with tempfile.TemporaryDirectory() as unused:
            trainer = TorchTrainer(
                partial(_told_to, mistake, work, variables()),
                train_loop_config={},
                scaling_config=ScalingConfig(
                    num_workers=ranks,
                    use_gpu=self.gpus_per_worker > 0,
                    resources_per_worker={"CPU": 1} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}),
                ),
                run_config=RunConfig(storage_path=unused, failure_config=FailureConfig(max_failures=_LOST_RANKS)),
            )
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise DataError(
                    f"Training failed on the Ray cluster, {_LOST_RANKS + 1} times: {error}\nFinished epochs are kept; run the "
                    "same command to go on."
                ) from None
        found: DfadError | None = ray.get(mistake.found.remote())
        if found is not None:
            raise found

    def size(self) -> int:
        """Return how many stages are built; raise UsageError where the cluster has too little room for one."""
        _connect()
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = int(there.get("CPU", 0))
        if self.gpus_per_worker:
            room = min(room, int(there.get("GPU", 0) / self.gpus_per_worker))
        if not room:
            raise UsageError(
                f"The Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, and a worker needs "
                f"one CPU and {self.gpus_per_worker:g} GPUs. Add nodes, or lower --gpus-per-worker (or --gpus-per-replica)."
            )
        return room if self.workers is None else min(room, self.workers)


class _Tasks(Datasource):
    """The tasks, listed in one stream by a worker: the driver's memory does not grow with them."""

    def __init__(self, tasks: Callable[[], Iterator[Any]], given: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tasks = tasks
        self._given = given

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: how many tasks there are is known once they are listed."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Return the one stream."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [ReadTask(partial(_listed, self._tasks, self._given), unknown)]


def _listed(tasks: Callable[[], Iterator[Any]], given: dict[str, str]) -> Iterator[pa.Table]:
    _set(given)
    try:
        yield from map(_packed, tasks())
    except DfadError as error:
        yield _packed(error)  # through the workers to the driver


def _set(given: dict[str, str]) -> None:
    """Take the variables of the command; a worker has the environment of whoever started its node."""
    for name, value in given.items():
        os.environ.setdefault(name, value)  # what a node was started with is its own: its folders may lie elsewhere


def _by_value() -> None:
    """Send plugins of local files along: the workers have not imported them."""
    for name, module in list(sys.modules.items()):
        if name.startswith(PLUGIN_MODULE):
            cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]


class _Stage:
    """One worker: builds its stage once, with its first task, then does a task at a time.

    A DfadError is an answer like any other: Ray would wrap it in a traceback.
    """

    def __init__(self, build: Callable[[], Callable[[Any], Any]], given: dict[str, str]) -> None:
        _set(given)
        self._build = build
        self._stage: Callable[[Any], Any] | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        task = cloudpickle.loads(block[_CELL][0].as_py())
        try:
            if isinstance(task, DfadError):
                raise task
            if self._stage is None:
                self._stage = self._build()
            return _packed(self._stage(task))
        except DfadError as error:
            return _packed(error)


class _Mistake:
    """Keeps what a rank found wrong with the request: Ray Train would wrap it in a traceback, and try again."""

    def __init__(self) -> None:
        self._found: DfadError | None = None

    def tell(self, found: DfadError) -> None:
        """Keep the first."""
        self._found = self._found or found

    def found(self) -> DfadError | None:
        """Return it."""
        return self._found


def _told_to(mistake: Any, work: Callable[[], None], given: dict[str, str], _: dict[str, Any]) -> None:
    _set(given)
    try:
        work()
    except RankDied:
        raise  # the node's fault: all ranks begin again
    except DfadError as error:
        ray.get(mistake.tell.remote(error))


def _packed(value: Any) -> pa.Table:
    pickled = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    return pa.table({_CELL: pa.array([pickled], pa.large_binary())})


def _connect() -> None:
    if ray.is_initialized():
        return
    # What a user must know of is raised; Ray's own warnings are about its workings.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RayError) as error:
        told = " ".join(str(error.__cause__ or error).split())[:200]
        raise UsageError(
            f"The Ray cluster cannot be reached ({told}). Check RAY_ADDRESS and that 'ray status' answers on this machine; "
            "where it asks for a token, set RAY_AUTH_MODE=token here as on its nodes."
        ) from None
