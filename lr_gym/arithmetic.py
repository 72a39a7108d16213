"""Functions of numbers, and hashed random ones, for arrays and single floats alike.

An operation on an array of one costs thirty times what it costs on a float. Formulas
that take an `Arithmetic` serve both, to the same bits: a population, and one run
without arrays. Floats go through NumPy's own exponentials, whose last bit the C
library's do not share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Value: TypeAlias = Any  # a float, or an array of them; of integers likewise

# The increment and the multipliers of SplitMix64 (Steele et al. 2014).
GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL_BITS = 0xFFFFFFFFFFFFFFFF
_TABLE_BITS = 16
# A fixed table of standard normal numbers; which one is used is hashed.
_NORMAL = np.random.Generator(np.random.PCG64(0)).standard_normal(2**_TABLE_BITS)


@dataclass(frozen=True)
class Arithmetic:
    """What formulas need beside ``+ - * /`` and comparisons.

    Attributes:
        divide: A quotient, also by 0.
        exp: e to a power.
        log: Natural logarithm.
        log10: Decimal logarithm.
        log1p: Natural logarithm of 1 + x.
        sqrt: Square root.
        power: A number to a power.
        maximum: The larger of two numbers; the second is not NaN.
        minimum: The smaller of two numbers, likewise.
        finite: Whether a number is neither infinite nor NaN.
        where: The second where the first is true, else the third.
        any: Whether anything is true.
        entry: The entries of a table at some places.
        unsigned: Integers from 0 up, for `hashed`.
    """

    divide: Callable[[Any, Any], Any]
    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    log10: Callable[[Any], Any]
    log1p: Callable[[Any], Any]
    sqrt: Callable[[Any], Any]
    power: Callable[[Any, Any], Any]
    maximum: Callable[[Any, Any], Any]
    minimum: Callable[[Any, Any], Any]
    finite: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]
    any: Callable[[Any], Any]
    entry: Callable[[NDArray[Any], Any], Any]
    unsigned: Callable[[Any], Any]


ARRAYS = Arithmetic(
    divide=np.divide,
    exp=np.exp,
    log=np.log,
    log10=np.log10,
    log1p=np.log1p,
    sqrt=np.sqrt,
    power=np.power,
    maximum=np.maximum,
    minimum=np.minimum,
    finite=np.isfinite,
    where=np.where,
    any=np.count_nonzero,
    entry=lambda table, places: table[places],
    unsigned=lambda integers: integers.astype(np.uint64),
)


# Of one run: rates come from a ladder and chunks have equal lengths, so that most
# exponentials are of numbers that were there before.
_remembered = lru_cache(maxsize=4096)

FLOATS = Arithmetic(
    divide=lambda x, y: float(np.divide(x, y)),
    exp=_remembered(lambda x: float(np.exp(x))),
    log=_remembered(lambda x: float(np.log(x))),
    log10=lambda x: float(np.log10(x)),
    log1p=lambda x: float(np.log1p(x)),
    sqrt=math.sqrt,
    power=_remembered(lambda x, y: float(np.power(x, y))),
    maximum=max,
    minimum=min,
    finite=math.isfinite,
    where=lambda condition, x, y: x if condition else y,
    any=bool,
    entry=lambda table, place: table.item(place),
    unsigned=int,
)


def splitmix64(value: Value) -> Value:
    """Hash integers of 64 bits, unsigned, elementwise: SplitMix64's finalizer."""
    value = (value ^ (value >> 30)) * _FIRST & _ALL_BITS
    value = (value ^ (value >> 27)) * _SECOND & _ALL_BITS
    return value ^ (value >> 31)


def hashed(key: Value, count: Value) -> Value:
    """Return 64 random bits per key and count, both of 64 bits and unsigned."""
    return splitmix64((key + count * GOLDEN) & _ALL_BITS)


def normal(bits: Value, of: Arithmetic = ARRAYS) -> Value:
    """Return standard normal numbers, chosen by the highest of 64 bits."""
    return of.entry(_NORMAL, bits >> (64 - _TABLE_BITS))


def second_normal(bits: Value, of: Arithmetic = ARRAYS) -> Value:
    """Return normal numbers chosen by the next highest bits of the same hash."""
    return of.entry(_NORMAL, (bits >> (64 - 2 * _TABLE_BITS)) & (2**_TABLE_BITS - 1))
