"""A causal convolutional model over characters, as one readable file.

Pre-norm residual blocks, as in `gpt.py`, of gated convolutions with growing dilation.
Layer number i reads `kernel` positions at distance `kernel` ** i. So `n_layer` layers
see `kernel` ** `n_layer` characters, each of them by one path. Shapes: B batch, T time,
C width (`n_embd`), V vocabulary, K kernel.

References: van den Oord et al. 2016 (WaveNet: dilated causal convolutions); Dauphin et
al. 2017 (gated convolutional language models: GLU).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from lr_gym.models.language_model import Caches, Dropout, LanguageModel

MAX_KERNEL = 8  # limits the weights of a layer; chosen here


class Block(nn.Module):
    """A gated causal convolution and a projection back to the residual stream."""

    def __init__(
        self,
        n_embd: int,
        kernel: int,
        dilation: int,
        dropout: float,
        site: int,
        bias: bool,
    ) -> None:
        """Read `kernel` positions, `dilation` apart, that end at the current one."""
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.taps = nn.Linear(kernel * n_embd, 2 * n_embd, bias=bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)
        self.dropout = Dropout(dropout, site)

    @property
    def past(self) -> int:
        """Number of earlier positions that a position depends on."""
        return (self.kernel - 1) * self.dilation

    def forward(
        self, x: Tensor, keys: Tensor | None, cache: tuple[Tensor, ...] | None
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C); a `cache` holds earlier inputs, and is updated.

        The convolution is one matrix product over the concatenated positions, which
        `torch.func.vmap` can run over many members' weights.
        """
        B, T, C = x.shape  # noqa: N806 - shape letters
        normed = self.norm(x)
        past = x.new_zeros(B, self.past, C) if cache is None else cache[0]
        seen = torch.cat((past, normed), dim=1)  # (B, past + T, C)
        if cache is not None:
            past.copy_(seen[:, T:])
        offsets = range(0, self.past + 1, self.dilation)
        inputs = torch.cat([seen[:, i : i + T] for i in offsets], dim=2)  # (B, T, K C)
        y: Tensor = self.dropout(self.proj(F.glu(self.taps(inputs), dim=2)), keys)
        return x + y


class Conv(LanguageModel):
    """Gated causal convolutions over `vocab_size` characters.

    The kernel is the smallest, from 2 to `MAX_KERNEL`, that lets a position see a whole
    training window of `block_size` characters. With too few layers it is `MAX_KERNEL`.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_embd: int,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        """Build the layers; `initial_parameters` draws a run's first weights."""
        super().__init__()
        kernel = 2
        while kernel**n_layer < block_size and kernel < MAX_KERNEL:
            kernel += 1
        self.receptive_field = kernel**n_layer
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.embedding_dropout = Dropout(dropout, 0)
        blocks = [
            Block(n_embd, kernel, kernel**layer, dropout, 1 + layer, bias)
            for layer in range(n_layer)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.dropout_sites = 1 + n_layer
        self.past = [block.past for block in blocks]  # earlier positions, by layer

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
        x = self.embedding_dropout(self.token_embedding(tokens), dropout_keys)
        for layer, block in enumerate(self.blocks):
            x = block(x, dropout_keys, None if caches is None else caches[layer])
        return F.linear(self.norm(x), self.token_embedding.weight)  # tied head

    def empty_caches(self, batch: int) -> Caches:
        """Return zeros for each layer's inputs at past positions, (B, past, C)."""
        weight = self.token_embedding.weight
        width = weight.shape[1]
        return [(weight.new_zeros(batch, past, width),) for past in self.past]
