"""Interface, dropout, initial weights and generation of all language models.

A model is a plain `nn.Module` without any notion of a population; `trainers/loss.py`
runs it with many members' weights. Shapes: B batch, T time, C width (`n_embd`), V
vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from lr_gym.random_streams import keep_mask

INIT_STD = 0.02  # GPT-2
Caches = list[tuple[Tensor, ...]]  # each layer's tensors for earlier positions


class Dropout(nn.Module):
    """Dropout with a mask that is a function of a key, so that each run has its own.

    A model takes one key per dropout layer; `site` is this layer's index.
    """

    def __init__(self, probability: float, site: int) -> None:
        """Drop with `probability`, using key number `site`."""
        super().__init__()
        self.probability = probability
        self.site = site

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Apply the mask; without keys (evaluation), return `x` unchanged."""
        if keys is None or self.probability == 0.0:
            return x
        keep = keep_mask(keys[self.site], x.shape, self.probability)
        return x * keep / (1.0 - self.probability)


class LanguageModel(nn.Module, ABC):
    """Maps character ids to the logits of the next character, at every position.

    Attributes:
        dropout_sites: Number of dropout layers, each of which takes a key.
        context: Most positions that the model can read; `None` is any number.
        members_share_passes: Whether `torch.func.vmap` may run many members' weights
            in one pass.
    """

    dropout_sites: int
    context: int | None = None
    members_share_passes: bool = True

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        dropout_keys: Tensor | None = None,
        caches: Caches | None = None,
        start: int = 0,
        *,
        vmapped: bool = False,
    ) -> Tensor:
        """Return the logits of the next character at every position.

        Args:
            tokens: Token ids, int64, (B, T), start + T <= `context`.
            dropout_keys: Keys of the dropout masks, int64, (`dropout_sites`,); `None`
                evaluates without dropout.
            caches: From `empty_caches`; holds the positions before `start`, and is
                updated in place.
            start: Position of the first token.
            vmapped: Whether this call runs under `torch.func.vmap`.

        Returns:
            Logits, (B, T, V).
        """

    @abstractmethod
    def empty_caches(self, batch: int) -> Caches:
        """Return the caches of `batch` texts before their first character."""

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue `tokens` one character at a time, reading each character once.

        Positions are absolute, so a full `context` cannot slide. Its last half is read
        again from position 0, once per `context` / 2 characters.

        Args:
            tokens: The prompt, int64, (B, T) with T >= 1.
            max_new_tokens: Characters to add, at least 0.
            temperature: Divides the logits, above 0.
            top_k: Sample only from the `top_k` likeliest characters; `None` from all.
            generator: The random stream; `None` is torch's global one.

        Returns:
            int64, (B, T + `max_new_tokens`).

        Raises:
            ValueError: An argument is out of range.
        """
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"tokens must be (B, T >= 1), got {tuple(tokens.shape)}")
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be >= 0, got {max_new_tokens}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        caches = self.empty_caches(tokens.shape[0])
        context = self.context
        pending = tokens if context is None else tokens[:, -context:]  # not yet read
        start = 0
        for _ in range(max_new_tokens):
            if context is not None and start + pending.shape[1] > context:
                pending = tokens[:, -max(1, context // 2) :]
                start = 0
            logits = self(pending, None, caches, start)[:, -1].float() / temperature
            start += pending.shape[1]
            if top_k is not None and top_k < logits.shape[1]:
                threshold = logits.topk(top_k).values[:, -1:]
                logits = logits.masked_fill(logits < threshold, -math.inf)
            pending = torch.multinomial(
                F.softmax(logits, dim=-1), 1, generator=generator
            )
            tokens = torch.cat((tokens, pending), dim=1)
        return tokens


def initial_parameters(
    model: nn.Module, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw a run's initial weights, as GPT-2 does.

    Matrices are normal with standard deviation 0.02. Those that write to the residual
    stream (``*.proj.weight``) are scaled by 1 / sqrt(their number). Norms are 1, biases
    are 0.

    Args:
        model: Only names and shapes are read; may be on the meta device.
        generator: A CPU generator; the global one is not used.

    Returns:
        Name to float32 CPU tensor, in the order of ``model.named_parameters()``.
    """
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    n_residual = sum(name.endswith("proj.weight") for name in shapes)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) >= 2:
            scaled = name.endswith("proj.weight")
            std = INIT_STD / math.sqrt(n_residual) if scaled else INIT_STD
            weights[name] = torch.empty(shape).normal_(0.0, std, generator=generator)
        else:
            weights[name] = torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
    return weights
