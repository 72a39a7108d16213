"""The data of the users' tasks: tables of scikit-learn, formulas, texts at hand."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lr_gym.data.downloads import find_published

VOCABULARY = 128  # ASCII; other characters share the last symbol
TEXT_BYTES = 400_000  # of each text, the last tenth for validation
Split = tuple[Tensor, Tensor]


@cache
def digits() -> tuple[Split, Split]:
    """Return 1,297 training and 500 validation digits: (N, 64) in [0, 1], (N,)."""
    from sklearn.datasets import load_digits

    table = load_digits()
    order = np.random.default_rng(0).permutation(len(table.target))
    inputs = torch.tensor(table.data[order] / 16.0, dtype=torch.float32)
    classes = torch.tensor(table.target[order])
    return (inputs[:-500], classes[:-500]), (inputs[-500:], classes[-500:])


@cache
def diabetes() -> tuple[Split, Split]:
    """Return 342 training and 100 validation patients: (N, 10), progress (N, 1)."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes()
    order = np.random.default_rng(0).permutation(len(table.target))
    inputs = torch.tensor(table.data[order] / table.data.std(), dtype=torch.float32)
    targets = torch.tensor(table.target[order, None], dtype=torch.float32)
    return (inputs[:-100], targets[:-100]), (inputs[-100:], targets[-100:])


def sines(size: int, generator: torch.Generator, unit: float) -> Split:
    """Return points in [-1, 1]^4 and `unit` times the sum of their sines, (N, 1)."""
    points = torch.rand(size, 4, generator=generator) * 2.0 - 1.0
    return points, unit * torch.sin(3.0 * points).sum(dim=1, keepdim=True)


def rings(size: int, generator: torch.Generator) -> Tensor:
    """Return points (N, 2) of two narrow rings: a density with a negative entropy."""
    angles = torch.rand(size, generator=generator) * 2.0 * torch.pi
    inner = torch.rand(size, generator=generator) < 0.5
    radii = torch.where(inner, 0.4, 1.0)
    radii = radii + 0.02 * torch.randn(size, generator=generator)
    return torch.stack([radii * angles.cos(), radii * angles.sin()], dim=1)


@cache
def text(name: str) -> Split:
    """Return the training and the validation part of a text, codes below 128.

    Args:
        name: ``shakespeare``, ``text8``, or a file in the folder `LR_GYM_DATA`.
    """
    if name in ("shakespeare", "text8"):
        path = find_published(name)
    else:
        path = Path(os.environ.get("LR_GYM_DATA", ".")) / name
    content = np.frombuffer(path.read_bytes()[:TEXT_BYTES], np.uint8)
    codes = torch.tensor(np.minimum(content, VOCABULARY - 1).astype(np.int64))
    cut = len(codes) * 9 // 10
    return codes[:cut], codes[cut:]


def windows(
    codes: Tensor, size: int, length: int, generator: torch.Generator
) -> Tensor:
    """Return random windows of a text, (size, length + 1)."""
    starts = torch.randint(len(codes) - length - 1, (size, 1), generator=generator)
    return codes[starts + torch.arange(length + 1)]


def even_windows(codes: Tensor, size: int, length: int) -> Tensor:
    """Return windows that are spread evenly over a text, (size, length + 1)."""
    starts = torch.linspace(0, len(codes) - length - 2, size).long()[:, None]
    return codes[starts + torch.arange(length + 1)]
