"""A program: trains and tests a model as the one rank of a group over NCCL, which does all that one of several ranks does."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from dfad_bench.modelling.distributed import Ranks
from dfad_bench.planning import Request, silently
from dfad_bench.run import run_model


def main(model: str, data: Path, runs: Path, sharded: bool) -> None:
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    Ranks.are_several = property(lambda ranks: True)  # type: ignore[method-assign,assignment]
    request = Request(
        *(model, "demo", data, runs), device="cuda", recipe_changes={"precision": "float32"}, shard=sharded
    )
    print("faces", run_model(request, silently).result.counts.evaluated)
    dist.destroy_process_group()


if __name__ == "__main__":
    _, model, data, runs, sharded = sys.argv
    main(model, Path(data), Path(runs), sharded == "shares")
