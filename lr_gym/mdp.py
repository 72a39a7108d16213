"""The decision process: actions, features, rewards, ends, as functions of arrays.

Everything here is pure and vector-valued over E episodes, so that the single and the
vector environment cannot differ. Nothing here trains: `episodes.py` drives a trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.config import check_boolean, check_choice, check_integer, check_real
from lr_gym.schedules import SCHEDULES

FloatArray = NDArray[np.float64]

PAPER_FACTORS = (0.9, 1.0, 1.1)
ACTION_TYPES = ("discrete", "continuous")
REWARDS = (
    "loss_reduction",
    "log_loss_reduction",
    "final_loss",
    "best_improvement",
    "negative_loss",
)
DECISION_SPACINGS = ("uniform", "dense_start")
LOSS_BOUND = 1e3  # nats: observed losses are clipped here, far above any explosion
LOG_BOUND = 10.0  # observed logarithms are clipped to [-10, 10]


@dataclass(frozen=True, kw_only=True)
class MDPConfig:
    """What the agent sees, does and is paid for. Checked on construction.

    Attributes:
        action_type: ``discrete`` chooses from `lr_factors`; ``continuous`` is the log2
            of the factor in units of `max_log2_factor`, in [-1, 1].
        lr_factors: What a discrete action multiplies the learning rate by.
        max_log2_factor: The largest log2 of a ``continuous`` action's factor, either
            way, above 0; the default is twice or half.
        min_lr: The agent's learning rate never falls below this.
        max_lr: The agent's learning rate never rises above this.
        reward: One of `REWARDS`; see `lr_gym.LRTuningEnv`.
        features: The observation's entries, in order; see `FEATURES`.
        base_schedule: Multiplies the agent's rate per iteration; see `schedules.py`.
        allow_undo: Let the agent take back the last chunk of training: by one more
            ``discrete`` action, or by a second entry above 0 of a ``continuous`` one.
        undo_factor: What the ``discrete`` undo divides the learning rate by, above 1;
            a ``continuous`` action says so itself, in its first entry.
        decision_spacing: ``uniform`` decides every `eval_interval` iterations;
            ``dense_start`` every `dense_interval` over the first `dense_fraction`.
        dense_interval: Iterations between the early decisions of ``dense_start``.
        dense_fraction: Share of the run with early decisions, in (0, 1).
        divergence_factor: A validation loss above this many times the initial one ends
            the episode as diverged, as does any non-finite number.
        divergence_penalty: How much worse the return of a diverged episode is than the
            worst that any surviving one can have.
        loss_floor: Subtracted from the loss in ``log_excess_loss``; `None` is the
            corpus' known entropy rate, or 0.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range, or two contradict each other.
    """

    action_type: str = "discrete"
    lr_factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    max_log2_factor: float = 1.0
    min_lr: float = 1e-6
    max_lr: float = 1.0
    reward: str = "loss_reduction"
    features: tuple[str, ...] = ("val_loss", "learning_rate")
    base_schedule: str = "constant"
    allow_undo: bool = False
    undo_factor: float = 3.0
    decision_spacing: str = "uniform"
    dense_interval: int = 10
    dense_fraction: float = 0.25
    divergence_factor: float = 3.0
    divergence_penalty: float = 1.0
    loss_floor: float | None = None

    def __post_init__(self) -> None:
        """Check every field; lists (from JSON) become tuples."""
        for name in ("lr_factors", "features"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not value:
                raise TypeError(f"{name} must be a non-empty sequence, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        for factor in self.lr_factors:
            check_real("lr_factors", factor, 0.0, low_open=True)
        for feature in self.features:
            check_choice("features", feature, tuple(FEATURES))
        for name in ("lr_factors", "features"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} must not repeat, got {getattr(self, name)!r}")
        self._check_scalars()
        if self.min_lr > self.max_lr:
            got = f"min_lr={self.min_lr} and max_lr={self.max_lr}"
            raise ValueError(f"min_lr must not exceed max_lr, got {got}")

    def _check_scalars(self) -> None:
        check_choice("action_type", self.action_type, ACTION_TYPES)
        check_choice("reward", self.reward, REWARDS)
        check_choice("base_schedule", self.base_schedule, SCHEDULES)
        check_choice("decision_spacing", self.decision_spacing, DECISION_SPACINGS)
        for name in ("min_lr", "max_lr", "max_log2_factor", "divergence_penalty"):
            check_real(name, getattr(self, name), 0.0, low_open=True)
        for name in ("undo_factor", "divergence_factor"):
            check_real(name, getattr(self, name), 1.0, low_open=True)
        check_integer("dense_interval", self.dense_interval, 1)
        check_real(
            "dense_fraction",
            self.dense_fraction,
            0.0,
            1.0,
            low_open=True,
            high_open=True,
        )
        if self.loss_floor is not None:
            check_real("loss_floor", self.loss_floor, 0.0)
        check_boolean("allow_undo", self.allow_undo)

    @property
    def keep_action(self) -> int:
        """The discrete action that leaves the learning rate as it is.

        Raises:
            ValueError: There is none: 1.0 is not among `lr_factors`.
        """
        if self.action_type == "continuous" or 1.0 not in self.lr_factors:
            raise ValueError(
                f"no action keeps the rate: lr_factors={self.lr_factors!r}"
            )
        return self.lr_factors.index(1.0)

    @property
    def undo_action(self) -> int | None:
        """The discrete action that takes back the last chunk, or `None`."""
        discrete = self.action_type == "discrete"
        return len(self.lr_factors) if self.allow_undo and discrete else None

    @property
    def action_size(self) -> int:
        """Numbers in one action: 2 where a continuous one may undo, else 1."""
        return 2 if self.allow_undo and self.action_type == "continuous" else 1


@dataclass(kw_only=True)
class EpisodeState:
    """Where E episodes stand: arrays of shape (E,). Losses are nats per character."""

    learning_rate: FloatArray  # the agent's, before the base schedule
    decision: NDArray[np.int64]  # decisions taken
    iteration: NDArray[np.int64]  # updates spent
    initial_loss: FloatArray  # validation loss of the untrained model
    val_loss: FloatArray
    previous_loss: FloatArray  # validation loss one decision ago
    best_val_loss: FloatArray
    train_loss: FloatArray  # mean over the last chunk; initial_loss before any
    # Read off the trainer only where they are among the features, else 0:
    grad_norm: FloatArray  # mean over the last chunk, before clipping
    update_size: FloatArray  # of the last update
    episode_return: FloatArray  # undiscounted, so far
    diverged: NDArray[np.bool_]
    terminated: NDArray[np.bool_]

    @classmethod
    def empty(cls, size: int) -> EpisodeState:
        """Return the state of `size` episodes that have all ended."""
        kinds: dict[str, Any] = {
            "decision": np.int64,
            "iteration": np.int64,
            "diverged": np.bool_,
            "terminated": np.bool_,
        }
        arrays = {f.name: np.zeros(size, kinds.get(f.name, float)) for f in fields(cls)}
        arrays["terminated"][:] = True
        return cls(**arrays)


# ---------------------------------------------------------------------------- actions


def decision_points(
    config: MDPConfig, max_iters: int, eval_interval: int
) -> NDArray[np.int64]:
    """Return the iteration at which each decision's chunk ends, increasing.

    >>> decision_points(MDPConfig(), max_iters=100, eval_interval=40).tolist()
    [40, 80, 100]
    """
    start = 0
    early: list[int] = []
    if config.decision_spacing == "dense_start":
        start = max(1, round(max_iters * config.dense_fraction))
        early = [*range(config.dense_interval, start, config.dense_interval), start]
    late = range(start + eval_interval, max_iters, eval_interval)
    return np.array(sorted({*early, *late, max_iters}), dtype=np.int64)


def stretched(points: NDArray[np.int64], max_iters: int) -> NDArray[np.int64]:
    """Return the decision points of a run of another length, at the same shares of it.

    Args:
        points: As of `decision_points`; the last is that run's length.
        max_iters: Updates of the other run.

    Raises:
        ValueError: It is too short for as many decisions.

    >>> stretched(np.array([10, 20, 50, 100]), 200).tolist()
    [20, 40, 100, 200]
    """
    share = max_iters / int(points[-1])
    moved: NDArray[np.int64] = np.rint(points * share).astype(np.int64)
    if (np.diff(moved, prepend=0) < 1).any():
        raise ValueError(
            f"max_iters={max_iters} is too short for {len(points)} decisions at the "
            f"shares of a run of {points[-1]}; pass larger intervals, or a larger "
            "max_iters"
        )
    return moved


def factors_and_undos(
    config: MDPConfig, actions: NDArray[Any]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return what actions multiply the learning rate by, and who undoes, (E,) each.

    Args:
        config: What an action means.
        actions: (E,) or (E, `action_size`), valid ones.
    """
    table = np.asarray(actions).reshape(len(actions), -1)
    if config.action_type == "continuous":
        exponents = np.asarray(table[:, 0], dtype=np.float64) * config.max_log2_factor
        undo = table[:, 1] > 0 if config.allow_undo else np.zeros(len(table), bool)
        return np.exp2(exponents), undo
    taken_back = (1.0 / config.undo_factor,) if config.allow_undo else ()
    factors = np.array([*config.lr_factors, *taken_back])
    return factors[table[:, 0]], table[:, 0] == len(config.lr_factors)


