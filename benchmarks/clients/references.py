"""What a learner's return is compared with: keep, the best constant, good sequences.

A sequence of actions is found by coordinate ascent on simulated training: of all
changes of one or two actions the best is taken, until none is better. Without a limit
on the rate the ascent goes where the law is wrong, see docs/simulator.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import lr_gym  # noqa: F401 - registers the environments

KEEP = 1  # of three actions
RATES = np.geomspace(3e-4, 3e-2, 13)
SEQUENCES = ("good_sequence", "any_sequence")
MAX_DOUBLINGS = 2  # of the rate: up to there law and training agree
SEARCH_SEEDS = range(1_000, 1_004)  # no seed of the evaluation

Actions = NDArray[np.int64]
Returns = NDArray[np.floating[Any]]


def mean_returns(
    settings: dict[str, Any],
    sequences: Actions,
    seeds: Sequence[int],
    learning_rates: Returns | None = None,
) -> Returns:
    """Return the mean return of each sequence over seeds, (C,).

    Args:
        settings: Keywords of `gym.make_vec`.
        sequences: Actions, (C, T).
        seeds: Seeds of the environments.
        learning_rates: Initial rates, (C,); `None` is the environment's.
    """
    count, decisions = sequences.shape
    envs: Any = gym.make_vec(
        "LRTuningEnv-v0",
        num_envs=count * len(seeds),
        **settings,
    )
    options = {}
    if learning_rates is not None:
        options["learning_rate"] = np.repeat(learning_rates, len(seeds)).tolist()
    envs.reset(seed=list(seeds) * count, options=options)
    returns = np.zeros(count * len(seeds))
    first_episode = np.ones(count * len(seeds), dtype=bool)  # one that diverges resets
    for decision in range(decisions):
        _, rewards, terminated, _, _ = envs.step(
            np.repeat(sequences[:, decision], len(seeds))
        )
        returns += np.where(first_episode, rewards, 0.0)
        first_episode &= ~terminated
    envs.close()
    mean: Returns = returns.reshape(count, len(seeds)).mean(axis=1)
    return mean


def changed(sequence: Actions) -> Actions:
    """Return all sequences that differ from one in one or two actions, (C, T)."""
    single = [
        (position, action)
        for position in range(len(sequence))
        for action in range(3)
        if action != sequence[position]
    ]
    changes = [[one] for one in single]
    changes += [[a, b] for a in single for b in single if a[0] < b[0]]
    result = np.tile(sequence, (len(changes), 1))
    for row, change in zip(result, changes, strict=True):
        for position, action in change:
            row[position] = action
    return result


def good_sequence(
    settings: dict[str, Any], decisions: int, max_doublings: int
) -> Actions:
    """Return a sequence of actions that no change of two actions improves, (T,).

    Args:
        settings: Keywords of `gym.make_vec`.
        decisions: T.
        max_doublings: The rate never exceeds the initial one times 2 to this power.
    """
    sequence: Actions = np.full(decisions, KEEP)
    best = mean_returns(settings, sequence[None], SEARCH_SEEDS)[0]
    while True:
        candidates = changed(sequence)
        doublings = np.cumsum(candidates - KEEP, axis=1).max(axis=1)
        candidates = candidates[doublings <= max_doublings]
        returns = mean_returns(settings, candidates, SEARCH_SEEDS)
        if returns.max() <= best:
            return sequence
        best, sequence = returns.max(), candidates[returns.argmax()]


def simulated_references(settings: dict[str, Any], decisions: int) -> dict[str, Any]:
    """Return the mean returns of the three references on 20 seeds."""
    seeds = range(20)
    keep: Actions = np.full((1, decisions), KEEP)
    constants = mean_returns(settings, np.tile(keep, (len(RATES), 1)), seeds, RATES)
    result: dict[str, Any] = {
        "keep": float(mean_returns(settings, keep, seeds)[0]),
        "best_constant": float(constants.max()),
        "best_constant_rate": float(RATES[constants.argmax()]),
    }
    for name, limit in zip(SEQUENCES, (MAX_DOUBLINGS, decisions), strict=True):
        sequence = good_sequence(settings, decisions, limit)
        mean = mean_returns(settings, sequence[None], seeds)[0]
        result[name] = {"return": float(mean), "actions": sequence.tolist()}
    return result


def real_references(
    settings: dict[str, Any], sequences: Mapping[str, Sequence[int]], seeds: int
) -> dict[str, Any]:
    """Return the mean returns of keep and of sequences in real training."""
    decisions = len(next(iter(sequences.values())))
    named = {"keep": [KEEP] * decisions, **sequences}
    returns = mean_returns(settings, np.array(list(named.values())), range(seeds))
    return dict(zip(named, returns.tolist(), strict=True))
