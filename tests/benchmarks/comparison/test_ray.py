"""Jobs on a Ray cluster of two nodes, one of which dies in the middle."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from benchmarks.comparison.executors import RayExecutor, SerialExecutor, run_all
from benchmarks.comparison.jobs import Job
from tests.helpers.small import SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # ray's own, of threads and sockets
]


def test_a_lost_node_costs_nothing(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    settings = {"scale": "tiny", **SMALL, "max_iters": 200}
    plan = [
        Job("linear", "markov", "test", (seed, seed + 100), settings=settings)
        for seed in range(20)
    ]
    alone = run_all(lambda _: plan, tmp_path / "here", SerialExecutor())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        pool = RayExecutor("auto")
        assert pool.size == 2

        def lose_a_node() -> None:
            while len(list((tmp_path / "ray").glob("*.json"))) < 4:
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)

        killer = threading.Thread(target=lose_a_node)
        killer.start()
        spread = run_all(lambda _: plan, tmp_path / "ray", pool)
        killer.join()
        deadline = time.monotonic() + 60.0  # the cluster takes its time to notice
        while sum(node["Alive"] for node in ray.nodes()) > 1:
            assert time.monotonic() < deadline, "the node did not die"
            time.sleep(0.5)
    finally:
        ray.shutdown()
        cluster.shutdown()
    for name, record in alone.items():
        for ours, theirs in zip(record["runs"], spread[name]["runs"], strict=True):
            assert ours["curves"] == theirs["curves"]
            assert ours["metrics"]["test_loss"] == theirs["metrics"]["test_loss"]
