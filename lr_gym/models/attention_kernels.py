"""Triton kernels of causal attention with dropout masks that are hashed from keys.

They follow FlashAttention-2 (Dao 2023, arXiv 2307.08691). A program keeps one block of
queries or keys of one head on the chip and loops over the blocks that it attends to, so
the (T, T) scores are never stored. The forward pass stores one number per query, the
log of its sum of exponentials; the backward pass recomputes scores and masks with it.
No two programs write to the same place, so results repeat bit for bit.

Shapes: B batch over all members, T time, H heads, D head size, C = H x D. `qkv`,
(B, T, 3C), is the concatenation of queries, keys and values, the result of one product.
"""

# ruff: noqa: N803 - compile-time constants of a kernel are capitals

from __future__ import annotations

import math

import triton
import triton.language as tl

_GOLDEN = tl.constexpr(0x9E3779B9)  # masks as in random_streams.py
_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _kept(
    row: tl.tensor, column: tl.tensor, key: tl.tensor, THRESHOLD: tl.constexpr
) -> tl.tensor:
    """Return which weights dropout keeps: `keep_mask` at counters `row` + `column`."""
    bits = key ^ ((row + column) * _GOLDEN)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return (bits ^ (bits >> 16)) >= tl.full((), THRESHOLD, tl.uint32)


@triton.jit
def _within(
    at: tl.tensor, TIME: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr
) -> tl.tensor:
    """Return which elements of the block of positions `at` exist, (N, WIDE)."""
    inside = at[:, None] < TIME
    if SIZE != WIDE:  # an unneeded mask along rows would prevent wide loads
        inside = inside & (tl.arange(0, WIDE)[None, :] < SIZE)
    return inside


