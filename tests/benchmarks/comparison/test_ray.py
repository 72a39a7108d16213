"""Jobs on a Ray cluster, of which a node or the workers die in the middle."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.comparison.executors import (
    LostWorkersError,
    RayExecutor,
    SerialExecutor,
    run_all,
)
from benchmarks.comparison.jobs import Job
from tests.helpers.commands import results
from tests.helpers.small import SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # ray's own, of threads and sockets
]


SETTINGS = {"scale": "tiny", **SMALL, "max_iters": 60}
PLAN = [
    Job("linear", "markov", "test", (seed, seed + 100), settings=SETTINGS)
    for seed in range(12)
]


@pytest.fixture(name="alone", scope="module")
def fixture_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Provide the records of jobs that nothing disturbed, without their times."""
    folder = tmp_path_factory.mktemp("alone")
    run_all(lambda _: PLAN, folder, SerialExecutor())
    return results(folder)


def when_finished(jobs: int, folder: Path, act: Callable[[], None]) -> threading.Thread:
    """Start a thread that acts when some jobs are finished."""

    def wait() -> None:
        while len(list(folder.glob("*.json"))) < jobs:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_lost_node_costs_nothing(tmp_path: Path, alone: dict[str, bytes]) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        pool = RayExecutor("auto")
        assert pool.size == 2
        killer = when_finished(
            4, tmp_path, lambda: cluster.remove_node(second, allow_graceful=False)
        )
        run_all(lambda _: PLAN, tmp_path, pool)
        killer.join()
        deadline = time.monotonic() + 60.0  # the cluster takes its time to notice
        while sum(node["Alive"] for node in ray.nodes()) > 1:
            assert time.monotonic() < deadline, "the node did not die"
            time.sleep(0.5)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert results(tmp_path) == alone


def kill_busy_workers() -> None:
    """Kill the processes that run jobs; Ray names them after the function."""
    busy: list[int] = []
    while not busy:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes().startswith(b"ray::_run_on_one_thread"):
                    busy.append(int(path.parent.name))
            except OSError:  # gone meanwhile
                continue
    for process in busy:
        os.kill(process, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_workers_cost_nothing(tmp_path: Path, alone: dict[str, bytes]) -> None:
    pool = RayExecutor("local")
    killer = when_finished(4, tmp_path, kill_busy_workers)
    run_all(lambda _: PLAN, tmp_path, pool)
    killer.join()
    assert results(tmp_path) == alone


def test_a_job_that_kills_its_workers_ends_the_comparison(tmp_path: Path) -> None:
    source = tmp_path / "deadly.py"
    source.write_text(
        "import os\n"
        "from agents.agent import Agent\n"
        "class Deadly(Agent):\n"
        "    def __init__(self, seed): pass\n"
        "    def act(self, observation): os._exit(9)\n"
    )
    job = Job(f"{source}:Deadly", "markov", "test", (0,), settings=SETTINGS)
    with pytest.raises(LostWorkersError, match="3 workers died running"):
        run_all(lambda _: [job], tmp_path / "jobs", RayExecutor("local"))
