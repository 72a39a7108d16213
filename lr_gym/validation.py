"""Checks of arguments: each error names the argument, its value and the rule."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import operator
from collections.abc import Collection


def field_names(config_class: type) -> tuple[str, ...]:
    """Return the field names of a dataclass, in order."""
    return tuple(field.name for field in dataclasses.fields(config_class))


def check_keywords(
    caller: str, keywords: Collection[str], allowed: Collection[str]
) -> None:
    """Raise TypeError for an unknown keyword argument of a call.

    The message has Python's words, which Gymnasium and TorchRL look for before they
    retry without the keyword. The nearest allowed keyword and all others follow.
    """
    _check_names(f"{caller} got an unexpected keyword argument", keywords, allowed)


def check_keys(owner: str, keys: Collection[str], allowed: Collection[str]) -> None:
    """Raise TypeError for an unknown key of a mapping, and list the allowed ones."""
    _check_names(f"{owner} has an unknown key", keys, allowed)


def _check_names(
    problem: str, names: Collection[str], allowed: Collection[str]
) -> None:
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.65)
            end = f"; did you mean {near[0]!r}?" if near else "."
            raise TypeError(f"{problem} {name!r}{end} Allowed: {', '.join(allowed)}")


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}; got {value!r}{hint}"
        )


def check_boolean(name: str, value: object) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise unless `value` is an integer in [`low`, `high`]."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # the check
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if number < low or (high is not None and number > high):
        rule = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def check_real(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise unless `value` is a finite real number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    too_low = number <= low if low_open else number < low
    too_high = number >= high if high_open else number > high
    if not math.isfinite(number) or too_low or too_high:
        bounds = f"{'(' if low_open else '['}{low:g}, {high:g}"
        closing = ")" if high_open or math.isinf(high) else "]"
        raise ValueError(
            f"{name} must be finite and in {bounds}{closing}, got {value!r}"
        )
