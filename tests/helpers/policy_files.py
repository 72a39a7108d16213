"""One valid policy file of each kind."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO

import lr_gym
from agents.tabular_q import TabularQ
from lr_gym.controllers import ActionPolicy, RampAndUndo, UpdateSizeRule, save_policy
from tests.helpers.small import small_env

SETTINGS: dict[str, Any] = {
    "features": ("log_excess_loss", "log_learning_rate", "progress", "loss_slope"),
    "max_iters": 40,
}


@lru_cache(maxsize=1)
def valid_files() -> tuple[bytes, ...]:
    """Return one valid file of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        return _valid_files(Path(folder))


def _valid_files(folder: Path) -> tuple[bytes, ...]:
    random = np.random.default_rng(0)
    env = small_env(**SETTINGS)
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, seed=0)
    lr_gym.export_policy(model, folder / "mlp")
    agent = TabularQ()
    agent.table = {(float(i), -5.0): random.random(3).tolist() for i in range(5)}
    agent.save(folder / "table.json")
    table = lr_gym.load_controller(folder / "table.json")
    assert isinstance(table, ActionPolicy)
    save_policy(table, folder / "table")
    save_policy(RampAndUndo(), folder / "rule")
    save_policy(UpdateSizeRule(), folder / "ratio")
    names = ("mlp", "table", "rule", "ratio")
    return tuple((folder / name).read_bytes() for name in names)
