"""What a chunk of training leads to: the reward, and whether the episode ends.

Pure functions of the state of E episodes: everything is an array of shape (E,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.config import FloatArray, MDPConfig
from lr_gym.mdp.episode_state import EpisodeState


def finish_chunk(
    state: EpisodeState,
    config: MDPConfig,
    decisions: int,
    train_loss: FloatArray,
    val_loss: FloatArray,
    training_diverged: NDArray[np.bool_],
) -> FloatArray:
    """Record a chunk's losses in `state`; return the rewards.

    Args:
        state: State of the episodes that decided; `decision` already counts this
            decision. Changed in place.
        config: The reward, and the divergence threshold.
        decisions: Decisions in a whole episode.
        train_loss: Mean over the chunk, (E,).
        val_loss: After the chunk, (E,).
        training_diverged: Whether training met a number that is not finite, (E,).

    Returns:
        (E,).
    """
    ceiling = divergence_loss(state, config)
    survived = np.isfinite(val_loss) & (val_loss <= ceiling) & ~training_diverged
    diverged = ~survived
    terminated = diverged | (state.decision == decisions)
    if diverged.any():
        # Report the ceiling: it is finite, and above any survivor's loss.
        val_loss = np.where(diverged, ceiling, val_loss)
        capped = np.where(train_loss < ceiling, train_loss, ceiling)  # NaN is capped
        train_loss = np.where(diverged, capped, train_loss)
    state.previous_loss = state.val_loss
    state.val_loss = val_loss
    state.train_loss = train_loss
    rewards = reward(state, config, terminated)
    best_val_loss = np.minimum(state.best_val_loss, val_loss)
    if diverged.any():
        penalty = divergence_reward(state, config, decisions)
        rewards = np.where(diverged, penalty, rewards)
        best_val_loss = np.where(diverged, state.best_val_loss, best_val_loss)
    state.best_val_loss = best_val_loss
    state.episode_return = state.episode_return + rewards
    state.diverged = diverged
    state.terminated = terminated
    return rewards


def divergence_loss(state: EpisodeState, config: MDPConfig) -> FloatArray:
    """Return the validation loss above which an episode has diverged, (E,)."""
    return state.initial_loss * config.divergence_factor


def reward(
    state: EpisodeState, config: MDPConfig, terminated: NDArray[np.bool_]
) -> FloatArray:
    """Return the reward of episodes that did not diverge, (E,).

    Args:
        state: State after the evaluation; `best_val_loss` is the best before it.
        config: The kind of reward.
        terminated: Whether this decision was the episode's last, (E,).
    """
    if config.reward == "loss_reduction":
        return state.previous_loss - state.val_loss
    if config.reward == "log_loss_reduction":
        return np.log(state.previous_loss / state.val_loss)
    if config.reward == "final_loss":
        return np.where(terminated, -state.val_loss, 0.0)
    if config.reward == "best_improvement":
        return state.best_val_loss - state.val_loss
    return -state.val_loss  # negative_loss


def return_lower_bound(
    state: EpisodeState, config: MDPConfig, decisions: int
) -> FloatArray:
    """Return a lower bound on the return of any episode that survives, (E,).

    It follows from 0 <= val_loss <= `divergence_loss` at every decision.
    """
    ceiling = divergence_loss(state, config)
    if config.reward == "loss_reduction":
        return state.initial_loss - ceiling
    if config.reward == "log_loss_reduction":
        return np.log(state.initial_loss / ceiling)
    if config.reward == "final_loss":
        return -ceiling
    return -decisions * ceiling  # best_improvement, negative_loss


def divergence_reward(
    state: EpisodeState, config: MDPConfig, decisions: int
) -> FloatArray:
    """Return the reward of a step that diverges, (E,).

    It makes the episode's return `return_lower_bound` - `divergence_penalty`.
    """
    target = return_lower_bound(state, config, decisions) - config.divergence_penalty
    return target - state.episode_return