def next_learning_rate(
    config: MDPConfig, learning_rate: FloatArray, factors: FloatArray
) -> FloatArray:
    """Return the agent's learning rate times `factors`, within its bounds, (E,)."""
    rates = np.minimum(learning_rate * factors, config.max_lr)
    return np.asarray(np.maximum(rates, config.min_lr))


# ----------------------------------------------------------------------- observations


@dataclass(frozen=True)
class Feature:
    """One entry of the observation: its bounds, and how it is read off the state."""

    low: Callable[[MDPConfig], float]
    high: Callable[[MDPConfig], float]
    value: Callable[[EpisodeState, FloatArray, FloatArray], FloatArray]


def _between(
    low: float,
    high: float,
    value: Callable[[EpisodeState, FloatArray, FloatArray], FloatArray],
) -> Feature:
    return Feature(lambda _: low, lambda _: high, value)


def _log10(value: FloatArray) -> FloatArray:
    return np.asarray(np.log10(np.maximum(value, 1e-8)))


# Arguments of `value`: the state, progress (E,), and the loss floor (E,) in nats.
FEATURES: dict[str, Feature] = {
    "val_loss": _between(0.0, LOSS_BOUND, lambda s, p, f: s.val_loss),
    "learning_rate": Feature(
        lambda c: c.min_lr, lambda c: c.max_lr, lambda s, p, f: s.learning_rate
    ),
    "log_learning_rate": Feature(
        lambda c: math.log10(c.min_lr),
        lambda c: math.log10(c.max_lr),
        lambda s, p, f: np.log10(s.learning_rate),
    ),
    "progress": _between(0.0, 1.0, lambda s, p, f: p),
    "train_loss": _between(0.0, LOSS_BOUND, lambda s, p, f: s.train_loss),
    "log_excess_loss": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f: np.log(np.maximum(s.val_loss - f, 1e-4)),
    ),
    "loss_slope": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f: np.log(s.previous_loss) - np.log(s.val_loss),
    ),
    "generalization_gap": _between(
        -LOSS_BOUND, LOSS_BOUND, lambda s, p, f: s.val_loss - s.train_loss
    ),
    "grad_norm": _between(-LOG_BOUND, LOG_BOUND, lambda s, p, f: _log10(s.grad_norm)),
    "update_size": _between(
        -LOG_BOUND, LOG_BOUND, lambda s, p, f: _log10(s.update_size)
    ),
}


