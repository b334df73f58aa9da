"""Where the tasks of a pipeline are done: in this process, in several of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING

from dfad_bench.errors import UsageError

if TYPE_CHECKING:
    from dfad_bench.interfaces import Engine


class EngineName(StrEnum):
    """The engines there are."""

    local = "local"
    ray = "ray"


def build_engine(name: EngineName, workers: int | None = None, gpus_per_worker: float = 0.0) -> Engine:
    """Return the engine of that name.

    workers: how many stages are built; None is one for ``local``, and for ``ray`` as many as the cluster has room for.
    gpus_per_worker: of each stage, 0.25 lets four share a GPU; a matter of ``ray`` alone. Raises UsageError where
    Ray is not installed.
    """
    if name is EngineName.local:
        from dfad_bench.engines.local import LocalEngine  # brings NumPy, and --help imports this module

        if gpus_per_worker:
            raise UsageError(
                "--gpus-per-worker (or --gpus-per-replica) is for --engine ray: on one machine, --device says where models run."
            )
        return LocalEngine(1 if workers is None else workers)
    # Ray prints what it does about lost and ended workers on stdout, which is for data; it reads this when it is imported.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        from dfad_bench.engines.ray import RayEngine
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("Ray is not installed. Run: pip install 'dfad-bench[ray]'.") from None
    return RayEngine(workers, gpus_per_worker)
