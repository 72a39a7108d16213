"""The paper's model: a small pre-norm GPT over characters, as one readable file.

Shapes: B batch, T time, C width (`n_embd`), H heads, D head
size (C / H), V vocabulary.

References: Vaswani et al. 2017; Radford et al. 2019 (GPT-2: pre-norm, scaled residual
initialization); Press and Wolf 2017 (head tied to the token embedding).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from lr_gym.models.dropout_attention import (
    dropout_attention,
    prepare_to_compile,
    use_fused_attention,
)
from lr_gym.models.language_model import Caches, Dropout, LanguageModel


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each position to itself and earlier positions."""

    def __init__(
        self, n_embd: int, n_head: int, dropout: float, site: int, bias: bool
    ) -> None:
        """Build queries, keys and values as one matrix, and the output projection."""
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)
        self.attention_dropout = Dropout(dropout, site)
        self.residual_dropout = Dropout(dropout, site + 1)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        keys: Tensor | None,
        cache: tuple[Tensor, ...] | None = None,
        start: int = 0,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C).

        Args:
            x: Normed inputs.
            mask: Added to the scores, which are then plain matrix products; `None`
                uses a fused kernel: `dropout_attention` in training if it is enabled,
                else torch's.
            keys: Dropout keys; `None` evaluates.
            cache: Keys and values of positions before `start`; updated in place.
            start: Position of the first token.
        """
        B, T, C = x.shape  # noqa: N806 - shape letters
        qkv = self.qkv(x)
        dropout = self.attention_dropout
        if mask is None and keys is not None and use_fused_attention(x):
            key = keys[dropout.site]
            y = dropout_attention(qkv, key, self.n_head, dropout.probability)
            return self._projected(y, keys)
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            for part in qkv.split(C, dim=2)
        )  # each (B, H, T, D)
        if cache is not None:
            cache[0][:, :, start : start + T] = k
            cache[1][:, :, start : start + T] = v
            k, v = (cached[:, :, : start + T] for cached in cache)

        if mask is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q / math.sqrt(C // self.n_head)) @ k.transpose(-2, -1)
            weights = F.softmax(scores + mask, dim=-1, dtype=torch.float32)
            y = dropout(weights.to(v.dtype), keys) @ v  # (B, H, T, D)
        return self._projected(y.transpose(1, 2).reshape(B, T, C), keys)

    def _projected(self, y: Tensor, keys: Tensor | None) -> Tensor:
        projected: Tensor = self.residual_dropout(self.proj(y), keys)
        return projected


class MLP(nn.Module):
    """The position-wise network: one hidden layer of width 4C, GELU."""

    def __init__(self, n_embd: int, dropout: float, site: int, bias: bool) -> None:
        """Build the two projections."""
        super().__init__()
        self.up = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.proj = nn.Linear(4 * n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout, site)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        y: Tensor = self.dropout(self.proj(F.gelu(self.up(x))), keys)
        return y


class Block(nn.Module):
    """Attention and MLP; each reads a normed residual stream and adds to it."""

    def __init__(
        self, n_embd: int, n_head: int, dropout: float, site: int, bias: bool
    ) -> None:
        """Build one block with dropout sites `site` to `site` + 2."""
        super().__init__()
        self.norm_1 = nn.LayerNorm(n_embd, bias=bias)
        self.attention = CausalSelfAttention(n_embd, n_head, dropout, site, bias)
        self.norm_2 = nn.LayerNorm(n_embd, bias=bias)
        self.mlp = MLP(n_embd, dropout, site + 2, bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        keys: Tensor | None,
        cache: tuple[Tensor, ...] | None = None,
        start: int = 0,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attention(self.norm_1(x), mask, keys, cache, start)
        x = x + self.mlp(self.norm_2(x), keys)
        return x


class GPT(LanguageModel):
    """A GPT over `vocab_size` characters and contexts of up to `block_size`."""

    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        """Build the layers; `initial_parameters` draws a run's first weights."""
        super().__init__()
        self.context = block_size
        self.n_head = n_head
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.embedding_dropout = Dropout(dropout, 0)
        self.blocks = nn.ModuleList(
            Block(n_embd, n_head, dropout, site=1 + 3 * layer, bias=bias)
            for layer in range(n_layer)
        )
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.dropout_sites = 1 + 3 * n_layer
        prepare_to_compile()

    def forward(
        self,
        tokens: Tensor,
        dropout_keys: Tensor | None = None,
        caches: Caches | None = None,
        start: int = 0,
        *,
        vmapped: bool = False,
    ) -> Tensor:
        """Return the logits, (B, T, V); see `LanguageModel.forward`."""
        T = tokens.shape[1]  # noqa: N806 - shape letter
        positions = torch.arange(start, start + T, device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        x = self.embedding_dropout(x, dropout_keys)
        # `dropout_attention` supports dropout and members. torch's kernel supports
        # neither our dropout masks nor caches. On a CPU it has no rule for `vmap`, and
        # its backward pass in bfloat16 takes as long as a whole update with plain
        # products (benchmarks/speed/throughput.py).
        training = dropout_keys is not None
        if training and use_fused_attention(x):
            fused = True
        else:
            dropping = training and self.embedding_dropout.probability > 0
            slow = x.is_cpu and (vmapped or (training and x.dtype == torch.bfloat16))
            fused = not (dropping or slow)
        if caches is not None or not fused:
            future = torch.full(
                (T, start + T), -math.inf, dtype=x.dtype, device=x.device
            )
            mask: Tensor | None = future.triu(start + 1)  # added to the scores
        else:
            mask = None
        for layer, block in enumerate(self.blocks):
            cache = None if caches is None else caches[layer]
            x = block(x, mask, dropout_keys, cache, start)
        return F.linear(self.norm(x), self.token_embedding.weight)  # tied head

    def empty_caches(self, batch: int) -> Caches:
        """Return empty tensors for each layer's keys and values, (B, H, context, D)."""
        weight = self.token_embedding.weight
        heads, positions = self.n_head, self.position_embedding.weight.shape[0]
        shape = (batch, heads, positions, weight.shape[1] // heads)
        return [(weight.new_empty(shape), weight.new_empty(shape)) for _ in self.blocks]
