"""Code written for other environments trains on ours without a change."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.agents.cleanrl_style_dqn import Args, train

SETTINGS: dict[str, Any] = {
    "trainer": "surrogate",
    "scale": "tiny",
    "features": ("val_loss", "log_learning_rate", "progress"),
}


def test_a_dqn_of_one_file_trains_on_the_simulator() -> None:
    args = Args(env_settings=SETTINGS)
    network, returns = train(args)
    assert len(returns) == args.total_steps // 20  # a run is 20 decisions
    assert np.isfinite(returns).all()
    assert len(set(returns)) > 1
    for again, value in zip(train(args)[1], returns, strict=True):
        assert again == value
    values = network(torch.tensor([[3.0, -3.0, 0.0], [2.2, -3.0, 0.9]]))
    assert (values[0].max() > values[1].max()).item()  # more is left to gain early on


def test_it_trains_on_the_default_observation_and_another_environment() -> None:
    default = {"trainer": "surrogate", "scale": "tiny"}
    assert train(Args(env_settings=default, total_steps=100))[1]
    assert train(Args(env_id="CartPole-v1", total_steps=100))[1]
