"""Stable-baselines3 agents on the learning rate.

    python agents/deep_rl.py --algo ppo --env markov --scale tiny --episodes 50

An episode is a training run of about 20 decisions, so the settings differ from the
libraries' defaults. Updates come after one or two episodes; the defaults wait for 2,048
steps, a hundred runs. Rewards are not discounted, since a discounted agent decays the
rate too early. The observation is (log excess loss, log learning rate, progress), the
reward the log-loss reduction. Tens of episodes of real training teach an agent little;
the simulator gives it thousands. The model is saved at the end: an interrupted training
starts from the beginning.
"""

from __future__ import annotations

import importlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents.agent import (
    ENVS,
    Action,
    Agent,
    AnyEnv,
    LREnv,
    Observation,
    episode_return,
    episodes_of,
    population_spec,
    run_episode,
    script_env,
)
from agents.command_line import one_line_errors, parse_command_line
from lr_gym.envs.vector import MAX_ENVS
from lr_gym.files import write_bytes
from lr_gym.mdp.config import MDPConfig
from lr_gym.progress import ProgressBar
from lr_gym.validation import check_choice, check_count, check_real

Algorithm = Literal["dqn", "ppo", "a2c", "qrdqn", "trpo", "recurrent_ppo"]
REWARD_SCALE = 3.0  # a run's log-loss reduction is below 1; returns become about 1

_REPLAY = {
    "buffer_size": 20_000,
    "learning_starts": 20,
    "batch_size": 32,
    "train_freq": 1,
    "gradient_steps": 4,
    "target_update_interval": 100,
    "exploration_fraction": 0.5,
    "exploration_final_eps": 0.05,
    "learning_rate": 1e-3,
}
_TRPO = {"gae_lambda": 1.0}
_PPO = {**_TRPO, "n_epochs": 10, "learning_rate": 1e-3, "ent_coef": 0.01}
_A2C = {**_TRPO, "learning_rate": 1e-3, "ent_coef": 0.01}

# Library, class, policy network, and the settings that differ from the defaults.
ALGORITHMS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "dqn": ("stable_baselines3", "DQN", "MlpPolicy", _REPLAY),
    "ppo": ("stable_baselines3", "PPO", "MlpPolicy", _PPO),
    "a2c": ("stable_baselines3", "A2C", "MlpPolicy", _A2C),
    "qrdqn": ("sb3_contrib", "QRDQN", "MlpPolicy", _REPLAY),
    "trpo": ("sb3_contrib", "TRPO", "MlpPolicy", _TRPO),
    "recurrent_ppo": ("sb3_contrib", "RecurrentPPO", "MlpLstmPolicy", _PPO),
}


class DeepAgent(Agent):
    """A stable-baselines3 model: trained by `train`, then greedy."""

    settings = {  # noqa: RUF012 - read only
        "features": ("log_excess_loss", "log_learning_rate", "progress"),
        "reward": "log_loss_reduction",
    }

    def __init__(
        self,
        seed: int = 0,
        *,
        algo: str = "ppo",
        num_envs: int = 1,
        discount: float = 1.0,
        **model_settings: Any,
    ) -> None:
        """Choose the algorithm; `train` builds the model.

        Args:
            seed: Seeds the policy and its runs.
            algo: One of `ALGORITHMS`.
            num_envs: Training runs in one population.
            discount: In [0, 1]; below 1 the agent decays the rate too early.
            **model_settings: Override the algorithm's settings.

        Raises:
            ValueError: `algo` is unknown, or `discount` out of range.
        """
        check_choice("algo", algo, ALGORITHMS)
        check_real("discount", discount, 0.0, 1.0)
        self.algo = algo
        self.seed = seed
        self.num_envs = num_envs
        self.discount = discount
        self.model_settings = model_settings
        self.model: Any = None

    def train(self, env: LREnv, episodes: int) -> None:
        """Learn from `episodes` whole runs in a population made as `env` was.

        A second call continues the learning on other runs. `training_episodes` can
        exceed `episodes`: stable-baselines3 rounds up to whole updates.

        Args:
            env: Made with the agent's settings.
            episodes: Training runs to spend.

        Raises:
            ImportError: The extra is missing; the message names it.
            ValueError: `env` was not made by `gym.make`.
        """
        library, class_name, policy, defaults = ALGORITHMS[self.algo]
        try:
            algorithm = getattr(importlib.import_module(library), class_name)
            from lr_gym.sb3 import ScaleReward, make_vec_env
        except ImportError as error:
            raise ImportError(
                f"--algo {self.algo} needs {library}: pip install 'lr-gym[agents]'"
            ) from error
        env_id, keywords = population_spec(env)
        first_seed = self.seed + self.training_episodes
        runs = make_vec_env(env_id, self.num_envs, seed=first_seed, **keywords)
        scaled = ScaleReward(runs, REWARD_SCALE)
        decisions = episodes_of(env).decisions
        model_settings = dict(defaults)
        if defaults is not _REPLAY:
            per_member = self.runs_per_update // self.num_envs
            model_settings["n_steps"] = decisions * per_member
        if defaults in (_PPO, _TRPO):
            model_settings["batch_size"] = model_settings["n_steps"]
        first_call = self.model is None
        if first_call:
            self.model = algorithm(
                policy,
                scaled,
                gamma=self.discount,
                seed=self.seed,
                device="cpu",
                **(model_settings | self.model_settings),
            )
        else:
            self.model.set_env(scaled)
        history: list[float] = []

        steps = episodes * decisions
        silent = not self.model_settings.get("verbose")
        bar = ProgressBar(total=steps, unit="decision", desc="learning", disable=silent)

        def note(local: dict[str, Any], _: dict[str, Any]) -> bool:
            bar.update(self.num_envs)
            ended = zip(local["dones"], local["infos"], strict=True)
            history.extend(float(info["val_loss"]) for done, info in ended if done)
            return True

        with bar:
            self.model.learn(
                total_timesteps=steps,
                callback=note,
                reset_num_timesteps=first_call,
            )
        self.history += tuple(history)
        self.training_episodes = self.model.num_timesteps // decisions

    def save(self, path: Path) -> None:
        """Write the model as stable-baselines3's zip file, at once or not at all.

        Raises:
            RuntimeError: The agent was not trained.
            OSError: The file cannot be written; `path` is unchanged.
        """
        if self.model is None:
            raise RuntimeError("train() the agent before it is saved")
        content = io.BytesIO()
        self.model.save(content)
        write_bytes(path, content.getvalue())

    @property
    def runs_per_update(self) -> int:
        """Runs between two updates: one per member, or two of a single member."""
        return 2 if self.num_envs == 1 else self.num_envs

    def begin(self, env: AnyEnv) -> None:
        """Reset the recurrent state.

        Raises:
            RuntimeError: The agent was not trained.
        """
        if self.model is None:
            raise RuntimeError("train() the agent before it acts")
        self._recurrent_state: Any = None
        self._start = True

    def act(self, observation: Observation) -> Action:
        """Take the policy's most likely action."""
        action, self._recurrent_state = self.model.predict(
            observation,
            state=self._recurrent_state,
            episode_start=[self._start],
            deterministic=True,
        )
        self._start = False
        return int(action) if action.ndim == 0 else action


