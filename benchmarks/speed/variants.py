"""The variants of throughput.py: plain loop, populations, vector environments.

A slice of training is `iterations` updates of every member. A slice of whole steps is
one step of a vector environment: as many updates, then one evaluation. The evaluation
is shortened like the step, so it takes the same share as in a real step.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.timing import Variant
from lr_gym import (
    Corpus,
    LRTuningVectorEnv,
    MDPConfig,
    PopulationTrainer,
    TrainingConfig,
)
from lr_gym.devices import resolve_device, resolve_precision

MAX_STEPS = 1_000  # of an episode of whole steps; more than are timed


def resolved_precision(config: TrainingConfig) -> str:
    """Return the number format that our trainers use for `config`."""
    return resolve_precision(config.precision, resolve_device(config.device))


def plain(
    name: str,
    config: TrainingConfig,
    corpus: Corpus,
    iterations: int,
    folder: Path,
    *,
    size: int = 1,
    precision: str = "float32",
    compile: bool = False,
    threads: int | None = None,
    reference: str | None = None,
) -> Variant:
    """Return `size` plain loops that train one after the other."""
    loops = [
        PlainLoop(config, corpus, folder, precision=precision, compile=compile)
        for _ in range(size)
    ]

    def run() -> float:
        losses = [loop.train(iterations, config.learning_rate) for loop in loops]
        return losses[0]

    return Variant(
        name=name,
        size=size,
        config=config,
        vocab_size=corpus.vocab_size,
        precision=precision,
        tokens=_tokens(config, size, iterations),
        run=run,
        reference=reference,
        threads=threads,
    )


def population(
    name: str,
    config: TrainingConfig,
    corpus: Corpus,
    iterations: int,
    *,
    size: int,
    reference: str | None = None,
) -> Variant:
    """Return a population of ours."""
    trainer = PopulationTrainer(config, corpus, size)
    trainer.reset(range(size), range(size))
    rates = np.full(size, config.learning_rate)

    def run() -> float:
        return float(trainer.train(iterations, rates)[0])

    return Variant(
        name=name,
        size=size,
        config=config,
        vocab_size=corpus.vocab_size,
        precision=resolved_precision(config),
        tokens=_tokens(config, size, iterations),
        run=run,
        reference=reference,
    )


def whole_steps(
    name: str,
    config: TrainingConfig,
    corpus: Corpus,
    iterations: int,
    *,
    size: int,
    reference: str | None = None,
) -> Variant:
    """Return steps of our vector environment."""
    settings = _step_settings(config, iterations)
    made = gym.make_vec(_env_id(config), num_envs=size, **settings)
    envs = made.unwrapped
    if not isinstance(envs, LRTuningVectorEnv):
        raise TypeError(f"expected our vector environment, got {envs}")
    envs.reset(seed=0)
    keep = np.full(size, MDPConfig().keep_action)
    return Variant(
        name=name,
        size=size,
        config=config,
        vocab_size=corpus.vocab_size,
        precision=resolved_precision(config),
        tokens=_tokens(config, size, iterations),
        run=lambda: float(envs.step(keep)[0][0, 0]),
        reference=reference,
        close=envs.close,
    )


def subprocess_steps(
    name: str, config: TrainingConfig, corpus: Corpus, iterations: int, *, size: int
) -> Variant:
    """Return steps of stable-baselines3's SubprocVecEnv over single environments.

    Each member has one process with one thread, as is usual.
    """
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env_id, settings = _env_id(config), _step_settings(config, iterations)

    def make() -> gym.Env[Any, Any]:
        torch.set_num_threads(1)
        return gym.make(f"lr_gym:{env_id}", **settings)

    envs = SubprocVecEnv([make] * size)
    envs.seed(0)
    envs.reset()
    keep = np.full(size, MDPConfig().keep_action)
    return Variant(
        name=name,
        size=size,
        config=config,
        vocab_size=corpus.vocab_size,
        precision=resolved_precision(config),
        tokens=_tokens(config, size, iterations),
        run=lambda: float(np.asarray(envs.step(keep)[0])[0, 0]),
        reference=name,
        close=envs.close,
    )


def has_stable_baselines3() -> bool:
    """Whether stable-baselines3 is installed."""
    return importlib.util.find_spec("stable_baselines3") is not None


def _tokens(config: TrainingConfig, size: int, iterations: int) -> int:
    return size * iterations * config.batch_size * config.block_size


def _env_id(config: TrainingConfig) -> str:
    return f"LRTuning-{config.corpus}-v0"


def _step_settings(config: TrainingConfig, iterations: int) -> dict[str, Any]:
    """Return keywords of `gym.make` for long episodes of short steps."""
    if config.eval_tokens is None:
        raise ValueError("whole steps need a number of eval_tokens, got None")
    share = iterations / config.eval_interval
    short = replace(
        config,
        eval_tokens=max(1, round(config.eval_tokens * share)),
        eval_interval=iterations,
        max_iters=iterations * MAX_STEPS,
        warmup_iters=0,
    )
    settings = asdict(short)
    del settings["corpus"]  # the id names it
    return settings
