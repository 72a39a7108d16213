"""A recurrent model over characters: residual LSTM layers, as one readable file.

Pre-norm residual layers, as in `gpt.py`, with an LSTM instead of attention and MLP. The
model needs no position embedding and reads texts of any length. Shapes: B batch, T
time, C width (`n_embd`), V vocabulary.

References: Hochreiter and Schmidhuber 1997; Jozefowicz, Zaremba, Sutskever 2015 (open
forget gates); Wu et al. 2016 (residual connections between recurrent layers).
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from lr_gym.models.language_model import Caches, Dropout, LanguageModel

FORGET_BIAS = 1.0  # Jozefowicz et al. 2015, section 5
# cuDNN warns when it copies weights into its own layout; these copies are small.
warnings.filterwarnings("ignore", "RNN module weights are not part", UserWarning)


class Layer(nn.Module):
    """An LSTM of the residual stream's width, with dropout on its output."""

    def __init__(self, n_embd: int, dropout: float, site: int, bias: bool) -> None:
        """Build two matrices, each for four gates: input, forget, cell, output."""
        super().__init__()
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.input = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.recurrent = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.dropout = Dropout(dropout, site)

    def forward(
        self, x: Tensor, keys: Tensor | None, cache: tuple[Tensor, ...] | None
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C); a `cache` holds the state, and is updated."""
        B, _, C = x.shape  # noqa: N806 - shape letters
        zero = x.new_zeros(1, B, C)
        hidden, cell = (zero, zero) if cache is None else cache
        forget = x.new_zeros(4 * C)
        forget[C : 2 * C] = FORGET_BIAS
        bias = torch.zeros_like(forget) if self.input.bias is None else self.input.bias
        y, last_hidden, last_cell = torch.lstm(
            self.norm(x),
            (hidden, cell),
            (self.input.weight, self.recurrent.weight, bias, forget),
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=torch.is_grad_enabled(),
            bidirectional=False,
            batch_first=True,
        )
        if cache is not None:
            hidden.copy_(last_hidden)
            cell.copy_(last_cell)
        output: Tensor = self.dropout(y, keys)
        return x + output


class LSTM(LanguageModel):
    """Residual LSTM layers over `vocab_size` characters."""

    # torch's kernel runs the whole recurrence of one member. Running eight members step
    # by step, by `vmap` or with a custom backward pass, took 1.2 to 2.4 times as long
    # per member (one CPU thread, `tiny` and `mini`, float32 and bfloat16).
    members_share_passes = False

    def __init__(
        self,
        *,
        vocab_size: int,
        n_layer: int,
        n_embd: int,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        """Build the layers; `initial_parameters` draws a run's first weights."""
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.embedding_dropout = Dropout(dropout, 0)
        self.layers = nn.ModuleList(
            Layer(n_embd, dropout, 1 + layer, bias) for layer in range(n_layer)
        )
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.dropout_sites = 1 + n_layer

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
        for number, layer in enumerate(self.layers):
            x = layer(x, dropout_keys, None if caches is None else caches[number])
        return F.linear(self.norm(x), self.token_embedding.weight)  # tied head

    def empty_caches(self, batch: int) -> Caches:
        """Return zeros for each layer's output and cell state, (1, B, C)."""
        weight = self.token_embedding.weight
        shape = (1, batch, weight.shape[1])
        return [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.layers]
