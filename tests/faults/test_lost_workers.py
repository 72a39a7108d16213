"""Worker processes are killed in the middle of their work."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.comparison.entry import Args, main
from tests.helpers.commands import results
from tests.helpers.small import SMALL

AGENT = """
import os, signal
from pathlib import Path

class Deadly:
    # Keeps the learning rate. Each file in the folder kills one process that acts.
    def __init__(self, seed): pass
    def act(self, observation):
        for path in Path({folder!r}).iterdir():
            try:
                path.unlink()
            except FileNotFoundError:  # another process took it
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return self.keep_action
"""


def compare(agent: Path, out: Path) -> None:
    main(
        Args(
            agents=("constant", f"{agent}:Deadly"),
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
    tmp_path: Path,
) -> None:
    """The system kills workers when memory is short."""
    kills = tmp_path / "kills"
    kills.mkdir()
    agent = tmp_path / "deadly.py"
    agent.write_text(AGENT.format(folder=str(kills)))
    compare(agent, tmp_path / "undisturbed")
    for number in range(20):
        (kills / str(number)).touch()
    with pytest.raises(SystemExit, match=r"error: 3 workers died .* same command"):
        compare(agent, tmp_path / "out")
    for path in list(kills.iterdir())[2:]:  # two more workers die, and are replaced
        path.unlink()
    compare(agent, tmp_path / "out")
    assert not list(kills.iterdir())
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
