"""Learning curves of stock learners: what is recorded, and how it is summarised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.clients.recorded import RETURNS_FILE, recorded_id
from benchmarks.clients.references import changed, mean_returns
from benchmarks.clients.stock_learners import run, summary

SIMULATED: dict[str, Any] = {
    "corpus": "markov",
    "scale": "tiny",
    "trainer": "surrogate",
}


def test_an_environment_records_the_return_of_each_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RETURNS_FILE, str(tmp_path / "returns.txt"))
    env = gym.make(recorded_id("Sim", "default"))
    returns = []
    for seed in range(2):
        env.reset(seed=seed)
        returns.append(sum(float(env.step(1)[1]) for _ in range(20)))
    recorded = np.loadtxt(tmp_path / "returns.txt")
    assert recorded[:, 1].tolist() == returns
    assert np.diff(recorded[:, 0]).tolist() == [20]


def test_a_learning_curve_has_the_mean_of_its_parts() -> None:
    returns = np.arange(1_000.0)
    result = summary(20 * returns + 20, returns)
    assert result["episodes"] == 1_000
    assert result["returns"][:2] == [9.5, 29.5]
    assert result["steps"][-1] == 20_000
    assert result["last_return"] == 989.5
    assert summary(returns[:12], returns[:12])["last_return"] == 6.5


def test_a_sequence_has_the_return_of_the_single_environment() -> None:
    sequences = np.array([[1] * 20, [2, 2] + [1] * 10 + [0] * 8])
    expected = []
    for sequence in sequences:
        env = gym.make("LRTuningEnv-v0", **SIMULATED)
        env.reset(seed=3)
        expected.append(sum(float(env.step(action)[1]) for action in sequence))
    np.testing.assert_allclose(mean_returns(SIMULATED, sequences, [3]), expected)


def test_neighbours_differ_in_one_or_two_actions() -> None:
    neighbours = changed(np.array([1, 1, 1]))
    assert set((neighbours != 1).sum(axis=1)) == {1, 2}
    assert len(np.unique(neighbours, axis=0)) == len(neighbours) == 6 + 12


@pytest.mark.slow
def test_a_stock_learner_runs_from_an_id(tmp_path: Path) -> None:
    result = run("sb3-a2c", recorded_id("Sim", "learning"), 100, 0, tmp_path)
    assert result["episodes"] == 5
    assert result["steps"][-1] == 100
