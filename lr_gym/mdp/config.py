"""The settings of the decision process: observations, actions and rewards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.observations import FEATURES
from lr_gym.schedules import SCHEDULES
from lr_gym.validation import (
    check_boolean,
    check_choice,
    check_integer,
    check_real,
    make_numbers_plain,
)

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
MAX_LOG2_FACTOR = 99.0  # a factor of 6e29


@dataclass(frozen=True, kw_only=True)
class MDPConfig:
    """Observations, actions and rewards. Checked on construction.

    Attributes:
        action_type: ``discrete`` chooses from `lr_factors`; ``continuous`` is the log2
            of the factor in units of `max_log2_factor`, in [-1, 1].
        lr_factors: Factors on the learning rate, one per ``discrete`` action.
        max_log2_factor: Largest absolute log2 of the factor of a ``continuous`` action,
            in (0, 99]. The default allows factors from 0.5 to 2.
        min_lr: Lower bound of the agent's learning rate.
        max_lr: Upper bound of the agent's learning rate.
        reward: One of `REWARDS`; see `lr_gym.LRTuningEnv`.
        features: The observation's entries, in order; see `FEATURES`.
        base_schedule: Multiplies the agent's learning rate at each iteration; see
            `schedules.py`.
        allow_undo: Let the agent undo the last chunk of training: by one more
            ``discrete`` action, or by a second entry above 0 of a ``continuous`` one.
        undo_factor: The ``discrete`` undo divides the learning rate by this, above 1.
            A ``continuous`` undo uses the factor in its first entry.
        decision_spacing: ``uniform`` decides every `eval_interval` iterations;
            ``dense_start`` every `dense_interval` over the first `dense_fraction`.
        dense_interval: Iterations between the early decisions of ``dense_start``.
        dense_fraction: Fraction of the run with early decisions, in (0, 1).
        divergence_factor: An episode diverges if its validation loss exceeds this
            multiple of the initial one, or if a loss or gradient is not finite.
        divergence_penalty: The return of a diverged episode is this much below the
            worst return of any surviving episode.
        loss_floor: Subtracted from the loss in ``log_excess_loss``. `None` is the known
            entropy rate of the corpus, or 0.

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
        make_numbers_plain(self)

    def _check_scalars(self) -> None:
        check_choice("action_type", self.action_type, ACTION_TYPES)
        check_choice("reward", self.reward, REWARDS)
        check_choice("base_schedule", self.base_schedule, SCHEDULES)
        check_choice("decision_spacing", self.decision_spacing, DECISION_SPACINGS)
        for name in ("min_lr", "max_lr", "divergence_penalty"):
            check_real(name, getattr(self, name), 0.0, low_open=True)
        check_real(
            "max_log2_factor", self.max_log2_factor, 0.0, MAX_LOG2_FACTOR, low_open=True
        )
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
        """The discrete action that keeps the learning rate.

        Raises:
            ValueError: There is none, because 1.0 is not among `lr_factors`.
        """
        if self.action_type == "continuous" or 1.0 not in self.lr_factors:
            raise ValueError(
                f"no action keeps the learning rate: lr_factors={self.lr_factors!r}"
            )
        return self.lr_factors.index(1.0)

    @property
    def undo_action(self) -> int | None:
        """The discrete action that undoes the last chunk, or `None`."""
        discrete = self.action_type == "discrete"
        return len(self.lr_factors) if self.allow_undo and discrete else None

    @cached_property
    def factors(self) -> FloatArray:
        """Factor on the learning rate of each discrete action; undo is the last."""
        undo = (1.0 / self.undo_factor,) if self.allow_undo else ()
        return np.array([*self.lr_factors, *undo])

    @property
    def action_size(self) -> int:
        """Numbers in one action: 2 if it is continuous and may undo, else 1."""
        return 2 if self.allow_undo and self.action_type == "continuous" else 1
