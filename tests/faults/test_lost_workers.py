"""Worker processes are killed in the middle of their work."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.comparison import entry
from benchmarks.comparison.entry import Args, main
from benchmarks.comparison.executors import ProcessExecutor
from benchmarks.comparison.jobs import Job
from tests.helpers.commands import results
from tests.helpers.small import SMALL


class Deadly(ProcessExecutor):
    """Kills its workers, as the system does when memory is short."""

    kills = 0  # left

    def submit(self, job: Job) -> Any:
        """Start the job, then kill all workers."""
        future = super().submit(job)
        if type(self).kills > 0:
            type(self).kills -= 1
            for process in self._pool._processes:
                with suppress(ProcessLookupError):  # it has died before
                    os.kill(process, signal.SIGKILL)
        return future


def compare(out: Path) -> None:
    main(
        Args(
            agents=("constant", "linear"),
            seeds=2,
            tune_seeds=1,
            peaks=(1.0, 2.0),
            workers=2,
            settings=json.dumps(SMALL),
            out=out,
        )
    )


@pytest.mark.slow
def test_a_comparison_whose_workers_die_ends_in_one_line_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(tmp_path / "undisturbed")
    monkeypatch.setattr(entry, "ProcessExecutor", Deadly)
    monkeypatch.setattr(Deadly, "kills", 1_000)
    with pytest.raises(SystemExit, match=r"error: 3 workers died .* same command"):
        compare(tmp_path / "out")
    monkeypatch.setattr(Deadly, "kills", 2)  # these are replaced
    compare(tmp_path / "out")
    assert Deadly.kills == 0
    assert results(tmp_path / "out") == results(tmp_path / "undisturbed")


def episode(envs: Any) -> Any:
    envs.reset(seed=0)
    losses = [
        envs.step(np.array(actions))[4]["val_loss"] for actions in ([0, 1], [1, 2])
    ]
    return [float(loss) for pair in losses for loss in pair]


@pytest.mark.slow
def test_a_killed_worker_of_async_vector_env_is_an_error() -> None:
    def make() -> Any:
        return gym.make_vec(
            "lr_gym:LRTuning-markov-v0",
            num_envs=2,
            vectorization_mode="async",
            vector_kwargs={"context": "spawn"},
            scale="tiny",
            **SMALL,
        )

    envs = make()
    expected = episode(envs)
    os.kill(envs.processes[0].pid, signal.SIGKILL)
    with pytest.raises((EOFError, ConnectionError)):
        episode(envs)
    # Gymnasium's `close` waits for the lost worker's answer: it raises as well.
    for process in envs.processes:
        process.kill()
        process.join()
    envs.closed = True
    envs = make()
    assert episode(envs) == expected
    envs.close()
