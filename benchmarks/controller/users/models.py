"""The models of the users' tasks, written as their users write them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

from benchmarks.controller.users.data import VOCABULARY


def mlp(inputs: int, outputs: int, width: int = 128) -> nn.Sequential:
    """Return a perceptron with two hidden layers, initialized by PyTorch."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


def conv_net() -> nn.Sequential:
    """Return two convolutions with batch norm, and a linear head, for 8 x 8 images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def autoencoder() -> nn.Sequential:
    """Return an autoencoder of 8 x 8 images with 16 codes."""
    return nn.Sequential(
        nn.Linear(64, 96),
        nn.ReLU(),
        nn.Linear(96, 16),
        nn.ReLU(),
        nn.Linear(16, 96),
        nn.ReLU(),
        nn.Linear(96, 64),
    )


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        """Make the layers."""
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, T, C)."""
        batch, time, width = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, time, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class ViT(nn.Module):
    """A vision transformer on 16 patches of 8 x 8 images."""

    def __init__(self, width: int = 48) -> None:
        """Make the layers."""
        super().__init__()
        self.patch = nn.Linear(4, width)
        self.position = nn.Parameter(torch.randn(16, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, 3, causal=False) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (B, 64)."""
        patches = x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        x = self.blocks(self.patch(patches) + self.position)
        return self.head(self.norm(x).mean(dim=1))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A small GPT over characters, with nanoGPT's initial weights."""

    def __init__(self, width: int = 64, layers: int = 2, context: int = 32) -> None:
        """Make the layers."""
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(context, width)
        blocks = (Block(width, max(1, width // 32), causal=True) for _ in range(layers))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the logits of the next characters, (B, T, V)."""
        x = self.embed(codes) + self.position.weight[: codes.shape[1]]
        return self.head(self.norm(self.blocks(x)))  # type: ignore[no-any-return]


class RecurrentLM(nn.Module):
    """An embedding, a GRU or an LSTM, and a head."""

    def __init__(self, cell: type[nn.GRU] | type[nn.LSTM], width: int = 64) -> None:
        """Make the layers."""
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.cell = cell(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the logits of the next characters, (B, T, V)."""
        return self.head(self.cell(self.embed(codes))[0])  # type: ignore[no-any-return]


class BagOfTrigrams(nn.Module):
    """A text classifier: the mean embedding of hashed trigrams, and a head."""

    def __init__(self, width: int = 32, buckets: int = 4_096) -> None:
        """Make the layers; the head starts at zero, as classifier heads often do."""
        super().__init__()
        self.buckets = buckets
        self.embed = nn.EmbeddingBag(buckets, width)
        self.head = nn.Linear(width, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, codes: Tensor) -> Tensor:
        """Classify windows (B, T)."""
        trigrams = (codes[:, :-2] * 961 + codes[:, 1:-1] * 31 + codes[:, 2:]) * 7_919
        return self.head(self.embed(trigrams % self.buckets))  # type: ignore[no-any-return]


class Flow(nn.Module):
    """A density model of the plane: six affine couplings (Dinh et al. 2017)."""

    def __init__(self, width: int = 48) -> None:
        """Make the layers."""
        super().__init__()
        self.nets = nn.ModuleList(mlp(1, 2, width) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        """Return minus the log densities of points (N, 2), shape (N,)."""
        log_det = torch.zeros(len(x))
        for i, net in enumerate(self.nets):
            kept, moved = x[:, i % 2, None], x[:, 1 - i % 2, None]
            log_scale, shift = net(kept).chunk(2, dim=1)
            log_scale = 2.0 * torch.tanh(log_scale / 2.0)
            moved = moved * log_scale.exp() + shift
            log_det = log_det + log_scale[:, 0]
            x = torch.cat([kept, moved] if i % 2 == 0 else [moved, kept], dim=1)
        energy: Tensor = 0.5 * x.square().sum(dim=1)
        return energy + math.log(2.0 * math.pi) - log_det