@triton.jit
def _rows(
    start: tl.tensor,
    at: tl.tensor,
    stride: tl.tensor,
    inside: tl.tensor,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Load positions `at` of one head, (N, WIDE), zeros outside."""
    columns = tl.arange(0, WIDE)[None, :]
    return tl.load(start + at[:, None] * stride + columns, mask=inside, other=0.0)


@triton.jit
def forward_kernel(
    qkv: tl.tensor,
    keys: tl.tensor,
    y: tl.tensor,
    lse: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    BATCH: tl.constexpr,  # batch size of one member
    HEADS: tl.constexpr,
    TIME: tl.constexpr,
    SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    GROWTH: tl.constexpr,  # factor of kept weights: 1 / (1 - probability)
    THRESHOLD: tl.constexpr,
    WIDE: tl.constexpr,  # SIZE, rounded up to a power of two
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute one block of queries: their outputs and log-sum-exps."""
    blocks: tl.constexpr = (TIME + BLOCK_Q - 1) // BLOCK_Q
    batch_head = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_Q  # longest loops first
    batch = batch_head // HEADS
    head = batch_head % HEADS
    key = tl.load(keys + batch // BATCH).to(tl.uint32)
    counter = (batch_head % (BATCH * HEADS)).to(tl.uint32) * TIME
    start = qkv + batch.to(tl.int64) * stride_b + head * SIZE

    q_at = first + tl.arange(0, BLOCK_Q)
    q_in = _within(q_at, TIME, SIZE, WIDE)
    q = _rows(start, q_at, stride_t, q_in, WIDE)
    row = (counter + q_at.to(tl.uint32)[:, None]) * TIME
    greatest = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    out = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    for block in range(0, tl.minimum(first + BLOCK_Q, TIME), BLOCK_K):
        k_at = block + tl.arange(0, BLOCK_K)
        k_in = _within(k_at, TIME, SIZE, WIDE)
        k = _rows(start + HEADS * SIZE, k_at, stride_t, k_in, WIDE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * _LOG2_E)
        past = k_at[None, :] <= q_at[:, None]
        scores = tl.where(past, scores, float("-inf"))
        # Every position sees position 0, in the first block, so `peak` is finite.
        peak = tl.maximum(greatest, tl.max(scores, 1))
        shrink = tl.exp2(greatest - peak)
        weights = tl.exp2(scores - peak[:, None])
        total = total * shrink + tl.sum(weights, 1)
        if THRESHOLD > 0:
            keep = _kept(row, k_at.to(tl.uint32)[None, :], key, THRESHOLD)
            weights = tl.where(keep, weights, 0.0)
        v = _rows(start + 2 * HEADS * SIZE, k_at, stride_t, k_in, WIDE)
        out = out * shrink[:, None]
        out = tl.dot(weights.to(v.dtype), v, out, input_precision=PRECISION)
        greatest = peak

    out = out * (GROWTH / total)[:, None]
    y_start = y + batch.to(tl.int64) * (TIME * HEADS * SIZE) + head * SIZE
    y_at = q_at[:, None] * (HEADS * SIZE) + tl.arange(0, WIDE)[None, :]
    tl.store(y_start + y_at, out.to(y.dtype.element_ty), mask=q_in)
    log_sum = (greatest + tl.log2(total)) / _LOG2_E
    tl.store(lse + batch_head.to(tl.int64) * TIME + q_at, log_sum, mask=q_at < TIME)


@triton.jit
def queries_kernel(
    qkv: tl.tensor,
    keys: tl.tensor,
    y: tl.tensor,
    dy: tl.tensor,
    lse: tl.tensor,
    delta: tl.tensor,
    dqkv: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    BATCH: tl.constexpr,
    HEADS: tl.constexpr,
    TIME: tl.constexpr,
    SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    GROWTH: tl.constexpr,
    THRESHOLD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute the gradients of one block of queries, and `delta`, (B, H, T).

    `delta` is each query's product of `y` and `dy`, which the gradient of softmax
    subtracts.
    """
    blocks: tl.constexpr = (TIME + BLOCK_Q - 1) // BLOCK_Q
    batch_head = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_Q
    batch = batch_head // HEADS
    head = batch_head % HEADS
    key = tl.load(keys + batch // BATCH).to(tl.uint32)
    counter = (batch_head % (BATCH * HEADS)).to(tl.uint32) * TIME
    start = qkv + batch.to(tl.int64) * stride_b + head * SIZE
    y_start = batch.to(tl.int64) * (TIME * HEADS * SIZE) + head * SIZE

    q_at = first + tl.arange(0, BLOCK_Q)
    q_in = _within(q_at, TIME, SIZE, WIDE)
    dy_rows = _rows(dy + y_start, q_at, HEADS * SIZE, q_in, WIDE)
    y_rows = _rows(y + y_start, q_at, HEADS * SIZE, q_in, WIDE)
    subtracted = tl.sum(y_rows.to(tl.float32) * dy_rows.to(tl.float32), 1)
    per_query = batch_head.to(tl.int64) * TIME + q_at
    tl.store(delta + per_query, subtracted, mask=q_at < TIME)
    log = tl.load(lse + per_query, mask=q_at < TIME, other=0.0) * _LOG2_E

    q = _rows(start, q_at, stride_t, q_in, WIDE)
    row = (counter + q_at.to(tl.uint32)[:, None]) * TIME
    dq = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    for block in range(0, tl.minimum(first + BLOCK_Q, TIME), BLOCK_K):
        k_at = block + tl.arange(0, BLOCK_K)
        k_in = _within(k_at, TIME, SIZE, WIDE)
        k = _rows(start + HEADS * SIZE, k_at, stride_t, k_in, WIDE)
        v = _rows(start + 2 * HEADS * SIZE, k_at, stride_t, k_in, WIDE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * _LOG2_E)
        past = k_at[None, :] <= q_at[:, None]
        weights = tl.where(past, tl.exp2(scores - log[:, None]), 0.0)
        dweights = tl.dot(dy_rows, tl.trans(v), input_precision=PRECISION)
        if THRESHOLD > 0:
            keep = _kept(row, k_at.to(tl.uint32)[None, :], key, THRESHOLD)
            dweights = tl.where(keep, dweights, 0.0) * GROWTH
        dscores = weights * (dweights - subtracted[:, None])
        dq = tl.dot(dscores.to(k.dtype), k, dq, input_precision=PRECISION)

    dq_start = dqkv + batch.to(tl.int64) * (TIME * 3 * HEADS * SIZE) + head * SIZE
    dq_at = q_at[:, None] * (3 * HEADS * SIZE) + tl.arange(0, WIDE)[None, :]
    tl.store(dq_start + dq_at, (dq * SCALE).to(dqkv.dtype.element_ty), mask=q_in)


@triton.jit
def keys_kernel(
    qkv: tl.tensor,
    keys: tl.tensor,
    dy: tl.tensor,
    lse: tl.tensor,
    delta: tl.tensor,
    dqkv: tl.tensor,
    stride_b: tl.tensor,
    stride_t: tl.tensor,
    BATCH: tl.constexpr,
    HEADS: tl.constexpr,
    TIME: tl.constexpr,
    SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    GROWTH: tl.constexpr,
    THRESHOLD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute the gradients of one block of keys and of their values.

    Scores are transposed, (keys, queries), so that both gradients are products with a
    block of queries or of `dy` in its memory layout.
    """
    blocks: tl.constexpr = (TIME + BLOCK_K - 1) // BLOCK_K
    batch_head = tl.program_id(0) // blocks
    first = (tl.program_id(0) % blocks) * BLOCK_K  # longest loops first
    batch = batch_head // HEADS
    head = batch_head % HEADS
    key = tl.load(keys + batch // BATCH).to(tl.uint32)
    counter = (batch_head % (BATCH * HEADS)).to(tl.uint32) * TIME
    start = qkv + batch.to(tl.int64) * stride_b + head * SIZE
    dy_start = dy + batch.to(tl.int64) * (TIME * HEADS * SIZE) + head * SIZE

    k_at = first + tl.arange(0, BLOCK_K)
    k_in = _within(k_at, TIME, SIZE, WIDE)
    k = _rows(start + HEADS * SIZE, k_at, stride_t, k_in, WIDE)
    v = _rows(start + 2 * HEADS * SIZE, k_at, stride_t, k_in, WIDE)
    dk = tl.zeros((BLOCK_K, WIDE), tl.float32)
    dv = tl.zeros((BLOCK_K, WIDE), tl.float32)
    for block in range(first // BLOCK_Q * BLOCK_Q, TIME, BLOCK_Q):
        q_at = block + tl.arange(0, BLOCK_Q)
        q_in = _within(q_at, TIME, SIZE, WIDE)
        q = _rows(start, q_at, stride_t, q_in, WIDE)
        dy_rows = _rows(dy_start, q_at, HEADS * SIZE, q_in, WIDE)
        per_query = batch_head.to(tl.int64) * TIME + q_at
        log = tl.load(lse + per_query, mask=q_at < TIME, other=0.0) * _LOG2_E
        subtracted = tl.load(delta + per_query, mask=q_at < TIME, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (SCALE * _LOG2_E)
        past = k_at[:, None] <= q_at[None, :]
        # Queries beyond the end add nothing: their `dy_rows` and `subtracted` are 0.
        weights = tl.where(past, tl.exp2(scores - log[None, :]), 0.0)
        row = (counter + q_at.to(tl.uint32)[None, :]) * TIME
        dropped = weights
        dweights = tl.dot(v, tl.trans(dy_rows), input_precision=PRECISION)
        if THRESHOLD > 0:
            keep = _kept(row, k_at.to(tl.uint32)[:, None], key, THRESHOLD)
            dropped = tl.where(keep, weights, 0.0)
            dweights = tl.where(keep, dweights, 0.0) * GROWTH
        dv = tl.dot(dropped.to(dy_rows.dtype), dy_rows, dv, input_precision=PRECISION)
        dscores = weights * (dweights - subtracted[None, :])
        dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision=PRECISION)

    d_start = dqkv + batch.to(tl.int64) * (TIME * 3 * HEADS * SIZE) + head * SIZE
    at = k_at[:, None] * (3 * HEADS * SIZE) + tl.arange(0, WIDE)[None, :]
    dtype = dqkv.dtype.element_ty
    tl.store(d_start + HEADS * SIZE + at, (dk * SCALE).to(dtype), mask=k_in)
    tl.store(d_start + 2 * HEADS * SIZE + at, (dv * GROWTH).to(dtype), mask=k_in)
