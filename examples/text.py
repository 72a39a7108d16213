"""What the examples train on: Shakespeare where `LR_GYM_DATA` has it, else `markov`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor

import lr_gym

WIDTH = 32  # characters per window


def read_arguments(
    description: str | None, arguments: list[str] | None
) -> tuple[int, float, bool, int]:
    """Return the updates, the initial learning rate, whether to control, the seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument(
        "--learning-rate", type=float, default=0.1, help="default: ten times too high"
    )
    parser.add_argument("--no-controller", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    return given.iterations, given.learning_rate, not given.no_controller, given.seed


def load_windows() -> tuple[Tensor, Tensor, int]:
    """Return training and validation windows, (N, WIDTH + 1), and the symbols."""
    folder = os.environ.get("LR_GYM_DATA")
    real = folder is not None and (Path(folder) / "tinyshakespeare.txt").is_file()
    text = lr_gym.load_corpus("shakespeare" if real else "markov")
    train, val = (
        torch.from_numpy(part.astype("int64")).unfold(0, WIDTH + 1, WIDTH)
        for part in (text.train, text.val)
    )
    return train, val[:128], text.vocab_size
