"""A user's training that returns anything: an error with a reason, or a finite run."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lr_gym import LRTuningEnv, wrap_training
from tests.helpers.fuzzing import ANYTHING, NUMBERS, TENSORS, fuzz, refused

RETURNED = st.floats(0.0, 10.0) | NUMBERS | ANYTHING | TENSORS


@fuzz(40)
@given(
    losses=st.lists(RETURNED, min_size=3, max_size=3),
    train_loss=RETURNED,
    telemetry=st.fixed_dictionaries({"grad_norm": RETURNED, "update_size": RETURNED})
    | ANYTHING,
    reward=st.sampled_from(["loss_reduction", "log_loss_reduction"]),
)
def test_returned_values(
    losses: list[Any], train_loss: Any, telemetry: Any, reward: str
) -> None:
    def run() -> None:
        values = iter(losses)
        env = LRTuningEnv(
            trainer=wrap_training(
                reset=lambda seed: None,
                train=lambda iterations: train_loss,
                evaluate=lambda: next(values),
                set_learning_rate=lambda learning_rate: None,
                telemetry=lambda: telemetry,
            ),
            features=("loss_slope", "train_loss", "grad_norm", "update_size"),
            reward=reward,
            max_iters=4,
            eval_interval=2,
            warmup_iters=0,
        )
        env.reset(seed=0)
        terminated = False
        while not terminated:
            observation, reward_, terminated, _, _ = env.step(1)
            assert env.observation_space.contains(observation)
            assert np.isfinite(reward_)

    refused(run)
