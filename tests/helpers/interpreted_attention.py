"""Errors of the attention kernels in Triton's interpreter, as JSON on stdout.

    TRITON_INTERPRET=1 python -m tests.helpers.interpreted_attention

An error is the norm of the difference from plain matrix products in float64, divided by
their norm.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from lr_gym.models import dropout_attention, fused_attention
from lr_gym.random_streams import fold_in

# Members, batch size, heads, time, head size, dropout probability. The cases cover more
# and less than one block of 64 (float32: 32), sizes that are no powers of two, and
# probabilities at which a 32-bit comparison could be wrong.
CASES = [
    (1, 1, 1, 16, 16, 0.0),
    (2, 2, 2, 40, 24, 0.2),
    (1, 1, 1, 130, 64, 0.2),
    (2, 1, 1, 64, 32, 0.5),
    (1, 1, 1, 70, 128, 0.8),
]
_dot = interpreter.InterpreterBuilder.create_dot


def _dot_of_bfloat16(
    self: object,
    a: interpreter.TensorHandle,
    b: interpreter.TensorHandle,
    *rest: object,
) -> interpreter.TensorHandle:
    """Multiply the values of bfloat16: Triton 3.6's interpreter multiplies the bits."""
    if a.dtype == tl.bfloat16:
        a, b = _float32(a), _float32(b)
    return _dot(self, a, b, *rest)


def _float32(x: interpreter.TensorHandle) -> interpreter.TensorHandle:
    data = (x.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(data, tl.float32)


def errors(
    members: int,
    batch: int,
    heads: int,
    time: int,
    size: int,
    probability: float,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Return the errors of outputs, log-sum-exps and gradients in one case."""
    generator = torch.Generator().manual_seed(0)
    width = heads * size
    padded = torch.randn(members * batch, time + 3, 3 * width + 16, generator=generator)
    qkv = padded.to(dtype)[:, 1 : time + 1, : 3 * width]  # not contiguous
    dy = torch.randn(members * batch, time, width, generator=generator).to(dtype)
    keys = fold_in(torch.arange(members).unsqueeze(1), torch.arange(3))[:, 1]

    y, lse = fused_attention.forward(qkv, keys, heads, probability)
    dqkv = fused_attention.backward(qkv, keys, y, lse, dy, heads, probability)
    actual = dict(zip(("dq", "dk", "dv"), dqkv.chunk(3, -1), strict=True))
    actual |= {"y": y, "lse": lse}

    exact = qkv.double()
    y, lse = dropout_attention._forward(exact, keys, heads, probability)
    dqkv = dropout_attention._backward(
        exact, keys, y, lse, dy.double(), heads, probability
    )
    expected = dict(zip(("dq", "dk", "dv"), dqkv.chunk(3, -1), strict=True))
    expected |= {"y": y, "lse": lse}
    return {name: _relative_error(actual[name], x) for name, x in expected.items()}


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


if __name__ == "__main__":
    interpreter.InterpreterBuilder.create_dot = _dot_of_bfloat16
    measured = [
        {"case": case, "dtype": str(dtype), "errors": errors(*case, dtype)}
        for case in CASES
        for dtype in (torch.float32, torch.bfloat16)
    ]
    json.dump(measured, sys.stdout)
