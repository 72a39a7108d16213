"""Agents: single updates checked by hand, and learning where the optimum is known."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agents import tabular_q
from agents.agent import (
    Agent,
    Transition,
    episode_return,
    episodes_of,
    make_env,
    make_population,
    run_episode,
    run_population,
)
from agents.baselines import (
    BASELINES,
    GreedyLR,
    RandomAgent,
    Reactive,
    ReduceOnPlateau,
)
from agents.deep_rl import ALGORITHMS, DeepAgent
from agents.tabular_q import TabularQ
from lr_gym import SCHEDULES
from tests.helpers.small import SMALL, small_env

ROOT = Path(tabular_q.__file__).parents[1]


def observation(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def begun(agent: Agent, **overrides: Any) -> Agent:
    """The agent at the start of an episode, with its own settings."""
    env = small_env(**{**agent.settings, **overrides})
    env.reset(seed=0)
    agent.begin(env)
    return agent


# ------------------------------------------------------------------------ tabular Q


def test_one_update_of_the_papers_agent_by_hand() -> None:
    agent = begun(TabularQ(protocol="paper"))
    assert isinstance(agent, TabularQ)
    first, second = observation(2.504, 1e-3, 0.1), observation(2.402, 1.1e-3, 0.2)
    agent.table[(2.4, 0.0011)] = [0.5, 2.0, 1.0]
    agent.table[(2.5, 0.001)] = [0.0, 0.0, 1.0]
    agent.learn(Transition(first, 2, 0.25, second, terminated=False))
    # 1 + 0.1 * (0.25 + 0.9 * 2 - 1)
    assert agent.table[(2.5, 0.001)] == pytest.approx([0.0, 0.0, 1.105])
    agent.learn(Transition(first, 0, -1.0, second, terminated=True))
    # Nothing follows an episode's end: 0 + 0.1 * (-1 - 0)
    assert agent.table[(2.5, 0.001)] == pytest.approx([-0.1, 0.0, 1.105])


def test_the_improved_agent_hands_the_outcome_back_in_one_episode() -> None:
    agent = begun(TabularQ(protocol="improved"))  # 4 decisions per episode
    assert isinstance(agent, TabularQ)
    path = [observation(2.0, 1e-3, step / 4) for step in range(5)]
    for step in range(4):
        last = step == 3
        reward = 1.0 if last else 0.0
        agent.learn(Transition(path[step], 1, reward, path[step + 1], terminated=last))
    values = [max(agent.values(agent.state(point))) for point in path[:4]]
    assert values == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2])


class Chain(gym.Env[Any, Any]):
    """Five states in a row; every step costs 0.1, going right from the last pays 1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 4.0, (1,))
        self.action_space = spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.place = 0
        return observation(self.place), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        arrived = self.place == 4 and action == 1
        self.place = min(4, self.place + 1) if action == 1 else max(0, self.place - 1)
        reward = 1.0 if arrived else -0.1
        return observation(self.place), reward, arrived, False, {}


def test_q_learning_solves_an_environment_that_is_not_ours() -> None:
    for seed in range(3):
        agent = TabularQ(seed, decimals=0, episodes=100)
        env = gym.wrappers.TimeLimit(Chain(), 20)
        agent.train(env, 100)
        assert agent.training_episodes == 100
        assert agent.history == ()  # there are no validation losses
        assert set(agent.table) == {(0.0,), (1.0,), (2.0,), (3.0,), (4.0,)}
        trajectory = run_episode(env, agent, learning=False)
        assert [step["action"] for step in trajectory[1:]] == [1] * 5


def test_q_learning_elsewhere_says_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only tables of lr_gym's"):
        TabularQ(decimals=0).save(tmp_path / "q.json")
    with pytest.raises(TypeError, match="needs discrete actions, got Box"):
        run_episode(gym.make("Pendulum-v1"), TabularQ(decimals=0))
    with pytest.raises(TypeError, match="need an LRTuningEnv"):
        run_episode(Chain(), TabularQ())


