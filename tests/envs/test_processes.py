"""Environments in several processes, by each of Python's ways to start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

TIME_LIMIT = 120  # seconds: most of a run is importing torch in every process
SCRIPT = """
import sys
import gymnasium as gym
import torch

torch.set_num_threads(2)
env_id, method, parent = "lr_gym:LRTuning-markov-v0", *sys.argv[1:]
short = {"max_iters": 2, "eval_interval": 1, "warmup_iters": 0, "eval_tokens": 64}
if parent == "trains":
    env = gym.make(env_id, scale="tiny", **short)
    env.reset(seed=0)
    env.step(1)
    assert torch.get_num_threads() == 2
envs = gym.make_vec(
    env_id,
    num_envs=2,
    vectorization_mode="async",
    vector_kwargs={"context": method},
    scale="tiny",
    batch_size=2,
    **short,
)
envs.reset(seed=0)
envs.step([1, 1])
infos = envs.step([0, 2])[4]
assert infos["iteration"].tolist() == [2, 2], infos
envs.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("parent", ["waits", "trains"])
def test_an_async_vector_env_steps(method: str, parent: str) -> None:
    """With torch on two threads: forked processes used to hang, see `factory.py`."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, method, parent],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=TIME_LIMIT)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.communicate()
        pytest.fail(f"the processes started by {method} hang")
    assert process.returncode == 0, errors
