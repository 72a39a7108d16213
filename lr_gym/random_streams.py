"""Random numbers as pure functions of (key, counter), on any device.

Batches and dropout masks use these functions. A member's stream depends only on its
seed and position, not on the population's size, the device or earlier draws. A snapshot
of a stream is one integer. torch's global generators are not used.

The hash is the 32-bit finalizer "lowbias32" (Wellons 2018, "Prospecting for Hash
Functions"). Keys and batches are small and hashed in int64. Dropout masks are hashed in
int32, which gives the same 32 bits with half the memory; 64-bit products are slow on a
GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: spreads consecutive counters
_SIGN = -(2**31)  # int32 with only the highest bit set


def lowbias32(value: Tensor) -> Tensor:
    """Hash int64 values to 32 uniform bits, elementwise, in [0, 2**32)."""
    value = value & _MASK
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _MASK
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _MASK
    return value ^ (value >> 16)


def fold_in(key: Tensor, counter: Tensor | int) -> Tensor:
    """Return the key of sub-stream number `counter` of the int64 `key`."""
    return lowbias32(lowbias32(key + _GOLDEN) ^ (counter * _GOLDEN))


def random_integers(key: Tensor, count: int, bound: int) -> Tensor:
    """Draw `count` integers in [0, `bound`) for every key.

    Args:
        key: Keys, int64, any shape.
        count: Draws per key.
        bound: Exclusive upper bound, below 2**31.

    Returns:
        int64 of shape (*key.shape, count).
    """
    counter = torch.arange(count, device=key.device)
    bits = fold_in(key.unsqueeze(-1), counter)
    return (bits * bound) >> 32  # Lemire's multiply-and-shift (no division)


def keep_mask(key: Tensor, shape: torch.Size, drop_probability: float) -> Tensor:
    """Return a bool mask of `shape`, True with probability 1 - `drop_probability`.

    Element i is kept where `lowbias32(key ^ i * _GOLDEN)` is at least
    `drop_probability` * 2^32.

    Args:
        key: int64 scalar from `fold_in`. It is already hashed, so one round is enough.
        shape: Shape of the mask; fewer than 2**31 elements.
        drop_probability: In [0, 1).
    """
    counter = torch.arange(shape.numel(), dtype=torch.int32, device=key.device)
    if torch.compiler.is_compiling():
        # Else the compiler folds the strides of `shape` into _GOLDEN. The product has
        # more than 32 bits, and Triton rejects it. An xor ends that arithmetic.
        counter = counter ^ 0
    value = (counter * _as_int32(_GOLDEN)).view(shape) ^ key.to(torch.int32)
    # `lowbias32` on signed integers: the mask removes the copies of the sign bit.
    value = (value ^ ((value >> 16) & 0xFFFF)) * 0x7FEB352D
    value = (value ^ ((value >> 15) & 0x1FFFF)) * _as_int32(0x846CA68B)
    value = value ^ ((value >> 16) & 0xFFFF)
    # Flipping the sign bit turns an unsigned comparison into a signed one.
    return (value ^ _SIGN) >= int(drop_probability * 2**32) + _SIGN


def _as_int32(bits: int) -> int:
    """Return the int32 that has these 32 bits."""
    return bits - 2**32 if bits >= 2**31 else bits


def stream_seeds(seed: int, count: int) -> list[int]:
    """Split one member's `seed` into `count` independent 32-bit seeds."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count)]
