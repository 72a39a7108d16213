"""The decision process: properties of every episode, on a scripted trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_gym.config import TrainingConfig
from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.mdp.config import REWARDS, MDPConfig
from lr_gym.mdp.decisions import decision_points
from lr_gym.mdp.observations import FEATURES, observation_bounds
from lr_gym.trainers.base import FloatArray
from tests.helpers.scripted import ScriptedTrainer


def start(losses: Sequence[Sequence[float]], **overrides: Any) -> EpisodeBatch:
    """Episodes of as many decisions as there are losses after the first."""
    decisions = max(len(member) for member in losses) - 1
    training = TrainingConfig(
        max_iters=5 * decisions, eval_interval=5, warmup_iters=0, learning_rate=1e-2
    )
    trainer = ScriptedTrainer(losses)
    episodes = EpisodeBatch(trainer, training, MDPConfig(**overrides))
    size = len(losses)
    episodes.reset_members(range(size), range(size), np.full(size, 1e-2))
    return episodes


def play(episodes: EpisodeBatch, action: int = 1) -> FloatArray:
    """Play all members to their end; return their returns."""
    while not episodes.state.terminated.all():
        members = np.flatnonzero(~episodes.state.terminated).tolist()
        episodes.step(np.full(episodes.trainer.size, action), members)
    returns: FloatArray = episodes.state.episode_return
    return returns


loss_curves = st.lists(st.floats(0.5, 8.9), min_size=2, max_size=8)


@given(loss_curves)
def test_loss_reductions_telescope(curve: list[float]) -> None:
    curve = [3.0, *curve]
    assert play(start([curve]))[0] == pytest.approx(curve[0] - curve[-1])
    assert play(start([curve], reward="log_loss_reduction"))[0] == pytest.approx(
        math.log(curve[0] / curve[-1])
    )
    assert play(start([curve], reward="final_loss"))[0] == pytest.approx(-curve[-1])


def test_the_papers_two_rewards() -> None:
    curve = [4.0, 3.0, 3.5, 2.0]
    rewards = {"best_improvement": [1.0, -0.5, 1.0], "negative_loss": [-3, -3.5, -2]}
    for reward, expected in rewards.items():
        episodes = start([curve], reward=reward)
        actual = [episodes.step(np.array([1]))[0] for _ in range(3)]
        assert actual == pytest.approx(expected)


@settings(max_examples=60)
@given(
    st.sampled_from(REWARDS),
    st.lists(st.floats(0.01, 8.99), min_size=4, max_size=4),
    st.lists(st.floats(0.01, 8.99), min_size=0, max_size=3),
    st.sampled_from([9.01, 1e30, math.inf, math.nan]),
)
def test_no_survivor_returns_less_than_a_diverged_episode(
    reward: str, survivor: list[float], prefix: list[float], blast: float
) -> None:
    diverging = [3.0, *prefix, blast]
    episodes = start([[3.0, *survivor], diverging], reward=reward)
    returns = play(episodes)
    assert episodes.state.diverged.tolist() == [False, True]
    assert np.isfinite(returns).all()
    assert returns[1] <= returns[0] - 0.99  # the penalty of 1, to rounding
    low, high = observation_bounds(episodes.config)
    observation = episodes.observe()
    assert np.all((observation >= low) & (observation <= high))
    assert all(np.isfinite(values).all() for values in episodes.info().values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # logarithms of a loss of 0
@settings(max_examples=60)
@given(
    st.sampled_from(REWARDS),
    st.lists(
        st.floats(0.0, 8.99) | st.sampled_from([9.01, math.inf, math.nan]),
        min_size=4,
        max_size=4,
    ),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_an_episode_is_bit_for_bit_the_same_in_any_population(
    reward: str, curve: list[float], actions: list[int]
) -> None:
    settings = {"reward": reward, "allow_undo": True, "base_schedule": "cosine"}
    settings |= {"features": tuple(FEATURES), "decision_spacing": "dense_start"}
    settings |= {"dense_interval": 2}  # 6 decisions; the last loss stays
    neighbour = [3.0, 2.0, 2.0, 2.0, 2.0]
    alone = start([[3.0, *curve]], **settings)
    company = start([neighbour, [3.0, *curve], neighbour], **settings)
    for action in actions:
        acting = np.flatnonzero(~company.state.terminated)
        together = company.step(np.full(3, action), acting.tolist())
        assert alone.step(np.array([action])).tobytes() == together[1:2].tobytes()
        assert alone.observe().tobytes() == company.observe()[1:2].tobytes()
        assert repr(alone.member_info(0)) == repr(company.member_info(1) | {"seed": 0})
        for name, value in vars(alone.state).items():
            assert value.tobytes() == getattr(company.state, name)[1:2].tobytes(), name
        if alone.state.terminated[0]:
            return
    pytest.fail("the episode has not ended")


def test_a_diverged_episode_terminates_at_once_and_others_go_on() -> None:
    episodes = start([[3, 2, 1.5, 1.0], [3, 10, 1, 1]])
    episodes.step(np.array([1, 1]))
    assert episodes.state.terminated.tolist() == [False, True]
    assert episodes.info()["val_loss"].tolist() == [2.0, 9.0]  # reported as the ceiling
    play(episodes)
    assert episodes.state.decision.tolist() == [3, 1]
    assert episodes.info()["best_val_loss"].tolist() == [1.0, 3.0]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_the_rate_never_leaves_its_bounds_and_reciprocals_cancel(
    actions: list[int],
) -> None:
    decisions = 2 * len(actions) + 1
    episodes = start([[1.0] * (decisions + 1)], min_lr=1e-3, max_lr=2e-2)
    for action in actions:
        episodes.step(np.array([action]))
        assert 1e-3 <= episodes.state.learning_rate[0] <= 2e-2
    wide = start([[1.0] * (decisions + 1)], min_lr=1e-9, max_lr=1e9)
    for action in [*actions, *(2 - action for action in actions)]:
        wide.step(np.array([action]))
    assert wide.state.learning_rate[0] == pytest.approx(1e-2)


def test_the_continuous_action_is_the_log2_of_the_factor() -> None:
    episodes = start([[1.0] * 4], action_type="continuous")
    for action, expected in ((1.0, 2e-2), (-1.0, 1e-2), (0.5, 1e-2 * math.sqrt(2))):
        episodes.step(np.array([action]))
        assert episodes.state.learning_rate[0] == pytest.approx(expected)


def test_a_wider_continuous_action_may_undo() -> None:
    episodes = start(
        [[1.0] * 4] * 2, action_type="continuous", allow_undo=True, max_log2_factor=5.0
    )
    assert episodes.config.undo_action is None
    assert episodes.config.action_size == 2
    episodes.step(np.array([[-1.0, -1.0], [0.2, 0.0]]))
    assert episodes.state.learning_rate == pytest.approx([1e-2 / 32, 2e-2])
    episodes.step(np.array([[0.4, 0.1], [0.4, -0.1]]))
    assert episodes.state.learning_rate == pytest.approx([1e-2 / 8, 8e-2])
    trainer = episodes.trainer
    assert isinstance(trainer, ScriptedTrainer)
    assert trainer.restored == [(0, 0, False)]


def test_the_trainer_gets_the_agents_rate_times_the_schedule() -> None:
    episodes = start([[1.0] * 5], base_schedule="linear")
    trainer = episodes.trainer
    assert isinstance(trainer, ScriptedTrainer)
    for action in (1, 2, 2, 0):
        episodes.step(np.array([action]))
    schedule = 1.0 - np.arange(20) / 20
    agent = np.repeat([1e-2, 2e-2, 4e-2, 2e-2], 5)
    given_rates = np.concatenate([chunk[0] for chunk in trainer.rates])
    np.testing.assert_allclose(given_rates, agent * schedule)
    assert episodes.info()["optimizer_lr"][0] == given_rates[-1]


def test_undo_restores_the_state_but_not_the_iterations() -> None:
    episodes = start([[1.0] * 6], allow_undo=True, undo_factor=4.0)
    trainer = episodes.trainer
    assert isinstance(trainer, ScriptedTrainer)
    assert episodes.config.undo_action == 3
    for action in (3, 1, 1, 3, 3):
        episodes.step(np.array([action]))
    # An undo restores what was before the last chunk: at once the start, later the
    # state after as many chunks as were made before the one taken back.
    assert trainer.restored == [(0, 0, False), (0, 2, False), (0, 3, False)]
    assert episodes.state.iteration[0] == 25
    assert episodes.state.learning_rate[0] == pytest.approx(1e-2 / 4**3)


def test_decisions_may_be_dense_at_the_start() -> None:
    config = MDPConfig(decision_spacing="dense_start", dense_interval=10)
    points = decision_points(config, max_iters=200, eval_interval=40)
    assert points.tolist() == [10, 20, 30, 40, 50, 90, 130, 170, 200]
    uniform = decision_points(MDPConfig(), max_iters=200, eval_interval=40)
    assert uniform.tolist() == [40, 80, 120, 160, 200]


@given(
    st.integers(1, 400), st.integers(1, 400), st.integers(1, 50), st.floats(0.01, 0.99)
)
def test_decision_points_rise_to_the_budget(
    max_iters: int, interval: int, dense: int, fraction: float
) -> None:
    for spacing in ("uniform", "dense_start"):
        config = MDPConfig(
            decision_spacing=spacing, dense_interval=dense, dense_fraction=fraction
        )
        points = decision_points(config, max_iters, min(interval, max_iters))
        assert points[-1] == max_iters
        assert np.all(np.diff(points, prepend=0) > 0)


def test_every_feature_by_hand() -> None:
    episodes = start(
        [[3.0, 2.0, 1.6]], features=tuple(FEATURES), loss_floor=1.5, lr_factors=(2.0,)
    )
    episodes.step(np.array([0]))
    episodes.state.train_loss[:] = 1.9
    values = dict(zip(FEATURES, episodes.observe()[0], strict=True))
    expected = {
        "val_loss": 2.0,
        "learning_rate": 2e-2,
        "log_learning_rate": math.log10(2e-2),
        "progress": 0.5,
        "train_loss": 1.9,
        "log_excess_loss": math.log(0.5),
        "loss_slope": math.log(3.0 / 2.0),
        "generalization_gap": 0.1,
        "grad_norm": 0.0,
        "update_size": 0.0,
    }
    assert values == pytest.approx(expected, abs=1e-6)


def test_members_that_do_not_decide_stay_unchanged() -> None:
    episodes = start([[3, 2, 1], [3, 2.5, 2]])
    rewards = episodes.step(np.array([2, 2]), [1])
    assert rewards.tolist() == [0.0, 0.5]
    assert episodes.state.decision.tolist() == [0, 1]
    assert episodes.state.learning_rate.tolist() == [1e-2, 2e-2]
    assert episodes.info()["val_loss"].tolist() == [3.0, 2.5]


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr_factors": ()}, TypeError, "lr_factors must be a non-empty sequence"),
    ({"lr_factors": 2.0}, TypeError, "lr_factors must be a non-empty sequence"),
    ({"lr_factors": (0.5, -1)}, ValueError, r"lr_factors .*\(0, inf\), got -1"),
    ({"lr_factors": (1.0, 1.0)}, ValueError, "lr_factors must not repeat"),
    ({"lr_factors": ("up",)}, TypeError, "lr_factors must be a number, got 'up'"),
    ({"features": ("loss",)}, ValueError, "features must be one of val_loss"),
    ({"features": "val_loss"}, TypeError, "features must be a non-empty sequence"),
    ({"features": ("progress", "progress")}, ValueError, "features must not repeat"),
    ({"reward": "loss"}, ValueError, "reward must be one of loss_reduction"),
    ({"action_type": "box"}, ValueError, "action_type must be one of discrete"),
    ({"base_schedule": "cos"}, ValueError, "base_schedule must be one of constant"),
    ({"decision_spacing": "dense"}, ValueError, "did you mean 'dense_start'"),
    ({"min_lr": 0.0}, ValueError, "min_lr must be"),
    ({"max_lr": math.inf}, ValueError, "max_lr must be finite"),
    ({"min_lr": 0.1, "max_lr": 0.01}, ValueError, "min_lr must not exceed max_lr"),
    ({"undo_factor": 1.0}, ValueError, r"undo_factor must be .*\(1, inf\)"),
    ({"divergence_factor": 0.5}, ValueError, "divergence_factor must be"),
    ({"divergence_penalty": 0.0}, ValueError, "divergence_penalty must be"),
    ({"dense_interval": 0}, ValueError, "dense_interval must be at least 1"),
    ({"dense_fraction": 1.0}, ValueError, r"dense_fraction must be .*\(0, 1\)"),
    ({"loss_floor": -1.0}, ValueError, "loss_floor must be"),
    ({"allow_undo": 1}, TypeError, "allow_undo must be True or False"),
    ({"max_log2_factor": 0.0}, ValueError, "max_log2_factor must be"),
]


@pytest.mark.parametrize(("fields", "error", "message"), WRONG)
def test_a_wrong_setting_is_refused_by_name(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MDPConfig(**fields)


def test_lists_from_json_become_tuples() -> None:
    config = MDPConfig(lr_factors=[0.5, 1.0], features=["progress"])  # type: ignore[arg-type]  # as JSON gives them
    assert config == MDPConfig(lr_factors=(0.5, 1.0), features=("progress",))
    with pytest.raises(ValueError, match="no action keeps the learning rate"):
        MDPConfig(lr_factors=(0.5,)).keep_action  # noqa: B018 - the property raises
