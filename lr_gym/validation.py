"""Checks of arguments: each error names the argument, its value and the rule."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Collection, Mapping

# Limits of all numbers without others. Their squares and products are finite in
# float64, and they are finite in float32.
MAX_INTEGER = 10**9
MAX_REAL = 1e30
MIN_REAL = 1e-30  # of numbers that must be above 0


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


def check_complete(
    owner: str, keys: Collection[str], expected: Collection[str]
) -> None:
    """Raise TypeError unless `keys` are the `expected` ones."""
    check_keys(owner, keys, expected)
    missing = [name for name in expected if name not in keys]
    if missing:
        raise TypeError(f"{owner} lacks {', '.join(missing)}")


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


def check_mapping(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping such as a dict, got {value!r}")


def check_boolean(name: str, value: object) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_integer(name: str, value: object, low: int, high: int = MAX_INTEGER) -> None:
    """Raise unless `value` is an integer in [`low`, `high`]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if not low <= number <= high:
        rule = f"at least {low}" if number < low else f"at most {high}"
        rule = rule if high == MAX_INTEGER else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {rule}, got {_shortened(value)}")


def check_count(name: str, value: object, most: int = MAX_INTEGER) -> None:
    """Raise unless `value` is an integer from 1 to `most`."""
    check_integer(name, value, 1)
    if int(value) > most:  # type: ignore[call-overload]  # an integer
        raise ValueError(f"{name} must be at most {most}, got {value!r}")


def check_real(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise unless `value` is a finite real number between `low` and `high`.

    It is at most `MAX_REAL`, and if it must be above 0, at least `MIN_REAL`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # of an integer or a fraction
        number = math.inf  # or -inf: neither is finite
    above = number > low if low_open else number >= low  # both false for NaN
    below = number < high if high_open else number <= high
    if not (math.isfinite(number) and above and below):
        bounds = f"{'(' if low_open else '['}{low:g}, {high:g}"
        closing = ")" if high_open or math.isinf(high) else "]"
        raise ValueError(
            f"{name} must be finite and in {bounds}{closing}, got {_shortened(value)}"
        )
    least = MIN_REAL if low_open and low == 0.0 else -MAX_REAL
    if not least <= number <= MAX_REAL:
        raise ValueError(
            f"{name} must be in [{least:g}, {MAX_REAL:g}], where squares and products "
            f"are finite; got {value!r}"
        )


def read_number(name: str, value: object) -> float:
    """Return a number that a user's training measured; it need not be finite.

    A number above `MAX_REAL` counts as infinite.

    Args:
        name: What was measured.
        value: A number, or an array or tensor with one.

    Raises:
        TypeError: It is another object.
    """
    try:
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, bool | str | bytes):
            raise TypeError(name)
        number = float(plain)  # type: ignore[arg-type]  # the check
    except OverflowError:  # of an integer
        number = math.inf
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    return number if not number > MAX_REAL else math.inf


def make_numbers_plain(config: object) -> None:
    """Replace NumPy's numbers by Python's in a frozen dataclass, also within tuples.

    Results store configurations as JSON, which NumPy's numbers are not. NumPy computes
    with no integer above 2**63, so large ones become floats.
    """
    for name in field_names(type(config)):
        value = getattr(config, name)
        plain = tuple(map(_plain, value)) if isinstance(value, tuple) else _plain(value)
        object.__setattr__(config, name, plain)


def _plain(value: object) -> object:
    if isinstance(value, int) and abs(value) > 2**53:
        return float(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _shortened(value: object) -> str:
    """Return the representation of a number; of a very large one, its length."""
    if isinstance(value, int) and abs(value) >= 2**1024:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)
