"""Errors of the attention kernels in Triton's interpreter, as JSON on stdout.

    TRITON_INTERPRET=1 python -m tests.helpers.interpreted_attention

See `benchmarks.speed.gpu.attention.kernel_errors`.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from benchmarks.speed.gpu.attention import kernel_errors

# Members, batch size, heads, time, head size, dropout probability. The cases cover more
# and less than one block of 64 (float32: 32), sizes that are no powers of two, and
# probabilities at which a 32-bit comparison could be wrong.
CASES = [
    (1, 1, 1, 16, 16, 0.0),
    (2, 2, 2, 40, 24, 0.2),
    (1, 1, 1, 130, 64, 0.2),
    (1, 1, 2, 256, 64, 0.2),
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


if __name__ == "__main__":
    interpreter.InterpreterBuilder.create_dot = _dot_of_bfloat16
    measured = [
        {"case": case, "dtype": str(dtype), "errors": kernel_errors(*case, dtype)}
        for case in CASES
        for dtype in (torch.float32, torch.bfloat16)
    ]
    json.dump(measured, sys.stdout)
