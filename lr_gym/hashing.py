"""Random numbers as hashes: a pure function of a key and a counter, elementwise.

Keys, counters and hashes are uint64 arrays, whose sums and products wrap around.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]

# The increment and the multipliers of SplitMix64 (Steele et al. 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TABLE_BITS = 16
# A fixed table of standard normal numbers; bits of a hash choose the entry.
_NORMAL: NDArray[np.float64] = np.random.Generator(np.random.PCG64(0)).standard_normal(
    2**_TABLE_BITS
)


def splitmix64(value: UInt64Array) -> UInt64Array:
    """Return the hash of each integer: SplitMix64's finalizer."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def hashed(key: UInt64Array, count: UInt64Array | np.uint64) -> UInt64Array:
    """Return 64 random bits for each key and counter."""
    return splitmix64(key + count * _GOLDEN)


def normal(bits: UInt64Array) -> NDArray[np.float64]:
    """Return standard normal numbers, chosen by the highest 16 of 64 bits."""
    return _table_entry(bits >> np.uint64(64 - _TABLE_BITS))


def second_normal(bits: UInt64Array) -> NDArray[np.float64]:
    """Return standard normal numbers, chosen by the next 16 bits of the same hash."""
    lower = bits >> np.uint64(64 - 2 * _TABLE_BITS)
    return _table_entry(lower & np.uint64(2**_TABLE_BITS - 1))


def _table_entry(index: UInt64Array) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = _NORMAL[index]
    return numbers
