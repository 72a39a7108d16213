"""A table of action values that chooses actions; `agents/tabular_q.py` learns it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lr_gym.validation import check_choice, check_real

State = tuple[float, ...]
Table = dict[State, list[float]]

FORMAT = "lr-gym tabular Q 1"  # of the JSON files that agents/tabular_q.py saves
FEATURES = ("val_loss", "learning_rate", "progress")  # that a state may contain
PROTOCOLS = ("paper", "improved")
TIES = ("keep", "first")
DEFAULT_FEATURES = {  # by protocol
    "paper": ("val_loss", "learning_rate"),
    "improved": ("progress", "learning_rate"),
}


def rounded(protocol: str, feature: str, value: float, decisions: int) -> float:
    """Return a feature's value as a state contains it.

    Args:
        protocol: ``paper`` rounds the loss to 2 decimals and the learning rate to 5.
            ``improved`` rounds the loss to 1 decimal and the learning rate to half
            octaves. Both count decisions as progress.
        feature: One of `FEATURES`.
        value: The feature's value.
        decisions: Decisions in the whole run.
    """
    if feature == "val_loss":
        return round(value, 2 if protocol == "paper" else 1)
    if feature == "learning_rate":
        return round(value, 5) if protocol == "paper" else round(2.0 * math.log2(value))
    return round(value * decisions)


def best_action(values: Sequence[float], keep_action: int, ties: str) -> int:
    """Return the action with the highest value.

    Args:
        values: The action values, one per action.
        keep_action: The action that keeps the learning rate.
        ties: Among equal values, ``keep`` prefers `keep_action`, ``first`` the first.
    """
    best = max(values)
    if ties == "keep" and values[keep_action] == best:
        return keep_action
    return values.index(best)


def read_table(entries: object, features: int, actions: int) -> Table:
    """Return the table of the JSON entries ``[*state, values]``.

    Args:
        entries: A list with one per state.
        features: Numbers in a state.
        actions: Numbers in its values.

    Raises:
        ValueError: A number is not finite, or an entry has another length.
        TypeError: An entry holds something else than numbers.
    """
    table: Table = {}
    if not isinstance(entries, list):
        raise TypeError(f"the table must be a list, got {entries!r}")
    for entry in entries:
        if not isinstance(entry, list) or not entry or not isinstance(entry[-1], list):
            raise TypeError(f"an entry must be [*state, [*values]], got {entry!r}")
        *state, values = entry
        for number in (*state, *values):
            check_real("a number of the table", number, -math.inf)
        action_values = [float(value) for value in values]
        if len(action_values) != actions:
            raise ValueError(
                f"a state must have {actions} action values, got {len(action_values)}"
            )
        if len(state) != features:
            raise ValueError(f"a state must have {features} features, got {len(state)}")
        table[tuple(state)] = action_values
    return table


@dataclass(frozen=True)
class QTable:
    """Chooses the best action of a table, without exploring or learning.

    Attributes:
        table: Action values by state; the values of a missing state are 0.
        features: The features in a state, some of `FEATURES`. The observation holds all
            of `FEATURES`, in this order.
        protocol: One of `PROTOCOLS`; see `rounded`.
        ties: One of `TIES`; see `best_action`.
        actions: Number of actions.
        keep_action: The action that keeps the learning rate.
    """

    table: Table
    features: tuple[str, ...]
    protocol: str
    ties: str
    actions: int
    keep_action: int

    def __post_init__(self) -> None:
        """Check the settings; `read_table` has checked the table."""
        check_choice("protocol", self.protocol, PROTOCOLS)
        check_choice("ties", self.ties, TIES)
        for feature in self.features:
            check_choice("features", feature, FEATURES)
        if not self.features or len(set(self.features)) < len(self.features):
            raise ValueError(
                f"features must be one or more, without repeats, got {self.features!r}"
            )

    def __call__(self, observation: NDArray[np.float32], decisions: int) -> int:
        """Return the best action in the observation's state.

        Args:
            observation: (F,) float32, the values of `FEATURES`.
            decisions: Decisions in the whole run.
        """
        values_by_feature = dict(zip(FEATURES, map(float, observation), strict=True))
        state = tuple(
            rounded(self.protocol, name, values_by_feature[name], decisions)
            for name in self.features
        )
        values = self.table.get(state, [0.0] * self.actions)
        return best_action(values, self.keep_action, self.ties)
