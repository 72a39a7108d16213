"""A table of action values as a policy: how states are rounded, and who wins a tie.

`agents/tabular_q.py` learns such tables and shares these functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.validation import check_choice

State = tuple[float, ...]
Table = dict[State, list[float]]

FORMAT = "lr-gym tabular Q 1"  # of the JSON files of agents/tabular_q.py
FEATURES = ("val_loss", "learning_rate", "progress")  # what a state can be made of
PROTOCOLS = ("paper", "improved")
TIES = ("keep", "first")
DEFAULT_FEATURES = {  # by protocol
    "paper": ("val_loss", "learning_rate"),
    "improved": ("progress", "learning_rate"),
}


def rounded(protocol: str, feature: str, value: float, decisions: int) -> float:
    """Return `value` of `feature` as it stands in a state.

    ``paper``: the loss to 2 decimals, the learning rate to 5. ``improved``: the loss to
    1 decimal, the learning rate in half octaves. Progress counts decisions.
    """
    if feature == "val_loss":
        return round(value, 2 if protocol == "paper" else 1)
    if feature == "learning_rate":
        return round(value, 5) if protocol == "paper" else round(2.0 * math.log2(value))
    return round(value * decisions)


def best_action(values: Sequence[float], keep_action: int, ties: str) -> int:
    """Return the action of the highest value.

    Among equals ``keep`` prefers the action that keeps the rate, ``first`` the first.
    """
    best = max(values)
    if ties == "keep" and values[keep_action] == best:
        return keep_action
    return values.index(best)


def read_table(rows: Iterable[Any], features: int, actions: int) -> Table:
    """Return the table of ``[*state, values]`` rows, as JSON holds them.

    Raises:
        ValueError: A number is not finite, or a row has another length.
        TypeError: A row is not made of numbers.
    """
    table: Table = {}
    for *state, values in rows:
        row = [float(value) for value in values]
        if not all(map(math.isfinite, (*state, *row))):
            raise ValueError("a number is not finite")
        if len(row) != actions:
            raise ValueError(f"a row has {len(row)} actions")
        if len(state) != features:
            raise ValueError(f"a state has {len(state)} entries")
        table[tuple(state)] = row
    return table


@dataclass(frozen=True)
class QTable:
    """Acts by the table alone: no exploring, no learning.

    Attributes:
        table: Action values by state; states not in it are worth 0.
        features: What a state is made of, some of `FEATURES`; the observation is all of
            `FEATURES`, in this order.
        protocol: How states are rounded; one of `PROTOCOLS`.
        ties: One of `TIES`.
        actions: Number of actions.
        keep_action: The action that keeps the rate.
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
            raise ValueError(f"features must be one or more, once: {self.features!r}")

    def action(self, observation: NDArray[np.float32], decisions: int) -> int:
        """Return the best action of the observation's state; see `Head.action`."""
        seen = dict(zip(FEATURES, map(float, observation), strict=True))
        state = tuple(
            rounded(self.protocol, name, seen[name], decisions)
            for name in self.features
        )
        values = self.table.get(state, [0.0] * self.actions)
        return best_action(values, self.keep_action, self.ties)
