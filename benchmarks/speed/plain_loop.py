"""The baseline of throughput.py: a plain PyTorch training loop like nanoGPT's.

It follows the description of nanoGPT's ``train.py``: a memory map of uint16 tokens,
windows cut one by one and stacked, one module, `torch.optim.AdamW` with two parameter
groups (fused on CUDA), gradient clipping, the learning rate written to the groups at
every iteration, and an evaluation of both splits on random batches. The model is that
of `lr_gym.models.gpt`, as a plain module with torch's fused attention and dropout.

Shapes: B batch, T time, C width, H heads, D head size.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor, nn

from lr_gym import Corpus, TrainingConfig
from lr_gym.devices import resolve_device

SPLITS = ("train", "val")


class PlainBlock(nn.Module):
    """Attention and MLP, each with a norm before it and a residual connection."""

    def __init__(self, config: TrainingConfig) -> None:
        """Build the layers."""
        super().__init__()
        width, bias = config.n_embd, config.bias
        self.heads = config.n_head
        self.attention_dropout = config.dropout
        self.norm_1 = nn.LayerNorm(width, bias=bias)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)
        self.norm_2 = nn.LayerNorm(width, bias=bias)
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        B, T, C = x.shape  # noqa: N806 - shape letters
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm_1(x)).split(C, dim=2)
        )  # each (B, H, T, D)
        dropout = self.attention_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(B, T, C)))
        x = x + self.dropout(self.down(F.gelu(self.up(self.norm_2(x)))))
        return x


class PlainGPT(nn.Module):
    """The same GPT as `lr_gym.models.gpt.GPT`, parameters in the same order."""

    def __init__(self, config: TrainingConfig, vocab_size: int) -> None:
        """Build the layers; sample GPT-2's initial weights from torch's generator."""
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        for name, weight in self.named_parameters():
            if weight.ndim >= 2:
                residual = name.endswith(("proj.weight", "down.weight"))
                scale = math.sqrt(2 * config.n_layer) if residual else 1.0
                nn.init.normal_(weight, std=0.02 / scale)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of `targets`, both (B, T)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.token_embedding.weight)  # tied head
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class PlainLoop:
    """One training run."""

    def __init__(
        self,
        config: TrainingConfig,
        corpus: Corpus,
        folder: Path,
        *,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        """Write the tokens to `folder` and prepare model and optimizer.

        Args:
            config: Model, batch, optimizer and device.
            corpus: The text.
            folder: For the token files; several loops may share it.
            precision: ``float32``, or ``bfloat16``: autocast, as nanoGPT does on CUDA.
            compile: Whether to use `torch.compile`, as nanoGPT does on CUDA.
        """
        self.config = config
        self.device = resolve_device(config.device)
        self._cuda = self.device.type == "cuda"
        self._tokens = {
            name: _memory_map(getattr(corpus, name), folder / f"{name}.bin")
            for name in SPLITS
        }
        self.model = PlainGPT(config, corpus.vocab_size).to(self.device)
        self._forward = torch.compile(self.model) if compile else self.model
        parameters = list(self.model.parameters())
        groups = [
            {
                "params": [p for p in parameters if p.ndim >= 2],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True if self._cuda else None,
        )
        self._autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=precision == "bfloat16"
        )
        self._next = self.batch("train")

    def batch(self, split: str) -> tuple[Tensor, Tensor]:
        """Sample random windows; return inputs and targets, (B, T) int64 each."""
        tokens, length = self._tokens[split], self.config.block_size
        starts = torch.randint(len(tokens) - length, (self.config.batch_size,))
        inputs = torch.stack([_window(tokens, i, length) for i in starts.tolist()])
        targets = torch.stack([_window(tokens, i + 1, length) for i in starts.tolist()])
        if self._cuda:
            return (
                inputs.pin_memory().to(self.device, non_blocking=True),
                targets.pin_memory().to(self.device, non_blocking=True),
            )
        return inputs, targets

    def train(self, iterations: int, learning_rate: float) -> float:
        """Make `iterations` updates; return the training loss of the last update."""
        self.model.train()
        loss = torch.zeros(())
        for _ in range(iterations):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            with self._autocast:
                loss = self._forward(*self._next)
            self._next = self.batch("train")  # while the GPU computes
            loss.backward()
            if self.config.grad_clip > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self, batches: int) -> dict[str, float]:
        """Return the mean loss over random batches of each split."""
        self.model.eval()
        means = {}
        for split in SPLITS:
            losses = torch.zeros(batches)
            for i in range(batches):
                with self._autocast:
                    losses[i] = self._forward(*self.batch(split)).item()
            means[split] = float(losses.mean())
        return means

    def state_bytes(self) -> int:
        """Return the bytes of weights, gradients and the optimizer's two moments."""
        return 4 * sum(p.numel() * p.element_size() for p in self.model.parameters())


def _memory_map(tokens: NDArray[np.integer], path: Path) -> NDArray[np.uint16]:
    if not path.exists():
        tokens.astype(np.uint16).tofile(path)
    return np.memmap(path, dtype=np.uint16, mode="r")


def _window(tokens: NDArray[np.uint16], start: int, length: int) -> Tensor:
    return torch.from_numpy(tokens[start : start + length].astype(np.int64))
