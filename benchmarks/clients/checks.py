"""One short run of each library on the environments, in a process that has it.

A check passes if it returns. It gets an empty folder as its working directory.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

SIMULATED = "lr_gym:LRTuningSim-markov-tiny-v0"
REAL = "lr_gym:LRTuning-markov-tiny-v0"


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)


def gymnasium_wrappers() -> None:
    """Run all wrappers of single environments that apply."""
    _wrappers("SINGLE", "run_single")


def gymnasium_vector_wrappers() -> None:
    """Run all wrappers of vector environments that apply, on one population."""
    _wrappers("VECTOR", "run_vector")


def _wrappers(table: str, run: str) -> None:
    from benchmarks.clients import wrappers

    os.environ["SDL_VIDEODRIVER"] = "dummy"  # a window that nobody sees
    missing = wrappers.missing_wrappers()
    _expect(not missing, f"unknown wrappers: {missing}")
    failures = []
    for name, wrapped in getattr(wrappers, table).items():
        if isinstance(wrapped, str):  # the reason why it cannot apply
            continue
        try:
            getattr(wrappers, run)(name, wrapped)
        except Exception as error:  # noqa: BLE001 - any error is the result
            failures.append(f"{name}: {type(error).__name__}: {error}")
    _expect(not failures, "; ".join(failures))


def gymnasium_sync() -> None:
    """Step two real runs in a SyncVectorEnv."""
    _vector_env("sync", {})


def gymnasium_fork() -> None:
    """Step two real runs in forked processes; the parent has trained on two threads."""
    _vector_env("async", {"context": "fork"})


def gymnasium_spawn() -> None:
    """The same in spawned processes."""
    _vector_env("async", {"context": "spawn"})


def gymnasium_forkserver() -> None:
    """The same in processes of a fork server."""
    _vector_env("async", {"context": "forkserver"})


def _vector_env(mode: Literal["sync", "async"], vector_kwargs: dict[str, Any]) -> None:
    import gymnasium as gym
    import torch

    torch.set_num_threads(2)
    env = gym.make(REAL)
    env.reset(seed=0)
    env.step(1)
    envs = gym.make_vec(
        REAL, 2, vectorization_mode=mode, vector_kwargs=vector_kwargs, max_iters=60
    )
    envs.reset(seed=0)
    envs.step(np.array([0, 2]))
    *_, terminated, _, infos = envs.step(np.array([1, 1]))
    _expect(bool(terminated.all()), str(infos))
    envs.close()


def sb3_learners() -> None:
    """Pass the checker; train PPO, DQN and A2C for 2,100 steps."""
    import gymnasium as gym
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.env_checker import check_env

    check_env(gym.make(SIMULATED).unwrapped)
    for learner in (PPO, DQN, A2C):
        learner("MlpPolicy", SIMULATED, device="cpu").learn(2_100)


def sb3_subprocesses() -> None:
    """Train A2C on real runs in two forked, then in two spawned processes."""
    from stable_baselines3 import A2C
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv

    for method in ("fork", "spawn"):
        envs = make_vec_env(
            REAL,
            2,
            vec_env_cls=SubprocVecEnv,
            vec_env_kwargs={"start_method": method},
            env_kwargs={"max_iters": 60},
        )
        A2C("MlpPolicy", envs, n_steps=2, device="cpu").learn(4)
        envs.close()


def torchrl_specs() -> None:
    """Check the specs of simulated and of real training."""
    from torchrl.envs import GymEnv
    from torchrl.envs.utils import check_env_specs

    for env_id in (SIMULATED, REAL):
        check_env_specs(GymEnv(env_id, device="cpu"))


def torchrl_continuous() -> None:
    """Check the specs of continuous actions, given by keywords."""
    from torchrl.envs import GymEnv
    from torchrl.envs.utils import check_env_specs

    check_env_specs(GymEnv(SIMULATED, action_type="continuous"))


def torchrl_default_features() -> None:
    """Check the specs of the default observation, which has a smallest rate."""
    from torchrl.envs import GymEnv
    from torchrl.envs.utils import check_env_specs

    check_env_specs(GymEnv(SIMULATED, features=("val_loss", "learning_rate")))


def torchrl_vector() -> None:
    """Wrap one population that resets in the same step, and step it past an end."""
    import gymnasium as gym
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    envs = gym.make_vec(
        SIMULATED,
        num_envs=2,
        autoreset_mode="SameStep",
        features=("val_loss", "learning_rate"),  # zeros must be inside the space
    )
    wrapped = GymWrapper(envs)
    check_env_specs(wrapped)
    rollout = wrapped.rollout(25, break_when_any_done=False)
    ends = int(rollout["next", "done"].sum())
    _expect(ends == 2, f"two episodes ended {ends} times")


def torchrl_collector() -> None:
    """Collect two batches from two environments in two processes."""
    from torchrl.collectors import Collector
    from torchrl.envs import EnvCreator, GymEnv, ParallelEnv

    envs = ParallelEnv(2, EnvCreator(lambda: GymEnv(SIMULATED)))
    collector = Collector(
        envs,
        None,  # random actions
        frames_per_batch=40,
        total_frames=80,
    )
    batches = [batch.numel() for batch in collector]
    collector.shutdown()
    _expect(batches == [40, 40], f"batches of {batches}")


def rllib_ppo() -> None:
    """Train PPO for two iterations, in the driver's process."""
    import gymnasium as gym
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune import register_env

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    register_env("learning-rate", lambda settings: gym.make(SIMULATED, **settings))
    config = (
        PPOConfig()
        .environment("learning-rate")
        .env_runners(num_env_runners=0)
        .training(train_batch_size=400, minibatch_size=100)
    )
    algorithm = config.build_algo()
    for _ in range(2):
        result = algorithm.train()
    mean = result["env_runners"]["episode_return_mean"]
    _expect(bool(np.isfinite(mean)), f"mean return {mean}")
    algorithm.stop()
    ray.shutdown()


