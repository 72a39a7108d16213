"""Causal attention with this package's dropout, as one operation.

Its dropout masks are hashed from keys (`keep_mask`), which torch's fused attention does
not support. On CUDA, Triton kernels compute it without storing the (T, T) scores
(`attention_kernels.py`, after FlashAttention-2: Dao 2023, arXiv 2307.08691). Elsewhere
plain matrix products do; they are the reference of those kernels. The operation
supports first derivatives, `torch.func.vmap` (with one key per member) and
`torch.compile`.

Shapes: M members, B batch of one member, T time, H heads, D head size, C = H x D.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lr_gym.random_streams import keep_mask

# Attention in training: "fused" is this operation; "plain" uses torch's kernel, or
# matrix products with dropout or many members; "auto" is "fused" on CUDA if Triton is
# installed.
ATTENTION = os.environ.get("LR_GYM_ATTENTION", "auto")
_TRITON = importlib.util.find_spec("triton") is not None


def use_fused_attention(x: Tensor) -> bool:
    """Return whether training on activations `x` uses `dropout_attention`."""
    if ATTENTION == "auto":
        return x.is_cuda and _TRITON
    return ATTENTION == "fused"


def dropout_attention(
    qkv: Tensor, key: Tensor, heads: int, probability: float
) -> Tensor:
    """Return causal attention, (B, T, C), with dropout on its weights.

    Args:
        qkv: Queries, keys and values side by side, (B, T, 3C).
        key: int64 scalar; the mask is `keep_mask(key, (B, H, T, T), probability)`.
        heads: H.
        probability: Probability of dropping an attention weight, in [0, 1).
    """
    return _in_graph(qkv, key.reshape(1), heads, probability)


def prepare_to_compile() -> None:
    """Keep torch.compile from tracing into `dropout_attention`, if that may be used.

    The traced function would have no rule for `vmap`. This loads the compiler, which
    takes a second, so it is called when a model is built and not at import.
    """
    supported = _TRITON and torch.cuda.is_available()
    if ATTENTION == "fused" or (ATTENTION == "auto" and supported):
        torch.compiler.allow_in_graph(  # type: ignore[no-untyped-call]  # torch's own
            _in_graph
        )


def _in_graph(qkv: Tensor, keys: Tensor, heads: int, probability: float) -> Tensor:
    y: Tensor
    y, _ = _DropoutAttention.apply(  # type: ignore[no-untyped-call]  # torch's own
        qkv, keys, heads, probability
    )
    return y


class _DropoutAttention(torch.autograd.Function):
    """Joins the forward and the backward operation.

    `torch.library.register_autograd` would do without this class, but not under
    `torch.func.grad`, which needs a `setup_context`.
    """

    generate_vmap_rule = True  # from the rules of both operations

    @staticmethod
    def forward(
        qkv: Tensor, keys: Tensor, heads: int, probability: float
    ) -> tuple[Tensor, Tensor]:
        y, lse = _forward(qkv, keys, heads, probability)
        return y, lse

    @staticmethod
    def setup_context(
        ctx: Any,  # noqa: ANN401 - torch's
        inputs: tuple[Any, ...],
        output: tuple[Tensor, Tensor],
    ) -> None:
        qkv, keys, ctx.heads, ctx.probability = inputs
        ctx.save_for_backward(qkv, keys, *output)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's
        dy: Tensor,
        _: Tensor,
    ) -> tuple[Tensor | None, ...]:
        qkv, keys, y, lse = (saved.detach() for saved in ctx.saved_tensors)
        dy = dy.detach()  # the operation has no gradient, so it takes only such inputs
        dqkv = _backward(qkv, keys, y, lse, dy, ctx.heads, ctx.probability)
        return dqkv, None, None, None


@torch.library.custom_op(
    "lr_gym::dropout_attention",
    mutates_args=(),
    schema="(Tensor qkv, Tensor keys, int heads, float probability)"
    " -> (Tensor, Tensor)",
)
def _forward(
    qkv: Tensor, keys: Tensor, heads: int, probability: float
) -> tuple[Tensor, Tensor]:
    """Return outputs, (M x B, T, C), and log-sum-exps of the scores, (M x B, H, T).

    Args:
        qkv: Queries, keys and values of all members, (M x B, T, 3C).
        keys: Keys of the members' masks, int64, (M,).
        heads: H.
        probability: Probability of dropping an attention weight.
    """
    if qkv.is_cuda:
        from lr_gym.models import fused_attention

        return fused_attention.forward(qkv, keys, heads, probability)
    q, k, v = _heads(qkv, heads)
    scores = _scores(q, k)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.unsqueeze(-1)).exp()
    dropped = weights * _mask(keys, weights, probability)
    return _joined(dropped @ v, qkv), lse


@torch.library.custom_op(
    "lr_gym::dropout_attention_backward",
    mutates_args=(),
    schema="(Tensor qkv, Tensor keys, Tensor y, Tensor lse, Tensor dy, int heads,"
    " float probability) -> Tensor",
)
def _backward(
    qkv: Tensor,
    keys: Tensor,
    y: Tensor,
    lse: Tensor,
    dy: Tensor,
    heads: int,
    probability: float,
) -> Tensor:
    """Return the gradient of `qkv` given `dy`, that of `y`."""
    if qkv.is_cuda:
        from lr_gym.models import fused_attention

        return fused_attention.backward(qkv, keys, y, lse, dy, heads, probability)
    q, k, v = _heads(qkv, heads)
    (y_heads,), (dy_heads,) = _heads(y, heads, 1), _heads(dy, heads, 1)
    weights = (_scores(q, k) - lse.unsqueeze(-1)).exp()
    mask = _mask(keys, weights, probability)
    dv = (weights * mask).mT @ dy_heads
    subtracted = (y_heads * dy_heads).sum(-1, keepdim=True)
    dscores = weights * (dy_heads @ v.mT * mask - subtracted) / math.sqrt(q.shape[-1])
    parts = (_joined(part, qkv) for part in (dscores @ k, dscores.mT @ q, dv))
    return torch.cat(tuple(parts), dim=-1)


@_forward.register_fake
def _(
    qkv: Tensor, keys: Tensor, heads: int, probability: float
) -> tuple[Tensor, Tensor]:
    batch, time, width = qkv.shape
    y = qkv.new_empty(batch, time, width // 3)
    dtype = torch.promote_types(qkv.dtype, torch.float32)
    return y, qkv.new_empty(batch, heads, time, dtype=dtype)


@_backward.register_fake
def _(qkv: Tensor, *_: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


@_forward.register_vmap
def _(
    info: Any,  # noqa: ANN401 - torch's
    in_dims: tuple[int | None, ...],
    *args: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    y, lse = _forward(*_folded(info.batch_size, in_dims, args))
    return (_unfolded(y, info.batch_size), _unfolded(lse, info.batch_size)), (0, 0)


@_backward.register_vmap
def _(
    info: Any,  # noqa: ANN401 - torch's
    in_dims: tuple[int | None, ...],
    *args: Any,
) -> tuple[Tensor, int]:
    dqkv = _backward(*_folded(info.batch_size, in_dims, args))
    return _unfolded(dqkv, info.batch_size), 0


def _folded(
    members: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]
) -> Iterator[Any]:
    """Merge the axis of members into the first axis of every tensor."""
    for arg, dim in zip(args, in_dims, strict=True):
        if isinstance(arg, Tensor):
            each = arg.expand(members, *arg.shape) if dim is None else arg
            yield each.movedim(dim or 0, 0).flatten(0, 1)
        else:
            yield arg


def _unfolded(folded: Tensor, members: int) -> Tensor:
    """Split the axis of members from the first axis again."""
    return folded.view(members, -1, *folded.shape[1:])


def _heads(x: Tensor, heads: int, count: int = 3) -> tuple[Tensor, ...]:
    """Split `x`, (M x B, T, count x C), into `count` parts of (M x B, H, T, D).

    The parts are at least float32.
    """
    parts = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(count, dim=-1)
    return tuple(
        part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in parts
    )


def _joined(x: Tensor, like: Tensor) -> Tensor:
    """Return `x`, (M x B, H, T, D), as (M x B, T, C) in the dtype of `like`."""
    return x.transpose(1, 2).flatten(2).to(like.dtype).contiguous()


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """Return the scores, -inf for future positions."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, -math.inf)


def _mask(keys: Tensor, weights: Tensor, probability: float) -> Tensor:
    """Return dropout's factors of `weights`, (M x B, H, T, T): 0 or 1 / (1 - p)."""
    shape = weights.view(len(keys), -1, *weights.shape[1:]).shape[1:]
    masks = [keep_mask(key, shape, probability) for key in keys]
    return torch.cat(masks) / (1.0 - probability)
