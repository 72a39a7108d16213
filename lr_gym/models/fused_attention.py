"""Launch the Triton kernels of attention with dropout; needs Triton.

Shapes: M members, B batch of one member, T time, H heads, D head size, C = H x D.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from lr_gym.models import attention_kernels


def forward(
    qkv: Tensor, keys: Tensor, heads: int, probability: float
) -> tuple[Tensor, Tensor]:
    """Return outputs, (M x B, T, C), and log-sum-exps of the scores, (M x B, H, T).

    Args:
        qkv: Queries, keys and values side by side, (M x B, T, 3C).
        keys: Keys of the members' masks, int64, (M,).
        heads: H.
        probability: Probability of dropping an attention weight.
    """
    qkv, keys = _packed(qkv), keys.contiguous()
    constants, blocks = _constants(qkv, keys, heads, probability)
    batch, time, width = qkv.shape
    y = qkv.new_empty(batch, time, width // 3)
    lse = qkv.new_empty(batch, heads, time, dtype=torch.float32)
    grid = (batch * heads * triton.cdiv(time, blocks["BLOCK_Q"]),)
    with _device_of(qkv):
        attention_kernels.forward_kernel[grid](
            qkv, keys, y, lse, *qkv.stride()[:2], **constants, **blocks
        )
    return y, lse


def backward(
    qkv: Tensor,
    keys: Tensor,
    y: Tensor,
    lse: Tensor,
    dy: Tensor,
    heads: int,
    probability: float,
) -> Tensor:
    """Return the gradient of `qkv`, (M x B, T, 3C), given `dy`, that of `y`."""
    qkv, keys, lse = _packed(qkv), keys.contiguous(), lse.contiguous()
    y, dy = y.contiguous(), dy.contiguous()
    constants, blocks = _constants(qkv, keys, heads, probability)
    batch, time, _ = qkv.shape
    delta = torch.empty_like(lse)
    dqkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    strides = qkv.stride()[:2]
    by_queries = (batch * heads * triton.cdiv(time, blocks["BLOCK_Q"]),)
    by_keys = (batch * heads * triton.cdiv(time, blocks["BLOCK_K"]),)
    with _device_of(qkv):
        attention_kernels.queries_kernel[by_queries](
            qkv, keys, y, dy, lse, delta, dqkv, *strides, **constants, **blocks
        )
        attention_kernels.keys_kernel[by_keys](
            qkv, keys, dy, lse, delta, dqkv, *strides, **constants, **blocks
        )
    return dqkv


def _device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Select the device of `x`; Triton's interpreter, on a CPU, needs none."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _packed(qkv: Tensor) -> Tensor:
    """Return `qkv` with a contiguous last dimension."""
    return qkv if qkv.stride(2) == 1 else qkv.contiguous()


def _constants(
    qkv: Tensor, keys: Tensor, heads: int, probability: float
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the kernels' compile-time constants, and their block sizes."""
    batch, time, width = qkv.shape
    size = width // (3 * heads)
    wide = max(16, triton.next_power_of_2(size))
    exact = qkv.dtype == torch.float32
    constants = {
        "BATCH": batch // len(keys),
        "HEADS": heads,
        "TIME": time,
        "SIZE": size,
        "SCALE": 1.0 / math.sqrt(size),
        "GROWTH": 1.0 / (1.0 - probability),
        "THRESHOLD": int(probability * 2**32),
        "WIDE": wide,
        "PRECISION": "ieee" if exact else "tf32",  # bfloat16 ignores it
    }
    side = 32 if exact or wide > 128 else 64
    warps = 4 if wide <= 64 else 8  # fewer spill registers on an H100 (sm_90)
    blocks = {"BLOCK_Q": side, "BLOCK_K": side, "num_warps": warps, "num_stages": 2}
    return constants, blocks
