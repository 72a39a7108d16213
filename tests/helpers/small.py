"""The smallest settings that still train."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import lr_gym
from lr_gym import Corpus, PopulationTrainer, TrainingConfig, preset

SMALL: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 16,
    "batch_size": 4,
    "max_iters": 8,
    "eval_interval": 2,
    "warmup_iters": 0,
    "eval_tokens": 256,
    "learning_rate": 1e-3,
    "device": "cpu",
    "precision": "float32",
}
# `SMALL` with the model of the packaged laws, and without training.
SIMULATED: dict[str, Any] = SMALL | {
    **{"n_layer": 2, "n_embd": 64, "block_size": 32, "batch_size": 16},
    "eval_tokens": 16_384,
    "trainer": "surrogate",
}


def small_config(corpus: str = "markov", **overrides: Any) -> TrainingConfig:
    """Return a configuration with one layer of width 16."""
    return preset("tiny", corpus, **(SMALL | overrides))


def small_trainer(size: int = 1, **overrides: Any) -> PopulationTrainer:
    """Return a trainer on the embedded corpus, before its first reset."""
    config = small_config(**overrides)
    return PopulationTrainer(config, lr_gym.load_corpus("markov"), size)


def small_env(**overrides: Any) -> gym.Env[Any, Any]:
    """Return the environment of `gym.make` on the embedded corpus."""
    env_id = overrides.pop("id", "LRTuning-markov-v0")
    return gym.make(env_id, **({"scale": "tiny"} | SMALL | overrides))


def trainer_on(val: NDArray[np.integer], **overrides: Any) -> PopulationTrainer:
    """Return a trainer with the validation split `val`, before its first reset."""
    markov = lr_gym.load_corpus("markov")
    corpus = Corpus(
        name="cut",
        vocabulary=markov.vocabulary,
        train=markov.train,
        val=val,
        test=markov.test,
        complete=True,
        sha256=markov.sha256,
        entropy_rate=None,
    )
    return PopulationTrainer(small_config(**overrides), corpus)
