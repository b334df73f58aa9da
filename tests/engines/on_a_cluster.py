"""A program: prepares the folders it is given on a Ray cluster of two nodes, one of which may be killed in the middle.

It is a program, not a test: Ray's own warnings would fail one, and a killed node must not be this process's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from dfad_bench.engines import EngineName, build_engine
from dfad_bench.interfaces import Engine
from dfad_bench.prepare.add_gaze import add_gaze
from dfad_bench.prepare.pack import pack
from dfad_bench.prepare.pipeline import prepare
from dfad_bench.prepare.plan import Progress, plan
from dfad_bench.prepare.verify import verify_manifest
from tests.prepare.builders import job


def dying(cluster: Cluster, node: object, after: int) -> Progress:
    """Return a progress function that kills a node once so many inputs are done, and adds another."""
    alive = [node]

    def told(done: int, total: int | None) -> None:
        if done >= after and alive:
            cluster.remove_node(alive.pop(), allow_graceful=False)
            cluster.add_node(num_cpus=1)

    return told


def main(root: Path, data: Path, detector: str, estimator: str, after: int) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    engine: Engine = build_engine(EngineName.ray)
    what = job(root, data, detector=detector, engine=engine)
    report = prepare(what, plan(what), on_progress=dying(cluster, node, after) if after else None)
    print("parts", report.parts, "kept", sum(count.kept for count in report.generators))
    print("gaze", sum(count.with_gaze for count in add_gaze(report.root, estimator, engine=engine).generators))
    packed = pack(report.root, data / "packed" / report.root.name, shard_bytes=2**17, engine=engine)
    print("shards", packed.shards)
    print("problems", verify_manifest(report.root, engine=engine))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
