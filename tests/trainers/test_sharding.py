"""Members in worker processes go through what they go through in one process."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import lr_gym
from lr_gym import PopulationTrainer, ShardedTrainer, load_corpus
from tests.helpers.small import SMALL, small_config, small_trainer

RATES = np.array([1e-3, 3e-3, 1e-2])


@pytest.fixture(scope="module")
def pair() -> tuple[ShardedTrainer, PopulationTrainer]:
    sharded = ShardedTrainer(small_config(), load_corpus("markov"), 3, workers=2)
    return sharded, small_trainer(3)


def test_every_call_gives_what_one_process_gives(
    pair: tuple[ShardedTrainer, PopulationTrainer],
) -> None:
    results = []
    for trainer in pair:
        trainer.reset(range(3), [5, 6, 7])
        trainer.reset([2, 0], [8, 9])
        outcome: list[Any] = [trainer.train([3, 1, 2], RATES), trainer.evaluate()]
        kept = trainer.snapshot([2, 1])
        outcome.append(trainer.train(2, RATES))
        trainer.restore([2, 1], kept)
        outcome += [trainer.evaluate(members=[2, 0]), trainer.evaluate("test")]
        trainer.restore([2], {k: v[:1] for k, v in kept.items()}, rewind=False)
        outcome += [trainer.train(2, RATES), trainer.diverged()]
        telemetry = trainer.telemetry()
        assert (telemetry.pop("seconds") > 0).all()
        outcome += [telemetry[name] for name in sorted(telemetry)]
        results.append([np.asarray(values, dtype=np.float64) for values in outcome])
    for sharded, alone in zip(*results, strict=True):
        np.testing.assert_allclose(sharded, alone, rtol=1e-5, atol=1e-5)


def test_another_architecture_is_shared_out_too() -> None:
    config = small_config(architecture="lstm")
    sharded = ShardedTrainer(config, load_corpus("markov"), 2, workers=2)
    alone = small_trainer(2, architecture="lstm")
    losses = []
    for trainer in (sharded, alone):
        trainer.reset([0, 1], [5, 6])
        losses.append([trainer.train(3, RATES[:2]), trainer.evaluate()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    tokens = torch.zeros((1, 4), dtype=torch.int64)
    assert torch.equal(sharded.model(1)(tokens), alone.model(1)(tokens))
    sharded.close()


def test_state_travels_through_a_file_and_between_both(
    pair: tuple[ShardedTrainer, PopulationTrainer],
) -> None:
    sharded, alone = pair
    sharded.reset(range(3), [1, 2, 3])
    sharded.train(2, RATES)
    alone.load_state_dict(load(save(sharded.state_dict())))
    np.testing.assert_allclose(sharded.evaluate(), alone.evaluate(), rtol=1e-6)
    tokens = torch.zeros((1, 4), dtype=torch.int64)
    assert torch.equal(sharded.model(2)(tokens), alone.model(2)(tokens))
    alone.train(1, RATES)
    sharded.load_state_dict(alone.state_dict())
    np.testing.assert_allclose(sharded.evaluate(), alone.evaluate(), rtol=1e-6)


def test_the_same_twice_bit_for_bit(
    pair: tuple[ShardedTrainer, PopulationTrainer],
) -> None:
    sharded, _ = pair
    curves = []
    for _ in range(2):
        sharded.reset(range(3), [1, 2, 3])
        curves.append((*sharded.train(3, RATES), *sharded.evaluate()))
    assert curves[0] == curves[1]


def test_a_mistake_in_a_worker_is_raised_here_and_the_workers_go_on(
    pair: tuple[ShardedTrainer, PopulationTrainer],
) -> None:
    sharded, _ = pair
    with pytest.raises(ValueError, match="split must be one of"):
        sharded.evaluate("dev")
    with pytest.raises(ValueError, match="2 members but 1 seeds"):
        sharded.reset([0, 1], [3])
    assert np.isfinite(sharded.evaluate()).all()


def test_updates_are_reported(pair: tuple[ShardedTrainer, PopulationTrainer]) -> None:
    calls: list[int] = []
    pair[0].train([1, 3, 2], RATES, on_iteration=lambda: calls.append(1))
    assert len(calls) == 3


def test_a_lost_worker_is_an_error_and_no_process_stays() -> None:
    sharded = ShardedTrainer(small_config(), load_corpus("markov"), 2, workers=2)
    sharded._processes[1].kill()
    with pytest.raises(RuntimeError, match="worker 2 of 2 ended with status -9"):
        sharded.train(1, [1e-3, 1e-3])
    assert all(process.poll() is not None for process in sharded._processes)
    with pytest.raises(RuntimeError, match="closed"):
        sharded.evaluate()


@pytest.mark.parametrize(
    ("size", "workers", "device", "match"),
    [
        (2, 3, "cpu", "workers must not exceed the number of members"),
        (2, 0, "cpu", "workers must be"),
        (2, 2, "meta", "workers are for CPUs"),
    ],
)
def test_wrong_numbers_of_workers(
    size: int, workers: int, device: str, match: str
) -> None:
    config = small_config(device=device)
    with pytest.raises(ValueError, match=match):
        ShardedTrainer(config, load_corpus("markov"), size, workers)


def test_the_vector_environment_over_workers() -> None:
    rollouts = []
    for workers in (1, 2):
        envs = gym.make_vec(
            "LRTuning-markov-v0", num_envs=3, scale="tiny", workers=workers, **SMALL
        )
        assert isinstance(envs.unwrapped, lr_gym.LRTuningVectorEnv)
        observations, _ = envs.reset(seed=4)
        rollout = [observations]
        for actions in ([0, 1, 2], [2, 1, 0], [1, 1, 1]):
            observations, rewards, *_ = envs.step(np.array(actions))
            rollout += [observations, rewards[:, None]]
        rollouts.append(rollout)
        envs.close()
        if isinstance(envs.unwrapped.trainer, ShardedTrainer):
            processes = envs.unwrapped.trainer._processes
            assert all(process.poll() is not None for process in processes)
    for alone, sharded in zip(*rollouts, strict=True):
        np.testing.assert_allclose(sharded, alone, rtol=1e-4, atol=1e-5)
