"""A program: trains and tests a model on a Ray cluster of two nodes, one of which may be lost amid the predictions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from dfad_bench.engines import EngineName, build_engine
from dfad_bench.errors import DfadError
from dfad_bench.planning import Request
from dfad_bench.run import run_model


def main(model: str, data: Path, runs: Path, weights: str, batch_size: int, loses: bool) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    gpus = 1 if loses else 0  # only said to be there; shares of them are handed out nonetheless
    node = {"num_cpus": 1, "num_gpus": gpus}
    nodes = [cluster.add_node(**node), cluster.add_node(**node)]
    left = nodes[1:] if loses else []
    ray.init(address=cluster.address, log_to_driver=False)

    @contextmanager
    def losing_a_node(label: str) -> Iterator[Callable[[int, int | None], None]]:
        def told(done: int, total: int | None) -> None:
            if label.startswith("predicting") and left:
                cluster.remove_node(left.pop(), allow_graceful=False)
                cluster.add_node(**node)
                print(f"a node was lost after {done} of {total}")

        yield told

    request = Request(
        *(model, "demo", data, runs),
        device="cpu",
        weights=Path(weights) if weights else None,
        recipe_changes={"batch_size": batch_size},
        engine=build_engine(EngineName.ray, 2, gpus_per_worker=0.5 if loses else 0.0),
    )
    try:
        print("faces", run_model(request, losing_a_node).result.counts.evaluated)
    except DfadError as error:
        print(f"{type(error).__name__}: {error}")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    _, model, data, runs, weights, batch_size, loses = sys.argv
    main(model, Path(data), Path(runs), weights, int(batch_size), loses == "loses")