def tianshou_dqn() -> None:
    """Train a DQN for two epochs, with training environments in one process."""
    _tianshou("DummyVectorEnv")


def tianshou_subprocesses() -> None:
    """Train a DQN for two epochs, with training environments in forked processes."""
    _tianshou("SubprocVectorEnv")


def _tianshou(vector_env: str) -> None:
    import gymnasium as gym
    import tianshou
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net

    make_envs = getattr(tianshou.env, vector_env)
    envs = make_envs([lambda: gym.make(SIMULATED)] * 2)
    test_envs = tianshou.env.DummyVectorEnv([lambda: gym.make(SIMULATED)])
    env = gym.make(SIMULATED)
    model = Net(
        state_shape=env.observation_space.shape,
        action_shape=int(env.action_space.n),  # type: ignore[attr-defined]
        hidden_sizes=[32],
    )
    policy = DiscreteQLearningPolicy(
        model=model,
        action_space=env.action_space,
        observation_space=env.observation_space,
        eps_training=0.1,
    )
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3))
    result = algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=Collector(
                algorithm, envs, VectorReplayBuffer(2_000, 2), exploration_noise=True
            ),
            test_collector=Collector(algorithm, test_envs),
            max_epochs=2,
            epoch_num_steps=200,
            collection_step_num_env_steps=20,
            test_step_num_episodes=2,
            batch_size=32,
        )
    )
    _expect(bool(np.isfinite(result.best_reward)), f"reward {result.best_reward}")
    envs.close()


def minari_round_trip() -> None:
    """Record two episodes, read them back, and make their environment again."""
    import gymnasium as gym
    import minari

    env = minari.DataCollector(gym.make(SIMULATED), record_infos=True)
    for seed in range(2):
        env.reset(seed=seed)
        ended = False
        while not ended:
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            ended = bool(terminated or truncated)
    env.create_dataset("learning-rate/random-v0", algorithm_name="random")
    dataset = minari.load_dataset("learning-rate/random-v0")
    sizes = (dataset.total_episodes, dataset.total_steps)
    _expect(sizes == (2, 40), f"episodes and steps {sizes}")
    again = dataset.recover_environment()
    for seed, episode in enumerate(dataset.iterate_episodes()):
        observation, _ = again.reset(seed=seed)
        observations = [observation]
        observations += [again.step(action)[0] for action in episode.actions]
        same = np.array_equal(np.array(observations), episode.observations)
        _expect(same, "the environment made again gives other observations")


def skrl_dqn() -> None:
    """Train a DQN for 200 steps."""
    import gymnasium as gym
    import torch
    from skrl.agents.torch.dqn import DQN
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils.model_instantiators.torch import deterministic_model

    env = wrap_env(gym.make(SIMULATED))
    networks = [{"name": "net", "input": "OBSERVATIONS", "layers": [32]}]
    models = {
        name: deterministic_model(
            observation_space=env.observation_space,
            action_space=env.action_space,
            device=torch.device("cpu"),
            network=networks,
            output="ACTIONS",
        )
        for name in ("q_network", "target_q_network")
    }
    agent = DQN(
        models=models,
        memory=RandomMemory(memory_size=500, num_envs=1, device="cpu"),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device="cpu",
    )
    SequentialTrainer(
        env=env, agents=agent, cfg={"timesteps": 200, "headless": True}
    ).train()


def d3rlpy_dqn() -> None:
    """Train a DQN online for 400 steps, then offline on what it has seen."""
    import d3rlpy
    import gymnasium as gym

    env, eval_env = gym.make(SIMULATED), gym.make(SIMULATED)
    dqn = d3rlpy.algos.DQNConfig(batch_size=32).create(device="cpu:0")
    buffer = d3rlpy.dataset.create_fifo_replay_buffer(limit=400, env=env)
    dqn.fit_online(
        env,
        buffer,
        n_steps=400,
        n_steps_per_epoch=200,
        update_start_step=100,
        eval_env=eval_env,
        show_progress=False,
    )
    dqn.fit(buffer, n_steps=50, n_steps_per_epoch=50, show_progress=False)
