"""`wrap_training`: an environment from the functions of a user's own training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import lr_gym
from examples import own_training
from lr_gym.envs.lr_tuning import LRTuningEnv
from lr_gym.trainers.base import FloatArray
from lr_gym.trainers.custom import WrappedTrainer

SETTINGS: dict[str, Any] = {
    "max_iters": 12,
    "eval_interval": 4,
    "warmup_iters": 0,
    "learning_rate": 0.1,
}


class Descent:
    """Gradient descent on w^2 / 2 from w = 1 + seed / 10; records the rates used."""

    def __init__(self) -> None:
        self.weight = 1.0
        self.rate = math.nan
        self.rates: list[float] = []

    def reset(self, seed: int) -> None:
        self.weight = 1.0 + seed / 10
        self.rates = []

    def train(self, updates: int) -> float:
        losses = []
        for _ in range(updates):
            losses.append(self.evaluate())
            self.weight -= self.rate * self.weight
            self.rates.append(self.rate)
        return sum(losses) / updates

    def evaluate(self) -> float:
        return 0.5 * self.weight * self.weight

    def set_learning_rate(self, rate: float) -> None:
        self.rate = rate

    def get_state(self) -> list[float]:
        return [self.weight]

    def set_state(self, state: list[float]) -> None:
        (self.weight,) = state

    def wrapped(self, **changed: Any) -> WrappedTrainer:
        names = ("reset", "train", "evaluate", "set_learning_rate")
        functions = {name: getattr(self, name) for name in names}
        return lr_gym.wrap_training(**(functions | changed))

    def state_functions(self) -> dict[str, Any]:
        return {"get_state": self.get_state, "set_state": self.set_state}


def make(descent: Descent, settings: dict[str, Any], **functions: Any) -> LRTuningEnv:
    return LRTuningEnv(trainer=descent.wrapped(**functions), **(SETTINGS | settings))


def test_every_update_uses_the_rate_of_the_action() -> None:
    descent = Descent()
    env = make(descent, {})
    _, info = env.reset(seed=0, options={"seed": 2})
    assert info["val_loss"] == pytest.approx(0.5 * 1.2**2)
    for action in (2, 1, 0):
        env.step(action)
    rates = [0.2] * 4 + [0.2] * 4 + [0.1] * 4
    assert descent.rates == pytest.approx(rates)
    assert descent.weight == pytest.approx(1.2 * math.prod(1 - rate for rate in rates))


def test_rates_that_change_at_every_update_arrive_one_by_one() -> None:
    descent = Descent()
    env = make(descent, {"warmup_iters": 4, "base_schedule": "linear"})
    env.reset(seed=0)
    for _ in range(3):
        env.step(1)
    expected = 0.1 * lr_gym.schedule_factor("linear", np.arange(12), 12, 4)
    assert descent.rates == pytest.approx(expected)


def test_the_mean_training_loss_is_over_all_updates_of_a_chunk() -> None:
    descent = Descent()
    env = make(descent, {"warmup_iters": 2})
    env.reset(seed=0, options={"seed": 0})
    *_, info = env.step(1)
    losses, weight = [], 1.0
    for rate in descent.rates:
        losses.append(0.5 * weight**2)
        weight *= 1 - rate
    assert info["train_loss"] == pytest.approx(np.mean(losses))


def test_undo_puts_the_weights_back_and_the_iterations_stay_spent() -> None:
    descent = Descent()
    env = make(descent, {"allow_undo": True}, **descent.state_functions())
    env.reset(seed=0, options={"seed": 0})
    env.step(1)
    before = descent.weight
    env.step(2)
    *_, info = env.step(3)  # undo, then four updates at a third of the rate
    assert info["iteration"] == 12
    assert descent.weight == pytest.approx(before * (1 - 0.2 / 3) ** 4)


def test_a_rewound_run_repeats() -> None:
    descent = Descent()
    trainer = descent.wrapped(**descent.state_functions())
    trainer.reset([0], [1])
    trainer.train(3, [0.1])
    saved = trainer.snapshot([0])
    curves = []
    for _ in range(2):
        trainer.restore([0], saved)
        curves.append((trainer.train(5, [0.3])[0], trainer.evaluate()[0]))
        assert trainer.telemetry()["tokens"] == [8.0]
    assert curves[0] == curves[1]


def test_a_run_that_diverges_ends_its_episode_and_is_trained_no_further() -> None:
    descent = Descent()
    env = make(descent, {"learning_rate": 1.0, "max_lr": 1e6, "lr_factors": (1.0, 1e6)})
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step(1)
    assert terminated
    assert info["diverged"]
    assert np.isfinite(reward)
    assert env.observation_space.contains(observation)

    def broken(updates: int) -> float:
        calls.append(updates)
        return math.nan

    calls: list[int] = []
    trainer = descent.wrapped(train=broken)
    trainer.train(6, [[0.1, 0.1, 0.2, 0.2, 0.3, 0.3]])
    assert calls == [2]
    assert trainer.diverged().all()
    trainer.reset([0], [0])
    assert not trainer.diverged().any()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"train": None}, TypeError, "train must be a function, got None"),
        ({"telemetry": 3}, TypeError, "telemetry must be a function, got 3"),
        ({"get_state": list}, ValueError, "get_state and set_state go together"),
    ],
)
def test_invalid_functions_are_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Descent().wrapped(**changed)


def test_an_error_names_the_missing_function() -> None:
    descent = Descent()
    with pytest.raises(
        NotImplementedError, match="restoring a snapshot needs get_state"
    ):
        make(descent, {"allow_undo": True}).reset(seed=0)
    negative: Callable[[], float] = lambda: -1.0  # noqa: E731 - the mistake under test
    with pytest.raises(ValueError, match=r"evaluate must return .* got -1\.0"):
        make(descent, {}, evaluate=negative).reset(seed=0)
    watching = {"features": ("val_loss", "grad_norm")}
    env = make(descent, watching)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="feature 'grad_norm' needs telemetry"):
        env.step(1)
    functions = {"telemetry": lambda: {"grad_norm": 10.0, "update_size": 0.1}}
    env = make(descent, watching, **functions)
    env.reset(seed=0)
    assert env.step(1)[0][1] == pytest.approx(1.0)  # log10


def test_telemetry_is_measured_only_where_a_feature_needs_it() -> None:
    measured: list[int] = []

    def telemetry() -> dict[str, float]:
        measured.append(1)
        return {"grad_norm": 10.0, "update_size": 0.1}

    for features, calls in ((("val_loss",), 0), (("val_loss", "grad_norm"), 2)):
        env = make(Descent(), {"features": features}, telemetry=telemetry)
        env.reset(seed=0)
        assert env.step(1)[4]["tokens"] == 4
        env.step(1)
        assert len(measured) == calls


def test_the_trainer_reports_the_rate_of_its_last_update() -> None:
    descent = Descent()
    trainer = descent.wrapped(**descent.state_functions())
    trainer.reset([0], [0])
    assert trainer.telemetry()["learning_rate"] == [0.0]
    trainer.train(3, [[0.1, 0.2, 0.3]])
    saved = trainer.snapshot([0])
    trainer.train(1, [0.5])
    assert trainer.telemetry(["learning_rate"])["learning_rate"] == [0.5]
    trainer.restore([0], saved)
    assert trainer.telemetry()["learning_rate"] == [0.3]


def test_a_trainer_that_does_not_report_its_rate_is_refused() -> None:
    trainer = Descent().wrapped()
    tokens: dict[str, FloatArray] = {"tokens": np.zeros(1)}
    trainer.telemetry = lambda names=None: tokens  # type: ignore[method-assign]
    env = lr_gym.LRTuningEnv(trainer=trainer, **SETTINGS)
    message = r"WrappedTrainer\.telemetry must return 'learning_rate'"
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0)


def test_a_trainer_whose_telemetry_takes_no_names_is_refused_at_once() -> None:
    trainer = Descent().wrapped()
    trainer.telemetry = lambda: {}  # type: ignore[method-assign,assignment,misc]
    with pytest.raises(TypeError, match=r"trainer\.telemetry must take the requested"):
        lr_gym.LRTuningEnv(trainer=trainer)


def test_the_example_is_an_environment_by_both_checkers() -> None:
    env = own_training.make_env()
    check_env(env.unwrapped, skip_render_check=True)
    check_env_sb3(env.unwrapped, skip_render_check=True)
    runs = []
    for _ in range(2):
        observation, _ = env.reset(seed=3)
        runs.append([observation, *(env.step(a)[0] for a in (2, 1, 0))])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_the_example_takes_a_step_back_exactly() -> None:
    trainer = own_training.make_trainer()
    trainer.reset([0], [1])
    trainer.train(5, [0.1])
    saved = trainer.snapshot([0])
    loss = trainer.evaluate()
    trainer.train(5, [0.5])
    assert trainer.evaluate() != loss
    trainer.restore([0], copy.deepcopy(saved))
    assert trainer.evaluate() == loss


@pytest.mark.slow
def test_ppo_learns_on_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    learned = own_training.main(["--episodes", "60"])
    baseline = float(capsys.readouterr().out.split()[1])
    assert learned < baseline - 0.1


def test_it_is_an_ordinary_environment_of_gym_make() -> None:
    env = gym.make("LRTuningEnv-v0", trainer=Descent().wrapped(), **SETTINGS)
    env.reset(seed=0)
    assert env.step(1)[4]["iteration"] == 4
