"""Results of the checks in `correct.py` and `correct_env.py`."""

from __future__ import annotations

from typing import Any

Check = dict[str, Any]
BITWISE_EQUAL = 0.0  # the bound if all bits must be equal


def check_bound(measured: float | dict[str, float], bound: float) -> Check:
    """Return a check that passed if all values are at most `bound`; NaN fails."""
    values = measured.values() if isinstance(measured, dict) else [measured]
    passed = all(value <= bound for value in values)
    return {"passed": passed, "measured": measured, "bound": bound}


def skipped_check(note: str) -> Check:
    """Return a check that this machine or version cannot run."""
    return {"passed": None, "measured": None, "bound": None, "note": note}