def observation_bounds(config: MDPConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lowest and highest observation, float32 of shape (features,)."""
    chosen = [FEATURES[name] for name in config.features]
    low = np.array([feature.low(config) for feature in chosen], dtype=np.float32)
    high = np.array([feature.high(config) for feature in chosen], dtype=np.float32)
    return low, high


def observe(
    state: EpisodeState,
    config: MDPConfig,
    max_iters: NDArray[np.int64],
    loss_floor: FloatArray,
    bounds: tuple[NDArray[Any], NDArray[Any]],
) -> NDArray[np.float32]:
    """Return the observations, (E, features) float32, clipped into their bounds.

    Args:
        state: Where the episodes stand.
        config: Which features.
        max_iters: Updates in each member's run, (E,).
        loss_floor: What ``log_excess_loss`` subtracts, (E,), nats.
        bounds: Of `observation_bounds`, which costs more than an observation.
    """
    progress = state.iteration / max_iters
    shape = (len(progress), len(config.features))
    observation = np.empty(shape, dtype=np.float32)
    for column, name in enumerate(config.features):
        observation[:, column] = FEATURES[name].value(state, progress, loss_floor)
    low, high = bounds
    return np.asarray(np.minimum(np.maximum(observation, low), high))


# ---------------------------------------------------------------------------- rewards


def divergence_loss(state: EpisodeState, config: MDPConfig) -> FloatArray:
    """Return the validation loss above which an episode counts as diverged, (E,)."""
    return state.initial_loss * config.divergence_factor


def survivor_reward(
    state: EpisodeState, config: MDPConfig, last: NDArray[np.bool_]
) -> FloatArray:
    """Return the reward of episodes that did not diverge, (E,).

    Args:
        state: After the evaluation; `best_val_loss` is still the best before it.
        config: Which reward.
        last: Whether the decision was the episode's last, (E,).
    """
    if config.reward == "loss_reduction":
        return state.previous_loss - state.val_loss
    if config.reward == "log_loss_reduction":
        return np.asarray(np.log(state.previous_loss / state.val_loss))
    if config.reward == "final_loss":
        return np.where(last, -state.val_loss, 0.0)
    if config.reward == "best_improvement":
        return state.best_val_loss - state.val_loss
    return -state.val_loss  # negative_loss


def worst_return(state: EpisodeState, config: MDPConfig, decisions: int) -> FloatArray:
    """Return a lower bound on the return of any episode that survives, (E,).

    It follows from 0 <= val_loss <= `divergence_loss` at every decision.
    """
    ceiling = divergence_loss(state, config)
    if config.reward == "loss_reduction":
        return state.initial_loss - ceiling
    if config.reward == "log_loss_reduction":
        return np.asarray(np.log(state.initial_loss / ceiling))
    if config.reward == "final_loss":
        return -ceiling
    return -decisions * ceiling  # best_improvement, negative_loss


def divergence_reward(
    state: EpisodeState, config: MDPConfig, decisions: int
) -> FloatArray:
    """Return the reward that makes a diverged episode's return worse than any other.

    The return becomes `worst_return` - `divergence_penalty`, whenever it happens.
    """
    target = worst_return(state, config, decisions) - config.divergence_penalty
    return target - state.episode_return