class Staircase(gym.Env[Any, Any]):
    """Three decisions; only up, up, keep is worth anything: a known optimum."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 10.0, (2,))
        self.action_space = spaces.Discrete(3)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.taken: list[int] = []
        return observation(1.0, 0.0), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        rate = math.prod([(0.5, 1.0, 2.0)[a] for a in self.taken])
        ended = len(self.taken) == 3
        reward = float(ended and self.taken == [2, 2, 1])
        return observation(rate, len(self.taken) / 3), reward, ended, False, {}


def test_the_improved_agent_finds_a_known_optimum() -> None:
    for seed in range(3):
        agent = TabularQ(seed, decimals=3, keep_action=1, episodes=400)
        env = Staircase()
        agent.train(env, 400)
        trajectory = run_episode(env, agent, learning=False)
        assert [step["action"] for step in trajectory[1:]] == [2, 2, 1]


def test_epsilon_decays_only_when_asked_and_only_on_exploring() -> None:
    agent = TabularQ(0, protocol="paper", epsilon_decay=True)
    begun(agent)
    explored = 0
    for _ in range(300):
        before = agent.epsilon
        agent.act(observation(2.0, 1e-3, 0.0))
        explored += agent.epsilon != before
    assert agent.epsilon == pytest.approx(0.1 * 0.99**explored)
    assert 5 <= explored <= 60


def test_an_empty_table_keeps_the_rate() -> None:
    agent = TabularQ(0, protocol="paper")
    begun(agent)
    agent.epsilon = 0.0
    assert agent.act(observation(2.0, 1e-3, 0.0)) == agent.keep_action == 1


def test_a_table_survives_saving(tmp_path: Path) -> None:
    agent = TabularQ(3, protocol="improved", reward="log_loss_reduction")
    agent.table = {(0, -20): [0.1, 0.25, -1e-17], (19, 3): [1.0, 2.0, 3.0]}
    agent.save(tmp_path / "deep" / "q.json", env="markov")
    copy = TabularQ.load(tmp_path / "deep" / "q.json")
    assert copy.table == agent.table
    assert copy.settings["reward"] == "log_loss_reduction"
    assert copy.protocol == "improved"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[1, 2]", "is not a table"),
        ('{"format": "other"}', "format must be"),
        ("half", "is not JSON"),
        ('{"format": "lr-gym tabular Q 1"}', "is not a whole table"),
        ("nan", "must be finite"),
        ("short", "a state must have 3 action values, got 1"),
        ("reward", "protocol must be"),
        ("digits", r"an entry must be \[\*state, \[\*values\]\]"),
        ("large", "must be finite"),
        ("deep", "is not JSON"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "q.json"
    agent = TabularQ(protocol="improved")
    agent.table = {(0.0, 1.0): [1.0, 2.0, 3.0]}
    agent.save(path)
    whole = path.read_text()
    path.write_text(
        {
            "half": whole[: len(whole) // 2],
            "nan": whole.replace("2.0", "NaN"),
            "short": json.dumps(json.loads(whole) | {"table": [[0, 1, [1.0]]]}),
            "reward": whole.replace('"improved"', '"best"'),
            "digits": json.dumps(json.loads(whole) | {"table": [[0, 1, "123"]]}),
            "large": whole.replace("2.0", "1" + "0" * 400),
            "deep": "[" * 100_000,
        }.get(content, content)
    )
    with pytest.raises(ValueError, match=message):
        TabularQ.load(path)


def test_saving_into_a_folder_that_cannot_be_written_leaves_nothing(
    tmp_path: Path,
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OSError, match="file"):
        TabularQ().save(blocked / "q.json")
    assert blocked.read_text() == "in the way"


def test_the_script_trains_saves_and_continues(tmp_path: Path) -> None:
    out = tmp_path / "q.json"
    env = tmp_path / "poem.txt"
    env.write_text("roses are red, violets are blue, and so on and on\n" * 60)
    with pytest.MonkeyPatch.context() as patch:
        make = make_env
        patch.setattr(
            tabular_q, "script_env", lambda name, **given: make(name, **(given | SMALL))
        )
        args = tabular_q.Args(env=str(env), scale="tiny", episodes=2, out=out)
        first = tabular_q.main(args)
        assert TabularQ.load(out).table == first.table
        args.table = out
        second = tabular_q.main(args)
    assert len(second.table) >= len(first.table) > 0
    assert len(json.loads(out.read_text())["provenance"]["returns"]) == 2


# ------------------------------------------------------------------------ baselines


def test_always_keep_means_every_schedule_and_no_other_action() -> None:
    assert set(SCHEDULES) <= set(BASELINES)
    for name in SCHEDULES:
        agent = BASELINES[name](0)
        env = small_env(**agent.settings)
        trajectory = run_episode(env, agent, seed=0)
        assert {step["action"] for step in trajectory[1:]} == {1}
        assert env.spec is not None
        assert env.spec.kwargs["base_schedule"] == name


def actions_on(agent: Agent, losses: list[float]) -> list[Any]:
    begun(agent)
    return [agent.act(observation(loss, 1e-3)) for loss in losses]


def test_the_plateau_rule() -> None:
    losses = [3.0, 2.0, 2.0, 2.0, 1.9, 1.95, 1.95, 1.95, 1.95]
    down, keep = 0, 1
    expected = [keep, keep, keep, down, keep, keep, down, keep, down]
    assert actions_on(ReduceOnPlateau(patience=1), losses) == expected


def test_the_reactive_rule() -> None:
    assert actions_on(Reactive(), [3.0, 2.0, 2.5, 2.4, 2.4]) == [1, 2, 0, 2, 0]


def test_greedy_lr_waits_for_two_in_a_row() -> None:
    losses = [3.0, 2.0, 2.5, 1.9, 1.8, 1.9, 1.9, 1.9]
    assert actions_on(GreedyLR(), losses) == [1, 2, 1, 1, 2, 1, 0, 1]


def test_random_actions_follow_their_seed() -> None:
    first, same, other = (actions_on(RandomAgent(s), [1.0] * 40) for s in (1, 1, 2))
    assert first == same != other
    assert set(first) == {0, 1, 2}


def test_an_agent_of_ones_own_is_a_few_lines() -> None:
    class Doubler(Agent):
        def act(self, observation: Any) -> int:
            return 2

    trajectory = run_episode(small_env(), Doubler(), seed=0)
    rates = [step["learning_rate"] for step in trajectory]
    assert rates == pytest.approx([1e-3 * 2**k for k in range(5)])
    total = trajectory[0]["val_loss"] - trajectory[-1]["val_loss"]
    assert episode_return(trajectory) == pytest.approx(total)


def test_agents_need_a_learning_rate_environment() -> None:
    with pytest.raises(TypeError, match="need an LRTuningEnv"):
        episodes_of(gym.make("CartPole-v1"))


def test_a_population_of_agents_runs_as_they_do_alone() -> None:
    """Two keep their own rates, one diverges and ends early."""

    class Explode(Agent):
        def act(self, observation: Any) -> int:
            return 2

    settings: dict[str, Any] = {"lr_factors": (0.5, 1.0, 1e9), "max_lr": 1e30}
    env = small_env(**settings)
    kinds = (Agent, Agent, Explode)
    rates = (1e-3, 2e-3, 1e-3)
    together = run_population(
        make_population(env, 3), [make() for make in kinds], (0, 1, 2), rates
    )
    for seed, make in enumerate(kinds):
        options = {"seed": seed, "learning_rate": rates[seed]}
        alone = run_episode(env, make(), options=options)
        assert len(alone) == len(together[seed])
        for one, other in zip(alone, together[seed], strict=True):
            assert one.keys() == other.keys()
            for key in one:
                assert one[key] == pytest.approx(other[key], rel=1e-5), key
    assert together[2][-1]["diverged"]
    assert [len(run) for run in together] == [5, 5, 2]


# --------------------------------------------------------------------------- deep RL


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_trains_on_real_runs_and_acts(algo: str) -> None:
    agent = DeepAgent(0, algo=algo)
    env = make_env("markov", **({"scale": "tiny"} | SMALL | dict(agent.settings)))
    agent.train(env, 12)  # 12 runs of 4 decisions
    assert agent.training_episodes == 12
    assert agent.model.ep_info_buffer[-1]["l"] == 4
    first, second = (
        [step["action"] for step in run_episode(env, agent, seed=5)[1:]]
        for _ in range(2)
    )
    assert first == second
    assert len(first) == 4


def test_a_deep_agent_learns_from_a_population() -> None:
    agent = DeepAgent(0, algo="ppo", num_envs=4)
    env = make_env("markov", **({"scale": "tiny"} | SMALL | dict(agent.settings)))
    agent.train(env, 9)
    assert agent.training_episodes == 12  # rounded up to whole updates of 4 episodes
    assert agent.model.n_envs == 4
    assert len(run_episode(env, agent, seed=0)) == 5


def test_a_deep_agent_goes_on_learning_from_other_runs() -> None:
    agent = DeepAgent(0, algo="ppo", num_envs=2)
    how = {"scale": "tiny", "trainer": "surrogate", **agent.settings}
    env = make_env("markov", **how)
    agent.train(env, 4)
    first, model = agent.history, agent.model
    weights = model.policy.action_net.weight.detach().clone()
    agent.train(make_env("markov", **how), 4)
    assert agent.model is model
    assert agent.training_episodes == 8
    assert agent.history[:4] == first
    assert not set(first) & set(agent.history[4:])
    assert not weights.equal(model.policy.action_net.weight)


def test_deep_agents_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="algo must be one of dqn, ppo"):
        DeepAgent(algo="sarsa")
    with pytest.raises(RuntimeError, match=r"train\(\) the agent"):
        run_episode(small_env(), DeepAgent())
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    agent = DeepAgent(algo="trpo")
    with pytest.raises(ImportError, match=r"pip install 'lr-gym\[agents\]'"):
        agent.train(small_env(**agent.settings), 1)
