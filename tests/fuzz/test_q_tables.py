"""A damaged Q-table is refused, or acts."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given

import lr_gym
from agents.tabular_q import TabularQ
from lr_gym.controllers import ActionPolicy
from tests.helpers.fuzzing import damaged_json, fuzz, refused, written
from tests.helpers.small import SIMULATED, small_env

VALID = {
    "format": "lr-gym tabular Q 1",
    "protocol": "improved",
    "settings": {
        "features": ["val_loss", "learning_rate", "progress"],
        "lr_factors": [0.5, 1.0, 2.0],
        "reward": "loss_reduction",
    },
    "discount": 1.0,
    "features": ["progress", "learning_rate"],
    "ties": "keep",
    "provenance": {"env": "markov"},
    "table": [[0, -20, [0.1, 0.2, 0.3]], [1, -19, [0.0, 0.0, 1.0]]],
}
OLD = {k: v for k, v in VALID.items() if k not in ("discount", "features", "ties")}
OBSERVATION = np.array([4.0, 1e-3, 0.0], dtype=np.float32)


@fuzz(60)
@given(content=damaged_json(VALID) | damaged_json(OLD))
def test_a_damaged_table_is_refused_or_acts(content: bytes) -> None:
    path = written("table.json", content)

    def run_agent() -> None:
        agent = TabularQ.load(path)
        agent.finish()
        env = small_env(**SIMULATED, **agent.settings)
        observation, _ = env.reset(seed=0)
        agent.begin(env)
        env.step(agent.act(observation))

    def run_policy() -> None:
        policy = lr_gym.load_controller(path)
        assert isinstance(policy, ActionPolicy)
        policy.reset(20)
        decision = policy.act(OBSERVATION)
        assert 0.0 < decision.factor < np.inf

    refused(run_agent)
    refused(run_policy)


def test_the_undamaged_table_acts() -> None:
    path = written("table.json", json.dumps(VALID).encode())
    assert TabularQ.load(path).values((1, -19)) == [0.0, 0.0, 1.0]
