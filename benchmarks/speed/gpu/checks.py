"""What a check of `correct.py` returns."""

from __future__ import annotations

from typing import Any

Check = dict[str, Any]
EQUAL = 0.0  # the bound where every bit has to be the same


def judged(measured: float | dict[str, float], bound: float) -> Check:
    """Return whether everything measured is at most `bound`; NaN is not."""
    values = measured.values() if isinstance(measured, dict) else [measured]
    passed = all(value <= bound for value in values)
    return {"passed": passed, "measured": measured, "bound": bound}


def left_out(note: str) -> Check:
    """Return a check that could not be made here."""
    return {"passed": None, "measured": None, "bound": None, "note": note}
