"""A damaged law is refused, or simulates finite runs."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
from hypothesis import given

import lr_gym
from lr_gym.mdp.observations import FEATURES
from lr_gym.surrogate.law_files import packaged_laws
from tests.helpers.fuzzing import damaged_json, fuzz, refused, written

VALID = json.loads(packaged_laws()["markov", "tiny"].read_bytes())


@fuzz(40)
@given(content=damaged_json(VALID))
def test_a_damaged_law_is_refused_or_simulates(content: bytes) -> None:
    path = written("law.json", content)
    if not refused(lambda: lr_gym.load_law(path)):
        refused(lambda: simulate(str(path)))


def simulate(path: str) -> None:
    env = gym.make(
        "LRTuningEnv-v0",
        trainer=path,
        features=tuple(FEATURES),
        max_iters=40,
        eval_interval=10,
        warmup_iters=5,
    )
    env.reset(seed=0)
    for action in (2, 2, 0, 1):
        observation, reward, terminated, _, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert np.isfinite(float(reward))
        assert np.isfinite(info["val_loss"])
        assert np.isfinite(info["train_loss"])
        if terminated:
            return
