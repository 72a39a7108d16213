"""The decision process: actions and features, as functions of where episodes stand.

Everything here is pure, and written once for arrays of E episodes and for one in plain
numbers (`arithmetic.py`), so that the single and the vector environment cannot differ.
What a decision is paid is in `rewards.py`. Nothing here trains: `episodes.py` drives a
trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.arithmetic import ARRAYS, Arithmetic, Value
from lr_gym.config import check_boolean, check_choice, check_integer, check_real
from lr_gym.episode_state import EpisodeState
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

    @cached_property
    def factors(self) -> FloatArray:
        """What each discrete action multiplies the learning rate by, an undo last."""
        taken_back = (1.0 / self.undo_factor,) if self.allow_undo else ()
        return np.array([*self.lr_factors, *taken_back])

    @property
    def action_size(self) -> int:
        """Numbers in one action: 2 where a continuous one may undo, else 1."""
        return 2 if self.allow_undo and self.action_type == "continuous" else 1


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
    none = np.zeros(len(table), dtype=np.bool_)
    if config.action_type == "continuous":
        exponents = np.asarray(table[:, 0], dtype=np.float64) * config.max_log2_factor
        undo = table[:, 1] > 0 if config.allow_undo else none
        return np.exp2(exponents), undo
    chosen = table[:, 0]
    undo = chosen == len(config.lr_factors) if config.allow_undo else none
    return config.factors[chosen], undo


def next_learning_rate(
    config: MDPConfig, learning_rate: Value, factors: Value, of: Arithmetic
) -> Value:
    """Return the agent's learning rate times `factors`, within its bounds."""
    rates = of.minimum(learning_rate * factors, config.max_lr)
    return of.maximum(rates, config.min_lr)


# ----------------------------------------------------------------------- observations


# Of the state, progress, the loss floor in nats, and what these are.
_Reading = Callable[[EpisodeState, Value, Value, Arithmetic], Value]


@dataclass(frozen=True)
class Feature:
    """One entry of the observation: its bounds, and how it is read off the state."""

    low: Callable[[MDPConfig], float]
    high: Callable[[MDPConfig], float]
    value: _Reading


def _between(low: float, high: float, value: _Reading) -> Feature:
    return Feature(lambda _: low, lambda _: high, value)


FEATURES: dict[str, Feature] = {
    "val_loss": _between(0.0, LOSS_BOUND, lambda s, p, f, of: s.val_loss),
    "learning_rate": Feature(
        lambda c: c.min_lr, lambda c: c.max_lr, lambda s, p, f, of: s.learning_rate
    ),
    "log_learning_rate": Feature(
        lambda c: math.log10(c.min_lr),
        lambda c: math.log10(c.max_lr),
        lambda s, p, f, of: of.log10(s.learning_rate),
    ),
    "progress": _between(0.0, 1.0, lambda s, p, f, of: p),
    "train_loss": _between(0.0, LOSS_BOUND, lambda s, p, f, of: s.train_loss),
    "log_excess_loss": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f, of: of.log(of.maximum(s.val_loss - f, 1e-4)),
    ),
    "loss_slope": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f, of: of.log(s.previous_loss) - of.log(s.val_loss),
    ),
    "generalization_gap": _between(
        -LOSS_BOUND, LOSS_BOUND, lambda s, p, f, of: s.val_loss - s.train_loss
    ),
    "grad_norm": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f, of: of.log10(of.maximum(s.grad_norm, 1e-8)),
    ),
    "update_size": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f, of: of.log10(of.maximum(s.update_size, 1e-8)),
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
    max_iters: Value,
    loss_floor: Value,
    bounds: tuple[NDArray[Any], NDArray[Any]],
    of: Arithmetic = ARRAYS,
) -> NDArray[np.float32]:
    """Return the observations, (E, features) float32, clipped into their bounds.

    Args:
        state: Where the episodes stand; of one in numbers, (features,) is returned.
        config: Which features.
        max_iters: Updates in each member's run, (E,).
        loss_floor: What ``log_excess_loss`` subtracts, (E,), nats.
        bounds: Of `observation_bounds`, which costs more than an observation.
        of: What the state, `max_iters` and `loss_floor` are.
    """
    progress = state.iteration / max_iters
    values = [
        FEATURES[name].value(state, progress, loss_floor, of)
        for name in config.features
    ]
    found = np.array(values, dtype=np.float32).T
    low, high = bounds
    return np.asarray(np.minimum(np.maximum(found, low, order="C"), high))
