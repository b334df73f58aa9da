"""A program: a list of cells on a Ray cluster of two nodes, of which one is lost in the middle."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from dfad_bench.dispatch import Dispatch, run_cells
from dfad_bench.engines import EngineName, build_engine
from dfad_bench.planning import Request, silently
from dfad_bench.stores import Store
from dfad_bench.work_list import plan_cells


def main() -> None:
    runs, data, model = sys.argv[1:]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    store = Store(runs)
    request = Request(model, "demo", Path(data), store.folder, device="cpu")
    cells = plan_cells(request, [model], ["demo"], range(4), ["jpeg:1", "jpeg:5"], silently, store=store)
    left = [second]

    def note(message: str) -> None:
        print(message, flush=True)
        if "runs done" in message and left:
            cluster.remove_node(left.pop(), allow_graceful=False)

    engine = build_engine(EngineName.ray)
    print(f"{engine.size()} replicas")
    done = list(run_cells(cells, Dispatch(store, engine, pause=0.5), silently, note))
    print("lost" if not left else "nothing was lost")
    print(" ".join(sorted(f"{cell.request.seed}:{cell.state}:{cell.why}" for cell in done)))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
