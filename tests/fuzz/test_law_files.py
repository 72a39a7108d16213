"""A damaged law is refused, or simulates finite runs."""

from __future__ import annotations

import copy
import json

import gymnasium as gym
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import lr_gym
from lr_gym.mdp.observations import FEATURES
from lr_gym.surrogate.law_files import packaged_laws
from tests.helpers.fuzzing import (
    NUMBERS,
    POSITIVE,
    damaged_json,
    fuzz,
    json_text,
    refused,
    written,
)

VALID = json.loads(packaged_laws()["markov", "tiny"].read_bytes())


@st.composite
def extreme(draw: st.DrawFn) -> bytes:
    """Draw a law with some constants far from the usual ones."""
    content = copy.deepcopy(VALID)
    constants = content["constants"]
    for name in draw(st.sets(st.sampled_from(sorted(constants)), min_size=1)):
        if isinstance(constants[name], list):
            numbers = st.floats(-1e3, 1e3) | st.sampled_from([-1e30, 0.0, 1e30])
            constants[name] = [draw(numbers) for _ in constants[name]]
        else:
            constants[name] = draw(POSITIVE | st.floats(0.0, 5.0) | NUMBERS)
    if draw(st.booleans()):  # in order, which the law needs
        names = ("floor", "plateau", "initial_loss")
        values = sorted(draw(POSITIVE) for _ in names)
        constants |= dict(zip(names, values, strict=True))
    return json_text(content)


@fuzz(40)
@given(content=damaged_json(VALID) | extreme())
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
        max_lr=1e30,
        lr_factors=(0.5, 1.0, 1e10),
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
