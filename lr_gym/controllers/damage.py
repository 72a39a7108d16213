"""Tells damage from noise in a series of evaluations, in any unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from lr_gym.validation import check_complete, check_integer, check_mapping

NOISE = 8.0  # a rise by more than this many standard deviations of the noise ...
FALL = 0.3  # ... and by more than this share of the fall so far is damage
FIRST = 5  # evaluations before any is judged, and before one after an undo is
RECENT = 30  # differences that the noise is estimated from


class Damage:
    """Judges evaluations, of which lower ones are better.

    The noise is estimated from differences of successive evaluations, by their median.
    After damage it compares with the next evaluations only, so one rise counts once.

    Attributes:
        count: Evaluations that showed damage.
    """

    def __init__(self) -> None:
        """Start without evaluations."""
        self.count = 0
        self._first: float | None = None
        self._recent: list[float] = []  # since the last damage
        self._differences: list[float] = []

    def judge(self, value: float) -> bool:
        """Return whether `value` shows damage since the evaluations before it."""
        if not math.isfinite(value):
            self.count += 1
            self._recent = []
            return True
        if self._first is None:
            self._first = value
        if len(self._recent) >= FIRST:
            reference = median(self._recent[-3:])
            scale = median(self._differences) / 0.6745 / math.sqrt(2.0)
            fall = max(0.0, self._first - reference)
            if value - reference > max(NOISE * scale, FALL * fall):
                self.count += 1
                self._recent = []
                return True
        if self._recent:
            change = abs(value - self._recent[-1])
            self._differences = [*self._differences[1 - RECENT :], change]
        self._recent = [*self._recent[1 - FIRST :], value]
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the state, ready for JSON."""
        return {
            "count": self.count,
            "first": self._first,
            "recent": list(self._recent),
            "differences": list(self._differences),
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check a state that `load_state_dict` is to load.

        Raises:
            TypeError: An entry is missing, unknown or not a list of numbers.
            ValueError: A number is out of range, or differences are missing.
        """
        check_mapping("damage", state)
        check_complete("damage", state, tuple(self.state_dict()))
        check_integer("count", state["count"], 0)
        first, recent = state["first"], state["recent"]
        differences = state["differences"]
        if first is not None:
            _check_finite("first", first)
        for name in ("recent", "differences"):
            if not isinstance(state[name], list | tuple):
                raise TypeError(f"{name} must be a list, got {state[name]!r}")
            for value in state[name]:
                _check_finite(name, value)
        if any(value < 0.0 for value in differences):
            raise ValueError(f"differences must not be negative, got {differences!r}")
        if recent and (first is None or len(differences) < len(recent) - 1):
            raise ValueError(
                f"damage has {len(recent)} recent evaluations, so it must have a first "
                f"one and {len(recent) - 1} differences at least"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checked state."""
        self.count = state["count"]
        self._first = state["first"]
        self._recent = list(state["recent"])
        self._differences = list(state["differences"])


def _check_finite(name: str, value: object) -> None:
    """Raise unless `value` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must hold numbers, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must hold finite numbers, got {value!r}")
