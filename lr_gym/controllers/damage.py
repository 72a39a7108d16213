"""Tells damage from noise in a series of evaluations, in any unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from lr_gym.validation import check_complete, check_integer, read_number

NOISE = 8.0  # a rise by more than this many standard deviations of the noise ...
FALL = 0.3  # ... and by more than this share of the fall so far is damage
FIRST = 5  # evaluations before any is judged, and before one after an undo is
RECENT = 30  # differences that the noise is estimated from


class Damage:
    """Judges evaluations, of which lower ones are better.

    The noise is estimated from differences of successive evaluations, by their median.
    After damage the next evaluations are measured anew, so one rise counts once.

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

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            TypeError: An entry is missing, unknown or not a list of numbers.
        """
        check_complete("damage", state, tuple(self.state_dict()))
        check_integer("count", state["count"], 0)
        first, *lists = (state[k] for k in ("first", "recent", "differences"))
        for values in lists:
            if not isinstance(values, list | tuple):
                raise TypeError(f"damage must hold lists, got {values!r}")
        numbers = [read_number("damage", value) for value in (*lists[0], *lists[1])]
        self.count = state["count"]
        self._first = None if first is None else read_number("damage", first)
        self._recent = numbers[: len(lists[0])]
        self._differences = numbers[len(lists[0]) :]