class SavedModel(DeepAgent):
    """A model that this script saved, with its greedy actions; does not learn."""

    def __init__(self, path: str | os.PathLike[str], seed: int = 0) -> None:
        """Load the policy of a stable-baselines3 file; `seed` is unused.

        Such a file can run code when it is loaded: load only files that you trust.

        Raises:
            ImportError: The extra is missing; the message names it.
            ValueError: The file is no model, or one of other features or actions.
        """
        super().__init__(seed)
        self.learns = False
        try:
            from stable_baselines3.common.save_util import load_from_zip_file
        except ImportError as error:
            raise ImportError(
                f"{path} needs stable_baselines3: pip install 'lr-gym[agents]'"
            ) from error
        name = os.fspath(path)
        try:
            if not Path(name).is_file():
                raise FileNotFoundError("there is no such file")
            data, parameters, _ = load_from_zip_file(name, device="cpu")
            if data is None:
                raise ValueError("it holds no settings")
            policy = data["policy_class"](
                data["observation_space"],
                data["action_space"],
                lambda _: 0.0,  # a learning rate, for the optimizer of the policy
                **data["policy_kwargs"],
            )
            policy.load_state_dict(parameters["policy"])
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ValueError(f"agent {name!r} cannot be loaded: {error}") from error
        features = int(np.prod(policy.observation_space.shape))
        if features != len(self.settings["features"]):
            raise ValueError(
                f"agent {name!r} takes observations of {features} features; those of "
                f"agents/deep_rl.py are {', '.join(self.settings['features'])}"
            )
        actions = getattr(policy.action_space, "n", None)
        if actions != len(MDPConfig().lr_factors):
            raise ValueError(
                f"agent {name!r} does not choose among the default lr_factors"
            )
        self.model = policy


@dataclass
class Args:
    """Train a deep agent on real training runs, then test it on a new one."""

    algo: Algorithm = "ppo"
    """The algorithm; qrdqn, trpo and recurrent_ppo come from sb3-contrib."""
    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "auto"
    """Size of the model and length of a run."""
    episodes: int = 50
    """Training runs to learn from."""
    num_envs: int = 1
    """Training runs in one population."""
    seed: int = 0
    """Seeds the agent and its runs."""
    out: Path | None = None
    """Where to save the model; default results/deep_rl/ENV-ALGO-SEED.zip."""


def main(args: Args) -> DeepAgent:
    """Train, save the model, and print one greedy episode."""
    with one_line_errors():
        check_count("--episodes", args.episodes)
        check_count("--num-envs", args.num_envs, MAX_ENVS)
    agent = DeepAgent(args.seed, algo=args.algo, num_envs=args.num_envs, verbose=1)
    env = script_env(args.env, scale=args.scale, progress_bar=True, **agent.settings)
    update = (
        " after every decision"
        if ALGORITHMS[args.algo][3] is _REPLAY
        else f", and reported, after every {agent.runs_per_update} runs"
    )
    print(
        f"learning from {args.episodes} runs of {episodes_of(env).decisions} "
        f"decisions, {args.num_envs} at a time; the agent is updated{update}",
        flush=True,
    )
    agent.train(env, args.episodes)
    name = args.env if args.env in ENVS else Path(args.env).stem
    out = args.out or Path(f"results/deep_rl/{name}-{args.algo}-{args.seed}.zip")
    out = out if out.suffix else out.with_name(f"{out.name}.zip")
    agent.save(out)
    trajectory = run_episode(env, agent, seed=args.seed + 1_000_000, learning=False)
    final = trajectory[-1]
    print(
        f"greedy episode on a fresh run: return {episode_return(trajectory):.4f}"
        f"  final val_loss {final['val_loss']:.4f}  learning rates "
        + " ".join(f"{info['learning_rate']:.1e}" for info in trajectory)
    )
    print(f"model: {out}")
    return agent


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
