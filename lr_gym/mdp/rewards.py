"""What a decision has come to: its reward, and whether the episode has ended.

Functions of an `EpisodeState`, for arrays of episodes and for one in plain numbers.
"""

from __future__ import annotations

from lr_gym.arithmetic import Arithmetic, Value
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.episode_state import EpisodeState


def finish_chunk(
    state: EpisodeState,
    config: MDPConfig,
    decisions: int,
    train_loss: Value,
    val_loss: Value,
    frozen: Value,
    of: Arithmetic,
) -> Value:
    """Book the outcome of a chunk into `state`; return the rewards.

    Args:
        state: Of those that decided, with the decision counted; its fields are
            replaced.
        config: Which reward, and what has diverged.
        decisions: In a whole episode.
        train_loss: Mean over the chunk.
        val_loss: After the chunk.
        frozen: Whose training has met numbers that are not finite.
        of: What all these are.
    """
    ceiling = divergence_loss(state, config)
    tame = of.finite(val_loss) & (val_loss <= ceiling)  # NaN compares as false
    diverged = of.where(tame, frozen, True)
    ended = diverged | (state.decision == decisions)
    if of.any(diverged):
        # Reported as the ceiling: finite, and above any survivor's loss.
        val_loss = of.where(diverged, ceiling, val_loss)
        capped = of.where(train_loss < ceiling, train_loss, ceiling)
        train_loss = of.where(diverged, capped, train_loss)
    state.previous_loss = state.val_loss
    state.val_loss = val_loss
    state.train_loss = train_loss
    rewards = reward(state, config, ended, of)
    lowest = of.minimum(state.best_val_loss, val_loss)
    if of.any(diverged):
        penalty = divergence_reward(state, config, decisions, of)
        rewards = of.where(diverged, penalty, rewards)
        lowest = of.where(diverged, state.best_val_loss, lowest)
    state.best_val_loss = lowest
    state.episode_return = state.episode_return + rewards
    state.diverged = diverged
    state.terminated = ended
    return rewards


def divergence_loss(state: EpisodeState, config: MDPConfig) -> Value:
    """Return the validation loss above which an episode counts as diverged."""
    return state.initial_loss * config.divergence_factor


def reward(
    state: EpisodeState, config: MDPConfig, last: Value, of: Arithmetic
) -> Value:
    """Return the reward of episodes that did not diverge.

    Args:
        state: After the evaluation; `best_val_loss` is still the best before it.
        config: Which reward.
        last: Whether the decision was the episode's last.
        of: What the state and `last` are.
    """
    if config.reward == "loss_reduction":
        return state.previous_loss - state.val_loss
    if config.reward == "log_loss_reduction":
        return of.log(of.divide(state.previous_loss, state.val_loss))
    if config.reward == "final_loss":
        return of.where(last, -state.val_loss, 0.0)
    if config.reward == "best_improvement":
        return state.best_val_loss - state.val_loss
    return -state.val_loss  # negative_loss


def return_lower_bound(
    state: EpisodeState, config: MDPConfig, decisions: int, of: Arithmetic
) -> Value:
    """Return a lower bound on the return of any episode that survives.

    It follows from 0 <= val_loss <= `divergence_loss` at every decision.
    """
    ceiling = divergence_loss(state, config)
    if config.reward == "loss_reduction":
        return state.initial_loss - ceiling
    if config.reward == "log_loss_reduction":
        return of.log(of.divide(state.initial_loss, ceiling))
    if config.reward == "final_loss":
        return -ceiling
    return -decisions * ceiling  # best_improvement, negative_loss


def divergence_reward(
    state: EpisodeState, config: MDPConfig, decisions: int, of: Arithmetic
) -> Value:
    """Return the reward that makes a diverged episode's return worse than any other.

    The return becomes `return_lower_bound` - `divergence_penalty`, whenever it happens.
    """
    target = (
        return_lower_bound(state, config, decisions, of) - config.divergence_penalty
    )
    return target - state.episode_return
